/* coll_mpi.c: collectives over MPI point-to-point messages, each wait with a deadline of ours.
 *
 * MPI's own collectives spin for ever when a peer is gone and add in an order of their own
 * choosing; so every operation here is a set of Isend and Irecv, tested until all are done or the
 * deadline passes. Messages of one communicator carry its tags: between two ranks MPI keeps them in
 * order, which is all that is needed.
 *
 * I1  no buffer of the caller is written before every message of the phase, sent ones included, is
 *     complete.
 *
 * I2  what MPI may still write after a failure is kept, never freed: the communicator's own memory, where small messages land; of longer ones the
 *     caller's, as coll.h says.
 *
 * Not here: detection of a dead peer (MPI tells nobody; the launcher and the deadline do). */
#include "transport/coll_open.h"

#include "base/clock.h"
#include "transport/coll_impl.h"
#include "transport/coll_reduce.h"
#include "transport/mpi_impl.h"

#include <stdlib.h>
#include <string.h>

enum {
    TREE_WIDTH = 8,        /* broadcast: children of a rank */
    ONE_SHOT_BYTES = 65536 /* all_reduce: all parts together; above, each rank reduces a slice */
};
static const int64_t CHUNK_FLOATS = (int64_t)1
                                    << 22; /* bounds the scratch memory of an all_reduce */

static struct trn_mpi_coll *kept; /* I2: reachable, never used */

/* ---- collectives ---- */

static enum err mpi_all_gather(struct trn_coll *c, const void *mine, const int64_t bytes[],
                               void *all, int64_t timeout_us)
{
    struct trn_mpi_coll *m = trn_mpi_of(c);
    int64_t total = 0;
    enum err rc = OK;
    for (int32_t r = 0; r < c->size; r++) total += bytes[r];
    unsigned char *to = total <= TRN_MPI_LANDING ? m->landing : all, *at = to;
    for (int32_t r = 0; r < c->size; at += bytes[r++]) {
        if (r != c->rank)
            TRY(trn_mpi_post_recv(m, r, at, bytes[r]));
        else if (bytes[r] && at != mine)
            memcpy(at, mine, (size_t)bytes[r]);
    }
    for (int32_t i = 1; i < c->size; i++)
        TRY(trn_mpi_post_send(m, (c->rank + i) % c->size, mine, bytes[c->rank]));
    rc = trn_mpi_finish(m, timeout_us);
    if (!rc && to != all && total) memcpy(all, to, (size_t)total);
    return rc;
out:
    trn_mpi_cancel(m);
    return rc;
}

/* Down a tree of width 8: one hop for up to nine ranks. */
static enum err mpi_broadcast(struct trn_coll *c, void *data, int64_t bytes, int32_t root,
                              int64_t timeout_us)
{
    struct trn_mpi_coll *m = trn_mpi_of(c);
    int64_t until_us = clock_us() + timeout_us;
    int32_t me = (c->rank - root + c->size) % c->size;
    enum err rc = OK;
    if (me) {
        void *to = bytes <= TRN_MPI_LANDING ? m->landing : data;
        TRY(trn_mpi_post_recv(m, ((me - 1) / TREE_WIDTH + root) % c->size, to, bytes));
        rc = trn_mpi_finish(m, timeout_us);
        if (rc) return rc;
        if (to != data && bytes) memcpy(data, to, (size_t)bytes);
    }
    for (int32_t child = me * TREE_WIDTH + 1;
         child <= me * TREE_WIDTH + TREE_WIDTH && child < c->size; child++)
        TRY(trn_mpi_post_send(m, (child + root) % c->size, data, bytes));
    return m->n_req ? trn_mpi_finish(m, MAX(until_us - clock_us(), 0)) : OK;
out:
    trn_mpi_cancel(m);
    return rc;
}

/* Everybody tells everybody: one hop, and the rank that did not come is the one that is named. */
static enum err mpi_barrier(struct trn_coll *c, int64_t timeout_us)
{
    unsigned char tokens[COLL_MAX_RANKS];
    int64_t bytes[COLL_MAX_RANKS];
    for (int32_t r = 0; r < c->size; r++) bytes[r] = 1;
    tokens[c->rank] = 1;
    return mpi_all_gather(c, tokens + c->rank, bytes, tokens, timeout_us);
}

/* ---- all_reduce ---- */

/* One call's arguments. The elements [lo, lo+m) are reduced together; part p of this rank is at
 * mine + p*n. */
struct reduction {
    struct trn_mpi_coll *m;
    struct trn_reduce plan;
    const float *mine;
    float *out;
    int64_t n;
};

static enum err reserve(struct trn_mpi_coll *m, int64_t floats)
{
    if (floats <= m->scratch_floats) return OK;
    float *p = malloc((size_t)floats * sizeof *p);
    if (!p)
        return err_raise(ERR_NO_MEMORY, "mpi all_reduce: no %lld bytes for the parts",
                         (long long)floats * 4);
    free(m->scratch);
    m->scratch = p;
    m->scratch_floats = floats;
    return OK;
}

/* Post this rank's parts of elements [lo, lo+len) to one rank. Whole parts lie side by side: one
 * message. */
static enum err send_parts(const struct reduction *x, int32_t to, int64_t lo, int64_t len)
{
    int32_t k = trn_reduce_count(&x->plan, x->m->base.rank);
    enum err rc = OK;
    if (len == x->n) return trn_mpi_post_send(x->m, to, x->mine, k * len * 4);
    for (int32_t p = 0; p < k && !rc; p++)
        rc = trn_mpi_post_send(x->m, to, x->mine + p * x->n + lo, len * 4);
    return rc;
}

/* Post the receives that match, into scratch: part i at scratch + i*len; note where each part will
 * be. */
static enum err recv_parts(const struct reduction *x, int64_t lo, int64_t len, const float *part[])
{
    const struct trn_reduce *plan = &x->plan;
    enum err rc = OK;
    for (int32_t r = 0; r < x->m->base.size && !rc; r++) {
        for (int32_t i = plan->first[r]; i < plan->first[r + 1] && !rc; i++) {
            bool is_mine = r == x->m->base.rank;
            part[i] =
                is_mine ? x->mine + (i - plan->first[r]) * x->n + lo : x->m->scratch + i * len;
            if (!is_mine && len != x->n)
                rc = trn_mpi_post_recv(x->m, r, x->m->scratch + i * len, len * 4);
        }
        if (!rc && r != x->m->base.rank && len == x->n)
            rc = trn_mpi_post_recv(x->m, r, x->m->scratch + plan->first[r] * len,
                                   trn_reduce_count(plan, r) * len * 4);
    }
    return rc;
}

/* Everybody gets everything and adds it all. */
static enum err reduce_one_shot(const struct reduction *x, int64_t lo, int64_t len,
                                int64_t timeout_us)
{
    const float *part[TREE_MAX_LEAF];
    int32_t size = x->m->base.size;
    enum err rc;
    TRY(reserve(x->m, x->plan.n_parts * len));
    TRY(recv_parts(x, lo, len, part));
    for (int32_t i = 1; i < size; i++) TRY(send_parts(x, (x->m->base.rank + i) % size, lo, len));
    rc = trn_mpi_finish(x->m, timeout_us);
    if (!rc) trn_reduce_run(&x->plan, part, x->out + lo, len);
    return rc;
out:
    trn_mpi_cancel(x->m);
    return rc;
}

struct slice {
    int64_t lo, len;
};

/* Slice r of [lo, lo+len), cut in pieces of w. */
static struct slice slice_of(int64_t lo, int64_t len, int64_t w, int32_t r)
{
    int64_t a = MIN(r * w, len), b = MIN((r + 1) * w, len);
    return (struct slice){lo + a, b - a};
}

/* Rank r gets slice r of every part, adds it, and gives the sum to all: the same additions per
 * element. */
static enum err reduce_two_phase(const struct reduction *x, int64_t lo, int64_t len,
                                 int64_t until_us)
{
    const float *part[TREE_MAX_LEAF];
    int32_t me = x->m->base.rank, size = x->m->base.size;
    int64_t w = ROUND_UP(DIV_UP(len, size), 16);
    struct slice mine = slice_of(lo, len, w, me);
    enum err rc;
    TRY(reserve(x->m, x->plan.n_parts * w));
    TRY(recv_parts(x, mine.lo, mine.len, part));
    for (int32_t i = 1; i < size; i++) {
        struct slice his = slice_of(lo, len, w, (me + i) % size);
        TRY(send_parts(x, (me + i) % size, his.lo, his.len));
    }
    rc = trn_mpi_finish(x->m, MAX(until_us - clock_us(), 0));
    if (rc) return rc;
    trn_reduce_run(&x->plan, part, x->out + mine.lo, mine.len);
    for (int32_t i = 1; i < size; i++) {
        struct slice his = slice_of(lo, len, w, (me + i) % size);
        TRY(trn_mpi_post_recv(x->m, (me + i) % size, x->out + his.lo, his.len * 4));
        TRY(trn_mpi_post_send(x->m, (me + i) % size, x->out + mine.lo, mine.len * 4));
    }
    return trn_mpi_finish(x->m, MAX(until_us - clock_us(), 0));
out:
    trn_mpi_cancel(x->m);
    return rc;
}

static enum err mpi_all_reduce(struct trn_coll *c, const struct coll_cut *cut, const float *mine,
                               float *out, int64_t n, int64_t timeout_us)
{
    struct reduction x = {.m = trn_mpi_of(c), .mine = mine, .out = out, .n = n};
    int64_t until_us = clock_us() + timeout_us;
    enum err rc = OK;
    trn_reduce_plan(&x.plan, cut, c->size);
    /* Two ranks with a part each move the same bytes either way: a slice would only add a second
     * latency. */
    bool pair = c->size == 2 && x.plan.n_parts == 2;
    for (int64_t lo = 0; lo < n && !rc; lo += CHUNK_FLOATS) {
        int64_t len = MIN(n - lo, CHUNK_FLOATS);
        if (pair || x.plan.n_parts * len * 4 <= ONE_SHOT_BYTES)
            rc = reduce_one_shot(&x, lo, len, MAX(until_us - clock_us(), 0));
        else
            rc = reduce_two_phase(&x, lo, len, until_us);
    }
    return rc;
}

/* ---- open and close ---- */

static void mpi_close(struct trn_coll *c)
{
    struct trn_mpi_coll *m = trn_mpi_of(c);
    bool stuck = false;
    trn_mpi_messages_close(m);
    for (int32_t i = 0; i < m->n_req; i++) stuck |= m->req[i] != MPI_REQUEST_NULL;
    free(m->peer);
    m->peer = NULL;
    if (stuck) {
        m->next_kept = kept;
        kept = m;
        return;
    }
    free(m->scratch);
    free(m->req);
    free(m);
}

static const struct trn_coll_ops mpi_ops = {
    .name = "mpi",
    .all_gather = mpi_all_gather,
    .broadcast = mpi_broadcast,
    .send = trn_mpi_send,
    .recv = trn_mpi_recv,
    .push = trn_mpi_push,
    .barrier = mpi_barrier,
    .close = mpi_close,
    .all_reduce = mpi_all_reduce,
};

static enum err check_open(const int32_t members[], int32_t size, int32_t tag, int32_t *rank)
{
    int world_rank = 0, world_size = 0, found = 0, *tag_ub = NULL;
    enum err rc;
    if (trn_mpi_env_comm() == MPI_COMM_NULL)
        return err_raise(ERR_MPI,
                         "the MPI environment is not initialised: trn_mpi_env_init comes first");
    TRY(trn_mpi_env_error(MPI_Comm_rank(trn_mpi_env_comm(), &world_rank), "MPI_Comm_rank"));
    TRY(trn_mpi_env_error(MPI_Comm_size(trn_mpi_env_comm(), &world_size), "MPI_Comm_size"));
    TRY(trn_mpi_env_error(MPI_Comm_get_attr(MPI_COMM_WORLD, MPI_TAG_UB, &tag_ub, &found),
                          "MPI_Comm_get_attr"));
    if (size < 1 || size > COLL_MAX_RANKS)
        return err_raise(ERR_BAD_CONFIG, "an mpi group of %d ranks, 1..%d needed", size,
                         COLL_MAX_RANKS);
    if (tag < 0 || (found && tag > (*tag_ub - 2) / 3))
        return err_raise(ERR_BAD_CONFIG, "an mpi group with tag %d, 0..%d needed", tag,
                         found ? (*tag_ub - 2) / 3 : INT32_MAX / 3);
    *rank = -1;
    for (int32_t i = 0; i < size; i++) {
        if (members[i] < 0 || members[i] >= world_size)
            return err_raise(ERR_BAD_CONFIG, "an mpi group names world rank %d, 0..%d exist",
                             members[i], world_size - 1);
        if (members[i] == world_rank) *rank = i;
    }
    if (*rank < 0)
        return err_raise(ERR_BAD_CONFIG, "world rank %d opens an mpi group it is not in",
                         world_rank);
out:
    return rc;
}

enum err trn_coll_mpi_open(struct trn_coll **out, const int32_t members[], int32_t size,
                           int32_t tag)
{
    int32_t rank;
    enum err rc = check_open(members, size, tag, &rank);
    if (rc) return rc;
    struct trn_mpi_coll *m = xcalloc(1, sizeof *m);
    m->base = (struct trn_coll){.ops = &mpi_ops, .rank = rank, .size = size, .now_rank = -1};
    m->comm = trn_mpi_env_comm();
    for (int32_t i = 0; i < size; i++) m->world[i] = members[i];
    m->tag_coll = 3 * tag;
    m->tag_more = 3 * tag + 1;
    m->tag_last = 3 * tag + 2;
    m->may_spin = trn_mpi_env_may_spin();
    m->newest = &m->oldest;
    *out = &m->base;
    return OK;
}
