/* coll_shm.c: collectives between the ranks of one host, over slots, flags and rings (shm_seg.h).
 *
 * A collective is a run of steps that all ranks count alike. In a step a rank may fill its slot of
 * the step's parity; it then raises its step flag, and whoever needs its bytes waits for that.
 *
 * I1  raising the flag to k also says: this rank has read all it wants of the steps before k.
 *
 * I2  so a slot is filled in step k only after every rank has reached k-1: nobody reads step k-2
 *     any more.
 *
 * Waiting happens for what is needed only: the root of a broadcast may run one step ahead of its
 * readers. Vectors are cut so that a rank's parts fit its slot. Small ones are one step: everybody
 * adds everything. Larger ones are two: each rank adds a slice of the vector, then all collect the
 * slices: the same additions per element.
 *
 * Messages: 8 bytes of length, then the bytes, streamed through the pair's ring. */
#include "transport/coll_open.h"

#include "base/clock.h"
#include "transport/coll_impl.h"
#include "transport/coll_reduce.h"
#include "transport/shm_seg.h"

#include <stdlib.h>
#include <string.h>

/* all_reduce: up to this many bytes of one rank's parts go in one step; for two ranks slices gain
 * little. */
enum { ONE_STEP_BYTES = 32 << 10, ONE_STEP_BYTES_PAIR = 128 << 10 };

struct shm_coll {
    struct trn_coll base;
    struct trn_shm_seg *seg;
    uint32_t step;
    /* of the running operation */
    int64_t until_us, timeout_us;
};

static struct shm_coll *shm_of(struct trn_coll *c)
{
    return (struct shm_coll *)c;
}

static struct shm_coll *begin(struct trn_coll *c, int64_t timeout_us)
{
    struct shm_coll *m = shm_of(c);
    m->timeout_us = timeout_us;
    m->until_us = clock_us() + timeout_us;
    return m;
}

static enum err wait_flag(struct shm_coll *m, struct trn_shm_flag *f, uint32_t target, int32_t rank)
{
    if (trn_shm_flag_reached(f, target)) return OK;
    trn_coll_waiting(&m->base, rank);
    switch (trn_shm_seg_wait(m->seg, f, target, rank, m->until_us)) {
    case SHM_REACHED:
        return OK;
    case SHM_ENDED:
        return trn_coll_lost(&m->base, rank, "its process ended");
    case SHM_LEFT:
        return trn_coll_lost(&m->base, rank, "it closed its communicator");
    case SHM_LATE:
        break;
    }
    return trn_coll_late(&m->base, rank, m->timeout_us);
}

static enum err wait_step(struct shm_coll *m, int32_t rank, uint32_t step)
{
    return wait_flag(m, trn_shm_seg_step(m->seg, rank), step, rank);
}

static enum err wait_all(struct shm_coll *m, uint32_t step)
{
    enum err rc = OK;
    for (int32_t r = 0; r < m->base.size && !rc; r++)
        if (r != m->base.rank) rc = wait_step(m, r, step);
    return rc;
}

static unsigned char *slot(struct shm_coll *m, int32_t rank)
{
    return trn_shm_seg_slot(m->seg, rank, m->step);
}

static void arrive(struct shm_coll *m)
{
    trn_shm_seg_post(m->seg, trn_shm_seg_step(m->seg, m->base.rank), m->step);
}

/* Begin the next step; when this rank will fill its slot, wait until it may (I2). */
static enum err next_step(struct shm_coll *m, bool fills)
{
    m->step++;
    return fills ? wait_all(m, m->step - 1) : OK;
}

/* ---- all_gather, broadcast, barrier ---- */

static int64_t piece(int64_t bytes, int64_t at, int64_t max)
{
    return CLAMP(bytes - at, 0, max);
}

static enum err shm_all_gather(struct trn_coll *c, const void *mine, const int64_t bytes[],
                               void *all, int64_t timeout_us)
{
    struct shm_coll *m = begin(c, timeout_us);
    int64_t max = trn_shm_seg_slot_bytes(m->seg), most = 0, own = bytes[c->rank];
    enum err rc = OK;
    for (int32_t r = 0; r < c->size; r++) most = MAX(most, bytes[r]);
    for (int64_t at = 0; at < most; at += max) {
        int64_t k = piece(own, at, max);
        TRY(next_step(m, k > 0));
        if (k) memcpy(slot(m, c->rank), (const unsigned char *)mine + at, (size_t)k);
        arrive(m);
        unsigned char *to = all;
        for (int32_t r = 0; r < c->size; to += bytes[r++]) {
            k = piece(bytes[r], at, max);
            if (!k || r == c->rank) continue;
            TRY(wait_step(m, r, m->step));
            memcpy(to + at, slot(m, r), (size_t)k);
        }
    }
    unsigned char *to = all;
    for (int32_t r = 0; r < c->rank; r++) to += bytes[r];
    if (own && to != mine) memcpy(to, mine, (size_t)own);
out:
    return rc;
}

static enum err shm_broadcast(struct trn_coll *c, void *data, int64_t bytes, int32_t root,
                              int64_t timeout_us)
{
    struct shm_coll *m = begin(c, timeout_us);
    int64_t max = trn_shm_seg_slot_bytes(m->seg);
    bool is_root = c->rank == root;
    enum err rc = OK;
    for (int64_t at = 0; at < bytes && c->size > 1; at += max) {
        size_t k = (size_t)piece(bytes, at, max);
        TRY(next_step(m, is_root));
        if (is_root) memcpy(slot(m, root), (unsigned char *)data + at, k);
        arrive(m);
        if (is_root) continue;
        TRY(wait_step(m, root, m->step));
        memcpy((unsigned char *)data + at, slot(m, root), k);
    }
out:
    return rc;
}

static enum err shm_barrier(struct trn_coll *c, int64_t timeout_us)
{
    struct shm_coll *m = begin(c, timeout_us);
    m->step++;
    arrive(m);
    return wait_all(m, m->step);
}

/* ---- all_reduce ---- */

struct reduction {
    struct shm_coll *m;
    struct trn_reduce plan;
    const float *mine; /* part p at mine + p*n */
    float *out;
    int64_t n;
};

/* Copy [lo, lo+len) of this rank's parts into its slot, all but the elements [skip, skip+skip_len)
 * of the piece. */
static void fill_slot(const struct reduction *x, int64_t lo, int64_t len, int64_t skip,
                      int64_t skip_len)
{
    float *to = (float *)(void *)slot(x->m, x->m->base.rank);
    int32_t k = trn_reduce_count(&x->plan, x->m->base.rank);
    for (int32_t p = 0; p < k; p++) {
        const float *from = x->mine + p * x->n + lo;
        memcpy(to + p * len, from, (size_t)skip * 4);
        memcpy(to + p * len + skip + skip_len, from + skip + skip_len,
               (size_t)(len - skip - skip_len) * 4);
    }
}

/* Wait for the slots of those who have parts; part[i] = where element lo+from of each is. */
static enum err find_parts(const struct reduction *x, int64_t lo, int64_t len, int64_t from,
                           const float *part[])
{
    enum err rc = OK;
    int32_t me = x->m->base.rank;
    for (int32_t r = 0; r < x->m->base.size && !rc; r++) {
        int32_t first = x->plan.first[r], k = trn_reduce_count(&x->plan, r);
        if (!k) continue;
        if (r != me) rc = wait_step(x->m, r, x->m->step);
        const float *theirs = (const float *)(const void *)slot(x->m, r);
        for (int32_t p = 0; p < k; p++)
            part[first + p] = r == me ? x->mine + p * x->n + lo + from : theirs + p * len + from;
    }
    return rc;
}

static enum err reduce_in_one_step(const struct reduction *x, int64_t lo, int64_t len)
{
    const float *part[TREE_MAX_LEAF];
    bool fills = trn_reduce_count(&x->plan, x->m->base.rank) > 0;
    enum err rc;
    TRY(next_step(x->m, fills));
    fill_slot(x, lo, len, 0, 0);
    arrive(x->m);
    TRY(find_parts(x, lo, len, 0, part));
    trn_reduce_run(&x->plan, part, x->out + lo, len);
out:
    return rc;
}

static enum err reduce_by_slices(const struct reduction *x, int64_t lo, int64_t len)
{
    const float *part[TREE_MAX_LEAF];
    struct shm_coll *m = x->m;
    int32_t me = m->base.rank, size = m->base.size;
    int64_t w = ROUND_UP(DIV_UP(len, size), 16);
    int64_t a = MIN(me * w, len), b = MIN(a + w, len);
    bool fills = trn_reduce_count(&x->plan, me) > 0;
    enum err rc;
    TRY(next_step(m, fills));
    fill_slot(x, lo, len, a, b - a);
    arrive(m);
    TRY(find_parts(x, lo, len, a, part));
    trn_reduce_run(&x->plan, part, x->out + lo + a, b - a);
    TRY(next_step(m, true));
    memcpy(slot(m, me), x->out + lo + a, (size_t)(b - a) * 4);
    arrive(m);
    for (int32_t i = 1; i < size; i++) {
        int32_t r = (me + i) % size;
        a = MIN(r * w, len);
        b = MIN(a + w, len);
        TRY(wait_step(m, r, m->step));
        memcpy(x->out + lo + a, slot(m, r), (size_t)(b - a) * 4);
    }
out:
    return rc;
}

static enum err shm_all_reduce(struct trn_coll *c, const struct coll_cut *cut, const float *mine,
                               float *out, int64_t n, int64_t timeout_us)
{
    struct reduction x = {.m = begin(c, timeout_us), .mine = mine, .out = out, .n = n};
    int32_t most = 1;
    enum err rc = OK;
    trn_reduce_plan(&x.plan, cut, c->size);
    for (int32_t r = 0; r < c->size; r++) most = MAX(most, trn_reduce_count(&x.plan, r));
    int64_t at_once = trn_shm_seg_slot_bytes(x.m->seg) / (4 * most);
    int64_t one_step = (c->size == 2 ? ONE_STEP_BYTES_PAIR : ONE_STEP_BYTES) / (4 * most);
    if (n <= MIN(one_step, at_once)) return n ? reduce_in_one_step(&x, 0, n) : OK;
    for (int64_t lo = 0; lo < n && !rc; lo += at_once)
        rc = reduce_by_slices(&x, lo, MIN(n - lo, at_once));
    return rc;
}

/* ---- messages ---- */

/* One end of a ring: the bytes, where this end stands, how far it may go before looking at the
 * other end again. */
struct ring_end {
    unsigned char *data;
    uint32_t size, at;
};

static void ring_put(struct ring_end *e, const void *from, uint32_t n)
{
    uint32_t i = e->at & (e->size - 1), k = MIN(n, e->size - i);
    if (k) memcpy(e->data + i, from, k);
    if (n > k) memcpy(e->data, (const unsigned char *)from + k, n - k);
    e->at += n;
}

static void ring_take(struct ring_end *e, void *to, uint32_t n)
{
    uint32_t i = e->at & (e->size - 1), k = MIN(n, e->size - i);
    if (k) memcpy(to, e->data + i, k);
    if (n > k) memcpy((unsigned char *)to + k, e->data, n - k);
    e->at += n;
}

static struct ring_end ring_of(struct shm_coll *m, int32_t from, int32_t to,
                               struct trn_shm_flag *own)
{
    return (struct ring_end){trn_shm_seg_ring(m->seg, from, to), trn_shm_seg_ring_bytes(m->seg),
                             atomic_load_explicit(&own->value, memory_order_relaxed)};
}

/* Pieces of a quarter of the ring: one end fills while the other drains, and the two waits cannot
 * block each other. */
static enum err shm_send(struct trn_coll *c, int32_t to, const void *data, int64_t bytes,
                         int64_t timeout_us)
{
    struct shm_coll *m = begin(c, timeout_us);
    struct trn_shm_flag *written = trn_shm_seg_written(m->seg, c->rank, to);
    struct trn_shm_flag *read = trn_shm_seg_read(m->seg, c->rank, to);
    struct ring_end e = ring_of(m, c->rank, to, written);
    const unsigned char *from = data;
    int64_t left = bytes, max = e.size / 4;
    uint32_t head = sizeof bytes;
    do {
        uint32_t k = (uint32_t)MIN(left, max - head);
        enum err rc = wait_flag(m, read, e.at + head + k - e.size, to);
        if (rc) return rc;
        if (head) ring_put(&e, &bytes, head);
        ring_put(&e, from, k);
        trn_shm_seg_post(m->seg, written, e.at);
        from += k;
        left -= k;
        head = 0;
    } while (left);
    return OK;
}

static enum err shm_recv(struct trn_coll *c, int32_t from, void *data, int64_t bytes,
                         int64_t timeout_us)
{
    struct shm_coll *m = begin(c, timeout_us);
    struct trn_shm_flag *written = trn_shm_seg_written(m->seg, from, c->rank);
    struct trn_shm_flag *read = trn_shm_seg_read(m->seg, from, c->rank);
    struct ring_end e = ring_of(m, from, c->rank, read);
    unsigned char *to = data;
    int64_t sent, left = bytes, max = e.size / 4;
    enum err rc = wait_flag(m, written, e.at + (uint32_t)sizeof sent, from);
    if (rc) return rc;
    ring_take(&e, &sent, sizeof sent);
    if (sent != bytes) return trn_coll_wrong_length(c, from, sent, bytes);
    uint32_t head = sizeof sent;
    do {
        uint32_t k = (uint32_t)MIN(left, max - head);
        rc = wait_flag(m, written, e.at + k, from);
        if (rc) return rc;
        ring_take(&e, to, k);
        trn_shm_seg_post(m->seg, read, e.at);
        to += k;
        left -= k;
        head = 0;
    } while (left);
    return OK;
}

static bool shm_has(struct trn_coll *c, int32_t from)
{
    struct shm_coll *m = shm_of(c);
    struct ring_end e = ring_of(m, from, c->rank, trn_shm_seg_read(m->seg, from, c->rank));
    return trn_shm_flag_reached(trn_shm_seg_written(m->seg, from, c->rank), e.at + (uint32_t)sizeof(int64_t));
}

static void shm_close(struct trn_coll *c)
{
    trn_shm_seg_close(shm_of(c)->seg);
    free(c);
}

static _Atomic uint64_t *shm_board(struct trn_coll *c)
{
    return trn_shm_seg_board(shm_of(c)->seg);
}

static const struct trn_coll_ops shm_ops = {
    .name = "shm",
    .all_gather = shm_all_gather,
    .broadcast = shm_broadcast,
    .send = shm_send,
    .recv = shm_recv,
    .barrier = shm_barrier,
    .close = shm_close,
    .all_reduce = shm_all_reduce,
    .has = shm_has,
    .board = shm_board,
};

enum err trn_coll_shm_open(struct trn_coll **out, const char *name, int32_t rank, int32_t size,
                           int64_t timeout_us)
{
    struct trn_shm_seg *seg;
    enum err rc = trn_shm_seg_open(&seg, name, rank, size, timeout_us);
    if (rc) return rc;
    struct shm_coll *m = xcalloc(1, sizeof *m);
    m->base = (struct trn_coll){.ops = &shm_ops, .rank = rank, .size = size, .now_rank = -1};
    m->seg = seg;
    *out = &m->base;
    return OK;
}
