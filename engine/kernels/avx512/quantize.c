/* quantize.c: a unit of activations is two vectors; hardware conversion rounds to nearest even as
 * the contract asks. */
#include "engine/kernels/avx512/avx512.h"
#include "engine/kernels/panel.h"

#include <float.h>
#include <immintrin.h>

static inline void quantize_unit(const float *x, const struct krn_panel_lane *l)
{
    __m512 a = _mm512_loadu_ps(x), b = _mm512_loadu_ps(x + 16);
    float amax = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(a), _mm512_abs_ps(b)));
    float inv = amax > 0.0f ? 127.0f / amax : 0.0f;
    inv = inv > FLT_MAX ? FLT_MAX : inv;
    __m512i qa = _mm512_cvtps_epi32(_mm512_mul_ps(a, _mm512_set1_ps(inv)));
    __m512i qb = _mm512_cvtps_epi32(_mm512_mul_ps(b, _mm512_set1_ps(inv)));
    int8_t *q = krn_lane_q(l);
    _mm_storeu_si128((__m128i *)q, _mm512_cvtepi32_epi8(qa));
    _mm_storeu_si128((__m128i *)(q + 16), _mm512_cvtepi32_epi8(qb));
    krn_lane_put_scale(l, amax / 127.0f, _mm512_reduce_add_epi32(qa), _mm512_reduce_add_epi32(qb));
}

void krn_avx512_quantize(const struct krn_act *a, int32_t t0, int32_t t1, int32_t u0, int32_t u1)
{
    krn_quantize_walk(a, t0, t1, u0, u1, quantize_unit);
}
