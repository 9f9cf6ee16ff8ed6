/* layernorm.c: the contract's 64 lanes are eight vectors. */
#include "engine/kernels/avx2/avx2.h"
#include "engine/kernels/avx2/vmath.h"

static float lane_sum(__m256 lane[8])
{
    for (int half = 4; half >= 2; half /= 2)
        for (int j = 0; j < half; j++) lane[j] = _mm256_add_ps(lane[j], lane[j + half]);
    return vmath_lane_sum(lane[0], lane[1]);
}

static float mean_of(const float *x, int32_t d)
{
    __m256 lane[8];
    for (int j = 0; j < 8; j++) lane[j] = _mm256_setzero_ps();
    for (int32_t i = 0; i < d; i += 64)
        for (int32_t j = 0; j < 8; j++)
            lane[j] = _mm256_add_ps(lane[j], vmath_load(x + i + 8 * j, d - i - 8 * j));
    return lane_sum(lane) / (float)d;
}

static float variance_of(const float *x, __m256 mean, int32_t d)
{
    __m256 lane[8];
    for (int j = 0; j < 8; j++) lane[j] = _mm256_setzero_ps();
    for (int32_t i = 0; i < d; i += 64)
        for (int32_t j = 0; j < 8; j++) {
            int32_t n = d - i - 8 * j;
            __m256 c = _mm256_sub_ps(vmath_load(x + i + 8 * j, n), mean);
            c = _mm256_and_ps(c, _mm256_castsi256_ps(vmath_first(n)));
            lane[j] = _mm256_fmadd_ps(c, c, lane[j]);
        }
    return lane_sum(lane) / (float)d;
}

void krn_avx2_layernorm(float *y, const float *x, const float *w, const float *b, int32_t d, float eps,
                        int32_t t0, int32_t t1)
{
    for (int64_t t = t0; t < t1; t++) {
        const float *row = x + t * d;
        const __m256 mean = _mm256_set1_ps(mean_of(row, d));
        const __m256 scale = _mm256_set1_ps(1.0f / sqrtf(variance_of(row, mean, d) + eps));
        for (int32_t i = 0; i < d; i += 8) {
            __m256 c = _mm256_mul_ps(_mm256_sub_ps(vmath_load(row + i, d - i), mean), scale);
            __m256 wv = vmath_load(w + i, d - i);
            c = b ? _mm256_fmadd_ps(c, wv, vmath_load(b + i, d - i)) : _mm256_mul_ps(c, wv);
            vmath_store(y + t * d + i, d - i, c);
        }
    }
}
