/* coll_told.c: see coll_told.h. */
#include "transport/coll_told.h"

#include "base/clock.h"
#include "transport/coll_impl.h"

#include <stdlib.h>

enum { SPIN_US = 50, SLEEP_US = 50 };

static struct trn_told *of(struct trn_coll *c) { return (struct trn_told *)c; }

/* ---- how far the device has come ---- */

/* Who has begun the fewest operations, fewer than this rank; -1: cannot be known. */
static int32_t laggard(const struct trn_told *t)
{
    int32_t at = -1;
    uint64_t least = t->n_begun;
    for (int32_t r = 0; t->board && r < t->base.size; r++) {
        uint64_t k = atomic_load_explicit(&t->board[r], memory_order_relaxed);
        if (k < least) least = k, at = r;
    }
    return at;
}

enum err trn_told_late(struct trn_told *t, int64_t timeout_us)
{
    int32_t r = laggard(t);
    enum err e;
    trn_coll_waiting(&t->base, r);
    if (r >= 0) e = trn_coll_late(&t->base, r, timeout_us);
    else e = err_raise(ERR_DEADLINE, "%s: another rank has not arrived within %.3g s", t->base.ops->name, (double)timeout_us / 1e6);
    t->give_up(t);
    return e;
}

void trn_told_rest(int64_t since_us)
{
    if (clock_us() - since_us < SPIN_US) trn_coll_pause();
    else clock_sleep_us(SLEEP_US);
}

static enum err look(struct trn_told *t)
{
    enum err rc = OK;
    bool done = true;
    if (t->n_put - t->n_passed > TRN_DEVICE_MARKS) { /* their marks are replaced: whether they were done before a rest cannot be told any more */
        t->n_passed = t->n_put - TRN_DEVICE_MARKS;
        t->moved_us = clock_us();
    }
    while (!rc && done && t->n_passed < t->n_put) {
        int32_t next = (int32_t)((t->n_passed + 1) % TRN_DEVICE_MARKS);
        rc = t->dev->marked(t->dev->user, next, &done);
        if (!rc && done) t->n_passed++, t->n_done = t->marks[next].n, t->moved_us = clock_us();
    }
    return rc;
}

static enum err state_of(struct trn_told *t, const char *what) { return t->state ? t->state(t, what) : OK; }

static enum err await(struct trn_told *t, const char *what, int64_t timeout_us)
{
    int64_t since = clock_us();
    enum err rc = look(t);
    while (!rc && t->n_done < t->n_begun) {
        rc = state_of(t, what);
        if (!rc && clock_us() - since >= timeout_us) return trn_told_late(t, timeout_us);
        trn_told_rest(since);
        if (!rc) rc = look(t);
    }
    return rc;
}

enum err trn_told_poll(struct trn_coll *c)
{
    struct trn_told *t = of(c);
    enum err rc = look(t);
    bool idle = t->n_done == t->n_begun;
    atomic_store_explicit(&c->now_seq, t->marks[(t->n_passed + 1) % TRN_DEVICE_MARKS].seq, memory_order_relaxed);
    atomic_store_explicit(&c->now_since_us, t->moved_us, memory_order_relaxed);
    atomic_store_explicit(&c->now_op, idle ? NULL : t->op, memory_order_relaxed);
    if (rc || idle) return rc;
    rc = state_of(t, t->op);
    if (!rc && clock_us() - t->moved_us >= t->timeout_us) rc = trn_told_late(t, t->timeout_us);
    return rc;
}

/* ---- operations ---- */

static void begun(struct trn_told *t, uint64_t n, const char *op, int64_t timeout_us)
{
    if (t->n_done == t->n_begun) t->moved_us = clock_us();
    t->n_begun += n;
    t->timeout_us = timeout_us;
    t->op = op;
    t->marks[(t->n_put + 1) % TRN_DEVICE_MARKS].n = t->n_begun;
    t->marks[(t->n_put + 1) % TRN_DEVICE_MARKS].seq = t->base.seq;
    if (t->board) atomic_store_explicit(&t->board[t->base.rank], t->n_begun, memory_order_relaxed);
}

static enum err put_mark(struct trn_told *t)
{
    t->n_put++;
    return t->dev->mark(t->dev->user, (int32_t)(t->n_put % TRN_DEVICE_MARKS));
}

void trn_told_begin(struct trn_told *t, const char *op, int64_t timeout_us)
{
    if (!t->recording) begun(t, 1, op, timeout_us);
}

enum err trn_told_end(struct trn_told *t)
{
    if (t->recording) return OK;
    enum err rc = put_mark(t);
    return !rc && t->wait ? await(t, t->op, t->timeout_us) : rc;
}

void trn_told_record(struct trn_coll *c, bool on) { of(c)->recording = on; }

enum err trn_told_replayed(struct trn_coll *c, uint64_t n_ops, int64_t timeout_us)
{
    begun(of(c), n_ops, "all_reduce", timeout_us);
    return put_mark(of(c));
}

/* ---- by the host ---- */

static enum err bounce(struct trn_told *t, int64_t bytes)
{
    if (bytes <= t->bounce_bytes) return OK;
    void *p = malloc((size_t)bytes);
    if (!p) return err_raise(ERR_NO_MEMORY, "%s: no %lld bytes for a message", t->base.ops->name, (long long)bytes);
    free(t->bounce);
    t->bounce = p;
    t->bounce_bytes = bytes;
    return OK;
}

enum err trn_told_send(struct trn_coll *c, int32_t to, const void *data, int64_t bytes, int64_t timeout_us)
{
    enum err rc;
    struct trn_told *t = of(c);
    TRY(bounce(t, bytes));
    if (bytes) TRY(t->dev->download(t->dev->user, t->bounce, data, bytes));
    TRY(trn_coll_send(t->host, to, t->bounce, bytes, timeout_us));
out:
    return rc;
}

enum err trn_told_recv(struct trn_coll *c, int32_t from, void *data, int64_t bytes, int64_t timeout_us)
{
    enum err rc;
    struct trn_told *t = of(c);
    TRY(bounce(t, bytes));
    TRY(trn_coll_recv(t->host, from, t->bounce, bytes, timeout_us));
    if (bytes) TRY(t->dev->upload(t->dev->user, data, t->bounce, bytes));
    if (bytes && t->wait) TRY(t->dev->download(t->dev->user, t->bounce, data, 0));
out:
    return rc;
}

/* Everybody's device is done and everybody is here. */
enum err trn_told_barrier(struct trn_coll *c, int64_t timeout_us)
{
    struct trn_told *t = of(c);
    enum err rc = await(t, "barrier", timeout_us);
    return rc ? rc : trn_coll_barrier(t->host, timeout_us);
}

int32_t trn_told_waits_for(const struct trn_coll *c)
{
    int32_t r = trn_coll_now(((const struct trn_told *)c)->host).waiting_for;
    return r >= 0 ? r : atomic_load_explicit(&c->now_rank, memory_order_relaxed);
}

/* ---- open and close ---- */

/* Nobody counts before all have cleared. */
enum err trn_told_open(struct trn_told *t, int64_t timeout_us)
{
    t->board = trn_coll_board(t->host);
    if (t->board) atomic_store(&t->board[t->base.rank], 0);
    return trn_coll_barrier(t->host, timeout_us);
}

void trn_told_close(struct trn_told *t) { free(t->bounce); }
