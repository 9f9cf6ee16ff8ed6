/* coll_mpi.c: collectives over MPI point-to-point messages, each wait with a deadline of ours.
 *
 * MPI's own collectives spin for ever when a peer is gone and add in an order of their own choosing; so every operation
 * here is a set of Isend and Irecv, tested until all are done or the deadline passes. Messages of one communicator carry
 * its tag, collectives and send/recv one each: between two ranks MPI keeps them in order, which is all that is needed.
 * I1  no buffer of the caller is written before every message of the phase, sent ones included, is complete.
 * I2  what may still be written or read by MPI after a failure is kept, never freed.
 * Not here: detection of a dead peer (MPI tells nobody; the launcher and the deadline do). */
#include "transport/coll_open.h"

#include "base/clock.h"
#include "transport/coll_impl.h"
#include "transport/coll_reduce.h"
#include "transport/mpi_impl.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

enum {
    SPIN_US = 3,             /* then give way: the peer may be waiting for this very processor */
    YIELD_US = 200,          /* then sleep */
    NAP_US = 100,            /* longest sleep while the wait is one of a busy step */
    BUSY_US = 100000,        /* beyond this wait nobody is in a hurry */
    DOZE_US = 2000,
    TREE_WIDTH = 8,          /* broadcast: children of a rank */
    ONE_SHOT_BYTES = 65536,  /* all_reduce: all parts together; above, each rank reduces a slice */
    PIECE_BYTES = 60 << 10,  /* of a message between ranks: goes out without the receiver's consent over TCP */
    MAX_PENDING = 1024,
    CLOSE_US = 1000000
};
static const int64_t MESSAGE_BYTES = (int64_t)1 << 30; /* MPI counts are int */
static const int64_t CHUNK_FLOATS = (int64_t)1 << 22;  /* bounds the scratch memory of an all_reduce */
static const int64_t PENDING_BYTES = (int64_t)256 << 20;

/* A message sent from a copy, not yet known to be complete. */
struct pending {
    struct pending *next;
    MPI_Request req;
    int32_t to;
    int64_t bytes;
    unsigned char data[];
};

struct mpi_coll {
    struct trn_coll base;
    MPI_Comm comm;
    int32_t world[COLL_MAX_RANKS];
    int tag_coll, tag_more, tag_last; /* a piece of a message that goes on; its last or only piece */
    bool may_spin;
    /* requests of the running operation and the rank each waits for */
    MPI_Request *req;
    int32_t *peer;
    int32_t n_req, cap_req;
    float *scratch;
    int64_t scratch_floats;
    struct pending *oldest, **newest;
    int32_t n_pending;
    int64_t pending_bytes;
};

static struct pending *abandoned; /* I2: reachable, never used */

static struct mpi_coll *self_of(struct trn_coll *c) { return (struct mpi_coll *)c; }

/* ---- waiting ---- */

struct wait {
    int64_t start_us, until_us, timeout_us, n;
    bool spins;
};

static struct wait wait_begin(const struct mpi_coll *m, int64_t timeout_us)
{
    return (struct wait){.timeout_us = timeout_us, .spins = m->may_spin};
}

/* One turn between two tests: pause, give way or sleep, by the time already waited. False: the deadline has passed. */
static bool wait_turn(struct wait *w)
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
    if (waited < YIELD_US) sched_yield();
    else if (waited < BUSY_US) clock_sleep_us(MIN(waited / 16, NAP_US));
    else clock_sleep_us(MIN(waited / 500, DOZE_US));
    return true;
}

/* A place for one more request of this operation, which waits for `rank`. */
static MPI_Request *post(struct mpi_coll *m, int32_t rank)
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

static enum err post_send(struct mpi_coll *m, int32_t to, const void *data, int64_t bytes)
{
    const unsigned char *at = data;
    int code = MPI_SUCCESS;
    for (int64_t k; bytes > 0 && code == MPI_SUCCESS; bytes -= k, at += k) {
        k = MIN(bytes, MESSAGE_BYTES);
        code = MPI_Isend(at, (int)k, MPI_BYTE, m->world[to], m->tag_coll, m->comm, post(m, to));
    }
    return trn_mpi_env_error(code, "MPI_Isend");
}

static enum err post_recv(struct mpi_coll *m, int32_t from, void *data, int64_t bytes)
{
    unsigned char *at = data;
    int code = MPI_SUCCESS;
    for (int64_t k; bytes > 0 && code == MPI_SUCCESS; bytes -= k, at += k) {
        k = MIN(bytes, MESSAGE_BYTES);
        code = MPI_Irecv(at, (int)k, MPI_BYTE, m->world[from], m->tag_coll, m->comm, post(m, from));
    }
    return trn_mpi_env_error(code, "MPI_Irecv");
}

/* Take back what a failed operation has posted, as far as MPI lets go of it. */
static void cancel_posted(struct mpi_coll *m)
{
    int done;
    for (int32_t i = 0; i < m->n_req; i++) {
        if (m->req[i] == MPI_REQUEST_NULL) continue;
        MPI_Cancel(&m->req[i]);
        MPI_Test(&m->req[i], &done, MPI_STATUS_IGNORE);
    }
}

/* The rank of the first incomplete request. (MPI_Testall leaves the complete ones in place until all are.) */
static int32_t find_late(struct mpi_coll *m)
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

/* Wait until all that was posted is complete. */
static enum err finish(struct mpi_coll *m, int64_t timeout_us)
{
    struct wait w = wait_begin(m, timeout_us);
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
        if (!wait_turn(&w)) {
            rc = trn_coll_late(&m->base, find_late(m), timeout_us);
            break;
        }
        if (w.n % 64 == 0) find_late(m);
    }
    cancel_posted(m);
    return rc;
}

/* ---- collectives ---- */

static enum err mpi_all_gather(struct trn_coll *c, const void *mine, const int64_t bytes[], void *all,
                               int64_t timeout_us)
{
    struct mpi_coll *m = self_of(c);
    unsigned char *at = all;
    enum err rc = OK;
    for (int32_t r = 0; r < c->size; at += bytes[r++]) {
        if (r != c->rank) TRY(post_recv(m, r, at, bytes[r]));
        else if (bytes[r] && at != mine) memcpy(at, mine, (size_t)bytes[r]);
    }
    for (int32_t i = 1; i < c->size; i++) TRY(post_send(m, (c->rank + i) % c->size, mine, bytes[c->rank]));
    return finish(m, timeout_us);
out:
    cancel_posted(m);
    return rc;
}

/* Down a tree of width 8: one hop for up to nine ranks. */
static enum err mpi_broadcast(struct trn_coll *c, void *data, int64_t bytes, int32_t root, int64_t timeout_us)
{
    struct mpi_coll *m = self_of(c);
    int64_t until_us = clock_us() + timeout_us;
    int32_t me = (c->rank - root + c->size) % c->size;
    enum err rc = OK;
    if (me) {
        TRY(post_recv(m, ((me - 1) / TREE_WIDTH + root) % c->size, data, bytes));
        rc = finish(m, timeout_us);
        if (rc) return rc;
    }
    for (int32_t child = me * TREE_WIDTH + 1; child <= me * TREE_WIDTH + TREE_WIDTH && child < c->size; child++)
        TRY(post_send(m, (child + root) % c->size, data, bytes));
    return m->n_req ? finish(m, MAX(until_us - clock_us(), 0)) : OK;
out:
    cancel_posted(m);
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

/* One call's arguments. The elements [lo, lo+m) are reduced together; part p of this rank is at mine + p*n. */
struct reduction {
    struct mpi_coll *m;
    struct trn_reduce plan;
    const float *mine;
    float *out;
    int64_t n;
};

static enum err reserve(struct mpi_coll *m, int64_t floats)
{
    if (floats <= m->scratch_floats) return OK;
    float *p = malloc((size_t)floats * sizeof *p);
    if (!p)
        return err_raise(ERR_NO_MEMORY, "mpi all_reduce: no %lld bytes for the parts", (long long)floats * 4);
    free(m->scratch);
    m->scratch = p;
    m->scratch_floats = floats;
    return OK;
}

/* Post this rank's parts of elements [lo, lo+len) to one rank. Whole parts lie side by side: one message. */
static enum err send_parts(const struct reduction *x, int32_t to, int64_t lo, int64_t len)
{
    int32_t k = trn_reduce_count(&x->plan, x->m->base.rank);
    enum err rc = OK;
    if (len == x->n) return post_send(x->m, to, x->mine, k * len * 4);
    for (int32_t p = 0; p < k && !rc; p++) rc = post_send(x->m, to, x->mine + p * x->n + lo, len * 4);
    return rc;
}

/* Post the receives that match, into scratch: part i at scratch + i*len; note where each part will be. */
static enum err recv_parts(const struct reduction *x, int64_t lo, int64_t len, const float *part[])
{
    const struct trn_reduce *plan = &x->plan;
    enum err rc = OK;
    for (int32_t r = 0; r < x->m->base.size && !rc; r++) {
        for (int32_t i = plan->first[r]; i < plan->first[r + 1] && !rc; i++) {
            bool is_mine = r == x->m->base.rank;
            part[i] = is_mine ? x->mine + (i - plan->first[r]) * x->n + lo : x->m->scratch + i * len;
            if (!is_mine && len != x->n) rc = post_recv(x->m, r, x->m->scratch + i * len, len * 4);
        }
        if (!rc && r != x->m->base.rank && len == x->n)
            rc = post_recv(x->m, r, x->m->scratch + plan->first[r] * len, trn_reduce_count(plan, r) * len * 4);
    }
    return rc;
}

/* Everybody gets everything and adds it all. */
static enum err reduce_one_shot(const struct reduction *x, int64_t lo, int64_t len, int64_t timeout_us)
{
    const float *part[TREE_MAX_LEAF];
    int32_t size = x->m->base.size;
    enum err rc;
    TRY(reserve(x->m, x->plan.n_parts * len));
    TRY(recv_parts(x, lo, len, part));
    for (int32_t i = 1; i < size; i++) TRY(send_parts(x, (x->m->base.rank + i) % size, lo, len));
    rc = finish(x->m, timeout_us);
    if (!rc) trn_reduce_run(&x->plan, part, x->out + lo, len);
    return rc;
out:
    cancel_posted(x->m);
    return rc;
}

struct slice { int64_t lo, len; };

/* Slice r of [lo, lo+len), cut in pieces of w. */
static struct slice slice_of(int64_t lo, int64_t len, int64_t w, int32_t r)
{
    int64_t a = MIN(r * w, len), b = MIN((r + 1) * w, len);
    return (struct slice){lo + a, b - a};
}

/* Rank r gets slice r of every part, adds it, and gives the sum to all: the same additions per element. */
static enum err reduce_two_phase(const struct reduction *x, int64_t lo, int64_t len, int64_t until_us)
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
    rc = finish(x->m, MAX(until_us - clock_us(), 0));
    if (rc) return rc;
    trn_reduce_run(&x->plan, part, x->out + mine.lo, mine.len);
    for (int32_t i = 1; i < size; i++) {
        struct slice his = slice_of(lo, len, w, (me + i) % size);
        TRY(post_recv(x->m, (me + i) % size, x->out + his.lo, his.len * 4));
        TRY(post_send(x->m, (me + i) % size, x->out + mine.lo, mine.len * 4));
    }
    return finish(x->m, MAX(until_us - clock_us(), 0));
out:
    cancel_posted(x->m);
    return rc;
}

static enum err mpi_all_reduce(struct trn_coll *c, const struct coll_cut *cut, const float *mine, float *out,
                               int64_t n, int64_t timeout_us)
{
    struct reduction x = {.m = self_of(c), .mine = mine, .out = out, .n = n};
    int64_t until_us = clock_us() + timeout_us;
    enum err rc = OK;
    trn_reduce_plan(&x.plan, cut, c->size);
    /* Two ranks with a part each move the same bytes either way: a slice would only add a second latency. */
    bool pair = c->size == 2 && x.plan.n_parts == 2;
    for (int64_t lo = 0; lo < n && !rc; lo += CHUNK_FLOATS) {
        int64_t len = MIN(n - lo, CHUNK_FLOATS);
        if (pair || x.plan.n_parts * len * 4 <= ONE_SHOT_BYTES)
            rc = reduce_one_shot(&x, lo, len, MAX(until_us - clock_us(), 0));
        else rc = reduce_two_phase(&x, lo, len, until_us);
    }
    return rc;
}

/* ---- messages ---- */

static void drop_oldest(struct mpi_coll *m)
{
    struct pending *p = m->oldest;
    m->oldest = p->next;
    if (!m->oldest) m->newest = &m->oldest;
    m->n_pending--;
    m->pending_bytes -= p->bytes;
    free(p);
}

/* Forget the copies that are through; wait for the oldest while `more` bytes would exceed the bounds. */
static enum err make_room(struct mpi_coll *m, int64_t more, int64_t timeout_us)
{
    struct wait w = wait_begin(m, timeout_us);
    while (m->oldest) {
        int done = 0;
        enum err rc = trn_mpi_env_error(MPI_Test(&m->oldest->req, &done, MPI_STATUS_IGNORE), "MPI_Test");
        if (rc) return rc;
        if (done) drop_oldest(m);
        else if (m->n_pending < MAX_PENDING && m->pending_bytes + more <= PENDING_BYTES) return OK;
        else {
            trn_coll_waiting(&m->base, m->oldest->to);
            if (!wait_turn(&w)) return trn_coll_late(&m->base, m->oldest->to, timeout_us);
        }
    }
    return OK;
}

static enum err send_piece(struct mpi_coll *m, int32_t to, const unsigned char *data, int64_t bytes, int tag,
                           int64_t timeout_us)
{
    enum err rc = make_room(m, bytes, timeout_us);
    if (rc) return rc;
    struct pending *p = malloc(sizeof *p + (size_t)bytes);
    if (!p) return err_raise(ERR_NO_MEMORY, "mpi send: no %lld bytes for a message", (long long)bytes);
    *p = (struct pending){.req = MPI_REQUEST_NULL, .to = to, .bytes = bytes};
    if (bytes) memcpy(p->data, data, (size_t)bytes);
    *m->newest = p;
    m->newest = &p->next;
    m->n_pending++;
    m->pending_bytes += bytes;
    return trn_mpi_env_error(MPI_Isend(p->data, (int)bytes, MPI_BYTE, m->world[to], tag, m->comm, &p->req),
                             "MPI_Isend");
}

static enum err mpi_send(struct trn_coll *c, int32_t to, const void *data, int64_t bytes, int64_t timeout_us)
{
    struct mpi_coll *m = self_of(c);
    int64_t until_us = clock_us() + timeout_us, at = 0;
    enum err rc;
    do {
        int64_t k = MIN(bytes - at, PIECE_BYTES);
        int tag = at + k < bytes ? m->tag_more : m->tag_last;
        rc = send_piece(m, to, (const unsigned char *)data + at, k, tag, MAX(until_us - clock_us(), 0));
        at += k;
    } while (at < bytes && !rc);
    return rc;
}

/* Wait for the next piece. When it has another tag or length than expected the two sides speak of different messages:
 * messages are matched in the order sent, so a last piece in place of one that goes on means that none will come. */
static enum err match_piece(struct mpi_coll *m, int32_t from, int64_t bytes, bool last, MPI_Message *msg, int64_t *seen,
                            struct wait *w)
{
    int tag = last ? m->tag_last : m->tag_more, other = last ? m->tag_more : m->tag_last, found = 0, count = 0;
    MPI_Status st;
    enum err rc;
    trn_coll_waiting(&m->base, from);
    for (;;) {
        TRY(trn_mpi_env_error(MPI_Improbe(m->world[from], tag, m->comm, &found, msg, &st), "MPI_Improbe"));
        if (found) break;
        if (w->n % 16 == 8) {
            TRY(trn_mpi_env_error(MPI_Iprobe(m->world[from], other, m->comm, &found, &st), "MPI_Iprobe"));
            if (found) break;
        }
        if (!wait_turn(w)) return trn_coll_late(&m->base, from, w->timeout_us);
    }
    TRY(trn_mpi_env_error(MPI_Get_count(&st, MPI_BYTE, &count), "MPI_Get_count"));
    *seen = st.MPI_TAG == m->tag_last ? count : INT64_MIN; /* one that goes on: who knows how long */
    if (st.MPI_TAG != tag || count != bytes) rc = ERR_LINK_PROTOCOL;
out:
    return rc;
}

static enum err mpi_recv(struct trn_coll *c, int32_t from, void *data, int64_t bytes, int64_t timeout_us)
{
    struct mpi_coll *m = self_of(c);
    int64_t until_us = clock_us() + timeout_us, at = 0, seen = 0;
    MPI_Message msg;
    enum err rc;
    do {
        struct wait w = wait_begin(m, MAX(until_us - clock_us(), 0));
        int64_t k = MIN(bytes - at, PIECE_BYTES);
        rc = match_piece(m, from, k, at + k == bytes, &msg, &seen, &w);
        if (rc == ERR_LINK_PROTOCOL) return trn_coll_wrong_length(c, from, seen < 0 ? -1 : at + seen, bytes);
        if (rc) return rc;
        rc = trn_mpi_env_error(MPI_Imrecv((unsigned char *)data + at, (int)k, MPI_BYTE, &msg, post(m, from)),
                               "MPI_Imrecv");
        at += k;
    } while (at < bytes && !rc);
    return rc ? rc : finish(m, MAX(until_us - clock_us(), 0));
}

/* ---- open and close ---- */

static void mpi_close(struct trn_coll *c)
{
    struct mpi_coll *m = self_of(c);
    struct wait w = wait_begin(m, c->broken ? 0 : CLOSE_US);
    bool stuck = false;
    while (m->oldest) {
        int done = 0;
        if (MPI_Test(&m->oldest->req, &done, MPI_STATUS_IGNORE)) break;
        if (done) drop_oldest(m);
        else if (!wait_turn(&w)) break;
    }
    *m->newest = abandoned;
    abandoned = m->oldest;
    for (int32_t i = 0; i < m->n_req; i++) stuck |= m->req[i] != MPI_REQUEST_NULL;
    if (!stuck) free(m->scratch);
    free(m->req);
    free(m->peer);
    free(m);
}

static const struct trn_coll_ops mpi_ops = {
    .name = "mpi",
    .all_gather = mpi_all_gather,
    .broadcast = mpi_broadcast,
    .send = mpi_send,
    .recv = mpi_recv,
    .barrier = mpi_barrier,
    .close = mpi_close,
    .all_reduce = mpi_all_reduce,
};

static enum err check_open(const int32_t members[], int32_t size, int32_t tag, int32_t *rank)
{
    int world_rank = 0, world_size = 0, found = 0, *tag_ub = NULL;
    enum err rc;
    if (trn_mpi_env_comm() == MPI_COMM_NULL)
        return err_raise(ERR_MPI, "the MPI environment is not initialised: trn_mpi_env_init comes first");
    TRY(trn_mpi_env_error(MPI_Comm_rank(trn_mpi_env_comm(), &world_rank), "MPI_Comm_rank"));
    TRY(trn_mpi_env_error(MPI_Comm_size(trn_mpi_env_comm(), &world_size), "MPI_Comm_size"));
    TRY(trn_mpi_env_error(MPI_Comm_get_attr(MPI_COMM_WORLD, MPI_TAG_UB, &tag_ub, &found), "MPI_Comm_get_attr"));
    if (size < 1 || size > COLL_MAX_RANKS)
        return err_raise(ERR_BAD_CONFIG, "an mpi group of %d ranks, 1..%d needed", size, COLL_MAX_RANKS);
    if (tag < 0 || (found && tag > (*tag_ub - 2) / 3))
        return err_raise(ERR_BAD_CONFIG, "an mpi group with tag %d, 0..%d needed", tag,
                         found ? (*tag_ub - 2) / 3 : INT32_MAX / 3);
    *rank = -1;
    for (int32_t i = 0; i < size; i++) {
        if (members[i] < 0 || members[i] >= world_size)
            return err_raise(ERR_BAD_CONFIG, "an mpi group names world rank %d, 0..%d exist", members[i],
                             world_size - 1);
        if (members[i] == world_rank) *rank = i;
    }
    if (*rank < 0) return err_raise(ERR_BAD_CONFIG, "world rank %d opens an mpi group it is not in", world_rank);
out:
    return rc;
}

enum err trn_coll_mpi_open(struct trn_coll **out, const int32_t members[], int32_t size, int32_t tag)
{
    int32_t rank;
    enum err rc = check_open(members, size, tag, &rank);
    if (rc) return rc;
    struct mpi_coll *m = xcalloc(1, sizeof *m);
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
