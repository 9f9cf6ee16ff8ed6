/* vmath.h: math.h's e^x on 4 lanes, step by step the same; the fixed sums over lanes; partial
 * vectors. */
#ifndef ENGINE_KERNELS_NEON_VMATH_H
#define ENGINE_KERNELS_NEON_VMATH_H

#include "base/base.h"
#include "engine/kernels/math.h"

#include <arm_neon.h>

enum { LANES = 4 };

static inline float32x4_t vmath_all(float x) { return vdupq_n_f32(x); }
static inline float32x4_t vmath_zero(void) { return vdupq_n_f32(0.0f); }

static inline float32x4_t vmath_exp(float32x4_t x)
{
    const float32x4_t round = vmath_all(KRN_ROUND), one = vmath_all(1.0f);
    uint32x4_t below = vcltq_f32(x, vmath_all(KRN_EXP_MIN));
    x = vminq_f32(vmath_all(KRN_EXP_MAX), x);
    float32x4_t t = vfmaq_f32(round, x, vmath_all(KRN_LOG2E));
    float32x4_t n = vsubq_f32(t, round);
    float32x4_t r = vfmaq_f32(x, n, vmath_all(-KRN_LN2_HI));
    r = vfmaq_f32(r, n, vmath_all(-KRN_LN2_LO));
    float32x4_t p = vfmaq_f32(vmath_all(KRN_E5), vmath_all(KRN_E6), r);
    p = vfmaq_f32(vmath_all(KRN_E4), p, r);
    p = vfmaq_f32(vmath_all(KRN_E3), p, r);
    p = vfmaq_f32(vmath_all(KRN_E2), p, r);
    p = vfmaq_f32(one, p, r);
    p = vfmaq_f32(one, p, r);
    uint32x4_t scaled = vaddq_u32(vreinterpretq_u32_f32(p),
                                  vshlq_n_u32(vreinterpretq_u32_f32(t), 23));
    return vreinterpretq_f32_u32(vbicq_u32(scaled, below));
}

/* Four lanes added as (0+2, 1+3), then (0+1). */
static inline float vmath_sum4(float32x4_t v)
{
    float32x2_t c = vadd_f32(vget_low_f32(v), vget_high_f32(v));
    return vget_lane_f32(c, 0) + vget_lane_f32(c, 1);
}

/* 4 n lanes (n a power of two) added half onto half: of 16 (0+8, 1+9, ...), then (0+4, ...) and so
 * on. Overwrites v. */
static inline float vmath_lane_sum(float32x4_t *v, int32_t n)
{
    for (int32_t half = n / 2; half; half /= 2)
        for (int32_t j = 0; j < half; j++) v[j] = vaddq_f32(v[j], v[j + half]);
    return vmath_sum4(v[0]);
}

/* All bits set in the first n lanes, n <= 0 none, n >= 4 all. */
static inline uint32x4_t vmath_first(int32_t n)
{
    static const int32_t lane[LANES] = {0, 1, 2, 3};
    return vcgtq_s32(vdupq_n_s32(n), vld1q_s32(lane));
}
static inline float32x4_t vmath_keep(uint32x4_t mask, float32x4_t v)
{
    return vreinterpretq_f32_u32(vandq_u32(mask, vreinterpretq_u32_f32(v)));
}

/* The first n of 4 floats (the others 0; not touched in memory). */
static inline float32x4_t vmath_load(const float *p, int64_t n)
{
    if (n >= LANES) return vld1q_f32(p);
    float some[LANES] = {0};
    if (n > 0) memcpy(some, p, (size_t)n * sizeof *p);
    return vld1q_f32(some);
}

static inline void vmath_store(float *p, int64_t n, float32x4_t v)
{
    if (n >= LANES) {
        vst1q_f32(p, v);
        return;
    }
    float some[LANES];
    vst1q_f32(some, v);
    if (n > 0) memcpy(p, some, (size_t)n * sizeof *p);
}

/* bf16, rounded to nearest even, of numbers. */
static inline uint16x4_t vmath_to_bf16(float32x4_t x)
{
    uint32x4_t u = vreinterpretq_u32_f32(x), odd = vandq_u32(vshrq_n_u32(u, 16), vdupq_n_u32(1));
    return vshrn_n_u32(vaddq_u32(u, vaddq_u32(odd, vdupq_n_u32(0x7fff))), 16);
}
static inline float32x4_t vmath_from_bf16(uint16x4_t h)
{
    return vreinterpretq_f32_u32(vshll_n_u16(h, 16));
}
static inline uint16x4_t vmath_to_f16(float32x4_t x)
{
    return vreinterpret_u16_f16(vcvt_f16_f32(x));
}
static inline float32x4_t vmath_from_f16(uint16x4_t h)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(h));
}

#endif
