/* reduce.c: one row of logits to one value. */
#include "base/base.h"
#include "engine/kernels/math.h"
#include "engine/kernels/ref/ref.h"

int32_t krn_ref_argmax(const float *x, int32_t n)
{
    int32_t best = 0;
    for (int32_t i = 1; i < n; i++)
        if (x[i] > x[best] || (isnan(x[best]) && !isnan(x[i]))) best = i;
    return best;
}

enum { LANES = 16 };

/* Up to KRN_LSE_TILE values. */
static float tile_sum(const float *x, int32_t n, float m)
{
    float lane[LANES] = {0};
    for (int32_t i = 0; i < n; i++) lane[i % LANES] += krn_math_exp(x[i] - m);
    for (int32_t half = LANES / 2; half; half /= 2)
        for (int32_t i = 0; i < half; i++) lane[i] += lane[i + half];
    return lane[0];
}

static float node_sum(const float *x, int32_t n, float m, int32_t a, int32_t b)
{
    if (b - a > 1) {
        int32_t mid = tree_split(a, b);
        float left = node_sum(x, n, m, a, mid);
        return left + node_sum(x, n, m, mid, b);
    }
    return tile_sum(x + (int64_t)a * KRN_LSE_TILE, MIN(n - a * KRN_LSE_TILE, KRN_LSE_TILE), m);
}

float krn_ref_sum_exp(const float *x, int32_t n, float m)
{
    return node_sum(x, n, m, 0, DIV_UP(n, KRN_LSE_TILE));
}
