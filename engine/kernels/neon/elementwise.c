/* elementwise.c: four elements at a time, the rest through a buffer. */
#include "engine/kernels/neon/neon.h"
#include "engine/kernels/neon/vmath.h"

void krn_neon_add(float *x, const float *y, int64_t n)
{
    for (int64_t i = 0; i < n; i += LANES)
        vmath_store(x + i, n - i, vaddq_f32(vmath_load(x + i, n - i), vmath_load(y + i, n - i)));
}

void krn_neon_silu_mul(float *y, const float *g, const float *u, int64_t n)
{
    for (int64_t i = 0; i < n; i += LANES) {
        float32x4_t gv = vmath_load(g + i, n - i), e = vmath_exp(vnegq_f32(gv));
        float32x4_t gate = vdivq_f32(gv, vaddq_f32(vmath_all(1.0f), e));
        vmath_store(y + i, n - i, vmulq_f32(gate, vmath_load(u + i, n - i)));
    }
}

void krn_neon_mul(float *x, const float *y, int64_t n)
{
    for (int64_t i = 0; i < n; i += LANES)
        vmath_store(x + i, n - i, vmulq_f32(vmath_load(x + i, n - i), vmath_load(y + i, n - i)));
}

void krn_neon_scale(float *x, float a, int64_t n)
{
    for (int64_t i = 0; i < n; i += LANES)
        vmath_store(x + i, n - i, vmulq_f32(vmath_load(x + i, n - i), vmath_all(a)));
}

void krn_neon_axpy(float *y, float a, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i += LANES)
        vmath_store(y + i, n - i,
                    vfmaq_f32(vmath_load(y + i, n - i), vmath_all(a), vmath_load(x + i, n - i)));
}

void krn_neon_axpy_rows(float *y, int64_t y_stride, const int32_t *at, const float *a,
                        const float *x, int64_t x_stride, int32_t n_rows, int32_t n)
{
    for (int32_t r = 0; r < n_rows; r++)
        krn_neon_axpy(y + at[r] * y_stride, a[r], x + r * x_stride, n);
}

void krn_neon_softcap(float *x, float cap, int64_t n)
{
    const float32x4_t one = vmath_all(1.0f), twice = vmath_all(2.0f / cap);
    for (int64_t i = 0; i < n; i += LANES) {
        float32x4_t t = vmath_exp(vmulq_f32(vmath_load(x + i, n - i), twice));
        float32x4_t y = vdivq_f32(vsubq_f32(t, one), vaddq_f32(t, one));
        vmath_store(x + i, n - i, vmulq_f32(y, vmath_all(cap)));
    }
}
