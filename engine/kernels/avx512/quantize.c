/* quantize.c: a unit of activations is two vectors; hardware conversion rounds to nearest even as
 * the contract asks. */
#include "engine/kernels/avx512/avx512.h"

#include <float.h>
#include <immintrin.h>

static inline void quantize_unit(const float *x, int8_t *q, float *d, int32_t *s)
{
    __m512 a = _mm512_loadu_ps(x), b = _mm512_loadu_ps(x + 16);
    float amax = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(a), _mm512_abs_ps(b)));
    *d = amax / 127.0f;
    float inv = amax > 0.0f ? 127.0f / amax : 0.0f;
    inv = inv > FLT_MAX ? FLT_MAX : inv;
    __m512i qa = _mm512_cvtps_epi32(_mm512_mul_ps(a, _mm512_set1_ps(inv)));
    __m512i qb = _mm512_cvtps_epi32(_mm512_mul_ps(b, _mm512_set1_ps(inv)));
    _mm_storeu_si128((__m128i *)q, _mm512_cvtepi32_epi8(qa));
    _mm_storeu_si128((__m128i *)(q + 16), _mm512_cvtepi32_epi8(qb));
    *s = _mm512_reduce_add_epi32(_mm512_add_epi32(qa, qb));
}

void krn_avx512_quantize(const struct krn_act *a, int32_t t0, int32_t t1)
{
    int32_t n = a->cols / KRN_UNIT;
    for (int64_t u = (int64_t)t0 * n; u < (int64_t)t1 * n; u++)
        quantize_unit(a->x + u * KRN_UNIT, a->q + u * KRN_UNIT, a->d + u, a->s + u);
}
