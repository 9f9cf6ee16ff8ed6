/* rmsnorm.c: the contract's 64 lanes are eight vectors. */
#include "engine/kernels/avx2/avx2.h"
#include "engine/kernels/avx2/vmath.h"

float krn_avx2_sum_squares(const float *x, int32_t d)
{
    __m256 lane[8];
    for (int j = 0; j < 8; j++) lane[j] = _mm256_setzero_ps();
    for (int32_t i = 0; i < d; i += 64)
        for (int32_t j = 0; j < 8; j++) {
            __m256 v = vmath_load(x + i + 8 * j, d - i - 8 * j);
            lane[j] = _mm256_fmadd_ps(v, v, lane[j]);
        }
    for (int half = 4; half >= 2; half /= 2)
        for (int j = 0; j < half; j++) lane[j] = _mm256_add_ps(lane[j], lane[j + half]);
    return vmath_lane_sum(lane[0], lane[1]);
}

void krn_avx2_rmsnorm(float *y, const float *x, const float *w, int32_t d, float eps, int32_t t0,
                      int32_t t1)
{
    for (int64_t t = t0; t < t1; t++) {
        const float *row = x + t * d;
        const __m256 scale = _mm256_set1_ps(1.0f / sqrtf(krn_avx2_sum_squares(row, d) / (float)d + eps));
        for (int32_t i = 0; i < d; i += 8) {
            __m256 v = _mm256_mul_ps(vmath_load(row + i, d - i), scale);
            vmath_store(y + t * d + i, d - i, _mm256_mul_ps(v, vmath_load(w + i, d - i)));
        }
    }
}
