/* codes.h: up to 32 floats to codes of one byte, rounded to nearest even, for activations and for
 * q8_0 keys and values. */
#ifndef ENGINE_KERNELS_NEON_CODES_H
#define ENGINE_KERNELS_NEON_CODES_H

#include "engine/kernels/neon/vmath.h"

enum { CODE_VECTORS = 8 };

/* x[n], n <= 32, the rest 0; returns the largest magnitude. */
static inline float codes_load(const float *x, int32_t n, float32x4_t v[CODE_VECTORS])
{
    float32x4_t big = vmath_zero();
    for (int32_t i = 0; i < CODE_VECTORS; i++) {
        v[i] = vmath_load(x + LANES * i, n - LANES * i);
        big = vmaxq_f32(big, vabsq_f32(v[i]));
    }
    return vmaxvq_f32(big);
}

/* Codes of v * inv, all within a signed byte; the sums of both halves. */
static inline void codes_of(const float32x4_t v[CODE_VECTORS], float inv, int8_t q[32],
                            int32_t sum[2])
{
    int32x4_t c[CODE_VECTORS];
    for (int32_t i = 0; i < CODE_VECTORS; i++) c[i] = vcvtnq_s32_f32(vmulq_f32(v[i], vmath_all(inv)));
    for (int32_t h = 0; h < 2; h++) {
        int32x4_t *k = c + 4 * h;
        sum[h] = vaddvq_s32(vaddq_s32(vaddq_s32(k[0], k[1]), vaddq_s32(k[2], k[3])));
        int16x8_t low = vcombine_s16(vmovn_s32(k[0]), vmovn_s32(k[1]));
        int16x8_t high = vcombine_s16(vmovn_s32(k[2]), vmovn_s32(k[3]));
        vst1q_s8(q + 16 * h, vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
    }
}

#endif
