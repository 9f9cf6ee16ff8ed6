/* attention.c: eight keys of a block are the lanes of a score; head_dim fills the lanes of P*V.
 * The loops around: engine/kernels/attention_walk.h.
 *
 * 16 registers hold 8 accumulators, 2 or 4 vectors of K or V and a factor: 4 rows x 2 vectors or
 * 2 x 4. 4 rows take a tile of queries or a whole group of heads per load. */
#include "engine/kernels/attention_walk.h"
#include "engine/kernels/avx2/avx2.h"
#include "engine/kernels/avx2/vmath.h"

enum { MAX_ROWS = 4, MAX_VECTORS = 4, HALF = 8 };

/* Bytes of an element: codes stand for those of q8_0. */
KRN_INLINE int size_of(const enum kv_type type)
{
    return type == KV_Q8_0 || type == KV_FP8 ? 1 : type == KV_F32 ? 4 : 2;
}

/* E4M3 is f16 with its exponent 8 too small: 4 bits of it, 3 of mantissa. */
KRN_INLINE __m256 from_e4m3(const uint8_t *p)
{
    __m128i wide = _mm_slli_epi16(_mm_cvtepi8_epi16(_mm_loadl_epi64((const __m128i *)p)), 7);
    return _mm256_mul_ps(_mm256_cvtph_ps(_mm_and_si128(wide, _mm_set1_epi16((short)0xbf80))), _mm256_set1_ps(256.0f));
}

/* The elements (q8_0: codes) i.. as floats. */
KRN_INLINE __m256 load8(const uint8_t *plane, int64_t i, const enum kv_type type)
{
    const uint8_t *p = plane + i * size_of(type);
    switch (type) {
    case KV_F16: return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
    case KV_BF16:
        return _mm256_castsi256_ps(
            _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16));
    case KV_FP8: return from_e4m3(p);
    case KV_Q8_0: return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
    default: return _mm256_loadu_ps((const float *)p);
    }
}

KRN_INLINE __m256 load_first(const uint8_t *plane, int64_t i, int32_t n, const enum kv_type type)
{
    uint8_t some[HALF * sizeof(float)] = {0};
    memcpy(some, plane + i * size_of(type), (size_t)(MIN(n, HALF) * size_of(type)));
    return load8(some, 0, type);
}

/* Where elements begin in a head's block. */
KRN_INLINE const uint8_t *elements(const uint8_t *block, int32_t dim, const enum kv_type type)
{
    return type == KV_Q8_0 ? block + krn_kv_codes(dim) : block;
}

/* ---- scores ---------------------------------------------------------------------------------- */

/* Rows [r, r+n_rows) against n_vec half blocks from b on. */
KRN_INLINE void scores_block(const struct krn_attn_tile *s, int32_t r, int32_t b, const int n_rows,
                             const int n_vec, const enum kv_type type)
{
    const float *q = s->qs + r;
    __m256 acc[MAX_ROWS][MAX_VECTORS];
    KRN_UNROLL for (int i = 0; i < n_rows; i++)
        KRN_UNROLL for (int c = 0; c < n_vec; c++) acc[i][c] = _mm256_setzero_ps();
    for (int64_t d = 0; d < s->dim; d++, q += s->n_rows) {
        __m256 k[MAX_VECTORS];
        KRN_UNROLL for (int c = 0; c < n_vec; c++) {
            const uint8_t *block = s->k[(b + c) / 2];
            int64_t half = (b + c) % 2 * HALF;
            k[c] = load8(elements(block, s->dim, type), d * KRN_KV_BLOCK + half, type);
            if (type == KV_Q8_0)
                k[c] = _mm256_mul_ps(k[c], load8(block, d / KV_UNIT * KRN_KV_BLOCK + half, KV_F16));
        }
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
                               const int n_vec, const enum kv_type type)
{
    for (; r + n_rows <= s->n_rows; r += n_rows) {
        int32_t b = 0, n = 2 * DIV_UP(s->n_keys, KRN_KV_BLOCK);
        for (; b + n_vec <= n; b += n_vec) scores_block(s, r, b, n_rows, n_vec, type);
        for (; b < n; b += 2) scores_block(s, r, b, n_rows, 2, type);
    }
    return r;
}

KRN_INLINE void scores_of(const struct krn_attn_tile *s, int32_t r, const enum kv_type type)
{
    r = scores_rows(s, r, 4, 2, type);
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

/* What a call of values does: keys [j0,j1) of a split to dim values of each row of o. */
struct span {
    const struct krn_attn_tile *s;
    int32_t j0, j1;
    float *o;
};

/* A q8_0 scale in every lane. */
KRN_INLINE __m256 scale_of(const uint8_t *block, int64_t i)
{
    return _mm256_cvtph_ps(_mm_set1_epi16(((const int16_t *)block)[i]));
}

/* Rows [r, r+n_rows), vectors of head_dim from d on; a single one may be partial: its first
 * `lanes`. */
KRN_INLINE void values_block(const struct span *x, int32_t r, int32_t d, int32_t lanes,
                             const int n_rows, const int n_vec, const enum kv_type type)
{
    const struct krn_attn_tile *s = x->s;
    const float *p = s->p + (int64_t)r * KRN_ATTN_STRIDE;
    float *o = x->o + (int64_t)r * s->o_stride + d;
    __m256 acc[MAX_ROWS][MAX_VECTORS];
    KRN_UNROLL for (int i = 0; i < n_rows; i++)
        KRN_UNROLL for (int c = 0; c < n_vec; c++)
            acc[i][c] = x->j0 ? vmath_load(o + i * (int64_t)s->o_stride + HALF * c, lanes)
                              : _mm256_setzero_ps();
    for (int32_t j = x->j0; j < x->j1; j++) {
        const uint8_t *block = s->v[j / KRN_KV_BLOCK];
        int32_t at = j % KRN_KV_BLOCK;
        int64_t row = (int64_t)at * s->dim + d;
        __m256 v[MAX_VECTORS];
        KRN_UNROLL for (int c = 0; c < n_vec; c++) {
            const uint8_t *e = elements(block, s->dim, type);
            v[c] = lanes < HALF ? load_first(e, row, lanes, type) : load8(e, row + HALF * c, type);
            if (type == KV_Q8_0)
                v[c] = _mm256_mul_ps(
                    v[c], scale_of(block, at * krn_kv_units(s->dim) + (d + HALF * c) / KV_UNIT));
        }
        KRN_UNROLL for (int i = 0; i < n_rows; i++) {
            __m256 factor = _mm256_set1_ps(p[i * KRN_ATTN_STRIDE + j]);
            KRN_UNROLL for (int c = 0; c < n_vec; c++)
                acc[i][c] = _mm256_fmadd_ps(factor, v[c], acc[i][c]);
        }
    }
    KRN_UNROLL for (int i = 0; i < n_rows; i++)
        KRN_UNROLL for (int c = 0; c < n_vec; c++)
            vmath_store(o + i * (int64_t)s->o_stride + HALF * c, lanes, acc[i][c]);
}

KRN_INLINE int32_t values_rows(const struct span *x, int32_t r, int32_t r1, const int n_rows,
                               const int n_vec, const enum kv_type type)
{
    for (; r + n_rows <= r1; r += n_rows) {
        int32_t d = 0, dim = x->s->dim;
        for (; d + HALF * n_vec <= dim; d += HALF * n_vec)
            values_block(x, r, d, HALF, n_rows, n_vec, type);
        for (; d + HALF <= dim; d += HALF) values_block(x, r, d, HALF, n_rows, 1, type);
        if (d < dim) values_block(x, r, d, dim - d, n_rows, 1, type);
    }
    return r;
}

KRN_INLINE void values_of(const struct span *x, int32_t r, int32_t r1, const enum kv_type type)
{
    r = values_rows(x, r, r1, 4, 2, type);
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

/* 8 x 8: rows become columns. Pairs, then fours within 128 bits, then the halves of the vectors. */
static void transpose(__m256 v[HALF])
{
    __m256 t[HALF];
    KRN_UNROLL for (int i = 0; i < HALF; i += 2) {
        t[i] = _mm256_unpacklo_ps(v[i], v[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(v[i], v[i + 1]);
    }
    KRN_UNROLL for (int i = 0; i < HALF; i += 4)
        KRN_UNROLL for (int k = 0; k < 2; k++) {
            v[i + 2 * k] = _mm256_shuffle_ps(t[i + k], t[i + k + 2], 0x44);
            v[i + 2 * k + 1] = _mm256_shuffle_ps(t[i + k], t[i + k + 2], 0xee);
        }
    KRN_UNROLL for (int k = 0; k < 4; k++) {
        t[k] = _mm256_permute2f128_ps(v[k], v[k + 4], 0x20);
        t[k + 4] = _mm256_permute2f128_ps(v[k], v[k + 4], 0x31);
    }
    KRN_UNROLL for (int k = 0; k < HALF; k++) v[k] = t[k];
}

KRN_INLINE void turn_of(const uint8_t *block, int32_t dim, int32_t d, int32_t n, float *out, const enum kv_type type)
{
    const uint8_t *keys = elements(block, dim, type);
    for (int32_t j = 0; j < KRN_KV_BLOCK; j += HALF)
        for (int32_t i = 0; i < n; i += HALF) {
            __m256 v[HALF], scale = _mm256_setzero_ps();
            if (type == KV_Q8_0) scale = load8(block, (d + i) / KV_UNIT * KRN_KV_BLOCK + j, KV_F16);
            KRN_UNROLL for (int k = 0; k < HALF; k++) {
                v[k] = i + k < n ? load8(keys, (int64_t)(d + i + k) * KRN_KV_BLOCK + j, type) : _mm256_setzero_ps();
                if (type == KV_Q8_0) v[k] = _mm256_mul_ps(v[k], scale);
            }
            transpose(v);
            for (int k = 0; k < HALF; k++) vmath_store(out + (j + k) * n + i, n - i, v[k]);
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
    for (int32_t d = 0; d < dim; d += HALF) {
        __m256 add = _mm256_mul_ps(vmath_load(o + d, dim - d), _mm256_set1_ps(b));
        __m256 sum = _mm256_fmadd_ps(vmath_load(out + d, dim - d), _mm256_set1_ps(a), add);
        vmath_store(out + d, dim - d, sum);
    }
}

static const struct krn_attn_kernel kernel = {scores, softmax, values, blend, krn_avx2_softcap, turn};

void krn_avx2_attention(const struct krn_attention *a) { krn_attn_walk(a, &kernel); }
void krn_avx2_attention_merge(const struct krn_attention *a) { krn_attn_walk_merge(a, &kernel); }
