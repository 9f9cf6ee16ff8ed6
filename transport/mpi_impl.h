/* mpi_impl.h: what mpi_env.c, mpi_post.c, mpi_msg.c and coll_mpi.c share. They are the only files
 * that see mpi.h. */
#ifndef TRANSPORT_MPI_IMPL_H
#define TRANSPORT_MPI_IMPL_H

#include "transport/coll.h"

#include <mpi.h>
#include <stdbool.h>

/* The project's own duplicate of the world, errors returned. MPI_COMM_NULL before trn_mpi_env_init.
 */
MPI_Comm trn_mpi_env_comm(void);
/* Has this host a processor for each rank of the world that runs on it, among those they may use?
 */
bool trn_mpi_env_may_spin(void);
/* OK for MPI_SUCCESS, else MPI with the library's text: the one translation of MPI's codes. */
enum err trn_mpi_env_error(int code, const char *call);

/* ---- a communicator over MPI: mpi_post.c waits, mpi_msg.c sends messages, coll_mpi.c is the table
 * ---- */

/* A message sent from a copy, not yet known to be complete. */
struct trn_mpi_pending {
    struct trn_mpi_pending *next;
    MPI_Request req;
    int32_t to;
    int64_t bytes;
    unsigned char data[];
};

enum { TRN_MPI_LANDING = 64 << 10 };

struct trn_mpi_coll {
    struct trn_coll base;
    MPI_Comm comm;
    int32_t world[COLL_MAX_RANKS];
    int tag_coll, tag_more,
        tag_last; /* a piece of a message that goes on; its last or only piece */
    bool may_spin;
    /* requests of the running operation and the rank each waits for */
    MPI_Request *req;
    int32_t *peer;
    int32_t n_req, cap_req;
    /* what an operation receives, when that is no more: copied to the caller at its end, so that a failed operation leaves no caller's memory to MPI */
    unsigned char landing[TRN_MPI_LANDING];
    float *scratch;
    int64_t scratch_floats;
    struct trn_mpi_coll *next_kept; /* closed, while MPI may still write into it */
    struct trn_mpi_pending *oldest, **newest;
    int32_t n_pending;
    int64_t pending_bytes;
};

static inline struct trn_mpi_coll *trn_mpi_of(struct trn_coll *c)
{
    return (struct trn_mpi_coll *)c;
}

/* A wait in progress: begin, then a turn between two looks. */
struct trn_mpi_wait {
    int64_t start_us, until_us, timeout_us, n;
    bool spins;
};
struct trn_mpi_wait trn_mpi_wait_begin(const struct trn_mpi_coll *m, int64_t timeout_us);
/* Pause, give way or sleep, by the time already waited. False: the deadline has passed. */
bool trn_mpi_wait_turn(struct trn_mpi_wait *w);

/* A place for one more request of this operation, which waits for `rank`. */
MPI_Request *trn_mpi_post(struct trn_mpi_coll *m, int32_t rank);
/* Begin to send or receive bytes of a collective; nothing for 0 bytes. */
enum err trn_mpi_post_send(struct trn_mpi_coll *m, int32_t to, const void *data, int64_t bytes);
enum err trn_mpi_post_recv(struct trn_mpi_coll *m, int32_t from, void *data, int64_t bytes);
/* Wait until all that was posted is complete; on failure it is taken back. */
enum err trn_mpi_finish(struct trn_mpi_coll *m, int64_t timeout_us);
/* Take back what a failed operation has posted, as far as MPI lets go of it. */
void trn_mpi_cancel(struct trn_mpi_coll *m);

/* The table's send and recv. */
bool trn_mpi_push(struct trn_coll *c);
enum err trn_mpi_send(struct trn_coll *c, int32_t to, const void *data, int64_t bytes,
                      int64_t timeout_us);
enum err trn_mpi_recv(struct trn_coll *c, int32_t from, void *data, int64_t bytes,
                      int64_t timeout_us);
/* Wait a little for messages on their way; those that stay are kept for MPI, for ever. */
void trn_mpi_messages_close(struct trn_mpi_coll *m);

#endif
