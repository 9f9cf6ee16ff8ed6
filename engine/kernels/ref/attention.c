/* attention.c: causal attention over paged keys and values, one query head at a time: the order of
 * table.h, literally. */
#include "base/base.h"
#include "engine/kernels/kv_block.h"
#include "engine/kernels/math.h"
#include "engine/kernels/ref/ref.h"

/* One query head of one token. */
struct query {
    const struct krn_kv *kv;
    const int32_t *table;
    int32_t kv_head;
    const float *qs; /* the query times scale */
    float softcap;
};

static const uint8_t *block_of(const struct query *c, void *plane, int32_t j)
{
    return krn_kv_block_at(plane, c->kv, c->table[j / KRN_KV_BLOCK], c->kv_head);
}

static float score(const struct query *c, int32_t j)
{
    const uint8_t *block = block_of(c, c->kv->k, j);
    int32_t dim = c->kv->head_dim;
    float s = 0.0f;
    for (int32_t d = 0; d < dim; d++)
        s = fmaf(c->qs[d], krn_kv_key(c->kv->type, block, dim, d, j % KRN_KV_BLOCK), s);
    return s;
}

/* Value d of key j. */
static float value(const struct query *c, int32_t d, int32_t j)
{
    const struct krn_kv *kv = c->kv;
    if (kv->v_dim) return krn_kv_key(kv->type, block_of(c, kv->k, j), kv->head_dim, d, j % KRN_KV_BLOCK);
    return krn_kv_value(kv->type, block_of(c, kv->v, j), kv->head_dim, d, j % KRN_KV_BLOCK);
}

/* Keys [j0, j1) of one split: its maximum, its sum of p, its weighted values o[]. p[j1-j0] is scratch. */
static void split(const struct query *c, int32_t j0, int32_t j1, float *p, float *m, float *l,
                  float *o)
{
    int32_t dim = krn_kv_values(c->kv);
    float lane[KRN_KV_BLOCK] = {0};

    for (int32_t j = j0; j < j1; j++) p[j - j0] = score(c, j);
    if (c->softcap > 0) krn_ref_softcap(p, c->softcap, j1 - j0);
    *m = p[0];
    for (int32_t j = j0; j < j1; j++) *m = p[j - j0] > *m ? p[j - j0] : *m;
    for (int32_t j = j0; j < j1; j++) {
        p[j - j0] = krn_math_exp(p[j - j0] - *m);
        lane[j % KRN_KV_BLOCK] += p[j - j0];
    }
    for (int32_t half = KRN_KV_BLOCK / 2; half; half /= 2)
        for (int32_t i = 0; i < half; i++) lane[i] += lane[i + half];
    *l = lane[0];

    for (int32_t d = 0; d < dim; d++) o[d] = 0.0f;
    for (int32_t j = j0; j < j1; j++)
        for (int32_t d = 0; d < dim; d++) o[d] = fmaf(p[j - j0], value(c, d, j), o[d]);
}

/* (M, L, O) merged with a later split's (m, l, o). */
static void merge(float *big_m, float *big_l, float *out, float m, float l, const float *o,
                  int32_t dim)
{
    float next = m > *big_m ? m : *big_m;
    float a = krn_math_exp(*big_m - next), b = krn_math_exp(m - next);
    *big_m = next;
    *big_l = fmaf(*big_l, a, l * b);
    for (int32_t d = 0; d < dim; d++) out[d] = fmaf(out[d], a, o[d] * b);
}

/* Keys [lo, pos]; the result is not yet divided by L. */
static void one_head(const struct query *c, int32_t lo, int32_t pos, float *out, float *big_m, float *big_l,
                     float *p, float *o)
{
    int32_t dim = krn_kv_values(c->kv), j0 = lo / KRN_ATTN_SPLIT * KRN_ATTN_SPLIT + KRN_ATTN_SPLIT;
    split(c, lo, MIN(pos + 1, j0), p, big_m, big_l, out);
    for (; j0 <= pos; j0 += KRN_ATTN_SPLIT) {
        float m, l;
        split(c, j0, MIN(pos + 1, j0 + KRN_ATTN_SPLIT), p, &m, &l, o);
        merge(big_m, big_l, out, m, l, o, dim);
    }
}

/* The sink, if there is one, and the division. */
static void finish(const struct krn_attention *a, int32_t head, float *out, float m, float l)
{
    int32_t dim = krn_kv_values(a->kv);
    if (a->sinks) {
        float sink = a->sinks[head], next = sink > m ? sink : m, by = krn_math_exp(m - next);
        l = fmaf(l, by, krn_math_exp(sink - next));
        for (int32_t d = 0; d < dim; d++) out[d] *= by;
    }
    float inv = 1.0f / l;
    for (int32_t d = 0; d < dim; d++) out[d] = out[d] * inv;
}

void krn_ref_attention(const struct krn_attention *a)
{
    const struct krn_kv *kv = a->kv;
    int32_t group = a->n_head / kv->n_kv, dim = kv->head_dim, values = krn_kv_values(kv), per = MAX(a->n_split, 1);
    float *p = a->scratch, *o = p + KRN_ATTN_SPLIT, *qs = o + dim;
    for (int32_t i = a->i0; i < a->i1; i++) {
        int32_t kv_head = i / per / a->n_tok, t = i / per % a->n_tok, j0 = i % per * KRN_ATTN_SPLIT;
        int32_t lo = krn_attention_first(a, t), end = MIN(a->pos[t] + 1, j0 + KRN_ATTN_SPLIT);
        struct query c = {
            .kv = kv, .table = a->table[t], .kv_head = kv_head, .qs = qs, .softcap = a->softcap};
        for (int32_t g = 0; g < group; g++) {
            int32_t head = kv_head * group + g;
            const float *q = krn_attention_q(a, t, head);
            float m, l, *out = krn_attention_out(a, t, head), *part = a->n_split ? a->partial + ((int64_t)i * group + g) * (values + 2) : NULL;
            for (int32_t d = 0; d < dim; d++) qs[d] = q[d] * a->scale;
            if (!a->n_split) {
                one_head(&c, lo, a->pos[t], out, &m, &l, p, o);
                finish(a, head, out, m, l);
            } else if (MAX(j0, lo) < end) {
                split(&c, MAX(j0, lo), end, p, part + values, part + values + 1, part);
            }
        }
    }
}

void krn_ref_attention_merge(const struct krn_attention *a)
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
            for (int32_t d = 0; d < dim; d++) out[d] = part[d];
            for (int32_t s = first + 1; s <= a->pos[t] / KRN_ATTN_SPLIT; s++) {
                part += next;
                merge(&m, &l, out, part[dim], part[dim + 1], part, dim);
            }
            finish(a, head, out, m, l);
        }
    }
}
