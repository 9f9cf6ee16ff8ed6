/* half.h: f16, bf16 and E4M3 to f32 and back, exact, rounding to nearest even, in integers only, so that
 * the bits do not depend on the machine. NaNs keep their sign and become quiet. Thr: any.
 * Source of E4M3 (4 bits of exponent, bias 7, no infinities): the OCP's 8-bit floating point specification. */
#ifndef ENGINE_FILE_HALF_H
#define ENGINE_FILE_HALF_H

#include "base/base.h"

#include <stdint.h>
#include <string.h>

ON_DEVICE static inline float half_from_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

ON_DEVICE static inline uint32_t half_to_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

ON_DEVICE static inline float half_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exp = h >> 10 & 31, man = h & 0x3ff;
    if (exp == 31) return half_from_bits(sign | 0x7f800000 | man << 13 | (man ? 0x400000 : 0));
    if (exp) return half_from_bits(sign | (exp + 112) << 23 | man << 13);
    /* subnormal: man * 2^-24 is exact in f32 */
    float f = (float)man * 0x1p-24f;
    return half_from_bits(half_to_bits(f) | sign);
}

ON_DEVICE static inline uint16_t half_f32_to_f16(float f)
{
    uint32_t u = half_to_bits(f), sign = u >> 16 & 0x8000, a = u & 0x7fffffff;
    if (a > 0x7f800000) return (uint16_t)(sign | 0x7e00 | (a >> 13 & 0x3ff));
    if (a >= 0x477ff000) return (uint16_t)(sign | 0x7c00); /* 65520 and above round to infinity */
    if (a >= 0x38800000) {                                 /* 2^-14: a normal f16 */
        uint32_t v = a - (112u << 23);
        return (uint16_t)(sign | ((v + 0xfff + (v >> 13 & 1)) >> 13));
    }
    if (a < 0x33000000) return (uint16_t)sign; /* below 2^-25 */
    uint32_t shift = 126 - (a >> 23), man = (a & 0x7fffff) | 0x800000; /* 14..24 */
    uint32_t half = 1u << (shift - 1), q = man >> shift, rest = man & ((1u << shift) - 1);
    return (uint16_t)(sign | (q + (rest > half || (rest == half && (q & 1)))));
}

ON_DEVICE static inline float half_bf16_to_f32(uint16_t b)
{
    uint32_t u = (uint32_t)b << 16;
    if ((u & 0x7fffffff) > 0x7f800000) u |= 0x400000;
    return half_from_bits(u);
}

ON_DEVICE static inline uint16_t half_f32_to_bf16(float f)
{
    uint32_t u = half_to_bits(f);
    if ((u & 0x7fffffff) > 0x7f800000) return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

ON_DEVICE static inline float half_e4m3_to_f32(uint8_t c)
{
    uint32_t sign = (uint32_t)(c & 0x80) << 24, a = c & 0x7f;
    if (a == 0x7f) return half_from_bits(sign | 0x7fc00000);
    if (a >= 8) return half_from_bits(sign | ((a << 20) + (120u << 23)));
    return half_from_bits(half_to_bits((float)a * 0x1p-9f) | sign);
}

/* What is larger than 448, the largest E4M3, becomes that. */
ON_DEVICE static inline uint8_t half_f32_to_e4m3(float f)
{
    uint32_t u = half_to_bits(f), sign = u >> 24 & 0x80, a = u & 0x7fffffff;
    if (a > 0x7f800000) return (uint8_t)(sign | 0x7f);
    if (a >= 0x43e00000) return (uint8_t)(sign | 0x7e);
    if (a >= 0x3c800000) return (uint8_t)(sign | (a - (120u << 23) + 0x7ffff + (a >> 20 & 1)) >> 20); /* 2^-6: a normal one */
    if (a < 0x3a800000) return (uint8_t)sign;                                                      /* below half of the smallest */
    uint32_t shift = 141 - (a >> 23), man = (a & 0x7fffff) | 0x800000; /* units of 2^-9: 21..24 */
    uint32_t half = 1u << (shift - 1), q = man >> shift, rest = man & ((1u << shift) - 1);
    return (uint8_t)(sign | (q + (rest > half || (rest == half && (q & 1)))));
}

#endif
