/* matmul_int8.c: dot products of bytes where the processor has no instruction for them: smlal adds
 * products in 16 bits, two per row and vector. What fits decides how many are added before they are
 * widened: codes up to 5 bits all 8 (8 x 31 x 127 = 31496), of 6 bits the 4 of a half unit
 * (32004), of 8 bits and out of books 2 (2 x 128 x 127 = 32512). The walk: int8_walk.h. */
#include "engine/kernels/neon/int8_walk.h"
#include "engine/kernels/neon/neon.h"

/* Four activations, once per row of half a vector. */
KRN_INLINE int8x8_t four_twice(const int8_t *q)
{
    int32_t v;
    memcpy(&v, q, sizeof v);
    return vreinterpret_s8_s32(vdup_n_s32(v));
}

/* Sums of n vectors, in 16 bits, widened. */
KRN_INLINE int32x4_t dot_some(const int8x16_t *w, const int8_t *q, const int n)
{
    int8x8_t x = four_twice(q);
    int16x8_t low = vmull_s8(vget_low_s8(w[0]), x), high = vmull_s8(vget_high_s8(w[0]), x);
    KRN_UNROLL for (int j = 1; j < n; j++)
    {
        x = four_twice(q + 4 * j);
        low = vmlal_s8(low, vget_low_s8(w[j]), x);
        high = vmlal_s8(high, vget_high_s8(w[j]), x);
    }
    return vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high));
}

KRN_INLINE int32x4_t dot(const int8x16_t *w, const int8_t *q, const int n, const enum dtype type)
{
    if (!unit_is_signed(type)) return dot_some(w, q, n);
    int32x4_t sum = dot_some(w, q, 2);
    KRN_UNROLL for (int j = 2; j < n; j += 2) sum = vaddq_s32(sum, dot_some(w + j, q + 4 * j, 2));
    return sum;
}

KRN_INLINE void lanes(float *acc, const int8x16_t w[UNIT_VECTORS], const struct unit_scales *sc,
                      const uint8_t *x, int32_t width, const enum dtype type)
{
    for (int32_t t = 0; t < width; t++)
        vst1q_f32(acc + t * KRN_TILE,
                  add_unit(vld1q_f32(acc + t * KRN_TILE), w, sc, x, width, t, type, dot));
}

static void q8_0(const struct krn_leaf_job *j) { int8_chains(j, DTYPE_Q8_0, dot, lanes); }
static void q4_0(const struct krn_leaf_job *j) { int8_chains(j, DTYPE_Q4_0, dot, lanes); }
static void q4_k(const struct krn_leaf_job *j) { int8_chains(j, DTYPE_Q4_K, dot, lanes); }
static void q5_k(const struct krn_leaf_job *j) { int8_chains(j, DTYPE_Q5_K, dot, lanes); }
static void q6_k(const struct krn_leaf_job *j) { int8_chains(j, DTYPE_Q6_K, dot, lanes); }
static void q4_1(const struct krn_leaf_job *j) { int8_chains(j, DTYPE_Q4_1, dot, lanes); }
static void q5_0(const struct krn_leaf_job *j) { int8_chains(j, DTYPE_Q5_0, dot, lanes); }
static void q5_1(const struct krn_leaf_job *j) { int8_chains(j, DTYPE_Q5_1, dot, lanes); }
static void q2_k(const struct krn_leaf_job *j) { int8_chains(j, DTYPE_Q2_K, dot, lanes); }
static void q3_k(const struct krn_leaf_job *j) { int8_chains(j, DTYPE_Q3_K, dot, lanes); }
static void iq4_nl(const struct krn_leaf_job *j) { int8_chains(j, DTYPE_IQ4_NL, dot, lanes); }
static void iq4_xs(const struct krn_leaf_job *j) { int8_chains(j, DTYPE_IQ4_XS, dot, lanes); }
static void iq2_s(const struct krn_leaf_job *j) { int8_chains(j, DTYPE_IQ2_S, dot, lanes); }
static void tq2_0(const struct krn_leaf_job *j) { int8_chains(j, DTYPE_TQ2_0, dot, lanes); }
static void mxfp4(const struct krn_leaf_job *j) { int8_chains(j, DTYPE_MXFP4, dot, lanes); }

const struct krn_leaf_kernel krn_neon_int8[DTYPE_COUNT] = {
    [DTYPE_Q8_0] = INT8_KERNEL(q8_0), [DTYPE_Q4_0] = INT8_KERNEL(q4_0),
    [DTYPE_Q4_K] = INT8_KERNEL(q4_k), [DTYPE_Q5_K] = INT8_KERNEL(q5_k),
    [DTYPE_Q6_K] = INT8_KERNEL(q6_k), [DTYPE_Q4_1] = INT8_KERNEL(q4_1),
    [DTYPE_Q5_0] = INT8_KERNEL(q5_0), [DTYPE_Q5_1] = INT8_KERNEL(q5_1),
    [DTYPE_Q2_K] = INT8_KERNEL(q2_k), [DTYPE_Q3_K] = INT8_KERNEL(q3_k),
    [DTYPE_IQ4_NL] = INT8_KERNEL(iq4_nl), [DTYPE_IQ4_XS] = INT8_KERNEL(iq4_xs),
    [DTYPE_IQ2_S] = INT8_KERNEL(iq2_s), [DTYPE_TQ2_0] = INT8_KERNEL(tq2_0),
    [DTYPE_MXFP4] = INT8_KERNEL(mxfp4),
};
