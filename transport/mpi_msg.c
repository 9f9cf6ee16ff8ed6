/* mpi_msg.c: send and recv between two ranks: a copy, sent in pieces, freed when MPI has done.
 *
 * Pieces are small enough to leave without the receiver's consent over TCP, so a stage may compute
 * while its message travels. Two tags tell a last piece from one that goes on: no header is needed,
 * and a wrong length is seen.
 *
 * I1  what MPI may still read after a failure is kept, never freed. */
#include "transport/mpi_impl.h"

#include "base/clock.h"
#include "transport/coll_impl.h"

#include <stdlib.h>
#include <string.h>

enum {
    PIECE_BYTES =
        60 << 10, /* of a message between ranks: goes out without the receiver's consent over TCP */
    MAX_PENDING = 1024,
    CLOSE_US = 1000000
};
static const int64_t PENDING_BYTES = (int64_t)256 << 20;

static struct trn_mpi_pending *abandoned; /* I1: reachable, never used */

static void drop_oldest(struct trn_mpi_coll *m)
{
    struct trn_mpi_pending *p = m->oldest;
    m->oldest = p->next;
    if (!m->oldest) m->newest = &m->oldest;
    m->n_pending--;
    m->pending_bytes -= p->bytes;
    free(p);
}

bool trn_mpi_push(struct trn_coll *c)
{
    struct trn_mpi_coll *m = trn_mpi_of(c);
    while (m->oldest) {
        int done = 0;
        if (MPI_Test(&m->oldest->req, &done, MPI_STATUS_IGNORE) != MPI_SUCCESS || !done) return true; /* the next send says what is wrong */
        drop_oldest(m);
    }
    return false;
}

/* Forget the copies that are through; wait for the oldest while `more` bytes would exceed the
 * bounds. */
static enum err make_room(struct trn_mpi_coll *m, int64_t more, int64_t timeout_us)
{
    struct trn_mpi_wait w = trn_mpi_wait_begin(m, timeout_us);
    while (m->oldest) {
        int done = 0;
        enum err rc =
            trn_mpi_env_error(MPI_Test(&m->oldest->req, &done, MPI_STATUS_IGNORE), "MPI_Test");
        if (rc) return rc;
        if (done)
            drop_oldest(m);
        else if (m->n_pending < MAX_PENDING && m->pending_bytes + more <= PENDING_BYTES)
            return OK;
        else {
            trn_coll_waiting(&m->base, m->oldest->to);
            if (!trn_mpi_wait_turn(&w)) return trn_coll_late(&m->base, m->oldest->to, timeout_us);
        }
    }
    return OK;
}

static enum err send_piece(struct trn_mpi_coll *m, int32_t to, const unsigned char *data,
                           int64_t bytes, int tag, int64_t timeout_us)
{
    enum err rc = make_room(m, bytes, timeout_us);
    if (rc) return rc;
    struct trn_mpi_pending *p = malloc(sizeof *p + (size_t)bytes);
    if (!p)
        return err_raise(ERR_NO_MEMORY, "mpi send: no %lld bytes for a message", (long long)bytes);
    *p = (struct trn_mpi_pending){.req = MPI_REQUEST_NULL, .to = to, .bytes = bytes};
    if (bytes) memcpy(p->data, data, (size_t)bytes);
    *m->newest = p;
    m->newest = &p->next;
    m->n_pending++;
    m->pending_bytes += bytes;
    return trn_mpi_env_error(
        MPI_Isend(p->data, (int)bytes, MPI_BYTE, m->world[to], tag, m->comm, &p->req), "MPI_Isend");
}

enum err trn_mpi_send(struct trn_coll *c, int32_t to, const void *data, int64_t bytes,
                      int64_t timeout_us)
{
    struct trn_mpi_coll *m = trn_mpi_of(c);
    int64_t until_us = clock_us() + timeout_us, at = 0;
    enum err rc;
    do {
        int64_t k = MIN(bytes - at, PIECE_BYTES);
        int tag = at + k < bytes ? m->tag_more : m->tag_last;
        rc = send_piece(m, to, (const unsigned char *)data + at, k, tag,
                        MAX(until_us - clock_us(), 0));
        at += k;
    } while (at < bytes && !rc);
    return rc;
}

/* Is a piece here? The one expected in *msg; else *found says whether one with the other tag is.
 * MPI delivers what one rank sends in order, but two probes are two moments: both pieces may arrive
 * between them. So the other tag counts only when a second look for the expected one, made after
 * it was seen, is in vain. */
static enum err probe(struct trn_mpi_coll *m, int32_t from, int tag, int other, bool look_for_other,
                      MPI_Message *msg, MPI_Status *st, int *found)
{
    int32_t w = m->world[from];
    enum err rc = trn_mpi_env_error(MPI_Improbe(w, tag, m->comm, found, msg, st), "MPI_Improbe");
    if (rc || *found || !look_for_other) return rc;
    MPI_Status o;
    int is_other = 0;
    TRY(trn_mpi_env_error(MPI_Iprobe(w, other, m->comm, &is_other, &o), "MPI_Iprobe"));
    if (!is_other) goto out;
    TRY(trn_mpi_env_error(MPI_Improbe(w, tag, m->comm, found, msg, st), "MPI_Improbe"));
    if (!*found) *st = o, *found = 1;
out:
    return rc;
}

/* Wait for the next piece. When it has another tag or length than expected the two sides speak of
 * different messages: a last piece in place of one that goes on means that none will come. */
static enum err match_piece(struct trn_mpi_coll *m, int32_t from, int64_t bytes, bool last,
                            MPI_Message *msg, int64_t *seen, struct trn_mpi_wait *w)
{
    int tag = last ? m->tag_last : m->tag_more, other = last ? m->tag_more : m->tag_last, found = 0,
        count = 0;
    MPI_Status st;
    enum err rc;
    trn_coll_waiting(&m->base, from);
    for (;;) {
        TRY(probe(m, from, tag, other, w->n % 16 == 8, msg, &st, &found));
        if (found) break;
        if (!trn_mpi_wait_turn(w)) return trn_coll_late(&m->base, from, w->timeout_us);
    }
    TRY(trn_mpi_env_error(MPI_Get_count(&st, MPI_BYTE, &count), "MPI_Get_count"));
    *seen =
        st.MPI_TAG == m->tag_last ? count : INT64_MIN; /* one that goes on: who knows how long */
    if (st.MPI_TAG != tag || count != bytes) rc = ERR_LINK_PROTOCOL;
out:
    return rc;
}

enum err trn_mpi_recv(struct trn_coll *c, int32_t from, void *data, int64_t bytes,
                      int64_t timeout_us)
{
    struct trn_mpi_coll *m = trn_mpi_of(c);
    int64_t until_us = clock_us() + timeout_us, at = 0, seen = 0;
    MPI_Message msg;
    unsigned char *to = bytes <= TRN_MPI_LANDING ? m->landing : data;
    enum err rc;
    do {
        struct trn_mpi_wait w = trn_mpi_wait_begin(m, MAX(until_us - clock_us(), 0));
        int64_t k = MIN(bytes - at, PIECE_BYTES);
        rc = match_piece(m, from, k, at + k == bytes, &msg, &seen, &w);
        if (rc == ERR_LINK_PROTOCOL)
            return trn_coll_wrong_length(c, from, seen < 0 ? -1 : at + seen, bytes);
        if (rc) return rc;
        rc = trn_mpi_env_error(
            MPI_Imrecv(to + at, (int)k, MPI_BYTE, &msg, trn_mpi_post(m, from)),
            "MPI_Imrecv");
        at += k;
    } while (at < bytes && !rc);
    if (!rc) rc = trn_mpi_finish(m, MAX(until_us - clock_us(), 0));
    if (!rc && to != data && bytes) memcpy(data, to, (size_t)bytes);
    return rc;
}

void trn_mpi_messages_close(struct trn_mpi_coll *m)
{
    struct trn_mpi_wait w = trn_mpi_wait_begin(m, m->base.broken ? 0 : CLOSE_US);
    while (m->oldest) {
        int done = 0;
        if (MPI_Test(&m->oldest->req, &done, MPI_STATUS_IGNORE)) break;
        if (done)
            drop_oldest(m);
        else if (!trn_mpi_wait_turn(&w))
            break;
    }
    *m->newest = abandoned;
    abandoned = m->oldest;
}
