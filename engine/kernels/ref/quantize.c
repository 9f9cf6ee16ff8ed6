/* quantize.c: activations to int8, one scale per unit of 32. */
#include "engine/kernels/math.h"
#include "engine/kernels/ref/ref.h"

#include <float.h>

static void quantize_unit(const float *x, int8_t *q, float *d, int32_t *s)
{
    float amax = 0.0f;
    for (int32_t i = 0; i < KRN_UNIT; i++) amax = fabsf(x[i]) > amax ? fabsf(x[i]) : amax;
    *d = amax / 127.0f;
    float inv = amax > 0.0f ? 127.0f / amax : 0.0f;
    inv = inv > FLT_MAX ? FLT_MAX : inv; /* amax below 3.8e-37: finite, so that 0 * inv stays 0 */
    int32_t sum = 0;
    for (int32_t i = 0; i < KRN_UNIT; i++) {
        /* |x * inv| <= 127 (1 + 2^-23): adding 1.5 * 2^23 rounds it to the nearest integer, ties to
         * even */
        int32_t n = (int32_t)(krn_math_bits(x[i] * inv + KRN_ROUND) - krn_math_bits(KRN_ROUND));
        q[i] = (int8_t)n;
        sum += q[i];
    }
    *s = sum;
}

void krn_ref_quantize(const struct krn_act *a, int32_t t0, int32_t t1)
{
    int32_t n = a->cols / KRN_UNIT;
    for (int64_t u = (int64_t)t0 * n; u < (int64_t)t1 * n; u++)
        quantize_unit(a->x + u * KRN_UNIT, a->q + u * KRN_UNIT, a->d + u, a->s + u);
}
