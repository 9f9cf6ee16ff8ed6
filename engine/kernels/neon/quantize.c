/* quantize.c: a unit of activations is eight vectors; the conversion rounds to nearest even as the
 * contract asks. */
#include "engine/kernels/neon/codes.h"
#include "engine/kernels/neon/neon.h"
#include "engine/kernels/panel.h"

#include <float.h>

static inline void quantize_unit(const float *x, const struct krn_panel_lane *l)
{
    float32x4_t v[CODE_VECTORS];
    int32_t sum[2];
    float amax = codes_load(x, KRN_UNIT, v);
    float inv = amax > 0.0f ? 127.0f / amax : 0.0f;
    inv = inv > FLT_MAX ? FLT_MAX : inv;
    codes_of(v, inv, krn_lane_q(l), sum);
    krn_lane_put_scale(l, amax / 127.0f, sum[0], sum[1]);
}

void krn_neon_quantize(const struct krn_act *a, int32_t t0, int32_t t1, int32_t u0, int32_t u1)
{
    krn_quantize_walk(a, t0, t1, u0, u1, quantize_unit);
}
