/* elementwise.c: operations of one element with one element; and the scalar e^x and log x of
 * table.h. */
#include "engine/kernels/math.h"
#include "engine/kernels/ref/ref.h"

float krn_exp(float x) { return krn_math_exp(x); }
float krn_log(float x) { return krn_math_log(x); }

void krn_ref_add(float *x, const float *y, int64_t n)
{
    for (int64_t i = 0; i < n; i++) x[i] += y[i];
}

void krn_ref_silu_mul(float *y, const float *g, const float *u, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        float e = krn_math_exp(-g[i]);
        y[i] = (g[i] / (1.0f + e)) * u[i];
    }
}

void krn_ref_mul(float *x, const float *y, int64_t n)
{
    for (int64_t i = 0; i < n; i++) x[i] *= y[i];
}

void krn_ref_scale(float *x, float a, int64_t n)
{
    for (int64_t i = 0; i < n; i++) x[i] *= a;
}

void krn_ref_axpy_rows(float *y, int64_t y_stride, const int32_t *at, const float *a, const float *x,
                        int64_t x_stride, int32_t n_rows, int32_t n)
{
    for (int32_t r = 0; r < n_rows; r++) {
        float *to = y + at[r] * y_stride;
        const float *from = x + r * x_stride;
        for (int32_t i = 0; i < n; i++) to[i] = fmaf(a[r], from[i], to[i]);
    }
}

void krn_ref_softcap(float *x, float cap, int64_t n)
{
    float twice = 2.0f / cap;
    for (int64_t i = 0; i < n; i++) {
        float t = krn_math_exp(x[i] * twice);
        x[i] = ((t - 1.0f) / (t + 1.0f)) * cap;
    }
}

void krn_ref_axpy(float *y, float a, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) y[i] = fmaf(a, x[i], y[i]);
}
