/* core_impl.h: what core.c and report.c share. Private. */
#ifndef COORDINATOR_CORE_IMPL_H
#define COORDINATOR_CORE_IMPL_H

#include "coordinator/core.h"
#include "coordinator/replica/fleet.h"
#include "coordinator/workers.h"

/* One replica with its own worker plane and, managed, its own processes. */
struct core_unit {
    struct crd_core *core;
    int32_t index;
    char listen[160], join[160], device[24];
    struct rpc_server *server;
    struct crd_replica *replica;
    int64_t say_us;              /* when joining.c speaks next; 0: not yet set. [awaiter] */
    struct crd_workers *workers; /* NULL: they join by themselves; set under core.lock, since ranks may dial before */
    /* with --state-dir: what the coordinator before left (plan Own), and what we shall; the latter under core.lock */
    struct crd_left left, now;
    struct control_msg *left_plan;
    bool takes_over;
    char *output;                /* Own; of mpirun */
};

enum { CORE_NAMES = 16 };

struct crd_core {
    /* [init] */
    struct core_conf conf;
    char key_text[65];
    struct auth_key key;
    struct eng_tokenizer *tokenizer;
    struct eng_template *chat_template;
    char *template_source;
    struct sampling sampling;    /* of requests that do not say */
    struct buf sampling_text;    /* the same, as JSON */
    struct crd_state *state;     /* NULL: nothing is left behind */
    bool started;
    struct crd_fleet *fleet;
    struct core_unit units[ROUTE_REPLICAS];
    int32_t n_units;
    char *launch_extra;
    struct crd_hosts hosts;
    pthread_mutex_t lock; /* conf.place and conf.on_change, called on the replicas' threads, one at a time */
    struct crd_api api;
    _Atomic int kv_type;         /* [any] enum kv_type of the load plan at hand */
    const char *names[CORE_NAMES + 1]; /* of the model, in name_text; NULL after the last; [0] is shown */
    char name_text[1024];
};

/* takeover.c: the state directory: what was left of each replica, and what we leave. All but open do nothing without --state-dir. */
void crd_takeover_open(struct crd_core *c);
/* The key that the workers hold that are taken over; false: there are none. */
bool crd_takeover_key(struct crd_core *c);
/* The ranks of a replica have come: fill in what they hold. False: they hold nothing, it is ours to place. */
bool crd_takeover_place(struct core_unit *u, const struct msg_hello hellos[], struct msg_load_plan *plan);
void crd_takeover_placed(struct core_unit *u, struct msg_load_plan *plan);
void crd_takeover_job(void *unit, pid_t mpirun);
void crd_takeover_ready(struct core_unit *u, const struct replica_rank ranks[], int32_t n);
void crd_takeover_close(struct crd_core *c);

/* joining.c: a line of the log, now and then, while ranks of a start are still to join. */
void crd_joining_look(struct core_unit *u, const struct replica_status *s, int64_t begun_us);

/* report.c: what /health, /metrics and the API's admission see. self: a struct crd_core. */
void crd_report_status(void *self, struct service_status *out);
void crd_report_engine(void *self, int32_t i, struct sched_stats *out);
void crd_report_health(void *self, struct buf *out);
void crd_report_metrics(void *self, struct buf *out);

#endif
