/* pick.c: from a row of logits to its candidates, and to the one that noise prefers. */
#include "base/rng.h"
#include "engine/kernels/math.h"
#include "engine/kernels/ref/ref.h"

void krn_ref_temper(float *x, float m, float t, int64_t n)
{
    for (int64_t i = 0; i < n; i++) x[i] = (x[i] - m) / t;
}

int32_t krn_ref_at_least(const float *x, int32_t n, float least, struct krn_pick *out)
{
    int32_t k = 0;
    for (int32_t i = 0; i < n; i++)
        if (x[i] >= least && x[i] > -INFINITY) out[k++] = (struct krn_pick){x[i], i};
    return k;
}

struct krn_pick krn_ref_draw(const float *z, int32_t n, float least, uint64_t key, int32_t id0)
{
    struct krn_pick best = {-INFINITY, -1};
    for (int32_t i = 0; i < n; i++) {
        if (!(z[i] >= least && z[i] > -INFINITY)) continue;
        float v = z[i] + krn_math_gumbel(rng_mix(key ^ (uint64_t)(id0 + i)));
        if (best.id < 0 || v > best.z) best = (struct krn_pick){v, id0 + i};
    }
    return best;
}
