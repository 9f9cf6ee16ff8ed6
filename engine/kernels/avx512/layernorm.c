/* layernorm.c: the contract's 64 lanes are four vectors. */
#include "engine/kernels/avx512/avx512.h"
#include "engine/kernels/avx512/vmath.h"

static float lane_sum(const __m512 lane[4])
{
    __m512 a = _mm512_add_ps(lane[0], lane[2]), b = _mm512_add_ps(lane[1], lane[3]);
    return vmath_lane_sum(_mm512_add_ps(a, b));
}

static float mean_of(const float *x, int32_t d)
{
    __m512 lane[4];
    for (int j = 0; j < 4; j++) lane[j] = _mm512_setzero_ps();
    for (int32_t i = 0; i < d; i += 64)
        for (int32_t j = 0; j < 4; j++)
            lane[j] = _mm512_add_ps(
                lane[j], _mm512_maskz_loadu_ps(vmath_first(d - i - 16 * j), x + i + 16 * j));
    return lane_sum(lane) / (float)d;
}

static float variance_of(const float *x, __m512 mean, int32_t d)
{
    __m512 lane[4];
    for (int j = 0; j < 4; j++) lane[j] = _mm512_setzero_ps();
    for (int32_t i = 0; i < d; i += 64)
        for (int32_t j = 0; j < 4; j++) {
            __mmask16 mask = vmath_first(d - i - 16 * j);
            __m512 c = _mm512_maskz_sub_ps(
                mask, _mm512_maskz_loadu_ps(mask, x + i + 16 * j), mean);
            lane[j] = _mm512_fmadd_ps(c, c, lane[j]);
        }
    return lane_sum(lane) / (float)d;
}

void krn_avx512_layernorm(float *y, const float *x, const float *w, const float *b, int32_t d, float eps,
                          int32_t t0, int32_t t1)
{
    for (int64_t t = t0; t < t1; t++) {
        const float *row = x + t * d;
        const __m512 mean = _mm512_set1_ps(mean_of(row, d));
        const __m512 scale = _mm512_set1_ps(1.0f / sqrtf(variance_of(row, mean, d) + eps));
        for (int32_t i = 0; i < d; i += 16) {
            __mmask16 mask = vmath_first(d - i);
            __m512 wv = _mm512_maskz_loadu_ps(mask, w + i);
            __m512 c =
                _mm512_mul_ps(_mm512_sub_ps(_mm512_maskz_loadu_ps(mask, row + i), mean), scale);
            c = b ? _mm512_fmadd_ps(c, wv, _mm512_maskz_loadu_ps(mask, b + i))
                  : _mm512_mul_ps(c, wv);
            _mm512_mask_storeu_ps(y + t * d + i, mask, c);
        }
    }
}
