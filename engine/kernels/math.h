/* math.h: e^x and log x as fixed sequences of single-rounded steps, in f32 only.
 *
 * The scalar functions here are the specification; vmath.h of avx2, avx512 and neon repeat them lane
 * by lane, step by step, so the bits are equal on every instruction set. No libm: its last bit
 * differs between versions and machines. Errors (tests/kernels/test_math.c measures them): below 1
 * ulp for both. The polynomials are minimax fits of our own: exp on |r| <= ln2/2, log(1+f) on
 * sqrt(1/2)-1 <= f <= sqrt(2)-1. */
#ifndef ENGINE_KERNELS_MATH_H
#define ENGINE_KERNELS_MATH_H

#include "base/base.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#define KRN_EXP_MIN (-87.3f)   /* below: 0, so that no result is a denormal */
#define KRN_EXP_MAX 88.7f      /* above: e^88.7 = 3.33e38, still finite */
#define KRN_LOG2E   0x1.715476p+0f
#define KRN_ROUND   0x1.8p+23f /* adding it leaves the nearest integer in the low bits of the sum */
#define KRN_LN2_HI  0x1.62e4p-1f
#define KRN_LN2_LO  0x1.7f7d1cp-20f

/* e^r = 1 + r (1 + r (E2 + r (E3 + ...))) */
#define KRN_E2 0x1.fffffcp-2f
#define KRN_E3 0x1.55549p-3f
#define KRN_E4 0x1.5558fap-5f
#define KRN_E5 0x1.123b6ap-7f
#define KRN_E6 0x1.6a21aep-10f

/* log(1+f) = f + f^2 (-1/2 + f (L3 + f (L4 + ...))) */
#define KRN_L3  0x1.555554p-2f
#define KRN_L4  -0x1.000226p-2f
#define KRN_L5  0x1.99a008p-3f
#define KRN_L6  -0x1.547244p-3f
#define KRN_L7  0x1.22da1ep-3f
#define KRN_L8  -0x1.0d8542p-3f
#define KRN_L9  0x1.055b6ap-3f
#define KRN_L10 -0x1.38b57ep-4f
#define KRN_SQRT_HALF_BITS 0x3f3504f3u

/* GELU. tanh: -2 sqrt(2/pi) and that times 0.044715. erf: formula 7.1.26 of Abramowitz and Stegun, error below 1.5e-7:
 * erfc(z) = t (A1 + t (A2 + ...)) e^(-z^2), t = 1 / (1 + P z), z >= 0. */
#define KRN_GELU_1 (-0x1.9884540000000p+0f)
#define KRN_GELU_3 (-0x1.2444f20000000p-4f)
#define KRN_SQRT_HALF 0x1.6a09e6p-1f
#define KRN_ERF_P  0.3275911f
#define KRN_ERF_A1 0.254829592f
#define KRN_ERF_A2 (-0.284496736f)
#define KRN_ERF_A3 1.421413741f
#define KRN_ERF_A4 (-1.453152027f)
#define KRN_ERF_A5 1.061405429f
#define KRN_SWIGLU_LIMIT 7.0f
#define KRN_SWIGLU_ALPHA 1.702f

ON_DEVICE static inline uint32_t krn_math_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

ON_DEVICE static inline float krn_math_float(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

ON_DEVICE static inline float krn_math_exp(float x)
{
    if (x < KRN_EXP_MIN) return 0.0f;
    x = x > KRN_EXP_MAX ? KRN_EXP_MAX : x;
    float t = fmaf(x, KRN_LOG2E, KRN_ROUND);
    float n = t - KRN_ROUND;
    float r = fmaf(n, -KRN_LN2_HI, x);
    r = fmaf(n, -KRN_LN2_LO, r);
    float p = fmaf(KRN_E6, r, KRN_E5);
    p = fmaf(p, r, KRN_E4);
    p = fmaf(p, r, KRN_E3);
    p = fmaf(p, r, KRN_E2);
    p = fmaf(p, r, 1.0f);
    p = fmaf(p, r, 1.0f);
    /* times 2^n: the low bits of t are n, moved into the exponent (the rest of t shifts out) */
    return krn_math_float(krn_math_bits(p) + (krn_math_bits(t) << 23));
}

ON_DEVICE static inline float krn_math_log(float x)
{
    uint32_t u = krn_math_bits(x) - KRN_SQRT_HALF_BITS;
    float e = (float)((int32_t)u >> 23);
    float f = krn_math_float((u & 0x7fffff) + KRN_SQRT_HALF_BITS) - 1.0f;
    float p = fmaf(KRN_L10, f, KRN_L9);
    p = fmaf(p, f, KRN_L8);
    p = fmaf(p, f, KRN_L7);
    p = fmaf(p, f, KRN_L6);
    p = fmaf(p, f, KRN_L5);
    p = fmaf(p, f, KRN_L4);
    p = fmaf(p, f, KRN_L3);
    p = fmaf(p, f, -0.5f);
    float low = fmaf(e, KRN_LN2_LO, (f * f) * p);
    return fmaf(e, KRN_LN2_HI, f + low);
}

/* Gumbel noise of 64 random bits: -log(-log(1 - v)), v uniform from the upper 32, with log(1 - v) by Kahan's correction for what 1 - v rounds
 * away, so that v near 0, where winners of a large vocabulary lie, keeps its relative precision. */
ON_DEVICE static inline float krn_math_gumbel(uint64_t bits)
{
    float v = MIN(((float)(uint32_t)(bits >> 32) + 0.5f) * 0x1p-32f, 1 - 0x1p-24f), y = 1 - v;
    return -krn_math_log(y == 1 ? v : krn_math_log(y) * (v / (y - 1)));
}

/* Bits whose upper 32, as a number, exceed this give z no sum that reaches `top`: -log(-log(1 - v)) <= -log(v), so v must be at most
 * e^(z - top). A hundredth is added for roundings, thousands of times what they can come to. */
#define KRN_REACH 0x1.028f5cp+32f /* 1.01 * 2^32 */
static inline float krn_gumbel_reach(float z, float top)
{
    return fmaf(krn_math_exp(z - top), KRN_REACH, 2.0f);
}

#endif
