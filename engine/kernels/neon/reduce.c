/* reduce.c: argmax as the largest value first, then its first place; sums of exponentials in the
 * contract's 16 lanes. */
#include "engine/kernels/neon/neon.h"
#include "engine/kernels/neon/vmath.h"

int32_t krn_neon_argmax(const float *x, int32_t n)
{
    const float32x4_t lowest = vmath_all(-INFINITY);
    float32x4_t big = lowest;
    int32_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        float32x4_t v = vld1q_f32(x + i);
        big = vbslq_f32(vcgtq_f32(v, big), v, big); /* a NaN is not greater */
    }
    float best = vmaxvq_f32(big);
    for (; i < n; i++) best = x[i] > best ? x[i] : best;
    for (i = 0; i < n; i += LANES) {
        uint32x4_t hit = vceqq_f32(vmath_load(x + i, n - i), vmath_all(best));
        if (!vmaxvq_u32(vandq_u32(hit, vmath_first(n - i)))) continue;
        while (x[i] != best) i++;
        return i;
    }
    return 0; /* nothing but NaN */
}

static float tile_sum(const float *x, int32_t n, float m)
{
    enum { VECTORS = 16 / LANES };
    float32x4_t lane[VECTORS];
    for (int32_t j = 0; j < VECTORS; j++) lane[j] = vmath_zero();
    for (int32_t i = 0; i < n; i += LANES) {
        int32_t j = i / LANES % VECTORS;
        float32x4_t e = vmath_exp(vsubq_f32(vmath_load(x + i, n - i), vmath_all(m)));
        lane[j] = vaddq_f32(lane[j], vmath_keep(vmath_first(n - i), e));
    }
    return vmath_lane_sum(lane, VECTORS);
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

float krn_neon_sum_exp(const float *x, int32_t n, float m)
{
    return node_sum(x, n, m, 0, DIV_UP(n, KRN_LSE_TILE));
}
