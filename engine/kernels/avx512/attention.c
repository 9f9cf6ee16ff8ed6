/* attention.c: the 16 keys of a block are the lanes of a score; head_dim fills the lanes of P*V.
 *
 * Up to 4 query heads of a group share each load of K and V, and up to 4 blocks of keys (or 4
 * vectors of head_dim) go at once, so that 4 to 16 independent chains hide the latency of the
 * multiply-add. Keys past the query's position are never part of a chain over keys; in scores they
 * fill lanes that are masked out. */
#include "base/base.h"
#include "engine/kernels/avx512/avx512.h"
#include "engine/kernels/avx512/vmath.h"

enum { HEADS = 4, BLOCKS = 4, VECTORS = 4, SPLIT_BLOCKS = KRN_ATTN_SPLIT / KRN_KV_BLOCK };

/* One split of one (token, kv head): its keys and what the heads of the group make of them. */
struct split {
    const uint8_t *k[SPLIT_BLOCKS], *v[SPLIT_BLOCKS]; /* where this head begins in each block */
    int32_t n_keys, dim;
    const float *qs; /* [group][dim] */
    float *p;        /* [group][KRN_ATTN_SPLIT] */
};

KRN_INLINE __m512 load16(const uint8_t *plane, int64_t i, const bool f16)
{
    return f16 ? _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(plane + i * 2)))
               : _mm512_loadu_ps(plane + i * 4);
}

KRN_INLINE __m512 load_first(const uint8_t *plane, int64_t i, __mmask16 mask, const bool f16)
{
    return f16 ? _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, plane + i * 2))
               : _mm512_maskz_loadu_ps(mask, plane + i * 4);
}

/* Scores of heads [h0, h0+n_heads) against blocks [b0, b0+n_blocks). */
KRN_INLINE void scores(const struct split *s, int32_t h0, int32_t b0, const int n_heads,
                       const int n_blocks, const bool f16)
{
    const float *qs = s->qs + (int64_t)h0 * s->dim;
    __m512 acc[HEADS][BLOCKS];
    KRN_UNROLL for (int h = 0; h < n_heads; h++)
        KRN_UNROLL for (int b = 0; b < n_blocks; b++) acc[h][b] = _mm512_setzero_ps();
    for (int64_t d = 0; d < s->dim; d++) {
        __m512 k[BLOCKS];
        KRN_UNROLL for (int b = 0; b < n_blocks; b++)
            k[b] = load16(s->k[b0 + b], d * KRN_KV_BLOCK, f16);
        KRN_UNROLL for (int h = 0; h < n_heads; h++) {
            __m512 q = _mm512_set1_ps(qs[h * (int64_t)s->dim + d]);
            KRN_UNROLL for (int b = 0; b < n_blocks; b++)
                acc[h][b] = _mm512_fmadd_ps(q, k[b], acc[h][b]);
        }
    }
    KRN_UNROLL for (int h = 0; h < n_heads; h++)
        KRN_UNROLL for (int b = 0; b < n_blocks; b++)
            _mm512_storeu_ps(s->p + (h0 + h) * KRN_ATTN_SPLIT + (b0 + b) * KRN_KV_BLOCK, acc[h][b]);
}

KRN_INLINE void scores_of_heads(const struct split *s, int32_t h0, const int n_heads,
                                const bool f16)
{
    int32_t b = 0, n = DIV_UP(s->n_keys, KRN_KV_BLOCK);
    for (; b + BLOCKS <= n; b += BLOCKS) scores(s, h0, b, n_heads, BLOCKS, f16);
    for (; b < n; b++) scores(s, h0, b, n_heads, 1, f16);
}

/* Scores to p = exp(score - max), in place; keys past the end get 0. */
static void softmax(float *p, int32_t n_keys, float *m, float *l)
{
    __m512 big = _mm512_set1_ps(-INFINITY), sum = _mm512_setzero_ps();
    for (int32_t j = 0; j < n_keys; j += 16)
        big = _mm512_mask_max_ps(big, vmath_first(n_keys - j), big, _mm512_loadu_ps(p + j));
    *m = _mm512_reduce_max_ps(big);
    for (int32_t j = 0; j < n_keys; j += 16) {
        __m512 e = vmath_exp(_mm512_sub_ps(_mm512_loadu_ps(p + j), _mm512_set1_ps(*m)));
        e = _mm512_maskz_mov_ps(vmath_first(n_keys - j), e);
        sum = _mm512_add_ps(sum, e);
        _mm512_storeu_ps(p + j, e);
    }
    *l = vmath_lane_sum(sum);
}

/* o[h][d0..] = sum of p V over the split's keys, in order; the last vector of a head may be partial
 * (mask). */
KRN_INLINE void values(const struct split *s, int32_t h0, int32_t d0, float *o, __mmask16 mask,
                       const int n_heads, const int n_vec, const bool f16)
{
    const float *p = s->p + (int64_t)h0 * KRN_ATTN_SPLIT;
    __m512 acc[HEADS][VECTORS];
    KRN_UNROLL for (int h = 0; h < n_heads; h++)
        KRN_UNROLL for (int i = 0; i < n_vec; i++) acc[h][i] = _mm512_setzero_ps();
    for (int32_t j = 0; j < s->n_keys; j++) {
        const uint8_t *block = s->v[j / KRN_KV_BLOCK];
        int64_t row = (int64_t)(j % KRN_KV_BLOCK) * s->dim + d0;
        __m512 v[VECTORS];
        KRN_UNROLL for (int i = 0; i < n_vec; i++)
            v[i] = n_vec == 1 ? load_first(block, row, mask, f16)
                              : load16(block, row + 16 * i, f16);
        KRN_UNROLL for (int h = 0; h < n_heads; h++) {
            __m512 ph = _mm512_set1_ps(p[h * KRN_ATTN_SPLIT + j]);
            KRN_UNROLL for (int i = 0; i < n_vec; i++)
                acc[h][i] = _mm512_fmadd_ps(ph, v[i], acc[h][i]);
        }
    }
    KRN_UNROLL for (int h = 0; h < n_heads; h++)
        KRN_UNROLL for (int i = 0; i < n_vec; i++)
            _mm512_mask_storeu_ps(o + (int64_t)(h0 + h) * s->dim + d0 + 16 * i,
                                  n_vec == 1 ? mask : 0xffff, acc[h][i]);
}

KRN_INLINE void values_of_heads(const struct split *s, int32_t h0, float *o, const int n_heads,
                                const bool f16)
{
    int32_t d = 0;
    for (; d + 16 * VECTORS <= s->dim; d += 16 * VECTORS)
        values(s, h0, d, o, 0xffff, n_heads, VECTORS, f16);
    for (; d + 32 <= s->dim; d += 32) values(s, h0, d, o, 0xffff, n_heads, 2, f16);
    for (; d < s->dim; d += 16) values(s, h0, d, o, vmath_first(s->dim - d), n_heads, 1, f16);
}

KRN_INLINE void heads(const struct split *s, int32_t h0, float *m, float *l, float *o,
                      const int n_heads, const bool f16)
{
    scores_of_heads(s, h0, n_heads, f16);
    for (int32_t h = h0; h < h0 + n_heads; h++)
        softmax(s->p + h * KRN_ATTN_SPLIT, s->n_keys, m + h, l + h);
    values_of_heads(s, h0, o, n_heads, f16);
}

/* All heads of the group over one split: m[group], l[group], o[group][dim]. */
KRN_INLINE void group_split(const struct split *s, int32_t group, float *m, float *l, float *o,
                            const bool f16)
{
    int32_t h = 0;
    for (; h + 4 <= group; h += 4) heads(s, h, m, l, o, 4, f16);
    for (; h + 2 <= group; h += 2) heads(s, h, m, l, o, 2, f16);
    for (; h < group; h++) heads(s, h, m, l, o, 1, f16);
}

static void find_blocks(const struct krn_attention *a, int32_t t, int32_t kv_head, int32_t j0,
                        struct split *s)
{
    const struct krn_kv *kv = a->kv;
    int64_t size = kv->f16 ? 2 : 4;
    s->n_keys = MIN(a->pos[t] + 1 - j0, KRN_ATTN_SPLIT);
    for (int32_t b = 0; b < DIV_UP(s->n_keys, KRN_KV_BLOCK); b++) {
        int64_t block = a->table[t][j0 / KRN_KV_BLOCK + b];
        int64_t base = (block * kv->n_kv + kv_head) * kv->head_dim * KRN_KV_BLOCK * size;
        s->k[b] = (const uint8_t *)kv->k + base;
        s->v[b] = (const uint8_t *)kv->v + base;
    }
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

static void one_item(const struct krn_attention *a, int32_t t, int32_t kv_head)
{
    enum { MAX_GROUP = 128 };
    int32_t dim = a->kv->head_dim, group = a->n_head / a->kv->n_kv, pos = a->pos[t];
    int64_t row = ((int64_t)t * a->n_head + kv_head * group) * dim, n = (int64_t)group * dim;
    float m[MAX_GROUP], l[MAX_GROUP], big_m[MAX_GROUP], big_l[MAX_GROUP], *out = a->out + row;
    float *qs = a->scratch, *o = qs + n;
    struct split s = {.dim = dim, .qs = qs, .p = o + n};
    ASSERT(group <= MAX_GROUP);

    for (int64_t i = 0; i < n; i++) qs[i] = a->q[row + i] * a->scale;
    for (int32_t j0 = 0; j0 <= pos; j0 += KRN_ATTN_SPLIT) {
        find_blocks(a, t, kv_head, j0, &s);
        bool first = j0 == 0;
        if (a->kv->f16)
            group_split(&s, group, first ? big_m : m, first ? big_l : l, first ? out : o, true);
        else
            group_split(&s, group, first ? big_m : m, first ? big_l : l, first ? out : o, false);
        for (int32_t h = 0; h < group && !first; h++)
            merge(&big_m[h], &big_l[h], out + (int64_t)h * dim, m[h], l[h], o + (int64_t)h * dim,
                  dim);
    }
    for (int32_t h = 0; h < group; h++) {
        float inv = 1.0f / big_l[h];
        for (int32_t d = 0; d < dim; d++) out[(int64_t)h * dim + d] *= inv;
    }
}

void krn_avx512_attention(const struct krn_attention *a)
{
    for (int32_t i = a->i0; i < a->i1; i++) one_item(a, i / a->kv->n_kv, i % a->kv->n_kv);
}
