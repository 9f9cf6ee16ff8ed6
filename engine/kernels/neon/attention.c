/* attention.c: four keys of a block are the lanes of a score; head_dim fills the lanes of P*V.
 * The loops around: engine/kernels/attention_walk.h.
 *
 * 32 registers hold 16 accumulators, 4 vectors of K or V and the factors: 4 rows x 4 vectors, or
 * fewer rows by the same 4 vectors (a whole block of keys). */
#include "engine/kernels/attention_walk.h"
#include "engine/kernels/neon/neon.h"
#include "engine/kernels/neon/vmath.h"

enum { MAX_ROWS = 4, VECTORS = 4, PER_BLOCK = KRN_KV_BLOCK / LANES };

/* Bytes of an element: codes stand for those of q8_0. */
KRN_INLINE int size_of(const enum kv_type type)
{
    return type == KV_Q8_0 || type == KV_FP8 ? 1 : type == KV_F32 ? 4 : 2;
}

/* Four bytes, sign-extended. */
KRN_INLINE int16x4_t four_of(const uint8_t *p)
{
    int32_t four;
    memcpy(&four, p, sizeof four);
    return vget_low_s16(vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(four))));
}

KRN_INLINE float32x4_t from_codes(const uint8_t *p) { return vcvtq_f32_s32(vmovl_s16(four_of(p))); }

/* E4M3 is f16 with its exponent 8 too small: 4 bits of it, 3 of mantissa. */
KRN_INLINE float32x4_t from_e4m3(const uint8_t *p)
{
    uint16x4_t half = vand_u16(vreinterpret_u16_s16(vshl_n_s16(four_of(p), 7)), vdup_n_u16(0xbf80));
    return vmulq_f32(vmath_from_f16(half), vmath_all(256.0f));
}

/* The elements (q8_0: codes) i.. as floats. */
KRN_INLINE float32x4_t load4(const uint8_t *plane, int64_t i, const enum kv_type type)
{
    const uint8_t *p = plane + i * size_of(type);
    switch (type) {
    case KV_F16: return vmath_from_f16(vld1_u16((const uint16_t *)p));
    case KV_BF16: return vmath_from_bf16(vld1_u16((const uint16_t *)p));
    case KV_FP8: return from_e4m3(p);
    case KV_Q8_0: return from_codes(p);
    default: return vld1q_f32((const float *)p);
    }
}

KRN_INLINE float32x4_t load_first(const uint8_t *plane, int64_t i, int32_t n,
                                  const enum kv_type type)
{
    _Alignas(16) uint8_t some[LANES * sizeof(float)] = {0};
    memcpy(some, plane + i * size_of(type), (size_t)(MIN(n, LANES) * size_of(type)));
    return load4(some, 0, type);
}

/* Where elements begin in a head's block. */
KRN_INLINE const uint8_t *elements(const uint8_t *block, int32_t dim, const enum kv_type type)
{
    return type == KV_Q8_0 ? block + krn_kv_codes(dim) : block;
}

/* ---- scores ---------------------------------------------------------------------------------- */

/* Rows [r, r+n_rows) against block b. */
KRN_INLINE void scores_block(const struct krn_attn_tile *s, int32_t r, int32_t b, const int n_rows,
                             const enum kv_type type)
{
    const float *q = s->qs + r;
    const uint8_t *block = s->k[b], *keys = elements(block, s->dim, type);
    float32x4_t acc[MAX_ROWS][PER_BLOCK];
    KRN_UNROLL for (int i = 0; i < n_rows; i++)
        KRN_UNROLL for (int c = 0; c < PER_BLOCK; c++) acc[i][c] = vmath_zero();
    for (int64_t d = 0; d < s->dim; d++, q += s->n_rows) {
        float32x4_t k[PER_BLOCK];
        KRN_UNROLL for (int c = 0; c < PER_BLOCK; c++) {
            k[c] = load4(keys, d * KRN_KV_BLOCK + LANES * c, type);
            if (type == KV_Q8_0)
                k[c] = vmulq_f32(k[c], load4(block, d / KV_UNIT * KRN_KV_BLOCK + LANES * c, KV_F16));
        }
        KRN_UNROLL for (int i = 0; i < n_rows; i++)
            KRN_UNROLL for (int c = 0; c < PER_BLOCK; c++)
                acc[i][c] = vfmaq_n_f32(acc[i][c], k[c], q[i]);
    }
    KRN_UNROLL for (int i = 0; i < n_rows; i++)
        KRN_UNROLL for (int c = 0; c < PER_BLOCK; c++)
            vst1q_f32(s->p + (int64_t)(r + i) * KRN_ATTN_STRIDE + b * KRN_KV_BLOCK + LANES * c,
                      acc[i][c]);
}

KRN_INLINE int32_t scores_rows(const struct krn_attn_tile *s, int32_t r, const int n_rows,
                               const enum kv_type type)
{
    for (; r + n_rows <= s->n_rows; r += n_rows)
        for (int32_t b = 0; b < DIV_UP(s->n_keys, KRN_KV_BLOCK); b++)
            scores_block(s, r, b, n_rows, type);
    return r;
}

KRN_INLINE void scores_of(const struct krn_attn_tile *s, int32_t r, const enum kv_type type)
{
    r = scores_rows(s, r, 4, type);
    r = scores_rows(s, r, 2, type);
    scores_rows(s, r, 1, type);
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
    float32x4_t big = vmath_all(-INFINITY), sum[PER_BLOCK];
    for (int32_t c = 0; c < PER_BLOCK; c++) sum[c] = vmath_zero();
    for (int32_t j = 0; j < n_keys; j += LANES)
        big = vmaxq_f32(big, vbslq_f32(vmath_first(n_keys - j), vld1q_f32(p + j),
                                       vmath_all(-INFINITY)));
    *m = vmaxvq_f32(big);
    for (int32_t j = 0; j < ROUND_UP(n_keys, KRN_KV_BLOCK); j += LANES) {
        int32_t c = j / LANES % PER_BLOCK;
        float32x4_t e = vmath_exp(vsubq_f32(vld1q_f32(p + j), vmath_all(*m)));
        e = vmath_keep(vmath_first(n_keys - j), e);
        sum[c] = vaddq_f32(sum[c], e);
        vst1q_f32(p + j, e);
    }
    *l = vmath_lane_sum(sum, PER_BLOCK);
}

/* ---- values ---------------------------------------------------------------------------------- */

/* What a call of values does: keys [j0,j1) of a split to dim values of each row of o. */
struct span {
    const struct krn_attn_tile *s;
    int32_t j0, j1;
    float *o;
};

/* Rows [r, r+n_rows), vectors of head_dim from d on; a single one may be partial: its first
 * `lanes`. */
KRN_INLINE void values_block(const struct span *x, int32_t r, int32_t d, int32_t lanes,
                             const int n_rows, const int n_vec, const enum kv_type type)
{
    const struct krn_attn_tile *s = x->s;
    const float *p = s->p + (int64_t)r * KRN_ATTN_STRIDE;
    float *o = x->o + (int64_t)r * s->o_stride + d;
    float32x4_t acc[MAX_ROWS][VECTORS];
    KRN_UNROLL for (int i = 0; i < n_rows; i++)
        KRN_UNROLL for (int c = 0; c < n_vec; c++)
            acc[i][c] = x->j0 ? vmath_load(o + i * (int64_t)s->o_stride + LANES * c, lanes)
                              : vmath_zero();
    for (int32_t j = x->j0; j < x->j1; j++) {
        const uint8_t *block = s->v[j / KRN_KV_BLOCK], *e = elements(block, s->dim, type);
        int32_t at = j % KRN_KV_BLOCK;
        int64_t row = (int64_t)at * s->dim + d;
        float32x4_t v[VECTORS];
        KRN_UNROLL for (int c = 0; c < n_vec; c++) {
            v[c] = lanes < LANES ? load_first(e, row, lanes, type) : load4(e, row + LANES * c, type);
            if (type == KV_Q8_0) {
                int32_t unit = at * krn_kv_units(s->dim) + (d + LANES * c) / KV_UNIT;
                uint16x4_t scale = vdup_n_u16(((const uint16_t *)block)[unit]);
                v[c] = vmulq_f32(v[c], vmath_from_f16(scale));
            }
        }
        KRN_UNROLL for (int i = 0; i < n_rows; i++)
            KRN_UNROLL for (int c = 0; c < n_vec; c++)
                acc[i][c] = vfmaq_n_f32(acc[i][c], v[c], p[i * KRN_ATTN_STRIDE + j]);
    }
    KRN_UNROLL for (int i = 0; i < n_rows; i++)
        KRN_UNROLL for (int c = 0; c < n_vec; c++)
            vmath_store(o + i * (int64_t)s->o_stride + LANES * c, lanes, acc[i][c]);
}

KRN_INLINE int32_t values_rows(const struct span *x, int32_t r, int32_t r1, const int n_rows,
                               const enum kv_type type)
{
    for (; r + n_rows <= r1; r += n_rows) {
        int32_t d = 0, dim = x->s->dim;
        for (; d + LANES * VECTORS <= dim; d += LANES * VECTORS)
            values_block(x, r, d, LANES, n_rows, VECTORS, type);
        for (; d + LANES <= dim; d += LANES) values_block(x, r, d, LANES, n_rows, 1, type);
        if (d < dim) values_block(x, r, d, dim - d, n_rows, 1, type);
    }
    return r;
}

KRN_INLINE void values_of(const struct span *x, int32_t r, int32_t r1, const enum kv_type type)
{
    r = values_rows(x, r, r1, 4, type);
    r = values_rows(x, r, r1, 2, type);
    values_rows(x, r, r1, 1, type);
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

/* 4 x 4: rows become columns. */
static void transpose(float32x4_t v[LANES])
{
    float32x4_t a = vtrn1q_f32(v[0], v[1]), b = vtrn2q_f32(v[0], v[1]), c = vtrn1q_f32(v[2], v[3]), d = vtrn2q_f32(v[2], v[3]);
    v[0] = vcombine_f32(vget_low_f32(a), vget_low_f32(c));
    v[1] = vcombine_f32(vget_low_f32(b), vget_low_f32(d));
    v[2] = vcombine_f32(vget_high_f32(a), vget_high_f32(c));
    v[3] = vcombine_f32(vget_high_f32(b), vget_high_f32(d));
}

KRN_INLINE void turn_of(const uint8_t *block, int32_t dim, int32_t d, int32_t n, float *out, const enum kv_type type)
{
    const uint8_t *keys = elements(block, dim, type);
    for (int32_t j = 0; j < KRN_KV_BLOCK; j += LANES)
        for (int32_t i = 0; i < n; i += LANES) {
            float32x4_t v[LANES], scale = vmath_zero();
            if (type == KV_Q8_0) scale = load4(block, (d + i) / KV_UNIT * KRN_KV_BLOCK + j, KV_F16);
            KRN_UNROLL for (int k = 0; k < LANES; k++) {
                v[k] = i + k < n ? load4(keys, (int64_t)(d + i + k) * KRN_KV_BLOCK + j, type) : vmath_zero();
                if (type == KV_Q8_0) v[k] = vmulq_f32(v[k], scale);
            }
            transpose(v);
            for (int k = 0; k < LANES; k++) vmath_store(out + (j + k) * n + i, n - i, v[k]);
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
    for (int32_t d = 0; d < dim; d += LANES) {
        float32x4_t add = vmulq_f32(vmath_load(o + d, dim - d), vmath_all(b));
        float32x4_t sum = vfmaq_f32(add, vmath_load(out + d, dim - d), vmath_all(a));
        vmath_store(out + d, dim - d, sum);
    }
}

static const struct krn_attn_kernel kernel = {scores, softmax, values, blend, krn_neon_softcap, turn};

void krn_neon_attention(const struct krn_attention *a) { krn_attn_walk(a, &kernel); }
void krn_neon_attention_merge(const struct krn_attention *a) { krn_attn_walk_merge(a, &kernel); }
