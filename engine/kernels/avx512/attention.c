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

/* Bytes of an element: codes stand for those of q8_0. */
KRN_INLINE int size_of(const enum kv_type type)
{
    return type == KV_Q8_0 || type == KV_FP8 ? 1 : type == KV_F32 ? 4 : 2;
}

/* E4M3 is f16 with its exponent 8 too small: 4 bits of it, 3 of mantissa. */
KRN_INLINE __m512 from_e4m3(__m128i codes)
{
    __m256i wide = _mm256_slli_epi16(_mm256_cvtepi8_epi16(codes), 7);
    return _mm512_mul_ps(_mm512_cvtph_ps(_mm256_and_si256(wide, _mm256_set1_epi16((short)0xbf80))), _mm512_set1_ps(256.0f));
}

/* The elements (q8_0: codes) i.. as floats, those that the mask names. */
KRN_INLINE __m512 load16(const uint8_t *plane, int64_t i, __mmask16 mask, const enum kv_type type)
{
    const uint8_t *p = plane + i * size_of(type);
    switch (type) {
    case KV_F16: return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, p));
    case KV_BF16:
        return _mm512_castsi512_ps(_mm512_slli_epi32(
            _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, p)), 16));
    case KV_FP8: return from_e4m3(_mm_maskz_loadu_epi8(mask, p));
    case KV_Q8_0: return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(mask, p)));
    default: return _mm512_maskz_loadu_ps(mask, p);
    }
}

/* Where elements begin in a head's block. */
KRN_INLINE const uint8_t *elements(const uint8_t *block, int32_t dim, const enum kv_type type)
{
    return type == KV_Q8_0 ? block + krn_kv_codes(dim) : block;
}

/* ---- scores ---------------------------------------------------------------------------------- */

/* Rows [r, r+n_rows) against blocks [b, b+n_blocks). */
KRN_INLINE void scores_block(const struct krn_attn_tile *s, int32_t r, int32_t b, const int n_rows,
                             const int n_blocks, const enum kv_type type)
{
    const float *q = s->qs + r;
    const int size = size_of(type);
    __m512 acc[MAX_ROWS][MAX_VECTORS];
    KRN_UNROLL for (int i = 0; i < n_rows; i++)
        KRN_UNROLL for (int c = 0; c < n_blocks; c++) acc[i][c] = _mm512_setzero_ps();
    __m512 scale[MAX_VECTORS];
    KRN_UNROLL for (int c = 0; c < n_blocks; c++) scale[c] = _mm512_setzero_ps();
    for (int32_t d = 0; d < s->dim; d++, q += s->n_rows) {
        __m512 k[MAX_VECTORS];
        if (type == KV_Q8_0 && d % KV_UNIT == 0)
            KRN_UNROLL for (int c = 0; c < n_blocks; c++)
                scale[c] = load16(s->k[b + c], d / KV_UNIT * KRN_KV_BLOCK, 0xffff, KV_F16);
        KRN_UNROLL for (int c = 0; c < n_blocks; c++) {
            int64_t at = (int64_t)d * KRN_KV_BLOCK;
            k[c] = load16(elements(s->k[b + c], s->dim, type), at, 0xffff, type);
            if (type == KV_Q8_0) k[c] = _mm512_mul_ps(k[c], scale[c]);
            if (n_rows <= FEW_ROWS && (size > 1 || d % 4 == 0))
                _mm_prefetch((const char *)s->k[b + c + KRN_ATTN_AHEAD] + at * size, _MM_HINT_T0);
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
                               const int n_blocks, const enum kv_type type)
{
    for (; r + n_rows <= s->n_rows; r += n_rows) {
        int32_t b = 0, n = DIV_UP(s->n_keys, KRN_KV_BLOCK);
        for (; b + n_blocks <= n; b += n_blocks) scores_block(s, r, b, n_rows, n_blocks, type);
        for (; b < n; b++) scores_block(s, r, b, n_rows, 1, type);
    }
    return r;
}

KRN_INLINE void scores_of(const struct krn_attn_tile *s, int32_t r, const enum kv_type type)
{
    r = scores_rows(s, r, 8, 2, type);
    r = scores_rows(s, r, 4, 4, type);
    r = scores_rows(s, r, 2, 4, type);
    scores_rows(s, r, 1, 4, type);
}

static void scores(const struct krn_attn_tile *s, int32_t r0)
{
    switch (s->type) {
    case KV_F16: scores_of(s, r0, KV_F16); break;
    case KV_BF16: scores_of(s, r0, KV_BF16); break;
    case KV_Q8_0: scores_of(s, r0, KV_Q8_0); break;
    case KV_FP8: scores_of(s, r0, KV_FP8); break;
    default: scores_of(s, r0, KV_F32);
    }
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

/* What a call of values does: keys [j0,j1) of a split to dim values of each row of o. */
struct span {
    const struct krn_attn_tile *s;
    int32_t j0, j1;
    float *o;
};

/* A q8_0 scale in every lane. */
KRN_INLINE __m512 scale_of(const uint8_t *block, int64_t i)
{
    return _mm512_cvtph_ps(_mm256_set1_epi16(((const int16_t *)block)[i]));
}

/* Rows [r, r+n_rows), vectors of head_dim from d on; a single one may be partial (mask). Several
 * begin at a unit's border. */
KRN_INLINE void values_block(const struct span *x, int32_t r, int32_t d, __mmask16 mask,
                             const int n_rows, const int n_vec, const enum kv_type type)
{
    const struct krn_attn_tile *s = x->s;
    const float *p = s->p + (int64_t)r * KRN_ATTN_STRIDE;
    float *o = x->o + (int64_t)r * s->o_stride + d;
    const int size = size_of(type);
    __m512 acc[MAX_ROWS][MAX_VECTORS];
    KRN_UNROLL for (int i = 0; i < n_rows; i++)
        KRN_UNROLL for (int c = 0; c < n_vec; c++)
            acc[i][c] = x->j0 ? _mm512_maskz_loadu_ps(mask, o + i * (int64_t)s->o_stride + 16 * c)
                              : _mm512_setzero_ps();
    for (int32_t j = x->j0; j < x->j1; j++) {
        int32_t at = j % KRN_KV_BLOCK;
        int64_t row = (int64_t)at * s->dim + d;
        const uint8_t *block = s->v[j / KRN_KV_BLOCK], *next = s->v[j / KRN_KV_BLOCK + 1];
        __m512 v[MAX_VECTORS], scale = _mm512_setzero_ps();
        KRN_UNROLL for (int c = 0; c < n_vec; c++) {
            v[c] = load16(elements(block, s->dim, type), row + 16 * c, n_vec == 1 ? mask : 0xffff,
                          type);
            if (type == KV_Q8_0) {
                if (c % 2 == 0) scale = scale_of(block, at * krn_kv_units(s->dim) + (d + 16 * c) / KV_UNIT);
                v[c] = _mm512_mul_ps(v[c], scale);
            }
            if (n_rows <= FEW_ROWS && 16 * size * c % 64 == 0)
                _mm_prefetch((const char *)next + (row + 16 * c) * size, _MM_HINT_T0);
        }
        KRN_UNROLL for (int i = 0; i < n_rows; i++) {
            __m512 factor = _mm512_set1_ps(p[i * KRN_ATTN_STRIDE + j]);
            KRN_UNROLL for (int c = 0; c < n_vec; c++)
                acc[i][c] = _mm512_fmadd_ps(factor, v[c], acc[i][c]);
        }
    }
    KRN_UNROLL for (int i = 0; i < n_rows; i++)
        KRN_UNROLL for (int c = 0; c < n_vec; c++)
            _mm512_mask_storeu_ps(o + i * (int64_t)s->o_stride + 16 * c, mask, acc[i][c]);
}

KRN_INLINE int32_t values_rows(const struct span *x, int32_t r, int32_t r1, const int n_rows,
                               const int n_vec, const enum kv_type type)
{
    for (; r + n_rows <= r1; r += n_rows) {
        int32_t d = 0, dim = x->s->dim;
        for (; n_vec > 1 && d + 16 * n_vec <= dim; d += 16 * n_vec)
            values_block(x, r, d, 0xffff, n_rows, n_vec, type);
        for (; d < dim; d += 16) values_block(x, r, d, vmath_first(dim - d), n_rows, 1, type);
    }
    return r;
}

KRN_INLINE void values_of(const struct span *x, int32_t r, int32_t r1, const enum kv_type type)
{
    r = values_rows(x, r, r1, 8, 2, type);
    r = values_rows(x, r, r1, 4, 4, type);
    r = values_rows(x, r, r1, 2, 4, type);
    values_rows(x, r, r1, 1, 4, type);
}

static void values(const struct krn_attn_tile *s, int32_t r0, int32_t r1, int32_t j0, int32_t j1,
                   float *o)
{
    struct span x = {s, j0, j1, o};
    switch (s->type) {
    case KV_F16: values_of(&x, r0, r1, KV_F16); break;
    case KV_BF16: values_of(&x, r0, r1, KV_BF16); break;
    case KV_Q8_0: values_of(&x, r0, r1, KV_Q8_0); break;
    case KV_FP8: values_of(&x, r0, r1, KV_FP8); break;
    default: values_of(&x, r0, r1, KV_F32);
    }
}

/* ---- values among the keys --------------------------------------------------------------------- */

/* 16 x 16: rows become columns. Pairs, then fours within 128 bits, then the quarters of the vectors. */
static void transpose(__m512 v[16])
{
    __m512 t[16];
    KRN_UNROLL for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps(v[i], v[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(v[i], v[i + 1]);
    }
    KRN_UNROLL for (int i = 0; i < 16; i += 4)
        KRN_UNROLL for (int k = 0; k < 2; k++) {
            __m512d a = _mm512_castps_pd(t[i + k]), b = _mm512_castps_pd(t[i + k + 2]);
            v[i + 2 * k] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
            v[i + 2 * k + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
        }
    KRN_UNROLL for (int i = 0; i < 16; i += 8)
        KRN_UNROLL for (int k = 0; k < 4; k++) {
            t[i + k] = _mm512_shuffle_f32x4(v[i + k], v[i + k + 4], 0x88);
            t[i + k + 4] = _mm512_shuffle_f32x4(v[i + k], v[i + k + 4], 0xdd);
        }
    KRN_UNROLL for (int k = 0; k < 8; k++) {
        v[k] = _mm512_shuffle_f32x4(t[k], t[k + 8], 0x88);
        v[k + 8] = _mm512_shuffle_f32x4(t[k], t[k + 8], 0xdd);
    }
}

KRN_INLINE void turn_of(const uint8_t *block, int32_t dim, int32_t d, int32_t n, float *out, const enum kv_type type)
{
    const uint8_t *keys = elements(block, dim, type);
    for (int32_t i = 0; i < n; i += 16) {
        __m512 v[16], scale = _mm512_setzero_ps();
        if (type == KV_Q8_0) scale = load16(block, (d + i) / KV_UNIT * KRN_KV_BLOCK, 0xffff, KV_F16);
        KRN_UNROLL for (int k = 0; k < 16; k++) {
            v[k] = load16(keys, (int64_t)(d + i + k) * KRN_KV_BLOCK, i + k < n ? 0xffff : 0, type);
            if (type == KV_Q8_0) v[k] = _mm512_mul_ps(v[k], scale);
        }
        transpose(v);
        for (int j = 0; j < KRN_KV_BLOCK; j++) _mm512_mask_storeu_ps(out + j * n + i, vmath_first(n - i), v[j]);
    }
}

static void turn(enum kv_type type, const uint8_t *block, int32_t dim, int32_t d, int32_t n, float *out)
{
    switch (type) {
    case KV_F16: turn_of(block, dim, d, n, out, KV_F16); break;
    case KV_BF16: turn_of(block, dim, d, n, out, KV_BF16); break;
    case KV_Q8_0: turn_of(block, dim, d, n, out, KV_Q8_0); break;
    case KV_FP8: turn_of(block, dim, d, n, out, KV_FP8); break;
    default: turn_of(block, dim, d, n, out, KV_F32);
    }
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

static const struct krn_attn_kernel kernel = {scores, softmax, values, blend, krn_avx512_softcap, turn};

void krn_avx512_attention(const struct krn_attention *a) { krn_attn_walk(a, &kernel); }
void krn_avx512_attention_merge(const struct krn_attention *a) { krn_attn_walk_merge(a, &kernel); }
