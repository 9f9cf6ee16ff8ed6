/* unit.h: one unit (32 values of K) of a quarter of a packed tile in registers: codes and scales of
 * 4 rows. The layout is drawn in engine/kernels/pack.h. */
#ifndef ENGINE_KERNELS_NEON_UNIT_H
#define ENGINE_KERNELS_NEON_UNIT_H

#include "engine/kernels/leaf_walk.h"
#include "engine/kernels/neon/vmath.h"
#include "engine/kernels/pack.h"

enum { UNIT_VECTORS = 8, QUARTERS = 4 };

/* v shifted so that its bit `from` becomes bit `to` (of every byte, with what masks then leave). */
KRN_INLINE uint8x16_t bit_to(uint8x16_t v, const int from, const int to)
{
    return vshlq_u8(v, vdupq_n_s8((int8_t)(to - from)));
}

/* Codes whose offset is 128, and the book's values, are made signed as they are decoded. */
KRN_INLINE bool unit_is_signed(const enum dtype type) { return krn_pack_offset(type) == 128; }

/* The codes as signed bytes: less their offset where that is 128, else as stored (q: already at the
 * quarter of the tile); vector j holds k = 4j..4j+3 of 4 rows. */
KRN_INLINE void unit_codes(const struct krn_planes *p, const uint8_t *q, const enum dtype type,
                           int8x16_t w[UNIT_VECTORS])
{
    const int bits = krn_pack_bits(type), first = bits < 4 ? 0 : 4;
    uint8x16_t u[UNIT_VECTORS];
    if (bits == 8) {
        KRN_UNROLL for (int j = 0; j < UNIT_VECTORS; j++) u[j] = vld1q_u8(q + 64 * j);
    } else {
        if (first) {
            const uint8x16_t nibble = vdupq_n_u8(15);
            KRN_UNROLL for (int j = 0; j < 4; j++)
            {
                uint8x16_t v = vld1q_u8(q + 64 * j);
                u[j] = vandq_u8(v, nibble);
                u[j + 4] = vshrq_n_u8(v, 4);
            }
            q += 256;
        }
        if (bits - first >= 2) {
            const uint8x16_t mask = vdupq_n_u8((uint8_t)(3 << first));
            KRN_UNROLL for (int j = 0; j < UNIT_VECTORS; j++)
            {
                uint8x16_t v = vld1q_u8(q + j / 4 * 64);
                uint8x16_t h = vandq_u8(bit_to(v, 2 * (j % 4), first), mask);
                u[j] = first ? vorrq_u8(u[j], h) : h;
            }
            q += 128;
        }
        if (bits % 2) {
            const uint8x16_t mask = vdupq_n_u8((uint8_t)(1 << (bits - 1))), v = vld1q_u8(q);
            KRN_UNROLL for (int j = 0; j < UNIT_VECTORS; j++) u[j] =
                vorrq_u8(u[j], vandq_u8(bit_to(v, j, bits - 1), mask));
        }
        if (krn_pack_has_book(type)) {
            const uint8x16_t book = vld1q_u8(p->book);
            KRN_UNROLL for (int j = 0; j < UNIT_VECTORS; j++) u[j] = vqtbl1q_u8(book, u[j]);
        }
    }
    const uint8x16_t top = vdupq_n_u8(unit_is_signed(type) ? 128 : 0);
    KRN_UNROLL for (int j = 0; j < UNIT_VECTORS; j++) w[j] =
        vreinterpretq_s8_u8(unit_is_signed(type) ? veorq_u8(u[j], top) : u[j]);
}

KRN_INLINE float32x4_t unit_f16(const uint8_t *p)
{
    return vmath_from_f16(vld1_u16((const uint16_t *)p));
}

KRN_INLINE uint8x8_t four_of(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return vreinterpret_u8_u32(vdup_n_u32(v));
}
KRN_INLINE float32x4_t floats_of_u8(const uint8_t *p)
{
    return vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(four_of(p)))));
}
KRN_INLINE float32x4_t floats_of_s8(const uint8_t *p)
{
    int16x8_t wide = vmovl_s8(vreinterpret_s8_u8(four_of(p)));
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide)));
}

KRN_INLINE uint8x8_t four_bits(const uint8_t *p, const int shift)
{
    return vand_u8(vshl_u8(four_of(p), vdup_n_s8((int8_t)-shift)), vdup_n_u8(15));
}
KRN_INLINE float32x4_t floats_of_bits(const uint8_t *p, const int shift)
{
    return vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(four_bits(p, shift)))));
}

/* 2^(e - 128): below e = 2 a subnormal. */
KRN_INLINE float32x4_t unit_e8(const uint8_t *s)
{
    const uint32x4_t e = vmovl_u16(vget_low_u16(vmovl_u8(four_of(s))));
    const uint32x4_t normal = vshlq_n_u32(vsubq_u32(e, vdupq_n_u32(1)), 23);
    const uint32x4_t tiny = vshlq_u32(vdupq_n_u32(0x00200000), vreinterpretq_s32_u32(e));
    return vreinterpretq_f32_u32(vbslq_u32(vcltq_u32(e, vdupq_n_u32(2)), tiny, normal));
}

/* d[0], d[1] the scales of the half units; m the minimums times their scales, of types that have them. */
struct unit_scales {
    float32x4_t d[2], m[2];
};

/* row: 0, 4, 8 or 12. */
KRN_INLINE struct unit_scales unit_scales(const struct krn_planes *p, int32_t unit, int32_t row,
                                          const enum dtype type)
{
    struct unit_scales out;
    const uint8_t *s = p->pairs + krn_pack_scales_at(type, unit);
    if (!krn_pack_is_super(type)) {
        out.d[0] = out.d[1] = type == DTYPE_MXFP4 ? unit_e8(s + row) : unit_f16(s + 2 * row);
        out.m[0] = out.m[1] = krn_pack_has_min(type) ? unit_f16(s + 32 + 2 * row) : out.d[0];
        return out;
    }
    const uint8_t *super = krn_pack_super(type, p, unit), *a = s + row, *b = s + KRN_TILE + row;
    if (type == DTYPE_TQ2_0) {
        out.d[0] = out.d[1] = out.m[0] = out.m[1] = unit_f16(super + 2 * row);
        return out;
    }
    const bool wide = type == DTYPE_IQ4_XS || type == DTYPE_IQ2_S;
    float32x4_t d = wide ? vld1q_f32((const float *)(const void *)super + row) : unit_f16(super + 2 * row);
    if (type == DTYPE_IQ4_XS) {
        out.d[0] = out.d[1] = out.m[0] = out.m[1] = vmulq_f32(d, floats_of_s8(a));
    } else if (type == DTYPE_Q2_K) {
        const float32x4_t dmin = unit_f16(super + 32 + 2 * row);
        out.d[0] = vmulq_f32(d, floats_of_bits(a, 0));
        out.d[1] = vmulq_f32(d, floats_of_bits(b, 0));
        out.m[0] = vmulq_f32(dmin, floats_of_bits(a, 4));
        out.m[1] = vmulq_f32(dmin, floats_of_bits(b, 4));
    } else if (krn_pack_halves(type)) {
        out.d[0] = out.m[0] = out.m[1] = vmulq_f32(d, floats_of_s8(a));
        out.d[1] = vmulq_f32(d, floats_of_s8(b));
    } else {
        out.d[0] = out.d[1] = vmulq_f32(d, floats_of_u8(a));
        out.m[0] = out.m[1] = vmulq_f32(unit_f16(super + 32 + 2 * row), floats_of_u8(b));
    }
    return out;
}

#endif
