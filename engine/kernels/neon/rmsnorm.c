/* rmsnorm.c: the contract's 64 lanes are sixteen vectors. */
#include "engine/kernels/neon/neon.h"
#include "engine/kernels/neon/vmath.h"

enum { VECTORS = 64 / LANES };

float krn_neon_sum_squares(const float *x, int32_t d)
{
    float32x4_t lane[VECTORS];
    for (int32_t j = 0; j < VECTORS; j++) lane[j] = vmath_zero();
    int32_t i = 0;
    for (; i + 64 <= d; i += 64)
        for (int32_t j = 0; j < VECTORS; j++) {
            float32x4_t v = vld1q_f32(x + i + LANES * j);
            lane[j] = vfmaq_f32(lane[j], v, v);
        }
    for (int32_t j = 0; i < d; j++, i += LANES) {
        float32x4_t v = vmath_load(x + i, d - i);
        lane[j] = vfmaq_f32(lane[j], v, v);
    }
    return vmath_lane_sum(lane, VECTORS);
}

void krn_neon_rmsnorm(float *y, const float *x, const float *w, int32_t d, float eps, int32_t t0,
                      int32_t t1)
{
    for (int64_t t = t0; t < t1; t++) {
        const float *row = x + t * d;
        const float32x4_t scale =
            vmath_all(1.0f / sqrtf(krn_neon_sum_squares(row, d) / (float)d + eps));
        for (int32_t i = 0; i < d; i += LANES) {
            float32x4_t v = vmulq_f32(vmath_load(row + i, d - i), scale);
            vmath_store(y + t * d + i, d - i, vmulq_f32(v, vmath_load(w + i, d - i)));
        }
    }
}
