/* coll_local.c: the ranks of a group as threads of one process: for tests of what uses collectives, for benchmarks and imatrix.
 *
 * A collective is one meeting: each rank copies what it has into a slot of its own, all meet, all
 * read. Slots come in pairs used in turn, so one meeting per collective is enough:
 *
 * I1  a rank writes slot[seq & 1] only after the meeting seq-1, which every rank entered having
 *     finished reading seq-2.
 *
 * Messages are mailboxes, one per ordered pair. The group is freed by the last rank to close.
 *
 * Not here: speed for many threads on few processors beyond not spinning. */
#include "transport/coll_open.h"

#include "base/clock.h"
#include "base/mailbox.h"
#include "transport/coll_impl.h"
#include "transport/coll_reduce.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

enum { SPIN_US = 20 };

struct local_msg {
    int64_t bytes;
    unsigned char data[];
};

struct local_rank {
    _Alignas(
        64) _Atomic uint64_t arrived; /* number of its last meeting; release: its slot is filled */
    _Atomic bool left;
    void *slot[2]; /* owner writes, others read after `arrived` */
    int64_t cap[2];
};

struct local_group {
    /* [init] */
    int32_t size;
    bool may_spin;
    struct mailbox **box; /* [from * size + to] */
    /* [any] */
    pthread_mutex_t lock; /* only for sleeping on `moved` */
    pthread_cond_t moved;
    _Atomic int32_t n_open;
    _Atomic uint64_t board[COLL_MAX_RANKS];
    struct local_rank rank[];
};

struct local {
    struct trn_coll base;
    struct local_group *g;
};

static struct local_group *group_of(struct trn_coll *c)
{
    return ((struct local *)c)->g;
}

static bool arrived(struct local_group *g, int32_t r, uint64_t seq)
{
    return atomic_load_explicit(&g->rank[r].arrived, memory_order_acquire) >= seq;
}

static void wake_all(struct local_group *g)
{
    pthread_mutex_lock(&g->lock);
    pthread_cond_broadcast(&g->moved);
    pthread_mutex_unlock(&g->lock);
}

static enum err wait_for(struct trn_coll *c, int32_t r, int64_t until_us, int64_t timeout_us)
{
    struct local_group *g = group_of(c);
    struct timespec until = {until_us / 1000000, until_us % 1000000 * 1000};
    enum err rc = OK;
    if (arrived(g, r, c->seq)) return OK;
    trn_coll_waiting(c, r);
    for (int64_t t = clock_us() + SPIN_US; clock_us() < t;) {
        sched_yield(); /* the other may be waiting for this very processor */
        for (int i = 0; i < 32 && g->may_spin; i++) trn_coll_pause();
        if (arrived(g, r, c->seq)) return OK;
    }
    pthread_mutex_lock(&g->lock);
    while (!rc && !arrived(g, r, c->seq)) {
        if (atomic_load(&g->rank[r].left))
            rc = trn_coll_lost(c, r, "it closed its communicator");
        else if (pthread_cond_timedwait(&g->moved, &g->lock, &until) && !arrived(g, r, c->seq))
            rc = trn_coll_late(c, r, timeout_us);
    }
    pthread_mutex_unlock(&g->lock);
    return rc;
}

static enum err meet(struct trn_coll *c, int64_t timeout_us)
{
    struct local_group *g = group_of(c);
    int64_t until_us = clock_us() + timeout_us;
    enum err rc = OK;
    atomic_store_explicit(&g->rank[c->rank].arrived, c->seq, memory_order_release);
    wake_all(g);
    for (int32_t r = 0; r < c->size && !rc; r++) rc = wait_for(c, r, until_us, timeout_us);
    return rc;
}

/* Put bytes into this rank's slot and meet the others. */
static enum err share(struct trn_coll *c, const void *data, int64_t bytes, int64_t timeout_us)
{
    struct local_rank *me = &group_of(c)->rank[c->rank];
    int k = (int)(c->seq & 1);
    if (bytes > me->cap[k]) {
        free(me->slot[k]);
        me->slot[k] = xmalloc((size_t)bytes);
        me->cap[k] = bytes;
    }
    if (bytes) memcpy(me->slot[k], data, (size_t)bytes);
    return meet(c, timeout_us);
}

static const unsigned char *shared(struct trn_coll *c, int32_t r)
{
    return group_of(c)->rank[r].slot[c->seq & 1];
}

static enum err local_all_gather(struct trn_coll *c, const void *mine, const int64_t bytes[],
                                 void *all, int64_t timeout_us)
{
    unsigned char *at = all;
    enum err rc = share(c, mine, bytes[c->rank], timeout_us);
    if (rc) return rc;
    for (int32_t r = 0; r < c->size; at += bytes[r++])
        if (bytes[r]) memcpy(at, shared(c, r), (size_t)bytes[r]);
    return OK;
}

static enum err local_all_reduce(struct trn_coll *c, const struct coll_cut *cut, const float *mine,
                                 float *out, int64_t n, int64_t timeout_us)
{
    struct trn_reduce plan;
    const float *part[TREE_MAX_LEAF];
    trn_reduce_plan(&plan, cut, c->size);
    enum err rc =
        share(c, mine, trn_reduce_count(&plan, c->rank) * n * (int64_t)sizeof *mine, timeout_us);
    if (rc || !n) return rc;
    for (int32_t r = 0; r < c->size; r++)
        for (int32_t i = plan.first[r]; i < plan.first[r + 1]; i++)
            part[i] = (const float *)(const void *)shared(c, r) + (i - plan.first[r]) * n;
    trn_reduce_run(&plan, part, out, n);
    return OK;
}

static enum err local_broadcast(struct trn_coll *c, void *data, int64_t bytes, int32_t root,
                                int64_t timeout_us)
{
    enum err rc = share(c, data, c->rank == root ? bytes : 0, timeout_us);
    if (!rc && c->rank != root && bytes) memcpy(data, shared(c, root), (size_t)bytes);
    return rc;
}

static enum err local_barrier(struct trn_coll *c, int64_t timeout_us)
{
    return meet(c, timeout_us);
}

static enum err local_send(struct trn_coll *c, int32_t to, const void *data, int64_t bytes,
                           int64_t timeout_us)
{
    struct local_group *g = group_of(c);
    (void)timeout_us; /* never waits: the mailbox grows */
    if (atomic_load(&g->rank[to].left)) return trn_coll_lost(c, to, "it closed its communicator");
    struct local_msg *m = xmalloc(sizeof *m + (size_t)bytes);
    m->bytes = bytes;
    if (bytes) memcpy(m->data, data, (size_t)bytes);
    mailbox_put(g->box[c->rank * g->size + to], m);
    return OK;
}

static enum err local_recv(struct trn_coll *c, int32_t from, void *data, int64_t bytes,
                           int64_t timeout_us)
{
    struct local_group *g = group_of(c);
    struct mailbox *box = g->box[from * g->size + c->rank];
    int64_t until_us = clock_us() + timeout_us;
    enum err rc = OK;
    trn_coll_waiting(c, from);
    struct local_msg *m = mailbox_get(box, 0);
    for (int64_t left_us = timeout_us; !m && left_us > 0; left_us = until_us - clock_us()) {
        bool gone = atomic_load(
            &g->rank[from].left); /* asked before looking: what it sent is there by then */
        m = mailbox_get(box, gone ? 0 : left_us);
        if (!m && gone) return trn_coll_lost(c, from, "it closed its communicator");
    }
    if (!m) return trn_coll_late(c, from, timeout_us);
    if (m->bytes != bytes)
        rc = trn_coll_wrong_length(c, from, m->bytes, bytes);
    else if (bytes)
        memcpy(data, m->data, (size_t)bytes);
    free(m);
    return rc;
}

static void free_group(struct local_group *g)
{
    for (int32_t i = 0; i < g->size * g->size; i++) {
        for (void *m; (m = mailbox_get(g->box[i], 0));) free(m);
        mailbox_close(g->box[i]);
    }
    for (int32_t r = 0; r < g->size; r++) {
        free(g->rank[r].slot[0]);
        free(g->rank[r].slot[1]);
    }
    pthread_cond_destroy(&g->moved);
    pthread_mutex_destroy(&g->lock);
    free(g->box);
    free(g);
}

static void local_close(struct trn_coll *c)
{
    struct local_group *g = group_of(c);
    atomic_store(&g->rank[c->rank].left, true);
    wake_all(g);
    for (int32_t r = 0; r < g->size; r++) mailbox_poke(g->box[c->rank * g->size + r]);
    free(c);
    if (atomic_fetch_sub(&g->n_open, 1) == 1) free_group(g);
}

static _Atomic uint64_t *local_board(struct trn_coll *c)
{
    return group_of(c)->board;
}

static const struct trn_coll_ops local_ops = {
    .name = "local",
    .all_gather = local_all_gather,
    .broadcast = local_broadcast,
    .send = local_send,
    .recv = local_recv,
    .barrier = local_barrier,
    .close = local_close,
    .all_reduce = local_all_reduce,
    .board = local_board,
};

static struct local_group *open_group(int32_t n)
{
    size_t bytes = sizeof(struct local_group) + (size_t)n * sizeof(struct local_rank);
    struct local_group *g = aligned_alloc(64, ROUND_UP(bytes, (size_t)64));
    if (!g) return NULL;
    memset(g, 0, bytes);
    g->size = n;
    cpu_set_t cpus;
    g->may_spin = !sched_getaffinity(0, sizeof cpus, &cpus) && CPU_COUNT(&cpus) >= n;
    g->box = xcalloc((size_t)n * (size_t)n, sizeof *g->box);
    for (int32_t i = 0; i < n * n; i++) g->box[i] = mailbox_open();
    pthread_condattr_t a;
    pthread_condattr_init(&a);
    pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
    pthread_cond_init(&g->moved, &a);
    pthread_condattr_destroy(&a);
    pthread_mutex_init(&g->lock, NULL);
    atomic_store(&g->n_open, n);
    return g;
}

enum err trn_coll_local_open(struct trn_coll *out[], int32_t n)
{
    if (n < 1 || n > COLL_MAX_RANKS)
        return err_raise(ERR_BAD_CONFIG, "a local group of %d ranks, 1..%d needed", n,
                         COLL_MAX_RANKS);
    struct local_group *g = open_group(n);
    if (!g) return err_raise(ERR_NO_MEMORY, "no memory for a local group of %d ranks", n);
    for (int32_t r = 0; r < n; r++) {
        struct local *l = xcalloc(1, sizeof *l);
        l->base = (struct trn_coll){.ops = &local_ops, .rank = r, .size = n, .now_rank = -1};
        l->g = g;
        out[r] = &l->base;
    }
    return OK;
}
