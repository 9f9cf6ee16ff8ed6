/* coll_packed.c: all_reduce with fewer bytes, over another communicator. See coll_open.h for what it costs.
 *
 * Every rank adds what arrived in the order of ranks, its own part as the others see it; so all end with the same bits. Small
 * vectors go to everybody at once; of large ones each rank adds a slice and gives its sum, packed again, to all. Where vectors lie on a device it
 * packs what leaves and adds what came (trn_coll_packed_lend); what ranks add for others is added on the host. */
#include "transport/coll_open.h"

#include "transport/coll_impl.h"
#include "transport/coll_pass.h"
#include "transport/wire_type.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { ONE_SHOT_BYTES = 65536 };
static const int64_t CHUNK_FLOATS = (int64_t)1 << 22;

struct packed {
    struct trn_pass pass; /* first */
    enum trn_wire_type type;
    const struct trn_device *dev; /* in whose memory vectors lie, or NULL; borrowed, with its room */
    uint8_t *room;           /* packed: mine, and what came */
    float *sum;              /* this rank's parts added up; then its slice of the sum */
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
    const float *mine;
    int32_t n_mine; /* parts, n values each */
    float *out;
    int64_t n, timeout_us;
};

static bool adds(const struct job *j, int32_t r) { return j->cut->bounds[r + 1] > j->cut->bounds[r]; }

/* packed[r] of every rank that adds something: x = their sum, in the order of ranks. */
static void sum_up(const struct job *j, const uint8_t *all, int64_t stride, int64_t n, float *x)
{
    memset(x, 0, (size_t)n * sizeof *x);
    for (int32_t r = 0; r < j->p->pass.base.size; r++) {
        if (!adds(j, r)) continue;
        trn_wire_add(j->p->type, all, n, x);
        all += stride;
    }
}

/* Elements [lo, lo + len) of this rank's parts, added and packed, into p->mine. */
static enum err pack(const struct job *j, int64_t lo, int64_t len)
{
    enum err rc = OK;
    struct packed *p = j->p;
    int64_t bytes = trn_wire_bytes(p->type, len);
    TRY(reserve(&p->mine, &p->mine_cap, bytes));
    TRY(reserve(&p->sum, &p->sum_cap, len * (int64_t)sizeof *p->sum));
    if (p->dev && j->n_mine) {
        struct wire_pack a = {p->type == TRN_WIRE_Q8, j->mine + lo, j->n, len, j->n_mine, p->room};
        TRY(p->dev->pack(p->dev->user, &a));
        TRY(p->dev->download(p->dev->user, p->mine, p->room, bytes));
    } else if (j->n_mine) {
        for (int32_t i = 0; i < j->n_mine; i++)
            for (int64_t e = 0; e < len; e++) p->sum[e] = i ? p->sum[e] + j->mine[i * j->n + lo + e] : j->mine[lo + e];
        trn_wire_pack(p->type, p->sum, len, p->mine);
    }
out:
    return rc;
}

/* out on the device: n_parts of p->all added, stride bytes apart; 0: the one there is. */
static enum err unpack_there(const struct job *j, int64_t lo, int64_t len, int32_t n_parts, int64_t stride)
{
    enum err rc;
    struct packed *p = j->p;
    uint8_t *at = p->room + trn_wire_bytes(p->type, CHUNK_FLOATS);
    struct wire_unpack a = {p->type == TRN_WIRE_Q8, at, stride, len, n_parts, j->out + lo};
    TRY(p->dev->upload(p->dev->user, at, p->all, n_parts ? n_parts * stride : trn_wire_bytes(p->type, len)));
    rc = p->dev->unpack(p->dev->user, &a);
out:
    return rc;
}

static enum err one_shot(const struct job *j, int64_t lo, int64_t len)
{
    enum err rc;
    struct packed *p = j->p;
    int64_t size = trn_wire_bytes(p->type, len), bytes[COLL_MAX_RANKS], sum = 0;
    int32_t who = 0;
    for (int32_t r = 0; r < p->pass.base.size; r++) who += adds(j, r), sum += bytes[r] = adds(j, r) ? size : 0;
    TRY(reserve(&p->all, &p->all_cap, sum));
    TRY(trn_coll_all_gather(p->pass.inner, p->mine, bytes, p->all, j->timeout_us));
    if (p->dev) return unpack_there(j, lo, len, who, size);
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
    int32_t me = p->pass.base.rank, size = p->pass.base.size;
    struct slice own = slice_of(len, size, me);
    int64_t part = trn_wire_bytes(p->type, own.len), bytes[COLL_MAX_RANKS];
    TRY(reserve(&p->all, &p->all_cap, MAX(size * part, trn_wire_bytes(p->type, len) + size)));
    for (int32_t i = 1; i < size && adds(j, me); i++) {
        struct slice his = slice_of(len, size, (me + i) % size);
        if (his.len)
            TRY(trn_coll_send(p->pass.inner, (me + i) % size, p->mine + trn_wire_bytes(p->type, his.lo), trn_wire_bytes(p->type, his.len), j->timeout_us));
    }
    for (int32_t r = 0, k = 0; r < size && own.len; r++) {
        if (!adds(j, r)) continue;
        uint8_t *to = p->all + part * k++;
        if (r == me) memcpy(to, p->mine + trn_wire_bytes(p->type, own.lo), (size_t)part);
        else TRY(trn_coll_recv(p->pass.inner, r, to, part, j->timeout_us));
    }
    sum_up(j, p->all, part, own.len, p->sum);
    trn_wire_pack(p->type, p->sum, own.len, p->mine);
    for (int32_t r = 0; r < size; r++) bytes[r] = trn_wire_bytes(p->type, slice_of(len, size, r).len);
    TRY(trn_coll_all_gather(p->pass.inner, p->mine, bytes, p->all, j->timeout_us));
    /* slices are whole blocks, so side by side they are the vector's */
    if (p->dev) return unpack_there(j, lo, len, 0, 0);
    trn_wire_unpack(p->type, p->all, len, j->out + lo);
out:
    return rc;
}

static enum err packed_all_reduce(struct trn_coll *c, const struct coll_cut *cut, const float *mine, float *out, int64_t n, int64_t timeout_us)
{
    enum err rc = OK;
    struct packed *p = of(c);
    struct tree_node nodes[TREE_MAX_NODES];
    struct job j = {.p = p, .cut = cut, .mine = mine, .out = out, .n = n, .timeout_us = timeout_us,
                    .n_mine = tree_maximal(cut->n_leaf, cut->bounds[c->rank], cut->bounds[c->rank + 1], nodes)};
    int32_t who = 0;
    for (int32_t r = 0; r < c->size; r++) who += adds(&j, r);
    for (int64_t lo = 0; lo < n; lo += CHUNK_FLOATS) {
        int64_t len = MIN(n - lo, CHUNK_FLOATS), bytes = trn_wire_bytes(p->type, len);
        TRY(pack(&j, lo, len));
        if (who <= 2 || who * bytes <= ONE_SHOT_BYTES) TRY(one_shot(&j, lo, len));
        else TRY(two_phase(&j, lo, len));
    }
out:
    return rc;
}

/* ---- everything else ---- */

static void packed_close(struct trn_coll *c)
{
    struct packed *p = of(c);
    trn_coll_close(p->pass.inner);
    free(p->sum);
    free(p->mine);
    free(p->all);
    free(p);
}

static uint64_t packed_sent(const struct trn_coll *c) { return ((const struct packed *)c)->pass.inner->stats.bytes_sent; }

#define OPS(n)                                                                                                                              \
    {                                                                                                                                       \
        .name = n, .all_gather = trn_pass_all_gather, .broadcast = trn_pass_broadcast, .send = trn_pass_send, .recv = trn_pass_recv, \
        .barrier = trn_pass_barrier, .close = packed_close, .all_reduce = packed_all_reduce, .waits_for = trn_pass_waits_for, \
        .sent = packed_sent                                                                                                                 \
    }
static const struct trn_coll_ops packed_ops[TRN_WIRE_TYPES] = {[TRN_WIRE_F32] = OPS("f32"), [TRN_WIRE_F16] = OPS("f16"), [TRN_WIRE_Q8] = OPS("q8")};

static bool is_packed(const struct trn_coll *c) { return c && c->ops >= packed_ops && c->ops < packed_ops + TRN_WIRE_TYPES; }

/* What is packed here; and the two of a pair, or all of a short one: at most two vectors, or so many bytes. */
int64_t trn_coll_packed_room(const struct trn_coll *c)
{
    return is_packed(c) ? 3 * trn_wire_bytes(((const struct packed *)c)->type, CHUNK_FLOATS) + ONE_SHOT_BYTES : 0;
}

void trn_coll_packed_lend(struct trn_coll *c, const struct trn_device *dev, void *room)
{
    ASSERT(is_packed(c));
    of(c)->dev = dev;
    of(c)->room = room;
}

enum err trn_coll_packed_open(struct trn_coll **out, struct trn_coll *inner, enum trn_wire_type t)
{
    ASSERT(t < TRN_WIRE_TYPES);
    struct packed *p = xcalloc(1, sizeof *p);
    p->pass.base = (struct trn_coll){.ops = &packed_ops[t], .rank = inner->rank, .size = inner->size, .now_rank = -1};
    p->pass.inner = inner;
    p->type = t;
    *out = &p->pass.base;
    return OK;
}
