/* rmsnorm.c: y = x / rms(x) * w, row by row. */
#include "engine/kernels/ref/ref.h"

#include <math.h>

enum { LANES = 64 };

float krn_ref_sum_squares(const float *x, int32_t d)
{
    float lane[LANES] = {0};
    for (int32_t i = 0; i < d; i++) lane[i % LANES] = fmaf(x[i], x[i], lane[i % LANES]);
    for (int32_t half = LANES / 2; half; half /= 2)
        for (int32_t i = 0; i < half; i++) lane[i] += lane[i + half];
    return lane[0];
}

void krn_ref_rmsnorm(float *y, const float *x, const float *w, int32_t d, float eps, int32_t t0,
                     int32_t t1)
{
    for (int64_t t = t0; t < t1; t++) {
        const float *row = x + t * d;
        float scale = 1.0f / sqrtf(krn_ref_sum_squares(row, d) / (float)d + eps);
        for (int32_t i = 0; i < d; i++) y[t * d + i] = (row[i] * scale) * w[i];
    }
}
