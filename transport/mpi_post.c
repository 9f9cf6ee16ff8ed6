/* mpi_post.c: sets of Isend and Irecv; waits with a deadline that do not burn a processor.
 *
 * MPI's own waits spin for ever when a peer is gone. Here a wait tests, spins a moment, gives way,
 * and then sleeps for a growing fraction of the time already waited. */
#include "transport/mpi_impl.h"

#include "base/clock.h"
#include "transport/coll_impl.h"

#include <sched.h>

enum {
    SPIN_US = 3,      /* then give way: the peer may be waiting for this very processor */
    YIELD_US = 1000,  /* then sleep: a nap ends late by a hundred microseconds, which an exchange over gigabit Ethernet would pay each time */
    NAP_US = 100,     /* longest sleep while the wait is one of a busy step */
    BUSY_US = 100000, /* beyond this wait nobody is in a hurry */
    DOZE_US = 2000
};
/* Over TCP a message of more than about 64 KiB goes out only when the receiver has said that it may: two more latencies. So what is not much
 * longer goes in pieces that need no consent; of longer ones the wire's time counts, and they go whole. (MPI counts are int.) */
static const int64_t PIECE_BYTES = (int64_t)60 << 10, PIECES_BYTES = (int64_t)1 << 20, WHOLE_BYTES = (int64_t)1 << 30;

static int64_t piece(int64_t bytes) { return bytes <= PIECES_BYTES ? PIECE_BYTES : WHOLE_BYTES; }

struct trn_mpi_wait trn_mpi_wait_begin(const struct trn_mpi_coll *m, int64_t timeout_us)
{
    return (struct trn_mpi_wait){.timeout_us = timeout_us, .spins = m->may_spin};
}

bool trn_mpi_wait_turn(struct trn_mpi_wait *w)
{
    if (!w->n++) {
        w->start_us = clock_us();
        w->until_us = w->start_us + w->timeout_us;
        return true;
    }
    if (w->spins && w->n % 16) return true;
    int64_t now = clock_us(), waited = now - w->start_us;
    if (now >= w->until_us) return false;
    w->spins = w->spins && waited < SPIN_US;
    if (w->spins) return true;
    if (waited < YIELD_US)
        sched_yield();
    else if (waited < BUSY_US)
        clock_sleep_us(MIN(waited / 32, NAP_US));
    else
        clock_sleep_us(MIN(waited / 500, DOZE_US));
    return true;
}

MPI_Request *trn_mpi_post(struct trn_mpi_coll *m, int32_t rank)
{
    if (m->n_req == m->cap_req) {
        m->cap_req = MAX(64, m->cap_req * 2);
        m->req = xrealloc(m->req, (size_t)m->cap_req * sizeof *m->req);
        m->peer = xrealloc(m->peer, (size_t)m->cap_req * sizeof *m->peer);
    }
    m->peer[m->n_req] = rank;
    m->req[m->n_req] = MPI_REQUEST_NULL;
    return &m->req[m->n_req++];
}

enum err trn_mpi_post_send(struct trn_mpi_coll *m, int32_t to, const void *data, int64_t bytes)
{
    const unsigned char *at = data;
    int code = MPI_SUCCESS;
    for (int64_t k, most = piece(bytes); bytes > 0 && code == MPI_SUCCESS; bytes -= k, at += k) {
        k = MIN(bytes, most);
        code = MPI_Isend(at, (int)k, MPI_BYTE, m->world[to], m->tag_coll, m->comm,
                         trn_mpi_post(m, to));
    }
    return trn_mpi_env_error(code, "MPI_Isend");
}

enum err trn_mpi_post_recv(struct trn_mpi_coll *m, int32_t from, void *data, int64_t bytes)
{
    unsigned char *at = data;
    int code = MPI_SUCCESS;
    for (int64_t k, most = piece(bytes); bytes > 0 && code == MPI_SUCCESS; bytes -= k, at += k) {
        k = MIN(bytes, most);
        code = MPI_Irecv(at, (int)k, MPI_BYTE, m->world[from], m->tag_coll, m->comm,
                         trn_mpi_post(m, from));
    }
    return trn_mpi_env_error(code, "MPI_Irecv");
}

void trn_mpi_cancel(struct trn_mpi_coll *m)
{
    int done;
    for (int32_t i = 0; i < m->n_req; i++) {
        if (m->req[i] == MPI_REQUEST_NULL) continue;
        MPI_Cancel(&m->req[i]);
        MPI_Test(&m->req[i], &done, MPI_STATUS_IGNORE);
    }
}

/* The rank of the first incomplete request. (MPI_Testall leaves the complete ones in place until
 * all are.) */
static int32_t find_late(struct trn_mpi_coll *m)
{
    for (int32_t i = 0; i < m->n_req; i++) {
        int done = 1;
        if (MPI_Request_get_status(m->req[i], &done, MPI_STATUS_IGNORE) == MPI_SUCCESS && !done) {
            trn_coll_waiting(&m->base, m->peer[i]);
            return m->peer[i];
        }
    }
    return m->n_req ? m->peer[0] : -1;
}

enum err trn_mpi_finish(struct trn_mpi_coll *m, int64_t timeout_us)
{
    struct trn_mpi_wait w = trn_mpi_wait_begin(m, timeout_us);
    int done = 0;
    enum err rc = OK;
    for (;;) {
        int code = MPI_Testall(m->n_req, m->req, &done, MPI_STATUSES_IGNORE);
        if (code != MPI_SUCCESS) {
            rc = trn_mpi_env_error(code, m->base.ops->name);
            break;
        }
        if (done) {
            m->n_req = 0;
            return OK;
        }
        if (!trn_mpi_wait_turn(&w)) {
            rc = trn_coll_late(&m->base, find_late(m), timeout_us);
            break;
        }
        if (w.n % 64 == 0) find_late(m);
    }
    trn_mpi_cancel(m);
    return rc;
}
