/* pick.c: candidates by comparison, four at a time; of noise only the bits (by the scalar unit,
 * which multiplies 64 bits), and a bound on what they can come to: a logarithm is taken of the few
 * that may win. */
#include "engine/kernels/neon/neon.h"
#include "engine/kernels/neon/vmath.h"
#include "engine/kernels/pick.h"

void krn_neon_temper(float *x, float m, float t, int64_t n)
{
    for (int64_t i = 0; i < n; i += LANES)
        vmath_store(x + i, n - i,
                    vdivq_f32(vsubq_f32(vmath_load(x + i, n - i), vmath_all(m)), vmath_all(t)));
}

/* All bits set in the lanes of x[i..i+4), as far as there are any, that are candidates. */
static inline uint32x4_t candidates(const float *x, int32_t i, int32_t n, float least,
                                    float32x4_t *v)
{
    *v = vmath_load(x + i, n - i);
    uint32x4_t ok = vandq_u32(vcgeq_f32(*v, vmath_all(least)), vcgtq_f32(*v, vmath_all(-INFINITY)));
    return vandq_u32(ok, vmath_first(n - i));
}

int32_t krn_neon_at_least(const float *x, int32_t n, float least, struct krn_pick *out)
{
    int32_t k = 0;
    for (int32_t i = 0; i < n; i += LANES) {
        float32x4_t v;
        uint32x4_t ok = candidates(x, i, n, least, &v);
        if (!vmaxvq_u32(ok)) continue;
        uint32_t hit[LANES];
        vst1q_u32(hit, ok);
        for (int32_t at = 0; at < LANES; at++)
            if (hit[at]) out[k++] = (struct krn_pick){x[i + at], i + at};
    }
    return k;
}

struct krn_pick krn_neon_draw(const float *z, int32_t n, float least, uint64_t key, int32_t id0)
{
    struct krn_pick best = {-INFINITY, -1};
    for (int32_t i = 0; i < n; i += LANES) {
        float32x4_t v;
        uint32x4_t ok = candidates(z, i, n, least, &v);
        if (!vmaxvq_u32(ok)) continue;
        uint64_t bits[LANES];
        uint32_t upper[LANES], hit[LANES];
        for (int32_t at = 0; at < LANES; at++) {
            bits[at] = rng_mix(key ^ (uint64_t)(id0 + i + at));
            upper[at] = (uint32_t)(bits[at] >> 32);
        }
        float32x4_t reach = vmath_exp(vsubq_f32(v, vmath_all(best.z)));
        reach = vfmaq_f32(vmath_all(2.0f), reach, vmath_all(KRN_REACH));
        ok = vandq_u32(ok, vcleq_f32(vcvtq_f32_u32(vld1q_u32(upper)), reach));
        if (!vmaxvq_u32(ok)) continue;
        vst1q_u32(hit, ok);
        for (int32_t at = 0; at < LANES; at++)
            if (hit[at]) krn_pick_try(&best, z[i + at], id0 + i + at, bits[at]);
    }
    return best;
}
