/* attention.c: eight keys of a block are the lanes of a score; head_dim fills the lanes of P*V.
 * The loops around: engine/kernels/attention_walk.h.
 *
 * 16 registers hold 8 accumulators, 2 or 4 vectors of K or V and a factor: 4 rows x 2 vectors or
 * 2 x 4. 4 rows take a tile of queries or a whole group of heads per load. */
#include "engine/kernels/attention_walk.h"
#include "engine/kernels/avx2/avx2.h"
#include "engine/kernels/avx2/vmath.h"

enum { MAX_ROWS = 4, MAX_VECTORS = 4, HALF = 8 };

KRN_INLINE __m256 load8(const uint8_t *plane, int64_t i, const bool f16)
{
    return f16 ? _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(plane + i * 2)))
               : _mm256_loadu_ps((const float *)(plane + i * 4));
}

KRN_INLINE __m256 load_first(const uint8_t *plane, int64_t i, int32_t n, const bool f16)
{
    if (!f16) return vmath_load((const float *)(plane + i * 4), n);
    uint16_t half[HALF] = {0};
    memcpy(half, plane + i * 2, (size_t)MIN(n, HALF) * sizeof *half);
    return load8((const uint8_t *)half, 0, true);
}

/* ---- scores ---------------------------------------------------------------------------------- */

/* Rows [r, r+n_rows) against n_vec half blocks from b on. */
KRN_INLINE void scores_block(const struct krn_attn_tile *s, int32_t r, int32_t b, const int n_rows,
                             const int n_vec, const bool f16)
{
    const float *q = s->qs + r;
    __m256 acc[MAX_ROWS][MAX_VECTORS];
    KRN_UNROLL for (int i = 0; i < n_rows; i++)
        KRN_UNROLL for (int c = 0; c < n_vec; c++) acc[i][c] = _mm256_setzero_ps();
    for (int64_t d = 0; d < s->dim; d++, q += s->n_rows) {
        __m256 k[MAX_VECTORS];
        KRN_UNROLL for (int c = 0; c < n_vec; c++)
            k[c] = load8(s->k[(b + c) / 2], d * KRN_KV_BLOCK + (b + c) % 2 * HALF, f16);
        KRN_UNROLL for (int i = 0; i < n_rows; i++) {
            __m256 factor = _mm256_set1_ps(q[i]);
            KRN_UNROLL for (int c = 0; c < n_vec; c++)
                acc[i][c] = _mm256_fmadd_ps(factor, k[c], acc[i][c]);
        }
    }
    KRN_UNROLL for (int i = 0; i < n_rows; i++)
        KRN_UNROLL for (int c = 0; c < n_vec; c++)
            _mm256_storeu_ps(s->p + (int64_t)(r + i) * KRN_ATTN_STRIDE + (b + c) * HALF, acc[i][c]);
}

KRN_INLINE int32_t scores_rows(const struct krn_attn_tile *s, int32_t r, const int n_rows,
                               const int n_vec, const bool f16)
{
    for (; r + n_rows <= s->n_rows; r += n_rows) {
        int32_t b = 0, n = 2 * DIV_UP(s->n_keys, KRN_KV_BLOCK);
        for (; b + n_vec <= n; b += n_vec) scores_block(s, r, b, n_rows, n_vec, f16);
        for (; b < n; b += 2) scores_block(s, r, b, n_rows, 2, f16);
    }
    return r;
}

KRN_INLINE void scores_of(const struct krn_attn_tile *s, int32_t r, const bool f16)
{
    r = scores_rows(s, r, 4, 2, f16);
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
    const __m256 lowest = _mm256_set1_ps(-INFINITY);
    __m256 big = lowest, sum[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    for (int32_t j = 0; j < n_keys; j += HALF)
        big = _mm256_max_ps(big, _mm256_blendv_ps(lowest, _mm256_loadu_ps(p + j),
                                                  _mm256_castsi256_ps(vmath_first(n_keys - j))));
    *m = vmath_max(big);
    for (int32_t j = 0; j < n_keys; j += HALF) {
        __m256 e = vmath_exp(_mm256_sub_ps(_mm256_loadu_ps(p + j), _mm256_set1_ps(*m)));
        e = _mm256_and_ps(e, _mm256_castsi256_ps(vmath_first(n_keys - j)));
        sum[j / HALF % 2] = _mm256_add_ps(sum[j / HALF % 2], e);
        _mm256_storeu_ps(p + j, e);
    }
    *l = vmath_lane_sum(sum[0], sum[1]);
}

/* ---- values ---------------------------------------------------------------------------------- */

/* What a call of values does: keys [j0,j1) of a split to o[n_rows][dim]. */
struct span {
    const struct krn_attn_tile *s;
    int32_t j0, j1;
    float *o;
};

/* Rows [r, r+n_rows), vectors of head_dim from d on; a single one may be partial: its first
 * `lanes`. */
KRN_INLINE void values_block(const struct span *x, int32_t r, int32_t d, int32_t lanes,
                             const int n_rows, const int n_vec, const bool f16)
{
    const struct krn_attn_tile *s = x->s;
    const float *p = s->p + (int64_t)r * KRN_ATTN_STRIDE;
    float *o = x->o + (int64_t)r * s->dim + d;
    __m256 acc[MAX_ROWS][MAX_VECTORS];
    KRN_UNROLL for (int i = 0; i < n_rows; i++)
        KRN_UNROLL for (int c = 0; c < n_vec; c++)
            acc[i][c] = x->j0 ? vmath_load(o + i * (int64_t)s->dim + HALF * c, lanes)
                              : _mm256_setzero_ps();
    for (int32_t j = x->j0; j < x->j1; j++) {
        const uint8_t *block = s->v[j / KRN_KV_BLOCK];
        int64_t row = (int64_t)(j % KRN_KV_BLOCK) * s->dim + d;
        __m256 v[MAX_VECTORS];
        KRN_UNROLL for (int c = 0; c < n_vec; c++)
            v[c] = lanes < HALF ? load_first(block, row, lanes, f16)
                                : load8(block, row + HALF * c, f16);
        KRN_UNROLL for (int i = 0; i < n_rows; i++) {
            __m256 factor = _mm256_set1_ps(p[i * KRN_ATTN_STRIDE + j]);
            KRN_UNROLL for (int c = 0; c < n_vec; c++)
                acc[i][c] = _mm256_fmadd_ps(factor, v[c], acc[i][c]);
        }
    }
    KRN_UNROLL for (int i = 0; i < n_rows; i++)
        KRN_UNROLL for (int c = 0; c < n_vec; c++)
            vmath_store(o + i * (int64_t)s->dim + HALF * c, lanes, acc[i][c]);
}

KRN_INLINE int32_t values_rows(const struct span *x, int32_t r, int32_t r1, const int n_rows,
                               const int n_vec, const bool f16)
{
    for (; r + n_rows <= r1; r += n_rows) {
        int32_t d = 0, dim = x->s->dim;
        for (; d + HALF * n_vec <= dim; d += HALF * n_vec)
            values_block(x, r, d, HALF, n_rows, n_vec, f16);
        for (; d + HALF <= dim; d += HALF) values_block(x, r, d, HALF, n_rows, 1, f16);
        if (d < dim) values_block(x, r, d, dim - d, n_rows, 1, f16);
    }
    return r;
}

KRN_INLINE void values_of(const struct span *x, int32_t r, int32_t r1, const bool f16)
{
    r = values_rows(x, r, r1, 4, 2, f16);
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
    for (int32_t d = 0; d < dim; d += HALF) {
        __m256 add = _mm256_mul_ps(vmath_load(o + d, dim - d), _mm256_set1_ps(b));
        __m256 sum = _mm256_fmadd_ps(vmath_load(out + d, dim - d), _mm256_set1_ps(a), add);
        vmath_store(out + d, dim - d, sum);
    }
}

static const struct krn_attn_kernel kernel = {scores, softmax, values, blend, krn_avx2_softcap};

void krn_avx2_attention(const struct krn_attention *a) { krn_attn_walk(a, &kernel); }
void krn_avx2_attention_merge(const struct krn_attention *a) { krn_attn_walk_merge(a, &kernel); }
