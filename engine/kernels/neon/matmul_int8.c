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

KRN_QUANT_LAYOUTS(INT8_CHAINS)
const struct krn_leaf_kernel krn_neon_int8[DTYPE_COUNT] = {KRN_QUANT_LAYOUTS(INT8_KERNEL)};
