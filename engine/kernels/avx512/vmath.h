/* vmath.h: math.h's e^x and log x on 16 lanes, step by step the same; and the fixed sums over
 * lanes. */
#ifndef ENGINE_KERNELS_AVX512_VMATH_H
#define ENGINE_KERNELS_AVX512_VMATH_H

#include "engine/kernels/math.h"

#include <immintrin.h>

static inline __m512 vmath_exp(__m512 x)
{
    const __m512 round = _mm512_set1_ps(KRN_ROUND), one = _mm512_set1_ps(1.0f);
    __mmask16 above = _mm512_cmp_ps_mask(x, _mm512_set1_ps(KRN_EXP_MIN), _CMP_NLT_UQ);
    x = _mm512_min_ps(_mm512_set1_ps(KRN_EXP_MAX), x);
    __m512 t = _mm512_fmadd_ps(x, _mm512_set1_ps(KRN_LOG2E), round);
    __m512 n = _mm512_sub_ps(t, round);
    __m512 r = _mm512_fmadd_ps(n, _mm512_set1_ps(-KRN_LN2_HI), x);
    r = _mm512_fmadd_ps(n, _mm512_set1_ps(-KRN_LN2_LO), r);
    __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(KRN_E6), r, _mm512_set1_ps(KRN_E5));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(KRN_E4));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(KRN_E3));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(KRN_E2));
    p = _mm512_fmadd_ps(p, r, one);
    p = _mm512_fmadd_ps(p, r, one);
    __m512i scaled =
        _mm512_add_epi32(_mm512_castps_si512(p), _mm512_slli_epi32(_mm512_castps_si512(t), 23));
    return _mm512_castsi512_ps(_mm512_maskz_mov_epi32(above, scaled));
}

static inline __m512 vmath_log(__m512 x)
{
    const __m512i half = _mm512_set1_epi32((int)KRN_SQRT_HALF_BITS);
    __m512i u = _mm512_sub_epi32(_mm512_castps_si512(x), half);
    __m512 e = _mm512_cvtepi32_ps(_mm512_srai_epi32(u, 23));
    __m512i m = _mm512_add_epi32(_mm512_and_si512(u, _mm512_set1_epi32(0x7fffff)), half);
    __m512 f = _mm512_sub_ps(_mm512_castsi512_ps(m), _mm512_set1_ps(1.0f));
    __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(KRN_L10), f, _mm512_set1_ps(KRN_L9));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(KRN_L8));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(KRN_L7));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(KRN_L6));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(KRN_L5));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(KRN_L4));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(KRN_L3));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(-0.5f));
    __m512 low =
        _mm512_fmadd_ps(e, _mm512_set1_ps(KRN_LN2_LO), _mm512_mul_ps(_mm512_mul_ps(f, f), p));
    return _mm512_fmadd_ps(e, _mm512_set1_ps(KRN_LN2_HI), _mm512_add_ps(f, low));
}

/* Lanes added as (0+8, 1+9, ...), then (0+4, ...), (0+2, ...), (0+1). */
static inline float vmath_lane_sum(__m512 v)
{
    __m256 a = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}

/* The first n lanes, n <= 0 none, n >= 16 all. */
static inline __mmask16 vmath_first(int32_t n)
{
    return n >= 16 ? 0xffff : n <= 0 ? 0 : (__mmask16)((1u << n) - 1);
}

#endif
