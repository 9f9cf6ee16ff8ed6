/* workers.h: the worker processes of one replica that we start ourselves: started, watched, started again after a loss, ended for certain.
 *
 * A thread of its own keeps them ([keeper]). The first start must succeed, or it is the whole start that failed. After it, lost workers are
 * started again as often as it takes, with pauses that double, on the hosts that are left: a host that keeps failing is set aside and
 * named (cluster/hosts.h). Thr: any, unless it says otherwise. */
#ifndef COORDINATOR_WORKERS_H
#define COORDINATOR_WORKERS_H

#include "cluster/hosts.h"
#include "cluster/launch.h"
#include "coordinator/replica/replica.h"
#include "coordinator/state_dir.h"

#include <pthread.h>

/* The hosts of all replicas together. */
struct crd_hosts {
    pthread_mutex_t lock;
    struct clu_hosts hosts;
};

struct crd_workers_conf {
    int32_t index;
    struct crd_replica *replica;
    struct clu_launch_conf launch;  /* n_ranks: wanted; texts are kept by the caller */
    struct crd_hosts *hosts;        /* NULL: without a hostfile, or mpirun reads it whole */
    int32_t least_ranks;            /* that a cut may do with when hosts are gone */
    int64_t load_timeout_us;        /* of the first start: without progress of any rank */
    struct crd_left left;           /* the job of a coordinator that was killed; zeroed: none */
    bool takes_over;                /* its ranks are waited for; else it is ended before ours begins */
    void (*on_job)(void *user, pid_t mpirun); /* one was started; NULL: nobody asks */
    void *user;
};

struct crd_workers;
/* Nothing runs yet. */
struct crd_workers *crd_workers_open(const struct crd_workers_conf *conf);
/* Start them, and the thread that keeps them. */
MUST_USE enum err crd_workers_start(struct crd_workers *w);
/* The first start failed: why, else OK. */
MUST_USE enum err crd_workers_failed(struct crd_workers *w);
/* On the replica's thread: what replica_conf.on_change and .place are told. */
void crd_workers_changed(struct crd_workers *w, enum replica_state state, const struct replica_rank ranks[], int32_t n);
void crd_workers_placed(struct crd_workers *w, uint32_t epoch);
/* No more starts; after it the replica may be stopped. */
void crd_workers_let_go(struct crd_workers *w);
/* Ends what is left within grace_us. NULL-safe. */
void crd_workers_close(struct crd_workers *w, int64_t grace_us);

#endif
