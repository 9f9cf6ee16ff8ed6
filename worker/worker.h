/* worker.h: one rank: joins a coordinator, loads its shard, steps until told to stop.
 *
 * Threads: the calling thread does every MPI, engine and data-plane call (step_loop.c); a control thread owns the control stream: it
 * forwards plans and sends telemetry. When the stream is lost it dials again, if the load plan says that a coordinator may come back
 * (rejoin.c), or ends the process, since the step thread may be waiting in a collective. */
#ifndef WORKER_WORKER_H
#define WORKER_WORKER_H

#include "transport/auth.h"

struct wrk_conf {
    const char *join;          /* HOST:PORT of the coordinator */
    struct auth_key key;
    int32_t join_timeout_ms;
    int32_t n_threads;         /* 0: what the plan says */
    const char *device;        /* where it computes: "auto", "cpu", "cuda", "cuda:N" */
    bool bind;                 /* bind compute threads to processors */
    const char *tls_cert, *tls_key, *tls_ca;
    /* under `mpirun tessera serve`: rank 0 knows the coordinator only after fork, the others by broadcast */
    bool share_join;           /* rank 0's join and key are handed to the other ranks over MPI */
    void (*on_joined)(void *user); /* rank 0, may be NULL */
    void *user;
};

/* Runs to the end. Returns the process's exit code: 0 after Shutdown, else 1 with the sentence logged. */
int wrk_worker_run(const struct wrk_conf *conf);

#endif
