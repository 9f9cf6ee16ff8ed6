/* gate.c: GELU in its two forms and the clamped SwiGLU, sixteen elements at a time. */
#include "base/base.h"
#include "engine/kernels/avx512/avx512.h"
#include "engine/kernels/avx512/vmath.h"

static inline __mmask16 rest(int64_t n) { return n >= 16 ? 0xffff : vmath_first((int32_t)n); }

static inline __m512 gelu_tanh(__m512 g)
{
    __m512 c = _mm512_fmadd_ps(_mm512_set1_ps(KRN_GELU_3), _mm512_mul_ps(g, g), _mm512_set1_ps(KRN_GELU_1));
    __m512 e = vmath_exp(_mm512_mul_ps(g, c));
    return _mm512_div_ps(g, _mm512_add_ps(_mm512_set1_ps(1.0f), e));
}

static inline __m512 gelu_erf(__m512 g)
{
    const __m512 one = _mm512_set1_ps(1.0f);
    __m512 z = _mm512_mul_ps(_mm512_abs_ps(g), _mm512_set1_ps(KRN_SQRT_HALF));
    __m512 t = _mm512_div_ps(one, _mm512_fmadd_ps(_mm512_set1_ps(KRN_ERF_P), z, one));
    __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(KRN_ERF_A5), t, _mm512_set1_ps(KRN_ERF_A4));
    p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(KRN_ERF_A3));
    p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(KRN_ERF_A2));
    p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(KRN_ERF_A1));
    __m512 e = vmath_exp(_mm512_sub_ps(_mm512_set1_ps(-0.0f), _mm512_mul_ps(z, z)));
    __m512 h = _mm512_mul_ps(_mm512_set1_ps(0.5f), _mm512_mul_ps(_mm512_mul_ps(p, t), e));
    return _mm512_mul_ps(g, _mm512_mask_mov_ps(_mm512_sub_ps(one, h), _mm512_cmp_ps_mask(g, _mm512_setzero_ps(), _CMP_LT_OQ), h));
}

static inline __m512 swiglu_clamped(__m512 g, __m512 u)
{
    const __m512 limit = _mm512_set1_ps(KRN_SWIGLU_LIMIT), one = _mm512_set1_ps(1.0f);
    g = _mm512_min_ps(g, limit);
    u = _mm512_max_ps(_mm512_min_ps(u, limit), _mm512_set1_ps(-KRN_SWIGLU_LIMIT));
    __m512 e = vmath_exp(_mm512_mul_ps(g, _mm512_set1_ps(-KRN_SWIGLU_ALPHA)));
    return _mm512_mul_ps(_mm512_div_ps(g, _mm512_add_ps(one, e)), _mm512_add_ps(u, one));
}

void krn_avx512_gate(enum krn_gate kind, float *y, const float *g, const float *u, int64_t n)
{
    for (int64_t i = 0; i < n; i += 16) {
        __mmask16 mask = rest(n - i);
        __m512 a = _mm512_maskz_loadu_ps(mask, g + i), b = u ? _mm512_maskz_loadu_ps(mask, u + i) : _mm512_set1_ps(1.0f);
        if (kind == KRN_SWIGLU_CLAMPED) {
            _mm512_mask_storeu_ps(y + i, mask, swiglu_clamped(a, b));
            continue;
        }
        a = kind == KRN_GELU_TANH ? gelu_tanh(a) : gelu_erf(a);
        _mm512_mask_storeu_ps(y + i, mask, u ? _mm512_mul_ps(a, b) : a);
    }
}
