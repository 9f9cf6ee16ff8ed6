/* quantize.c: activations to int8, one scale per unit of 32. */
#include "engine/kernels/math.h"
#include "engine/kernels/panel.h"
#include "engine/kernels/ref/ref.h"

#include <float.h>

static void quantize_unit(const float *x, const struct krn_panel_lane *l)
{
    float amax = 0.0f;
    int8_t *q = krn_lane_q(l);
    for (int32_t i = 0; i < KRN_UNIT; i++) amax = fabsf(x[i]) > amax ? fabsf(x[i]) : amax;
    float inv = amax > 0.0f ? 127.0f / amax : 0.0f;
    inv = inv > FLT_MAX ? FLT_MAX : inv; /* amax below 3.8e-37: finite, so that 0 * inv stays 0 */
    int32_t sum[2] = {0, 0};
    for (int32_t i = 0; i < KRN_UNIT; i++) {
        /* |x * inv| <= 127 (1 + 2^-23): adding 1.5 * 2^23 rounds it to the nearest integer, ties to
         * even */
        int32_t n = (int32_t)(krn_math_bits(x[i] * inv + KRN_ROUND) - krn_math_bits(KRN_ROUND));
        q[i] = (int8_t)n;
        sum[i / (KRN_UNIT / 2)] += q[i];
    }
    krn_lane_put_scale(l, amax / 127.0f, sum[0], sum[1]);
}

void krn_ref_quantize(const struct krn_act *a, int32_t t0, int32_t t1, int32_t u0, int32_t u1)
{
    krn_quantize_walk(a, t0, t1, u0, u1, quantize_unit);
}

void krn_ref_interleave(const struct krn_act *a, int32_t t0, int32_t t1, int32_t k0, int32_t k1)
{
    krn_interleave_walk(a, t0, t1, k0, k1);
}
