/* quantize.c: a unit of activations is four vectors; hardware conversion rounds to nearest even as
 * the contract asks. */
#include "engine/kernels/avx2/avx2.h"
#include "engine/kernels/avx2/vmath.h"
#include "engine/kernels/panel.h"

#include <float.h>

static inline int32_t sum_of(__m256i a, __m256i b)
{
    __m256i sum = _mm256_add_epi32(a, b);
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
    four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1)));
}

static inline void quantize_unit(const float *x, const struct krn_panel_lane *l)
{
    const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(INT32_MAX));
    __m256 v[4], big = _mm256_setzero_ps();
    for (int i = 0; i < 4; i++) {
        v[i] = _mm256_loadu_ps(x + 8 * i);
        big = _mm256_max_ps(big, _mm256_and_ps(v[i], magnitude));
    }
    float amax = vmath_max(big);
    float inv = amax > 0.0f ? 127.0f / amax : 0.0f;
    inv = inv > FLT_MAX ? FLT_MAX : inv;
    __m256i n[4];
    for (int i = 0; i < 4; i++) n[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], _mm256_set1_ps(inv)));

    /* packing works within halves of a vector: put the groups of four bytes back in order */
    __m256i bytes =
        _mm256_packs_epi16(_mm256_packs_epi32(n[0], n[1]), _mm256_packs_epi32(n[2], n[3]));
    bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_storeu_si256((__m256i *)krn_lane_q(l), bytes);
    krn_lane_put_scale(l, amax / 127.0f, sum_of(n[0], n[1]), sum_of(n[2], n[3]));
}

void krn_avx2_quantize(const struct krn_act *a, int32_t t0, int32_t t1, int32_t u0, int32_t u1)
{
    krn_quantize_walk(a, t0, t1, u0, u1, quantize_unit);
}
