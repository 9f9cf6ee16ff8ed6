/* layernorm.c: y = (x - mean) / deviation * w + b, row by row. */
#include "engine/kernels/ref/ref.h"

#include <math.h>

enum { LANES = 64 };

static float lane_sum(float lane[LANES])
{
    for (int32_t half = LANES / 2; half; half /= 2)
        for (int32_t i = 0; i < half; i++) lane[i] += lane[i + half];
    return lane[0];
}

void krn_ref_layernorm(float *y, const float *x, const float *w, const float *b, int32_t d, float eps,
                       int32_t t0, int32_t t1)
{
    for (int64_t t = t0; t < t1; t++) {
        const float *row = x + t * d;
        float sum[LANES] = {0}, squares[LANES] = {0};
        for (int32_t i = 0; i < d; i++) sum[i % LANES] += row[i];
        float mean = lane_sum(sum) / (float)d;
        for (int32_t i = 0; i < d; i++) {
            float c = row[i] - mean;
            squares[i % LANES] = fmaf(c, c, squares[i % LANES]);
        }
        float scale = 1.0f / sqrtf(lane_sum(squares) / (float)d + eps);
        for (int32_t i = 0; i < d; i++) {
            float c = (row[i] - mean) * scale;
            y[t * d + i] = b ? fmaf(c, w[i], b[i]) : c * w[i];
        }
    }
}
