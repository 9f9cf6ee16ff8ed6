/* coll_open.h: constructors of communicators. The engine sees only coll.h; worker and tests choose here. */
#ifndef TRANSPORT_COLL_OPEN_H
#define TRANSPORT_COLL_OPEN_H

#include "transport/coll.h"

/* One rank; every operation is a copy or nothing. */
MUST_USE enum err trn_coll_self_open(struct trn_coll **out);

/* n ranks that are threads of this process: fills out[n]; each is used by one thread and closed by it. */
MUST_USE enum err trn_coll_local_open(struct trn_coll *out[], int32_t n);

/* Ranks of one host over POSIX shared memory "/tessera-<name>" (0600). Rank 0 creates, the others attach within the
 * deadline, then the name is unlinked at once, so nothing is left behind whatever dies. name: unique per group and epoch,
 * [A-Za-z0-9_-]{1,64}. Err DEADLINE (a rank did not come), SYSTEM. */
MUST_USE enum err trn_coll_shm_open(struct trn_coll **out, const char *name, int32_t rank, int32_t size,
                                    int64_t timeout_us);

/* The MPI environment of this process; all MPI calls from one thread. init is needed before coll_mpi; after a failure
 * do not finalize: abandon (leaves without waiting for peers). */
MUST_USE enum err trn_mpi_env_init(int32_t *rank, int32_t *size);
void trn_mpi_env_finalize(void);
/* Is this process started by mpirun or srun (without initialising MPI)? Gives rank and size from the environment. */
int32_t trn_mpi_env_detect(int32_t *rank, int32_t *size);
/* The ranks of world that share this host: *host_rank, *host_size, and *host_first (lowest world rank here). Collective. */
MUST_USE enum err trn_mpi_env_host(int32_t *host_rank, int32_t *host_size, int32_t *host_first);

/* A communicator of the world ranks members[size] (this rank among them), rank i = members[i]; the same list and tag on
 * each. Opening exchanges nothing. tag: one per group among groups that share two ranks, also over time after a failure.
 * Messages travel by Isend/Irecv with own deadlines: MPI never reports a lost peer. Err BAD_CONFIG, MPI. */
MUST_USE enum err trn_coll_mpi_open(struct trn_coll **out, const int32_t members[], int32_t size, int32_t tag);

#endif
