/* vmath.h: math.h's e^x and log x on 8 lanes, step by step the same; the fixed sums over lanes;
 * partial vectors. */
#ifndef ENGINE_KERNELS_AVX2_VMATH_H
#define ENGINE_KERNELS_AVX2_VMATH_H

#include "engine/kernels/math.h"

#include <immintrin.h>

static inline __m256 vmath_exp(__m256 x)
{
    const __m256 round = _mm256_set1_ps(KRN_ROUND), one = _mm256_set1_ps(1.0f);
    __m256 above = _mm256_cmp_ps(x, _mm256_set1_ps(KRN_EXP_MIN), _CMP_NLT_UQ);
    x = _mm256_min_ps(_mm256_set1_ps(KRN_EXP_MAX), x);
    __m256 t = _mm256_fmadd_ps(x, _mm256_set1_ps(KRN_LOG2E), round);
    __m256 n = _mm256_sub_ps(t, round);
    __m256 r = _mm256_fmadd_ps(n, _mm256_set1_ps(-KRN_LN2_HI), x);
    r = _mm256_fmadd_ps(n, _mm256_set1_ps(-KRN_LN2_LO), r);
    __m256 p = _mm256_fmadd_ps(_mm256_set1_ps(KRN_E6), r, _mm256_set1_ps(KRN_E5));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(KRN_E4));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(KRN_E3));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(KRN_E2));
    p = _mm256_fmadd_ps(p, r, one);
    p = _mm256_fmadd_ps(p, r, one);
    __m256i scaled =
        _mm256_add_epi32(_mm256_castps_si256(p), _mm256_slli_epi32(_mm256_castps_si256(t), 23));
    return _mm256_and_ps(above, _mm256_castsi256_ps(scaled));
}

static inline __m256 vmath_log(__m256 x)
{
    const __m256i half = _mm256_set1_epi32((int)KRN_SQRT_HALF_BITS);
    __m256i u = _mm256_sub_epi32(_mm256_castps_si256(x), half);
    __m256 e = _mm256_cvtepi32_ps(_mm256_srai_epi32(u, 23));
    __m256i m = _mm256_add_epi32(_mm256_and_si256(u, _mm256_set1_epi32(0x7fffff)), half);
    __m256 f = _mm256_sub_ps(_mm256_castsi256_ps(m), _mm256_set1_ps(1.0f));
    __m256 p = _mm256_fmadd_ps(_mm256_set1_ps(KRN_L10), f, _mm256_set1_ps(KRN_L9));
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(KRN_L8));
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(KRN_L7));
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(KRN_L6));
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(KRN_L5));
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(KRN_L4));
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(KRN_L3));
    p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(-0.5f));
    __m256 low =
        _mm256_fmadd_ps(e, _mm256_set1_ps(KRN_LN2_LO), _mm256_mul_ps(_mm256_mul_ps(f, f), p));
    return _mm256_fmadd_ps(e, _mm256_set1_ps(KRN_LN2_HI), _mm256_add_ps(f, low));
}

/* Sixteen lanes, the low and the high eight, added as (0+8, 1+9, ...), then (0+4, ...), (0+2, ...),
 * (0+1). */
static inline float vmath_lane_sum(__m256 low, __m256 high)
{
    __m256 a = _mm256_add_ps(low, high);
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}

static inline float vmath_max(__m256 v)
{
    __m128 b = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    __m128 c = _mm_max_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_max_ss(c, _mm_movehdup_ps(c)));
}

/* All bits set in the first n lanes, n <= 0 none, n >= 8 all. */
static inline __m256i vmath_first(int32_t n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/* The first n of 8 floats (the others 0; not touched in memory). */
static inline __m256 vmath_load(const float *p, int32_t n)
{
    return n >= 8 ? _mm256_loadu_ps(p) : _mm256_maskload_ps(p, vmath_first(n));
}

static inline void vmath_store(float *p, int32_t n, __m256 v)
{
    if (n >= 8)
        _mm256_storeu_ps(p, v);
    else
        _mm256_maskstore_ps(p, vmath_first(n), v);
}

#endif
