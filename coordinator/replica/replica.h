/* replica.h: one copy of the model on the ranks of one MPI job: gathers them, hands out the load plan, then owns the scheduler and the
 * link to the lead rank.
 *
 * One thread ([sched]) owns everything; others speak to it by its mailbox: requests from the gateway, rpc events from the control plane.
 *
 *   GATHERING -> LOADING -> READY -> LOST -> GATHERING (a new job, the next epoch)      any -> STOPPED
 *
 * Open requests survive a loss: they go on at another replica at once (fleet.h), or wait, at most recovery_us, and go on with the same bits
 * where they stood.
 *
 * Not here: choosing between replicas (route.h), starting processes (coordinator/workers.h), HTTP. */
#ifndef COORDINATOR_REPLICA_REPLICA_H
#define COORDINATOR_REPLICA_REPLICA_H

#include "base/mailbox.h"
#include "coordinator/sched/scheduler.h"
#include "proto/control.h"
#include "transport/rpc.h"

enum replica_state { REPLICA_GATHERING, REPLICA_LOADING, REPLICA_READY, REPLICA_LOST, REPLICA_STOPPED };

/* What a person may want to see of one rank. */
struct replica_rank {
    bool joined, ready;
    char host[64], device[64];
    int32_t pid;
    int64_t bytes_done, bytes_total;   /* while loading */
    int64_t weight_bytes, kv_bytes;
    int64_t rss_bytes; /* of the process, as it said last; 0: not yet */
    int64_t read_bytes, received_bytes, cached_bytes; /* how the weights came, once ready */
    uint64_t comm_bytes, comm_us, comm_ops, step;
    int64_t seen_us;                   /* last message */
};

/* What a replica is good for, as the others see it. */
enum replica_use {
    REPLICA_REFUSES, /* not ready yet, or given up */
    REPLICA_KEEPS,   /* lost: requests wait for it to come back */
    REPLICA_SERVES,
};

/* An open request on its way from a lost replica to one that serves. */
struct replica_moved {
    struct crd_group *group; /* Own: whoever has it */
    int32_t n_left;          /* choices without a finishing event */
    token_event_fn on_event;
    void *user;
};

/* The other replicas of the fleet, as one of them reaches them, by its own index; called on its thread. */
struct replica_peers {
    void *self; /* NULL: there are none */
    void (*changed)(void *self, int32_t index, enum replica_use use);
    bool (*others_serve)(void *self, int32_t index);
    /* Give a request that cannot be taken here to one that serves; listener: the request's. False: there is none. */
    bool (*submit)(void *self, int32_t index, const struct gen_request *q, void *listener);
    void (*take)(void *self, int32_t index, const struct replica_moved *m);
};

/* Steps in which every sequence got one token and nothing was prefilled, over a while: how long they took on the rank that answers, and of that
 * in collectives, there and on the rank that was in them least. Seconds, means of a step. With several stages: of a round, which is one token for
 * each sequence that decodes, by the clock. */
struct replica_pace {
    int32_t index;      /* of the replica */
    uint64_t n_steps;
    double rows, step_s, lead_s, least_s;
};

struct replica_conf {
    int32_t index;                     /* in the fleet, from 0 */
    struct replica_peers peers;
    int32_t n_ranks;                   /* ranks to expect; 0: as many as the job has */
    int32_t max_waiting;
    bool relaunched;                   /* somebody starts lost ranks again, also while draining */
    const struct model_info *model;    /* borrowed; n_vocab bounds the rows of logits in one answer */
    bool prefix_cache;
    int32_t max_guesses;               /* as sched_conf's */
    int64_t pulse_us;                  /* between two lines of the log that say how busy it is, while it is; 0: none */
    int64_t recovery_us;               /* after a loss, open requests wait so long for the replica to come back; 0: they end at once */
    int64_t stall_us;                  /* without progress of any rank while steps are in flight: the replica hangs; 0: never said */
    int64_t idle_us;                   /* without work before the ranks are put to sleep */
    uint32_t first_epoch;              /* 0: one is drawn */
    uint32_t left_epoch;               /* ranks that say they have loaded this one, under an earlier coordinator, are taken over; 0: none */
    /* Fill the common part of every rank's load plan (grid, context, blocks, ...) once all ranks said hello. epoch is set. When the hellos have a
     * loaded_epoch it must be what they were told then. Err: the sentence is what people will read. */
    enum err (*place)(void *user, const struct msg_hello hellos[], int32_t n, struct msg_load_plan *plan);
    /* The state or the load progress changed; called on the replica's thread. May be NULL. */
    void (*on_change)(void *user, enum replica_state state, const struct replica_rank ranks[], int32_t n, const char *text);
    /* A step of so many tokens was sent; on the replica's thread. May be NULL. */
    void (*on_step)(void *user, int32_t n_tokens);
    /* Every few seconds of plain decoding; on the replica's thread. May be NULL. */
    void (*on_pace)(void *user, const struct replica_pace *p);
    void *user;
};

struct crd_replica;
/* Err SYSTEM: its thread cannot be started. */
MUST_USE enum err crd_replica_open(struct crd_replica **out, const struct replica_conf *conf);
/* Where the rpc server delivers events. */
struct mailbox *crd_replica_mailbox(struct crd_replica *r);
/* Tell the ranks to leave, wait at most timeout_us for their streams to end, join the thread. Then close the rpc server, which may
 * still deliver events, and only then free the replica. */
void crd_replica_stop(struct crd_replica *r, int64_t timeout_us);
void crd_replica_close(struct crd_replica *r); /* NULL-safe; after stop */

/* Thr: any. As crd_service_ops. */
void crd_replica_submit(struct crd_replica *r, const struct gen_request *q, token_event_fn on_event, void *user);
void crd_replica_cancel(struct crd_replica *r, uint64_t request);
/* Whoever comes from an earlier coordinator's time is sent away from now on. */
void crd_replica_forsake(struct crd_replica *r);
/* Go on with a request of a lost replica. Own: the replica. */
void crd_replica_adopt(struct crd_replica *r, const struct replica_moved *m);
/* If it is lost: its open requests go to those that serve now. */
void crd_replica_hand_over(struct crd_replica *r);
/* So many ranks will join from the next job on. */
void crd_replica_expect(struct crd_replica *r, int32_t n_ranks);
/* Before the first READY requests wait for it instead of being refused: another server's work is being taken over. false: those that wait end
 * with why it is not ready. */
void crd_replica_hold(struct crd_replica *r, bool hold);
/* Refuse new requests from now on. */
void crd_replica_drain(struct crd_replica *r);
/* End every open request now, with this sentence (copied). */
void crd_replica_end(struct crd_replica *r, const char *text);

enum { PHASE_DETECT, PHASE_RELAUNCH, PHASE_LOAD, PHASE_PREFILL, RECOVERY_PHASES };

struct replica_status {
    enum replica_state state;
    uint32_t epoch;
    bool draining;
    enum err err;                    /* of the last loss; NO_FIT: nothing was loaded as it does not fit */
    char text[512];
    struct sched_stats sched;
    int32_t n_ranks, n_joined, n_ready, n_stages;
    int32_t n_expected;              /* ranks that it waits for; 0: not known before one has joined */
    int32_t context, n_blocks;
    int64_t kv_tokens;               /* that so many blocks hold, in full contexts */
    double load_seconds;
    bool recovering;                 /* lost, and open requests wait for it to come back */
    uint32_t n_recoveries;
    double recovery_seconds;         /* the last one took, until READY */
    double phases[RECOVERY_PHASES];  /* of the last one: from the last sign of life to the verdict, to all ranks joined, to READY, to all prefilled */
    int32_t culprit;                 /* rank that the last loss is laid to; -1: not known */
    uint64_t n_results;              /* steps answered */
    double compute_seconds;          /* of those steps, on the rank that answers */
};
void crd_replica_status(struct crd_replica *r, struct replica_status *out);
/* A copy of the ranks' facts; returns how many (<= LIMIT_RANKS). */
int32_t crd_replica_ranks(struct crd_replica *r, struct replica_rank out[LIMIT_RANKS]);

#endif
