/* coll_packed.c: all_reduce with fewer bytes, over another communicator. See coll_open.h for what it costs.
 *
 * Every rank adds what arrived in the order of ranks, its own part as the others see it; so all end with the same bits. Small
 * vectors go to everybody at once; of large ones each rank adds a slice and gives its sum, packed again, to all. */
#include "transport/coll_open.h"

#include "transport/coll_impl.h"
#include "transport/wire_type.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { ONE_SHOT_BYTES = 65536 };
static const int64_t CHUNK_FLOATS = (int64_t)1 << 22;

struct packed {
    struct trn_coll base;
    struct trn_coll *inner;
    enum trn_wire_type type;
    float *sum;              /* this rank's parts added up */
    uint8_t *mine, *all;     /* packed */
    int64_t sum_cap, mine_cap, all_cap; /* bytes */
};

static struct packed *of(struct trn_coll *c) { return (struct packed *)c; }

static enum err reserve(void *pp, int64_t *cap, int64_t bytes)
{
    void **p = pp;
    if (bytes <= *cap) return OK;
    void *q = malloc((size_t)bytes);
    if (!q) return err_raise(ERR_NO_MEMORY, "packed all_reduce: no %lld bytes", (long long)bytes);
    free(*p);
    *p = q;
    *cap = bytes;
    return OK;
}

struct job {
    struct packed *p;
    const struct coll_cut *cut;
    float *out;
    int64_t timeout_us;
};

static bool adds(const struct job *j, int32_t r) { return j->cut->bounds[r + 1] > j->cut->bounds[r]; }

/* packed[r] of every rank that adds something: x = their sum, in the order of ranks. */
static void sum_up(const struct job *j, const uint8_t *all, int64_t stride, int64_t n, float *x)
{
    memset(x, 0, (size_t)n * sizeof *x);
    for (int32_t r = 0; r < j->p->base.size; r++) {
        if (!adds(j, r)) continue;
        trn_wire_add(j->p->type, all, n, x);
        all += stride;
    }
}

static enum err one_shot(const struct job *j, int64_t lo, int64_t len)
{
    enum err rc;
    struct packed *p = j->p;
    int64_t size = trn_wire_bytes(p->type, len), bytes[COLL_MAX_RANKS], sum = 0;
    for (int32_t r = 0; r < p->base.size; r++) sum += bytes[r] = adds(j, r) ? size : 0;
    TRY(reserve(&p->all, &p->all_cap, sum));
    TRY(trn_coll_all_gather(p->inner, p->mine, bytes, p->all, j->timeout_us));
    sum_up(j, p->all, size, len, j->out + lo);
out:
    return rc;
}

struct slice { int64_t lo, len; };
static struct slice slice_of(int64_t len, int32_t size, int32_t r)
{
    int64_t w = ROUND_UP(DIV_UP(len, size), WIRE_BLOCK), a = MIN(r * w, len), b = MIN((r + 1) * w, len);
    return (struct slice){a, b - a};
}

static enum err two_phase(const struct job *j, int64_t lo, int64_t len)
{
    enum err rc;
    struct packed *p = j->p;
    int32_t me = p->base.rank, size = p->base.size;
    struct slice own = slice_of(len, size, me);
    int64_t part = trn_wire_bytes(p->type, own.len), bytes[COLL_MAX_RANKS];
    TRY(reserve(&p->all, &p->all_cap, MAX(size * part, trn_wire_bytes(p->type, len) + size)));
    for (int32_t i = 1; i < size && adds(j, me); i++) {
        struct slice his = slice_of(len, size, (me + i) % size);
        if (his.len)
            TRY(trn_coll_send(p->inner, (me + i) % size, p->mine + trn_wire_bytes(p->type, his.lo), trn_wire_bytes(p->type, his.len), j->timeout_us));
    }
    for (int32_t r = 0, k = 0; r < size && own.len; r++) {
        if (!adds(j, r)) continue;
        uint8_t *to = p->all + part * k++;
        if (r == me) memcpy(to, p->mine + trn_wire_bytes(p->type, own.lo), (size_t)part);
        else TRY(trn_coll_recv(p->inner, r, to, part, j->timeout_us));
    }
    float *x = j->out + lo;
    sum_up(j, p->all, part, own.len, x + own.lo);
    trn_wire_pack(p->type, x + own.lo, own.len, p->mine);
    for (int32_t r = 0; r < size; r++) bytes[r] = trn_wire_bytes(p->type, slice_of(len, size, r).len);
    TRY(trn_coll_all_gather(p->inner, p->mine, bytes, p->all, j->timeout_us));
    const uint8_t *at = p->all;
    for (int32_t r = 0; r < size; at += bytes[r++]) {
        struct slice his = slice_of(len, size, r);
        trn_wire_unpack(p->type, at, his.len, x + his.lo);
    }
out:
    return rc;
}

static enum err packed_all_reduce(struct trn_coll *c, const struct coll_cut *cut, const float *mine, float *out, int64_t n, int64_t timeout_us)
{
    enum err rc = OK;
    struct packed *p = of(c);
    struct job j = {p, cut, out, timeout_us};
    struct tree_node nodes[TREE_MAX_NODES];
    int32_t k = tree_maximal(cut->n_leaf, cut->bounds[c->rank], cut->bounds[c->rank + 1], nodes), who = 0;
    for (int32_t r = 0; r < c->size; r++) who += adds(&j, r);
    for (int64_t lo = 0; lo < n; lo += CHUNK_FLOATS) {
        int64_t len = MIN(n - lo, CHUNK_FLOATS), bytes = trn_wire_bytes(p->type, len);
        TRY(reserve(&p->sum, &p->sum_cap, len * (int64_t)sizeof *p->sum));
        TRY(reserve(&p->mine, &p->mine_cap, bytes));
        for (int32_t i = 0; i < k; i++)
            for (int64_t e = 0; e < len; e++) p->sum[e] = i ? p->sum[e] + mine[i * n + lo + e] : mine[lo + e];
        if (k) trn_wire_pack(p->type, p->sum, len, p->mine);
        if (who <= 2 || who * bytes <= ONE_SHOT_BYTES) TRY(one_shot(&j, lo, len));
        else TRY(two_phase(&j, lo, len));
    }
out:
    return rc;
}

/* ---- everything else ---- */

static enum err packed_all_gather(struct trn_coll *c, const void *mine, const int64_t bytes[], void *all, int64_t timeout_us)
{
    return trn_coll_all_gather(of(c)->inner, mine, bytes, all, timeout_us);
}
static enum err packed_broadcast(struct trn_coll *c, void *data, int64_t bytes, int32_t root, int64_t timeout_us)
{
    return trn_coll_broadcast(of(c)->inner, data, bytes, root, timeout_us);
}
static enum err packed_send(struct trn_coll *c, int32_t to, const void *data, int64_t bytes, int64_t timeout_us)
{
    return trn_coll_send(of(c)->inner, to, data, bytes, timeout_us);
}
static enum err packed_recv(struct trn_coll *c, int32_t from, void *data, int64_t bytes, int64_t timeout_us)
{
    return trn_coll_recv(of(c)->inner, from, data, bytes, timeout_us);
}
static enum err packed_barrier(struct trn_coll *c, int64_t timeout_us) { return trn_coll_barrier(of(c)->inner, timeout_us); }

static void packed_close(struct trn_coll *c)
{
    struct packed *p = of(c);
    trn_coll_close(p->inner);
    free(p->sum);
    free(p->mine);
    free(p->all);
    free(p);
}

static int32_t packed_waits_for(const struct trn_coll *c) { return trn_coll_now(((const struct packed *)c)->inner).waiting_for; }
static uint64_t packed_sent(const struct trn_coll *c) { return ((const struct packed *)c)->inner->stats.bytes_sent; }

#define OPS(n)                                                                                                                              \
    {                                                                                                                                       \
        .name = n, .all_gather = packed_all_gather, .broadcast = packed_broadcast, .send = packed_send, .recv = packed_recv,                \
        .barrier = packed_barrier, .close = packed_close, .all_reduce = packed_all_reduce, .waits_for = packed_waits_for,                   \
        .sent = packed_sent                                                                                                                 \
    }
static const struct trn_coll_ops packed_ops[TRN_WIRE_TYPES] = {[TRN_WIRE_F32] = OPS("f32"), [TRN_WIRE_F16] = OPS("f16"), [TRN_WIRE_Q8] = OPS("q8")};

enum err trn_coll_packed_open(struct trn_coll **out, struct trn_coll *inner, enum trn_wire_type t)
{
    ASSERT(t < TRN_WIRE_TYPES);
    struct packed *p = xcalloc(1, sizeof *p);
    p->base = (struct trn_coll){.ops = &packed_ops[t], .rank = inner->rank, .size = inner->size, .now_rank = -1};
    p->inner = inner;
    p->type = t;
    *out = &p->base;
    return OK;
}
