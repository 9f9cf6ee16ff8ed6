/* layernorm.c: the contract's 64 lanes are sixteen vectors. */
#include "engine/kernels/neon/neon.h"
#include "engine/kernels/neon/vmath.h"

enum { VECTORS = 64 / LANES };

static float mean_of(const float *x, int32_t d)
{
    float32x4_t lane[VECTORS];
    for (int32_t j = 0; j < VECTORS; j++) lane[j] = vmath_zero();
    for (int32_t i = 0; i < d; i += LANES) {
        int32_t j = i / LANES % VECTORS;
        lane[j] = vaddq_f32(lane[j], vmath_load(x + i, d - i));
    }
    return vmath_lane_sum(lane, VECTORS) / (float)d;
}

static float variance_of(const float *x, float32x4_t mean, int32_t d)
{
    float32x4_t lane[VECTORS];
    for (int32_t j = 0; j < VECTORS; j++) lane[j] = vmath_zero();
    for (int32_t i = 0; i < d; i += LANES) {
        int32_t j = i / LANES % VECTORS;
        float32x4_t c = vmath_keep(vmath_first(d - i), vsubq_f32(vmath_load(x + i, d - i), mean));
        lane[j] = vfmaq_f32(lane[j], c, c);
    }
    return vmath_lane_sum(lane, VECTORS) / (float)d;
}

void krn_neon_layernorm(float *y, const float *x, const float *w, const float *b, int32_t d,
                        float eps, int32_t t0, int32_t t1)
{
    for (int64_t t = t0; t < t1; t++) {
        const float *row = x + t * d;
        const float32x4_t mean = vmath_all(mean_of(row, d));
        const float32x4_t scale = vmath_all(1.0f / sqrtf(variance_of(row, mean, d) + eps));
        for (int32_t i = 0; i < d; i += LANES) {
            float32x4_t c = vmulq_f32(vsubq_f32(vmath_load(row + i, d - i), mean), scale);
            float32x4_t wv = vmath_load(w + i, d - i);
            c = b ? vfmaq_f32(vmath_load(b + i, d - i), c, wv) : vmulq_f32(c, wv);
            vmath_store(y + t * d + i, d - i, c);
        }
    }
}
