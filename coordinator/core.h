/* core.h: the coordinator without its HTTP face: text, control plane, replicas, worker processes. `tessera serve` puts a gateway on it,
 * `tessera generate` drives it directly, so both walk the same spines. */
#ifndef COORDINATOR_CORE_H
#define COORDINATOR_CORE_H

#include "coordinator/api/generation.h"
#include "coordinator/replica/replica.h"
#include "coordinator/state_dir.h"

enum core_launch { LAUNCH_MANAGED, LAUNCH_EXTERNAL }; /* we run mpirun | workers join by themselves */

struct core_conf {
    const char *model_path;
    const char *served_name;         /* or several, parted by commas: the first is shown; NULL: the file's own */
    const char *const *adapter_names;/* of LoRA adapters, NULL-terminated, in the order of the load plan's; NULL: none */
    const char *chat_template;       /* a file or a built-in name, or NULL: the model's own */
    enum core_launch launch;
    int32_t n_replicas;              /* 1 .. ROUTE_REPLICAS; 0 as 1 */
    int32_t n_ranks;                 /* of each replica. Managed: processes to start; external: ranks to expect, 0: any */
    int32_t least_ranks;             /* what a replica may come back with when hosts are gone */
    bool share_hosts;                /* we deal the hostfile's slots to replicas, spares included; false: mpirun reads it whole */
    const struct clu_hostfile *hosts_order; /* instead of the hostfile's own; or NULL */
    const char *hostfile, *mpirun_args, *program, *log_level, *device; /* device: of the workers we start */
    bool oversubscribed;             /* more ranks than processors on this host */
    const char *listen;              /* worker plane, HOST:PORT; replica i has PORT + i, unless it is 0 */
    const char *key_file;            /* external: or NULL: environment. Managed: a fresh key for each start */
    bool mpi_wire;                   /* ranks of one host speak MPI too */
    const char *tls_cert, *tls_key, *tls_ca;
    int32_t max_waiting, max_n;
    enum step_pool pooling;          /* of embeddings; NONE: as the model's files say */
    bool plain_sampling;             /* the model's own sampling defaults are not taken over */
    bool prefix_cache;
    int32_t max_guesses;               /* as sched_conf's */
    int64_t pulse_us;                  /* as replica_conf's */
    bool inexact;                    /* --exact off: /health says so */
    struct model_info info;
    struct crd_state *state;         /* where we leave what the next coordinator needs to take over our workers; NULL: nowhere. Own: the core, from open on */
    uint64_t fit;                    /* of model and options: workers of another fit are not taken over */
    int64_t rejoin_us;               /* with state: workers that lost us wait so long for the next one */
    int64_t load_timeout_us;         /* a start without progress of any rank for so long has failed */
    int64_t stall_us;                /* see replica_conf */
    int64_t recovery_us;             /* see replica_conf; managed: the workers are started again meanwhile */
    /* see replica_conf; called one at a time, on the threads of replicas; plan->replica says whose */
    enum err (*place)(void *user, const struct msg_hello hellos[], int32_t n, struct msg_load_plan *plan);
    void (*on_change)(void *user, int32_t replica, enum replica_state state, const struct replica_rank ranks[], int32_t n, const char *text);
    void (*on_pace)(void *user, const struct replica_pace *p); /* may be NULL */
    void *user;
};

/* In a state directory: end the jobs of models other than the one of this number, whose files are all that is left there. */
void crd_takeover_sweep(struct crd_state *s, int32_t number);

struct crd_core;
/* Text, control plane, replicas; the worker planes listen. Err: any start-up failure. */
MUST_USE enum err crd_core_open(struct crd_core **out, const struct core_conf *conf);
/* Managed: start the worker processes. After everything that can fail cheaply. From READY on those that are lost are started again. */
MUST_USE enum err crd_core_start(struct crd_core *c);
/* Wait until every replica has been READY. stop: polled; true ends the wait with CANCELLED. Err NO_FIT, UNAVAILABLE, ... the reason. */
MUST_USE enum err crd_core_await_ready(struct crd_core *c, bool (*stop)(void));
bool crd_core_started(const struct crd_core *c); /* crd_core_start was called: what is in the state directory is ours */
/* Its journal, once set, is closed with the core. */
struct crd_api *crd_core_api(struct crd_core *c);
struct crd_replica *crd_core_replica(struct crd_core *c, int32_t i);     /* NULL: there are not so many */
struct crd_state *crd_core_state(struct crd_core *c); /* NULL without one */
const char *crd_core_join(const struct crd_core *c, int32_t i);          /* HOST:PORT of its worker plane */
bool crd_core_serves(struct crd_core *c);                                /* a replica is READY */
/* Requests that come before a replica is READY wait for it (see crd_replica_hold). */
void crd_core_hold(struct crd_core *c, bool hold);
/* Drain flag up: new requests are refused. */
void crd_core_drain(struct crd_core *c);
/* The drain took too long: every open request ends with one error now. */
void crd_core_end(struct crd_core *c);
/* Ends workers (within grace_us), then frees everything. NULL-safe. */
void crd_core_close(struct crd_core *c, int64_t grace_us);

#endif
