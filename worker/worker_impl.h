/* worker_impl.h: what worker.c, groups.c and rejoin.c share: one rank. Private. */
#ifndef WORKER_WORKER_IMPL_H
#define WORKER_WORKER_IMPL_H

#include "transport/coll_open.h"
#include "worker/step_loop.h"
#include "worker/worker.h"

#include <pthread.h>

enum { MAX_CPUS = 512 };

struct worker {
    const struct wrk_conf *conf;
    int32_t rank, size, host_rank, host_size, host_first;
    char host[64], job[64], join[128];
    struct auth_key key;
    int32_t cpus[MAX_CPUS], n_cpus; /* processors that this process may use; only their number is known when !may_bind */
    bool may_bind;                  /* compute threads are bound to them */
    char device[24];               /* "cpu", "cuda:0" */
    struct plugin_device_info card; /* zeroed: a CPU */
    char addresses[1024];
    struct msg_link links[LIMIT_RANKS]; /* to other hosts, measured before Hello */
    int32_t n_links;
    int32_t mem_ranks;             /* of this host, that share the memory which we say is available */
    struct rpc_client *client;
    struct mailbox *events;        /* from rpc: struct rpc_event */
    struct wrk_step_loop loop;
    struct trn_coll *tp, *world;
    int64_t last_progress_us;
    struct control_msg *plan;      /* LOAD_PLAN; Own */
    /* [control] */
    int64_t telemetry_us;
    _Atomic uint32_t loaded_epoch; /* of what is loaded; 0: not yet. Set by [step], then by [control] */
    _Atomic bool telling;          /* telemetry is being gathered */
    _Atomic bool leaving;          /* Shutdown was seen, or the step thread is done */
};

/* worker.c */
/* Dial the coordinator; it answered within timeout_ms and knows who we are, or Err: why not. */
MUST_USE enum err wrk_join(struct worker *w, int32_t timeout_ms);

/* groups.c: w->world and w->tp as the plan says; first: the lowest rank of `stage`. Collective. */
MUST_USE enum err wrk_groups_open(struct worker *w, const struct msg_load_plan *p, int32_t stage, int32_t first);
/* As tp_device of eng_engine_conf; user: struct worker, whose plan is there. */
MUST_USE enum err wrk_groups_device(void *user, const struct trn_device *d, struct trn_coll **out);

/* rejoin.c: the stream is gone (Own: e). Returns when there is another coordinator, else leaves the process. */
void wrk_rejoin(struct worker *w, struct rpc_event *e);

#endif
