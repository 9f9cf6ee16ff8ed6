/* gate.c: GELU in its two forms and the clamped SwiGLU, eight elements at a time. */
#include "base/base.h"
#include "engine/kernels/avx2/avx2.h"
#include "engine/kernels/avx2/vmath.h"

static inline int32_t rest(int64_t n) { return (int32_t)MIN(n, 8); }

static inline __m256 gelu_tanh(__m256 g)
{
    __m256 c = _mm256_fmadd_ps(_mm256_set1_ps(KRN_GELU_3), _mm256_mul_ps(g, g), _mm256_set1_ps(KRN_GELU_1));
    __m256 e = vmath_exp(_mm256_mul_ps(g, c));
    return _mm256_div_ps(g, _mm256_add_ps(_mm256_set1_ps(1.0f), e));
}

static inline __m256 gelu_erf(__m256 g)
{
    const __m256 one = _mm256_set1_ps(1.0f);
    const __m256 sign = _mm256_set1_ps(-0.0f);
    __m256 z = _mm256_mul_ps(_mm256_andnot_ps(sign, g), _mm256_set1_ps(KRN_SQRT_HALF));
    __m256 t = _mm256_div_ps(one, _mm256_fmadd_ps(_mm256_set1_ps(KRN_ERF_P), z, one));
    __m256 p = _mm256_fmadd_ps(_mm256_set1_ps(KRN_ERF_A5), t, _mm256_set1_ps(KRN_ERF_A4));
    p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(KRN_ERF_A3));
    p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(KRN_ERF_A2));
    p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(KRN_ERF_A1));
    __m256 e = vmath_exp(_mm256_xor_ps(_mm256_mul_ps(z, z), sign));
    __m256 h = _mm256_mul_ps(_mm256_set1_ps(0.5f), _mm256_mul_ps(_mm256_mul_ps(p, t), e));
    return _mm256_mul_ps(g, _mm256_blendv_ps(_mm256_sub_ps(one, h), h, _mm256_cmp_ps(g, _mm256_setzero_ps(), _CMP_LT_OQ)));
}

static inline __m256 swiglu_clamped(__m256 g, __m256 u)
{
    const __m256 limit = _mm256_set1_ps(KRN_SWIGLU_LIMIT), one = _mm256_set1_ps(1.0f);
    g = _mm256_min_ps(g, limit);
    u = _mm256_max_ps(_mm256_min_ps(u, limit), _mm256_set1_ps(-KRN_SWIGLU_LIMIT));
    __m256 e = vmath_exp(_mm256_mul_ps(g, _mm256_set1_ps(-KRN_SWIGLU_ALPHA)));
    return _mm256_mul_ps(_mm256_div_ps(g, _mm256_add_ps(one, e)), _mm256_add_ps(u, one));
}

void krn_avx2_gate(enum krn_gate kind, float *y, const float *g, const float *u, int64_t n)
{
    for (int64_t i = 0; i < n; i += 8) {
        int32_t m = rest(n - i);
        __m256 a = vmath_load(g + i, m), b = u ? vmath_load(u + i, m) : _mm256_set1_ps(1.0f);
        if (kind == KRN_SWIGLU_CLAMPED) {
            vmath_store(y + i, m, swiglu_clamped(a, b));
            continue;
        }
        a = kind == KRN_GELU_TANH ? gelu_tanh(a) : gelu_erf(a);
        vmath_store(y + i, m, u ? _mm256_mul_ps(a, b) : a);
    }
}
