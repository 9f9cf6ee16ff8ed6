/* attention_walk.h: the loops around vector attention: items, tiles of queries, splits, merges.
 * Internal to kernels. Static, because every folder compiles it with its own flags.
 *
 * A tile is up to KRN_ATTN_ROWS query rows that read the same keys: the heads of one group, of one
 * token or of several tokens that follow each other in a sequence. Row r of a tile is head
 * r % group of token r / group, so later rows see more keys. Scores are computed for all keys that
 * the last row sees; what a row may not see is masked out of its maximum and its sum, and never
 * enters its chain of values: the keys common to all rows go first, each token's own rest after.
 * With a window later rows also begin later (in chunks: now and then). What lies before a row's window gets the weight 0, which
 * changes neither its sum nor its chain of values; a split is walked from the first block that its
 * first row sees, and rows that see nothing of it take no part.
 *
 * Latent heads keep values among their keys, where the positions of a block are neighbours and the
 * values of a position are not. They are widened and turned round, a stripe of KRN_ATTN_STRIPE values
 * of all keys of a split at a time: 32 KiB that stay in the first-level cache while every row of the
 * tile goes over them. */
#ifndef ENGINE_KERNELS_ATTENTION_WALK_H
#define ENGINE_KERNELS_ATTENTION_WALK_H

#include "base/base.h"
#include "engine/kernels/kv_block.h"
#include "engine/kernels/leaf_walk.h"
#include "engine/kernels/math.h"
#include "engine/kernels/table.h"

#include <float.h>

enum {
    KRN_ATTN_BLOCKS = KRN_ATTN_SPLIT / KRN_KV_BLOCK,
    KRN_ATTN_AHEAD = 4, /* blocks that a kernel may prefetch before it reads them */
};

/* One split of a tile. */
struct krn_attn_tile {
    /* Where this kv head begins in each block; after the last one, what will be read next. */
    const uint8_t *k[KRN_ATTN_BLOCKS + KRN_ATTN_AHEAD], *v[KRN_ATTN_BLOCKS + KRN_ATTN_AHEAD];
    enum kv_type type;
    int32_t dim, n_rows;
    int32_t o_stride; /* floats from one row of outputs to the next */
    int32_t n_keys;  /* from where the walk begins, that the last row sees */
    const float *qs; /* [dim][n_rows]: queries times scale */
    float *p;        /* [n_rows][KRN_ATTN_STRIDE]: scores, then weights */
};

struct krn_attn_kernel {
    /* Scores of rows [r0, n_rows) against all keys; lanes past n_keys are undefined. */
    void (*scores)(const struct krn_attn_tile *s, int32_t r0);
    /* Scores to exp(score - m) in place; keys past n_keys get 0 up to a whole block. */
    void (*softmax)(float *p, int32_t n_keys, float *m, float *l);
    /* o[r] = sum over keys [j0,j1) of p V for rows [r0,r1), dim values at o + r * o_stride. The chain
     * begins at +0 when j0 is 0, else at o. */
    void (*values)(const struct krn_attn_tile *s, int32_t r0, int32_t r1, int32_t j0, int32_t j1,
                   float *o);
    /* out = fma(out, a, o * b) */
    void (*blend)(float *out, const float *o, float a, float b, int32_t dim);
    void (*softcap)(float *x, float cap, int64_t n); /* the table's */
    /* out[j][i] = element d + i of position j, i < n <= KRN_ATTN_STRIPE, of a block of keys; d is a
     * multiple of KRN_ATTN_STRIPE. */
    void (*turn)(enum kv_type type, const uint8_t *block, int32_t dim, int32_t d, int32_t n, float *out);
};
_Static_assert((int)KRN_ATTN_STRIPE == (int)KV_UNIT, "a stripe has one scale");

/* A tile's tokens [t0, t0 + n_tok) of one kv head, and its share of the scratch. */
struct krn_attn_job {
    const struct krn_attention *a;
    const struct krn_attn_kernel *kernel;
    struct krn_attn_tile tile;
    int32_t kv_head, t0, n_tok, group;
    int32_t values; /* of a head */
    float *qs, *o, *out, *m, *l, *big_m, *big_l, *stripe;
};

static void krn_attn_blocks(struct krn_attn_job *j, int32_t j0)
{
    const struct krn_kv *kv = j->a->kv;
    const int32_t *table = j->a->table[j->t0];
    struct krn_attn_tile *s = &j->tile;
    int64_t size = KRN_KV_BLOCK * kv_row_bytes(kv->type, kv->head_dim);
    int32_t last = j->a->pos[j->t0 + j->n_tok - 1] / KRN_KV_BLOCK, b0 = j0 / KRN_KV_BLOCK;
    int32_t n = DIV_UP(s->n_keys, KRN_KV_BLOCK);
    for (int32_t b = 0; b < n + KRN_ATTN_AHEAD; b++) {
        int64_t at = ((int64_t)table[MIN(b0 + b, last)] * kv->n_kv + j->kv_head) * size;
        const uint8_t *v = kv->v_dim ? kv->k : kv->v;
        if (b < n) s->k[b] = (const uint8_t *)kv->k + at, s->v[b] = v + at;
        else s->k[b] = s->v[b - n], s->v[b] = (const uint8_t *)kv->k + at;
    }
}

/* Queries of the tile, times scale, one column per row. */
static void krn_attn_queries(struct krn_attn_job *j)
{
    int32_t dim = j->tile.dim, n = j->tile.n_rows;
    for (int32_t r = 0; r < n; r++) {
        const float *q = krn_attention_q(j->a, j->t0 + r / j->group, j->kv_head * j->group + r % j->group);
        for (int32_t d = 0; d < dim; d++) j->qs[(int64_t)d * n + r] = q[d] * j->a->scale;
    }
}

/* Rows [r0,r1) of a tile at the split [j0, j0 + KRN_ATTN_SPLIT), walked from key `from` on. */
struct krn_attn_part {
    int32_t r0, r1, j0, from;
};

static int32_t krn_attn_first(const struct krn_attn_job *j, int32_t r)
{
    return krn_attention_first(j->a, j->t0 + r / j->group);
}

/* Rows from r0 on that see keys of the split at j0; some do. */
static struct krn_attn_part krn_attn_part(const struct krn_attn_job *j, int32_t r0, int32_t j0)
{
    struct krn_attn_part p = {.r0 = r0, .r1 = j->tile.n_rows, .j0 = j0};
    while (krn_attn_first(j, p.r1 - 1) >= j0 + KRN_ATTN_SPLIT) p.r1 -= j->group;
    p.from = MAX(j0, krn_attn_first(j, r0)) / KRN_KV_BLOCK * KRN_KV_BLOCK;
    return p;
}

/* Keys of the walk that row r sees, if it sees all from its beginning on. */
static int32_t krn_attn_keys(const struct krn_attn_job *j, const struct krn_attn_part *p, int32_t r)
{
    return MIN(j->a->pos[j->t0 + r / j->group] + 1, p->j0 + KRN_ATTN_SPLIT) - p->from;
}

/* The chains of values of a part's rows: the keys that all of them see, then each token's own. */
static void krn_attn_chains(const struct krn_attn_job *j, const struct krn_attn_tile *s, const struct krn_attn_part *part, int32_t common, float *o)
{
    int32_t r0 = part->r0, r1 = part->r1;
    j->kernel->values(s, r0, r1, 0, common, o);
    for (int32_t key = common; key < s->n_keys; key++) { /* rows that see this key are the last */
        int32_t r = r0 + (key - common + 1) * j->group;
        j->kernel->values(s, r, r1, key, key + 1, o);
    }
}

/* The same of values that lie among the keys, stripe by stripe. */
static void krn_attn_latent(const struct krn_attn_job *j, const struct krn_attn_part *part, int32_t common, float *o)
{
    struct krn_attn_tile s = j->tile;
    int32_t n = DIV_UP(s.n_keys, KRN_KV_BLOCK);
    s.type = KV_F32;
    for (int32_t d = 0; d < j->values; d += s.dim) {
        s.dim = MIN(KRN_ATTN_STRIPE, j->values - d);
        for (int32_t b = 0; b < n; b++) {
            float *to = j->stripe + (int64_t)b * KRN_KV_BLOCK * KRN_ATTN_STRIPE;
            j->kernel->turn(j->tile.type, j->tile.k[b], j->tile.dim, d, s.dim, to);
            s.v[b] = (const uint8_t *)to;
        }
        for (int32_t b = n; b < n + KRN_ATTN_AHEAD; b++) s.v[b] = s.v[0];
        krn_attn_chains(j, &s, part, common, o + d);
    }
}

/* m, l, o of these rows for this split. */
static void krn_attn_split(struct krn_attn_job *j, const struct krn_attn_part *part, float *m, float *l, float *o)
{
    struct krn_attn_tile *s = &j->tile;
    int32_t r0 = part->r0, r1 = part->r1, common = krn_attn_keys(j, part, r0);
    s->n_keys = krn_attn_keys(j, part, r1 - 1);
    krn_attn_blocks(j, part->from);
    j->kernel->scores(s, r0);
    for (int32_t r = r0; r < r1; r++) {
        float *p = s->p + (int64_t)r * KRN_ATTN_STRIDE;
        int32_t n = krn_attn_keys(j, part, r), before = krn_attn_first(j, r) - part->from;
        if (j->a->softcap > 0) j->kernel->softcap(p, j->a->softcap, n);
        for (int32_t i = 0; i < before; i++) p[i] = -FLT_MAX; /* e^x makes it 0 */
        j->kernel->softmax(p, n, m + r, l + r);
    }
    if (j->a->kv->v_dim) krn_attn_latent(j, part, common, o);
    else krn_attn_chains(j, s, part, common, o);
}

static void krn_attn_merge(const struct krn_attn_kernel *k, float *big_m, float *big_l, float *out,
                           float m, float l, const float *o, int32_t dim)
{
    float next = m > *big_m ? m : *big_m;
    float a = krn_math_exp(*big_m - next), b = krn_math_exp(m - next);
    *big_m = next;
    *big_l = fmaf(*big_l, a, l * b);
    k->blend(out, o, a, b, dim);
}

/* The sink, if there is one, and the division. */
static void krn_attn_finish(const struct krn_attention *a, int32_t t, int32_t head, const float *o, float m, float l)
{
    int32_t dim = krn_kv_values(a->kv);
    float *out = krn_attention_out(a, t, head), by = 1.0f;
    if (a->sinks) {
        float sink = a->sinks[head], next = sink > m ? sink : m;
        by = krn_math_exp(m - next);
        l = fmaf(l, by, krn_math_exp(sink - next));
    }
    float inv = 1.0f / l;
    for (int32_t d = 0; d < dim; d++) out[d] = (o[d] * by) * inv;
}

static void krn_attn_tile_run(struct krn_attn_job *j)
{
    const struct krn_attention *a = j->a;
    int32_t dim = j->values, n = j->tile.n_rows, last = a->pos[j->t0 + j->n_tok - 1];
    int32_t begin = krn_attn_first(j, 0) / KRN_ATTN_SPLIT * KRN_ATTN_SPLIT;
    int32_t done = 0; /* rows whose first split is behind */
    krn_attn_queries(j);
    for (int32_t j0 = begin; j0 <= last; j0 += KRN_ATTN_SPLIT) {
        int32_t r0 = MAX(j0 - a->pos[j->t0], 0) * j->group;
        struct krn_attn_part part = krn_attn_part(j, r0, j0);
        krn_attn_split(j, &part, j->m, j->l, j->o);
        for (int32_t r = r0; r < part.r1; r++) {
            float *out = j->out + (int64_t)r * dim, *o = j->o + (int64_t)r * dim;
            if (r < done) {
                krn_attn_merge(j->kernel, &j->big_m[r], &j->big_l[r], out, j->m[r], j->l[r], o, dim);
                continue;
            }
            memcpy(out, o, (size_t)dim * sizeof *out);
            j->big_m[r] = j->m[r], j->big_l[r] = j->l[r];
        }
        done = MAX(done, part.r1);
    }
    for (int32_t r = 0; r < n; r++)
        krn_attn_finish(a, j->t0 + r / j->group, j->kv_head * j->group + r % j->group,
                        j->out + (int64_t)r * dim, j->big_m[r], j->big_l[r]);
}

/* Tokens from t on that can share a tile: one sequence, one position after the other. */
static int32_t krn_attn_run(const struct krn_attention *a, int32_t t, int32_t t1, int32_t most)
{
    int32_t n = 1;
    while (n < most && t + n < t1 && a->table[t + n] == a->table[t] &&
           a->pos[t + n] == a->pos[t] + n)
        n++;
    return n;
}

static void krn_attn_carve(struct krn_attn_job *j, const struct krn_attention *a,
                           const struct krn_attn_kernel *kernel)
{
    int32_t dim = a->kv->head_dim, group = a->n_head / a->kv->n_kv;
    int64_t rows = MAX(group, KRN_ATTN_ROWS), n = rows * dim;
    float *p = a->scratch;
    *j = (struct krn_attn_job){.a = a, .kernel = kernel, .group = group, .values = krn_kv_values(a->kv)};
    j->tile = (struct krn_attn_tile){.type = a->kv->type, .dim = dim, .o_stride = j->values, .p = p};
    j->qs = p + rows * KRN_ATTN_STRIDE;
    j->tile.qs = j->qs;
    j->o = j->qs + n;
    j->out = j->o + n;
    j->m = j->out + n;
    j->l = j->m + rows;
    j->big_m = j->l + rows;
    j->big_l = j->big_m + rows;
    j->stripe = j->big_l + rows;
}

/* Items (kv head, token, split): m, l, o of a group to partial. */
static void krn_attn_partial(struct krn_attn_job *j)
{
    const struct krn_attention *a = j->a;
    int32_t dim = j->values, group = j->group, loaded = -1;
    for (int32_t i = a->i0; i < a->i1; i++) {
        int32_t item = i / a->n_split, j0 = i % a->n_split * KRN_ATTN_SPLIT;
        j->kv_head = item / a->n_tok;
        j->t0 = item % a->n_tok;
        j->n_tok = 1;
        j->tile.n_rows = group;
        if (j0 > a->pos[j->t0] || j0 + KRN_ATTN_SPLIT <= krn_attn_first(j, 0)) continue;
        if (item != loaded) krn_attn_queries(j);
        loaded = item;
        struct krn_attn_part whole = krn_attn_part(j, 0, j0);
        krn_attn_split(j, &whole, j->m, j->l, j->o);
        for (int32_t g = 0; g < group; g++) {
            float *part = a->partial + ((int64_t)i * group + g) * (dim + 2);
            memcpy(part, j->o + (int64_t)g * dim, (size_t)dim * sizeof *part);
            part[dim] = j->m[g];
            part[dim + 1] = j->l[g];
        }
    }
}

static void krn_attn_walk(const struct krn_attention *a, const struct krn_attn_kernel *kernel)
{
    struct krn_attn_job j;
    krn_attn_carve(&j, a, kernel);
    if (a->n_split) {
        krn_attn_partial(&j);
        return;
    }
    int32_t most = MAX(KRN_ATTN_ROWS / j.group, 1);
    for (int32_t i = a->i0; i < a->i1; i += j.n_tok) {
        j.kv_head = i / a->n_tok;
        j.t0 = i % a->n_tok;
        j.n_tok = krn_attn_run(a, j.t0, MIN(a->n_tok, j.t0 + a->i1 - i), most);
        j.tile.n_rows = j.n_tok * j.group;
        krn_attn_tile_run(&j);
    }
}

static void krn_attn_walk_merge(const struct krn_attention *a, const struct krn_attn_kernel *kernel)
{
    int32_t group = a->n_head / a->kv->n_kv, dim = krn_kv_values(a->kv);
    int64_t next = (int64_t)group * (dim + 2);
    for (int32_t i = a->i0; i < a->i1; i++) {
        int32_t kv_head = i / a->n_tok, t = i % a->n_tok;
        int32_t first = krn_attention_first(a, t) / KRN_ATTN_SPLIT;
        for (int32_t g = 0; g < group; g++) {
            int32_t head = kv_head * group + g;
            float *out = krn_attention_out(a, t, head);
            const float *part = a->partial + ((int64_t)i * a->n_split + first) * next + g * (dim + 2);
            float m = part[dim], l = part[dim + 1];
            memcpy(out, part, (size_t)dim * sizeof *out);
            for (int32_t s = first + 1; s <= a->pos[t] / KRN_ATTN_SPLIT; s++) {
                part += next;
                krn_attn_merge(kernel, &m, &l, out, part[dim], part[dim + 1], part, dim);
            }
            krn_attn_finish(a, t, head, out, m, l);
        }
    }
}

#endif
