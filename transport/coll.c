/* coll.c: the wrappers of coll.h: check, count, remember the first failure; an all_reduce for those
 * who have none.
 *
 * A call refused for its arguments leaves the communicator usable (no peer saw it); a failure
 * inside an operation does not: the ranks no longer agree on what comes next. */
#include "transport/coll.h"

#include "base/clock.h"
#include "transport/coll_impl.h"
#include "transport/coll_reduce.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { P2P, COLLECTIVE };
static const int64_t LONGEST_US = (int64_t)365 * 24 * 3600 * 1000000;

static enum err enter(struct trn_coll *c, const char *op, int kind, int64_t *timeout_us)
{
    if (c->broken)
        return err_raise(c->broken, "%s %s refused, this communicator failed before: %s",
                         c->ops->name, op, c->why);
    *timeout_us = CLAMP(*timeout_us, 0, LONGEST_US);
    c->stats.n_ops++;
    if (kind == COLLECTIVE) c->seq++;
    atomic_store_explicit(&c->now_seq, kind == COLLECTIVE ? c->seq : c->stats.n_ops,
                          memory_order_relaxed);
    atomic_store_explicit(&c->now_since_us, clock_us(), memory_order_relaxed);
    atomic_store_explicit(&c->now_op, op, memory_order_relaxed);
    return OK;
}

static enum err leave(struct trn_coll *c, enum err rc, int64_t sent)
{
    int64_t since = atomic_load_explicit(&c->now_since_us, memory_order_relaxed);
    c->stats.wait_us += (uint64_t)(clock_us() - since);
    if (!rc) {
        c->stats.bytes_sent = c->ops->sent ? c->ops->sent(c) : c->stats.bytes_sent + (uint64_t)sent;
        atomic_store_explicit(&c->now_op, NULL, memory_order_relaxed);
        atomic_store_explicit(&c->now_rank, -1, memory_order_relaxed);
        return OK;
    }
    if (c->ops->waits_for) /* the parts number their ranks in their own way */
        (void)err_prefix(rc, "%s %s #%" PRIu64 ", rank %d", c->ops->name,
                         atomic_load_explicit(&c->now_op, memory_order_relaxed),
                         atomic_load_explicit(&c->now_seq, memory_order_relaxed), c->ops->waits_for(c));
    c->broken =
        rc; /* now_* stay as they were: the heartbeat goes on naming the operation that failed */
    snprintf(c->why, sizeof c->why, "%s", err_text());
    return rc;
}

static enum err check_bytes(const struct trn_coll *c, const char *op, int64_t bytes)
{
    if (bytes >= 0) return OK;
    return err_raise(ERR_BAD_CONFIG, "%s %s: %" PRId64 " bytes asked, at least 0 needed",
                     c->ops->name, op, bytes);
}

static enum err check_peer(const struct trn_coll *c, const char *op, int32_t peer)
{
    if (peer >= 0 && peer < c->size && peer != c->rank) return OK;
    return err_raise(ERR_BAD_CONFIG, "%s %s: rank %d names rank %d, another one of 0..%d needed",
                     c->ops->name, op, c->rank, peer, c->size - 1);
}

static enum err check_cut(const struct trn_coll *c, const struct coll_cut *cut)
{
    if (cut->n_leaf < 1 || cut->n_leaf > TREE_MAX_LEAF)
        return err_raise(ERR_BAD_CONFIG, "%s all_reduce: a cut of %d leaves, 1..%d needed",
                         c->ops->name, cut->n_leaf, TREE_MAX_LEAF);
    for (int32_t r = 0; r < c->size; r++)
        if (cut->bounds[r] > cut->bounds[r + 1])
            return err_raise(ERR_BAD_CONFIG,
                             "%s all_reduce: the cut gives rank %d leaves %d..%d, ascending needed",
                             c->ops->name, r, cut->bounds[r], cut->bounds[r + 1]);
    if (cut->bounds[0] != 0 || cut->bounds[c->size] != cut->n_leaf)
        return err_raise(ERR_BAD_CONFIG,
                         "%s all_reduce: the cut covers leaves %d..%d, 0..%d needed", c->ops->name,
                         cut->bounds[0], cut->bounds[c->size], cut->n_leaf);
    return OK;
}

static enum err reserve_scratch(struct trn_coll *c, int64_t bytes)
{
    if (bytes <= c->scratch_bytes) return OK;
    void *p = malloc((size_t)bytes);
    if (!p)
        return err_raise(ERR_NO_MEMORY, "%s all_reduce: no %" PRId64 " bytes for the parts",
                         c->ops->name, bytes);
    free(c->scratch);
    c->scratch = p;
    c->scratch_bytes = bytes;
    return OK;
}

static enum err reduce_gathered(struct trn_coll *c, const struct trn_reduce *plan,
                                const float *mine, float *out, int64_t n, int64_t timeout_us)
{
    int64_t bytes[COLL_MAX_RANKS];
    const float *part[TREE_MAX_LEAF];
    enum err rc = reserve_scratch(c, plan->n_parts * n * (int64_t)sizeof *out);
    if (rc) return rc;
    for (int32_t r = 0; r < c->size; r++)
        bytes[r] = trn_reduce_count(plan, r) * n * (int64_t)sizeof *out;
    rc = c->ops->all_gather(c, mine, bytes, c->scratch, timeout_us);
    if (rc) return rc;
    for (int32_t i = 0; i < plan->n_parts; i++) part[i] = (const float *)c->scratch + i * n;
    trn_reduce_run(plan, part, out, n);
    return OK;
}

enum err trn_coll_all_reduce(struct trn_coll *c, const struct coll_cut *cut, const float *mine,
                             float *out, int64_t n, int64_t timeout_us)
{
    enum err rc = check_cut(c, cut);
    if (!rc) rc = check_bytes(c, "all_reduce", n);
    if (!rc) rc = enter(c, "all_reduce", COLLECTIVE, &timeout_us);
    if (rc) return rc;
    if (c->ops->all_reduce) {
        rc = c->ops->all_reduce(c, cut, mine, out, n, timeout_us);
    } else {
        struct trn_reduce plan;
        trn_reduce_plan(&plan, cut, c->size);
        rc = reduce_gathered(c, &plan, mine, out, n, timeout_us);
    }
    struct tree_node parts[TREE_MAX_NODES];
    int32_t n_mine =
        tree_maximal(cut->n_leaf, cut->bounds[c->rank], cut->bounds[c->rank + 1], parts);
    return leave(c, rc, c->size > 1 ? n_mine * n * (int64_t)sizeof *out : 0);
}

enum err trn_coll_all_gather(struct trn_coll *c, const void *mine, const int64_t bytes[], void *all,
                             int64_t timeout_us)
{
    enum err rc = OK;
    for (int32_t r = 0; r < c->size && !rc; r++) rc = check_bytes(c, "all_gather", bytes[r]);
    if (!rc) rc = enter(c, "all_gather", COLLECTIVE, &timeout_us);
    if (rc) return rc;
    return leave(c, c->ops->all_gather(c, mine, bytes, all, timeout_us),
                 c->size > 1 ? bytes[c->rank] : 0);
}

enum err trn_coll_broadcast(struct trn_coll *c, void *data, int64_t bytes, int32_t root,
                            int64_t timeout_us)
{
    enum err rc = check_bytes(c, "broadcast", bytes);
    if (!rc && (root < 0 || root >= c->size))
        rc = err_raise(ERR_BAD_CONFIG, "%s broadcast: root %d, one of 0..%d needed", c->ops->name,
                       root, c->size - 1);
    if (!rc) rc = enter(c, "broadcast", COLLECTIVE, &timeout_us);
    if (rc) return rc;
    return leave(c, c->ops->broadcast(c, data, bytes, root, timeout_us),
                 c->size > 1 && root == c->rank ? bytes : 0);
}

enum err trn_coll_send(struct trn_coll *c, int32_t to, const void *data, int64_t bytes,
                       int64_t timeout_us)
{
    enum err rc = check_peer(c, "send", to);
    if (!rc) rc = check_bytes(c, "send", bytes);
    if (!rc) rc = enter(c, "send", P2P, &timeout_us);
    if (rc) return rc;
    return leave(c, c->ops->send(c, to, data, bytes, timeout_us), bytes);
}

enum err trn_coll_recv(struct trn_coll *c, int32_t from, void *data, int64_t bytes,
                       int64_t timeout_us)
{
    enum err rc = check_peer(c, "recv", from);
    if (!rc) rc = check_bytes(c, "recv", bytes);
    if (!rc) rc = enter(c, "recv", P2P, &timeout_us);
    if (rc) return rc;
    return leave(c, c->ops->recv(c, from, data, bytes, timeout_us), 0);
}

enum err trn_coll_barrier(struct trn_coll *c, int64_t timeout_us)
{
    enum err rc = enter(c, "barrier", COLLECTIVE, &timeout_us);
    if (rc) return rc;
    return leave(c, c->ops->barrier(c, timeout_us), 0);
}

enum err trn_coll_poll(struct trn_coll *c)
{
    if (!c->ops->poll || c->broken) return c->broken;
    enum err rc = c->ops->poll(c);
    if (!rc) return OK;
    c->broken = rc;
    snprintf(c->why, sizeof c->why, "%s", err_text());
    return rc;
}

bool trn_coll_records(const struct trn_coll *c) { return c->ops->record != NULL; }

void trn_coll_record_begin(struct trn_coll *c)
{
    c->recorded = c->stats;
    c->ops->record(c, true);
}

void trn_coll_record_end(struct trn_coll *c, struct coll_stats *r)
{
    c->ops->record(c, false);
    *r = (struct coll_stats){.n_ops = c->stats.n_ops - c->recorded.n_ops, .bytes_sent = c->stats.bytes_sent - c->recorded.bytes_sent};
    c->stats = c->recorded;
    c->seq -= r->n_ops;
}

enum err trn_coll_replayed(struct trn_coll *c, const struct coll_stats *r, int64_t timeout_us)
{
    if (c->broken) return err_raise(c->broken, "%s refused, this communicator failed before: %s", c->ops->name, c->why);
    c->stats.n_ops += r->n_ops;
    c->stats.bytes_sent += r->bytes_sent;
    c->seq += r->n_ops;
    return c->ops->replayed(c, r->n_ops, timeout_us);
}

bool trn_coll_push(struct trn_coll *c) { return c->ops->push && !c->broken && c->ops->push(c); }

bool trn_coll_has(struct trn_coll *c, int32_t from) { return c->ops->has && !c->broken && c->ops->has(c, from); }

_Atomic uint64_t *trn_coll_board(struct trn_coll *c) { return c->ops->board ? c->ops->board(c) : NULL; }

void trn_coll_close(struct trn_coll *c)
{
    if (!c) return;
    free(c->scratch);
    c->scratch = NULL;
    c->ops->close(c);
}

struct trn_coll_now trn_coll_now(struct trn_coll *c)
{
    return (struct trn_coll_now){
        .op = atomic_load_explicit(&c->now_op, memory_order_relaxed),
        .seq = atomic_load_explicit(&c->now_seq, memory_order_relaxed),
        .since_us = atomic_load_explicit(&c->now_since_us, memory_order_relaxed),
        .waiting_for = c->ops->waits_for ? c->ops->waits_for(c) : atomic_load_explicit(&c->now_rank, memory_order_relaxed),
    };
}

void trn_coll_reduce_parts(const struct coll_cut *cut, int32_t size, const float *parts, float *out,
                           int64_t n)
{
    struct trn_reduce plan;
    const float *part[TREE_MAX_LEAF];
    trn_reduce_plan(&plan, cut, size);
    for (int32_t i = 0; i < plan.n_parts; i++) part[i] = parts + i * n;
    trn_reduce_run(&plan, part, out, n);
}

static const char *what(struct trn_coll *c, char *text, size_t n)
{
    snprintf(text, n, "%s %s #%" PRIu64, c->ops->name,
             atomic_load_explicit(&c->now_op, memory_order_relaxed),
             atomic_load_explicit(&c->now_seq, memory_order_relaxed));
    return text;
}

enum err trn_coll_late(struct trn_coll *c, int32_t rank, int64_t timeout_us)
{
    char t[80];
    return err_raise(ERR_DEADLINE, "%s: rank %d has not arrived within %.3g s",
                     what(c, t, sizeof t), rank, (double)timeout_us / 1e6);
}

enum err trn_coll_lost(struct trn_coll *c, int32_t rank, const char *how)
{
    char t[80];
    return err_raise(ERR_PEER_LOST, "%s: rank %d is lost (%s)", what(c, t, sizeof t), rank, how);
}

enum err trn_coll_wrong_length(struct trn_coll *c, int32_t rank, int64_t seen, int64_t expected)
{
    char t[80];
    if (seen < 0)
        return err_raise(ERR_LINK_PROTOCOL,
                         "%s: rank %d sent more than the %" PRId64 " bytes that were expected",
                         what(c, t, sizeof t), rank, expected);
    return err_raise(ERR_LINK_PROTOCOL,
                     "%s: rank %d sent %" PRId64 " bytes where %" PRId64 " were expected",
                     what(c, t, sizeof t), rank, seen, expected);
}
