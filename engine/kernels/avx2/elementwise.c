/* elementwise.c: eight elements at a time, the rest by a mask. */
#include "base/base.h"
#include "engine/kernels/avx2/avx2.h"
#include "engine/kernels/avx2/vmath.h"

static inline int32_t rest(int64_t n) { return (int32_t)MIN(n, 8); }

void krn_avx2_add(float *x, const float *y, int64_t n)
{
    for (int64_t i = 0; i < n; i += 8) {
        int32_t m = rest(n - i);
        vmath_store(x + i, m, _mm256_add_ps(vmath_load(x + i, m), vmath_load(y + i, m)));
    }
}

void krn_avx2_silu_mul(float *y, const float *g, const float *u, int64_t n)
{
    const __m256 one = _mm256_set1_ps(1.0f), sign = _mm256_set1_ps(-0.0f);
    for (int64_t i = 0; i < n; i += 8) {
        int32_t m = rest(n - i);
        __m256 gv = vmath_load(g + i, m), e = vmath_exp(_mm256_xor_ps(gv, sign));
        __m256 gate = _mm256_div_ps(gv, _mm256_add_ps(one, e));
        vmath_store(y + i, m, _mm256_mul_ps(gate, vmath_load(u + i, m)));
    }
}

void krn_avx2_mul(float *x, const float *y, int64_t n)
{
    for (int64_t i = 0; i < n; i += 8) {
        int32_t m = rest(n - i);
        vmath_store(x + i, m, _mm256_mul_ps(vmath_load(x + i, m), vmath_load(y + i, m)));
    }
}

void krn_avx2_scale(float *x, float a, int64_t n)
{
    for (int64_t i = 0; i < n; i += 8) {
        int32_t m = rest(n - i);
        vmath_store(x + i, m, _mm256_mul_ps(vmath_load(x + i, m), _mm256_set1_ps(a)));
    }
}

void krn_avx2_axpy_rows(float *y, int64_t y_stride, const int32_t *at, const float *a, const float *x,
                        int64_t x_stride, int32_t n_rows, int32_t n)
{
    for (int32_t r = 0; r < n_rows; r++) {
        float *to = y + at[r] * y_stride;
        const float *from = x + r * x_stride;
        const __m256 by = _mm256_set1_ps(a[r]);
        for (int32_t i = 0; i < n; i += 8) {
            int32_t m = rest(n - i);
            __m256 sum = _mm256_fmadd_ps(by, vmath_load(from + i, m), vmath_load(to + i, m));
            vmath_store(to + i, m, sum);
        }
    }
}

void krn_avx2_softcap(float *x, float cap, int64_t n)
{
    const __m256 one = _mm256_set1_ps(1.0f), twice = _mm256_set1_ps(2.0f / cap);
    for (int64_t i = 0; i < n; i += 8) {
        int32_t m = rest(n - i);
        __m256 t = vmath_exp(_mm256_mul_ps(vmath_load(x + i, m), twice));
        __m256 y = _mm256_div_ps(_mm256_sub_ps(t, one), _mm256_add_ps(t, one));
        vmath_store(x + i, m, _mm256_mul_ps(y, _mm256_set1_ps(cap)));
    }
}

void krn_avx2_axpy(float *y, float a, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i += 8) {
        int32_t m = rest(n - i);
        __m256 sum = _mm256_fmadd_ps(_mm256_set1_ps(a), vmath_load(x + i, m), vmath_load(y + i, m));
        vmath_store(y + i, m, sum);
    }
}
