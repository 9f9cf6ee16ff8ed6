/* attention.c: the 16 keys of a block are the lanes of a score; head_dim fills the lanes of P*V.
 * The loops around: engine/kernels/attention_walk.h.
 *
 * 16 accumulators hide the latency of the multiply-add: 8 rows x 2 vectors or 4 x 4 (16 x 1 was
 * slower by a tenth). A vector of K or V is loaded and widened once for all rows. With few rows
 * (decode) memory is the limit: there each line is asked for some blocks before it is read.
 * Measured on a Zen 5 core at 2048 keys: 128 tokens 198 GFLOP/s (86 % of its multiply-add peak), one
 * token from L2 42 GB/s of KV.
 */
#include "engine/kernels/attention_walk.h"
#include "engine/kernels/avx512/avx512.h"
#include "engine/kernels/avx512/vmath.h"

enum { MAX_ROWS = 8, MAX_VECTORS = 4, FEW_ROWS = 4 };

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

/* ---- scores ---------------------------------------------------------------------------------- */

/* Rows [r, r+n_rows) against blocks [b, b+n_blocks). */
KRN_INLINE void scores_block(const struct krn_attn_tile *s, int32_t r, int32_t b, const int n_rows,
                             const int n_blocks, const bool f16)
{
    const float *q = s->qs + r;
    __m512 acc[MAX_ROWS][MAX_VECTORS];
    KRN_UNROLL for (int i = 0; i < n_rows; i++)
        KRN_UNROLL for (int c = 0; c < n_blocks; c++) acc[i][c] = _mm512_setzero_ps();
    for (int64_t d = 0; d < s->dim; d++, q += s->n_rows) {
        __m512 k[MAX_VECTORS];
        KRN_UNROLL for (int c = 0; c < n_blocks; c++) {
            k[c] = load16(s->k[b + c], d * KRN_KV_BLOCK, f16);
            if (n_rows <= FEW_ROWS)
                _mm_prefetch((const char *)s->k[b + c + KRN_ATTN_AHEAD] +
                                 d * KRN_KV_BLOCK * (f16 ? 2 : 4),
                             _MM_HINT_T0);
        }
        KRN_UNROLL for (int i = 0; i < n_rows; i++) {
            __m512 factor = _mm512_set1_ps(q[i]);
            KRN_UNROLL for (int c = 0; c < n_blocks; c++)
                acc[i][c] = _mm512_fmadd_ps(factor, k[c], acc[i][c]);
        }
    }
    KRN_UNROLL for (int i = 0; i < n_rows; i++)
        KRN_UNROLL for (int c = 0; c < n_blocks; c++)
            _mm512_storeu_ps(s->p + (int64_t)(r + i) * KRN_ATTN_STRIDE + (b + c) * KRN_KV_BLOCK,
                             acc[i][c]);
}

KRN_INLINE int32_t scores_rows(const struct krn_attn_tile *s, int32_t r, const int n_rows,
                               const int n_blocks, const bool f16)
{
    for (; r + n_rows <= s->n_rows; r += n_rows) {
        int32_t b = 0, n = DIV_UP(s->n_keys, KRN_KV_BLOCK);
        for (; b + n_blocks <= n; b += n_blocks) scores_block(s, r, b, n_rows, n_blocks, f16);
        for (; b < n; b++) scores_block(s, r, b, n_rows, 1, f16);
    }
    return r;
}

KRN_INLINE void scores_of(const struct krn_attn_tile *s, int32_t r, const bool f16)
{
    r = scores_rows(s, r, 8, 2, f16);
    r = scores_rows(s, r, 4, 4, f16);
    r = scores_rows(s, r, 2, 4, f16);
    scores_rows(s, r, 1, 4, f16);
}

static void scores(const struct krn_attn_tile *s, int32_t r0)
{
    if (s->f16) scores_of(s, r0, true);
    else scores_of(s, r0, false);
}

/* ---- softmax --------------------------------------------------------------------------------- */

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

/* ---- values ---------------------------------------------------------------------------------- */

/* What a call of values does: keys [j0,j1) of a split to o[n_rows][dim]. */
struct span {
    const struct krn_attn_tile *s;
    int32_t j0, j1;
    float *o;
};

/* Rows [r, r+n_rows), vectors of head_dim from d on; a single one may be partial (mask). */
KRN_INLINE void values_block(const struct span *x, int32_t r, int32_t d, __mmask16 mask,
                             const int n_rows, const int n_vec, const bool f16)
{
    const struct krn_attn_tile *s = x->s;
    const float *p = s->p + (int64_t)r * KRN_ATTN_STRIDE;
    float *o = x->o + (int64_t)r * s->dim + d;
    __m512 acc[MAX_ROWS][MAX_VECTORS];
    KRN_UNROLL for (int i = 0; i < n_rows; i++)
        KRN_UNROLL for (int c = 0; c < n_vec; c++)
            acc[i][c] = x->j0 ? _mm512_maskz_loadu_ps(mask, o + i * (int64_t)s->dim + 16 * c)
                              : _mm512_setzero_ps();
    for (int32_t j = x->j0; j < x->j1; j++) {
        int64_t row = (int64_t)(j % KRN_KV_BLOCK) * s->dim + d;
        const uint8_t *block = s->v[j / KRN_KV_BLOCK], *next = s->v[j / KRN_KV_BLOCK + 1];
        __m512 v[MAX_VECTORS];
        KRN_UNROLL for (int c = 0; c < n_vec; c++) {
            v[c] = n_vec == 1 ? load_first(block, row, mask, f16)
                              : load16(block, row + 16 * c, f16);
            if (n_rows <= FEW_ROWS && (!f16 || c % 2 == 0))
                _mm_prefetch((const char *)next + (row + 16 * c) * (f16 ? 2 : 4), _MM_HINT_T0);
        }
        KRN_UNROLL for (int i = 0; i < n_rows; i++) {
            __m512 factor = _mm512_set1_ps(p[i * KRN_ATTN_STRIDE + j]);
            KRN_UNROLL for (int c = 0; c < n_vec; c++)
                acc[i][c] = _mm512_fmadd_ps(factor, v[c], acc[i][c]);
        }
    }
    KRN_UNROLL for (int i = 0; i < n_rows; i++)
        KRN_UNROLL for (int c = 0; c < n_vec; c++)
            _mm512_mask_storeu_ps(o + i * (int64_t)s->dim + 16 * c, mask, acc[i][c]);
}

KRN_INLINE int32_t values_rows(const struct span *x, int32_t r, int32_t r1, const int n_rows,
                               const int n_vec, const bool f16)
{
    for (; r + n_rows <= r1; r += n_rows) {
        int32_t d = 0, dim = x->s->dim;
        for (; n_vec > 1 && d + 16 * n_vec <= dim; d += 16 * n_vec)
            values_block(x, r, d, 0xffff, n_rows, n_vec, f16);
        for (; d < dim; d += 16) values_block(x, r, d, vmath_first(dim - d), n_rows, 1, f16);
    }
    return r;
}

KRN_INLINE void values_of(const struct span *x, int32_t r, int32_t r1, const bool f16)
{
    r = values_rows(x, r, r1, 8, 2, f16);
    r = values_rows(x, r, r1, 4, 4, f16);
    r = values_rows(x, r, r1, 2, 4, f16);
    values_rows(x, r, r1, 1, 4, f16);
}

static void values(const struct krn_attn_tile *s, int32_t r0, int32_t r1, int32_t j0, int32_t j1,
                   float *o)
{
    struct span x = {s, j0, j1, o};
    if (s->f16) values_of(&x, r0, r1, true);
    else values_of(&x, r0, r1, false);
}

static void blend(float *out, const float *o, float a, float b, int32_t dim)
{
    for (int32_t d = 0; d < dim; d += 16) {
        __mmask16 mask = vmath_first(dim - d);
        __m512 add = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, o + d), _mm512_set1_ps(b));
        __m512 sum = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(mask, out + d), _mm512_set1_ps(a), add);
        _mm512_mask_storeu_ps(out + d, mask, sum);
    }
}

static const struct krn_attn_kernel kernel = {scores, softmax, values, blend, krn_avx512_softcap};

void krn_avx512_attention(const struct krn_attention *a) { krn_attn_walk(a, &kernel); }
void krn_avx512_attention_merge(const struct krn_attention *a) { krn_attn_walk_merge(a, &kernel); }
