/* elementwise.c: sixteen elements at a time, the rest by a mask. */
#include "engine/kernels/avx512/avx512.h"
#include "engine/kernels/avx512/vmath.h"

static inline __mmask16 rest(int64_t n) { return n >= 16 ? 0xffff : vmath_first((int32_t)n); }

void krn_avx512_add(float *x, const float *y, int64_t n)
{
    for (int64_t i = 0; i < n; i += 16) {
        __mmask16 mask = rest(n - i);
        __m512 sum =
            _mm512_add_ps(_mm512_maskz_loadu_ps(mask, x + i), _mm512_maskz_loadu_ps(mask, y + i));
        _mm512_mask_storeu_ps(x + i, mask, sum);
    }
}

void krn_avx512_silu_mul(float *y, const float *g, const float *u, int64_t n)
{
    const __m512 one = _mm512_set1_ps(1.0f);
    const __m512i sign = _mm512_set1_epi32(INT32_MIN);
    for (int64_t i = 0; i < n; i += 16) {
        __mmask16 mask = rest(n - i);
        __m512 gv = _mm512_maskz_loadu_ps(mask, g + i);
        __m512 e = vmath_exp(_mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(gv), sign)));
        __m512 gate = _mm512_div_ps(gv, _mm512_add_ps(one, e));
        _mm512_mask_storeu_ps(y + i, mask, _mm512_mul_ps(gate, _mm512_maskz_loadu_ps(mask, u + i)));
    }
}

void krn_avx512_mul(float *x, const float *y, int64_t n)
{
    for (int64_t i = 0; i < n; i += 16) {
        __mmask16 mask = rest(n - i);
        _mm512_mask_storeu_ps(x + i, mask, _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, x + i), _mm512_maskz_loadu_ps(mask, y + i)));
    }
}

void krn_avx512_scale(float *x, float a, int64_t n)
{
    for (int64_t i = 0; i < n; i += 16) {
        __mmask16 mask = rest(n - i);
        _mm512_mask_storeu_ps(x + i, mask, _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, x + i), _mm512_set1_ps(a)));
    }
}

void krn_avx512_axpy_rows(float *y, int64_t y_stride, const int32_t *at, const float *a, const float *x,
                        int64_t x_stride, int32_t n_rows, int32_t n)
{
    for (int32_t r = 0; r < n_rows; r++) {
        float *to = y + at[r] * y_stride;
        const float *from = x + r * x_stride;
        const __m512 by = _mm512_set1_ps(a[r]);
        for (int32_t i = 0; i < n; i += 16) {
            __mmask16 mask = rest(n - i);
            __m512 sum = _mm512_fmadd_ps(by, _mm512_maskz_loadu_ps(mask, from + i),
                                         _mm512_maskz_loadu_ps(mask, to + i));
            _mm512_mask_storeu_ps(to + i, mask, sum);
        }
    }
}

void krn_avx512_softcap(float *x, float cap, int64_t n)
{
    const __m512 one = _mm512_set1_ps(1.0f), twice = _mm512_set1_ps(2.0f / cap);
    for (int64_t i = 0; i < n; i += 16) {
        __mmask16 mask = rest(n - i);
        __m512 t = vmath_exp(_mm512_mul_ps(_mm512_maskz_loadu_ps(mask, x + i), twice));
        __m512 y = _mm512_div_ps(_mm512_sub_ps(t, one), _mm512_add_ps(t, one));
        _mm512_mask_storeu_ps(x + i, mask, _mm512_mul_ps(y, _mm512_set1_ps(cap)));
    }
}

void krn_avx512_axpy(float *y, float a, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i += 16) {
        __mmask16 mask = rest(n - i);
        __m512 sum = _mm512_fmadd_ps(_mm512_set1_ps(a), _mm512_maskz_loadu_ps(mask, x + i), _mm512_maskz_loadu_ps(mask, y + i));
        _mm512_mask_storeu_ps(y + i, mask, sum);
    }
}
