/* state.h: the replica's own state, shared by the files of replica/. Private to this folder.
 *
 *   replica.c  the thread, its mailbox, the outside
 *   ranks.c    joining, loading, losing, coming back
 *   steps.c    plans out, results in
 *   watch.c    heartbeats, and the verdict on a hang
 *   pace.c     how long steps take, for who wants to compare
 *   pulse.c    how busy it is, for the log
 *
 * Of the folder's others requests.c (who listens) and reach.c (does a rank's host answer) are pieces of it, and fleet.c with route.c stand above
 * all replicas: they see replica.h only. */
#ifndef COORDINATOR_REPLICA_STATE_H
#define COORDINATOR_REPLICA_STATE_H

#include "coordinator/replica/reach.h"
#include "coordinator/replica/replica.h"
#include "coordinator/replica/requests.h"
#include "transport/step_link.h"

#include <pthread.h>
#include <stdatomic.h>

enum { PACE_RING = 256 };      /* steps in flight are fewer */

struct rank {
    struct rpc_peer *peer;
    struct control_msg *hello;  /* Own */
    struct replica_rank info;   /* [lock] */
    /* [sched] the last heartbeat; moved_us: when step or layer last changed */
    uint64_t step, op_seq;
    int32_t layer, op_rank;
    char op[16];
    int64_t op_waited_us, moved_us;
    struct { uint64_t step, comm_us; } pace_from, pace_to; /* heartbeats of the window; step 0: none yet */
    struct crd_reach reach;     /* asked when it was silent */
};

struct command;

struct crd_replica {
    /* [init] */
    struct replica_conf conf;
    struct mailbox *mail;
    pthread_t thread;
    /* [sched] */
    enum replica_state state;
    struct rank ranks[LIMIT_RANKS];
    int32_t n_ranks;            /* of the job; 0 until the first hello */
    char job[64];
    uint32_t epoch;
    struct msg_load_plan plan;
    struct crd_sched *sched;    /* from the first READY on; survives a loss while recovery is possible */
    struct crd_requests *requests;
    struct command *held, **held_end; /* requests that came before the first READY */
    int32_t n_held;
    bool hold;
    struct trn_step_link *link; /* while READY */
    struct arena step_arena;    /* lifetime: step */
    bool awake, draining, stopping;
    int64_t busy_us, load_started_us, stop_deadline_us;
    struct {                    /* pace.c's window */
        uint64_t n_steps, first;
        double rows, step_s, running; /* sums over them; running: sequences */
        int64_t since_us;
        uint64_t sent_step[PACE_RING];
        int32_t sent_rows[PACE_RING]; /* 0: not plain decoding */
    } pace;
    struct {                    /* pulse.c's window */
        int64_t since_us, said_us; /* 0: not yet */
        struct sched_stats from;
    } pulse;
    int64_t result_us;          /* when the last step was answered, or the first was sent after a sleep */
    char why[512];              /* the last loss, in one sentence */
    enum err why_err;
    int32_t culprit;            /* the rank that the last loss is laid to; -1: not known */
    int64_t refill_us;          /* READY again, and sequences are being prefilled; 0: they are not */
    int64_t lost_us;            /* when the replica was lost; 0: it is whole, or was never ready */
    /* [any] what ranks may have loaded before this coordinator began; 0: nothing is taken over */
    _Atomic uint32_t left_epoch;
    /* [lock] what others may read */
    pthread_mutex_t lock;
    struct replica_status status;
};

/* replica.c */
void crd_replica_release_held(struct crd_replica *r);
void crd_replica_set_text(struct crd_replica *r, const char *text);
void crd_replica_tell(struct crd_replica *r, const char *text);
/* ranks.c */
void crd_ranks_send(struct crd_replica *r, const struct control_msg *m);
void crd_ranks_message(struct crd_replica *r, struct rpc_event *e);
void crd_ranks_closed(struct crd_replica *r, struct rpc_event *e);
void crd_ranks_forget(struct crd_replica *r);
/* The replica cannot go on: requests wait for it to come back, or end with this sentence when it cannot. */
void crd_ranks_lose(struct crd_replica *r, enum err err, const char *text);
/* Lost, and others serve: they go on with every open request. */
void crd_ranks_hand_over(struct crd_replica *r);
/* Back since a while: are the sequences that waited prefilled? Then how long each phase took is said. */
void crd_ranks_refilled(struct crd_replica *r);
/* Recovery took too long: every open request ends. */
void crd_ranks_give_up(struct crd_replica *r);
/* watch.c */
void crd_watch_start(struct crd_replica *r);   /* the ranks were just woken */
void crd_watch_heartbeat(struct crd_replica *r, struct rank *k, const struct msg_telemetry *t);
bool crd_watch_due(const struct crd_replica *r);
void crd_watch_check(struct crd_replica *r);   /* may lose the replica */
/* What else is known of a rank that is gone or silent, as "; ..." or "". */
void crd_watch_evidence(struct crd_replica *r, struct rank *k, char *text, size_t n);
/* pace.c */
void crd_pace_reset(struct crd_replica *r);
void crd_pace_sent(struct crd_replica *r, const struct step_plan *p);
void crd_pace_result(struct crd_replica *r, const struct step_result *res);
void crd_pace_heartbeat(struct crd_replica *r, struct rank *k, const struct msg_telemetry *t);
/* pulse.c */
void crd_pulse_begin(struct crd_replica *r);   /* the ranks were just woken */
void crd_pulse_result(struct crd_replica *r);
void crd_pulse_rest(struct crd_replica *r);    /* the ranks go to sleep */
/* steps.c */
void crd_steps_result(struct crd_replica *r, const struct control_msg *m);
void crd_steps_pump(struct crd_replica *r);

#endif
