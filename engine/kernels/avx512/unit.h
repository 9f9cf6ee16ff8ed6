/* unit.h: one unit (32 values of K) of a packed tile in registers: codes and scales of 16 rows. The
 * layout is drawn in engine/kernels/pack.h. */
#ifndef ENGINE_KERNELS_AVX512_UNIT_H
#define ENGINE_KERNELS_AVX512_UNIT_H

#include "engine/kernels/leaf_walk.h"
#include "engine/kernels/pack.h"

#include <immintrin.h>

enum { UNIT_VECTORS = 8 };

/* v shifted so that its bit `from` becomes bit `to` (of every byte, with what masks then leave). */
KRN_INLINE __m512i bit_to(__m512i v, const int from, const int to)
{
    return from < to ? _mm512_slli_epi16(v, (unsigned)(from < to ? to - from : 0))
                     : _mm512_srli_epi16(v, (unsigned)(from < to ? 0 : from - to));
}

/* The unsigned codes, or the book's values + 128; vector j holds k = 4j..4j+3. */
KRN_INLINE void unit_codes(const struct krn_planes *p, const uint8_t *q, const enum dtype type,
                           __m512i w[UNIT_VECTORS])
{
    const int bits = krn_pack_bits(type), first = bits < 4 ? 0 : 4;
    if (bits == 8) {
        KRN_UNROLL for (int j = 0; j < UNIT_VECTORS; j++) w[j] = _mm512_loadu_si512(q + 64 * j);
        return;
    }
    if (first) {
        const __m512i nibble = _mm512_set1_epi8(15);
        KRN_UNROLL for (int j = 0; j < 4; j++)
        {
            __m512i v = _mm512_loadu_si512(q + 64 * j);
            w[j] = _mm512_and_si512(v, nibble);
            w[j + 4] = _mm512_and_si512(_mm512_srli_epi16(v, 4), nibble);
        }
        q += 256;
    }
    if (bits - first >= 2) {
        const __m512i mask = _mm512_set1_epi8((char)(3 << first));
        KRN_UNROLL for (int j = 0; j < UNIT_VECTORS; j++)
        {
            __m512i v = _mm512_loadu_si512(q + j / 4 * 64);
            __m512i h = _mm512_and_si512(bit_to(v, 2 * (j % 4), first), mask);
            w[j] = first ? _mm512_or_si512(w[j], h) : h;
        }
        q += 128;
    }
    if (bits % 2) {
        const __m512i mask = _mm512_set1_epi8((char)(1 << (bits - 1)));
        __m512i v = _mm512_loadu_si512(q);
        KRN_UNROLL for (int j = 0; j < UNIT_VECTORS; j++) w[j] =
            _mm512_or_si512(w[j], _mm512_and_si512(bit_to(v, j, bits - 1), mask));
    }
    if (krn_pack_has_book(type)) {
        const __m512i book = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)p->book));
        KRN_UNROLL for (int j = 0; j < UNIT_VECTORS; j++) w[j] = _mm512_shuffle_epi8(book, w[j]);
    }
}

KRN_INLINE __m512 unit_f16(const uint8_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}

KRN_INLINE __m512 unit_u8(__m128i v)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(v));
}
KRN_INLINE __m512 unit_i8(__m128i v)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(v));
}

/* 2^(e - 128): below e = 2 a subnormal. */
KRN_INLINE __m512 unit_e8(const uint8_t *s)
{
    const __m512i e = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)s));
    const __m512i normal = _mm512_slli_epi32(_mm512_sub_epi32(e, _mm512_set1_epi32(1)), 23);
    const __mmask16 small = _mm512_cmplt_epi32_mask(e, _mm512_set1_epi32(2));
    return _mm512_castsi512_ps(
        _mm512_mask_sllv_epi32(normal, small, _mm512_set1_epi32(0x00200000), e));
}

/* d[0], d[1] the scales of the half units; m the minimums times their scales, of types that have them. */
struct unit_scales {
    __m512 d[2], m[2];
};

KRN_INLINE struct unit_scales unit_scales(const struct krn_planes *p, int32_t unit,
                                          const enum dtype type)
{
    struct unit_scales out;
    const uint8_t *s = p->pairs + krn_pack_scales_at(type, unit);
    if (!krn_pack_is_super(type)) {
        out.d[0] = out.d[1] = type == DTYPE_MXFP4 ? unit_e8(s) : unit_f16(s);
        out.m[0] = out.m[1] = krn_pack_has_min(type) ? unit_f16(s + 32) : out.d[0];
        return out;
    }
    const uint8_t *super = krn_pack_super(type, p, unit);
    if (type == DTYPE_TQ2_0) {
        out.d[0] = out.d[1] = out.m[0] = out.m[1] = unit_f16(super);
        return out;
    }
    const __m128i a = _mm_loadu_si128((const __m128i *)s);
    if (type == DTYPE_IQ4_XS) {
        out.d[0] = out.d[1] = out.m[0] = out.m[1] = _mm512_mul_ps(_mm512_loadu_ps(super), unit_i8(a));
        return out;
    }
    const __m128i b = _mm_loadu_si128((const __m128i *)(s + KRN_TILE));
    const __m512 d = type == DTYPE_IQ2_S ? _mm512_loadu_ps(super) : unit_f16(super);
    if (type == DTYPE_Q2_K) {
        const __m128i nibble = _mm_set1_epi8(15);
        const __m512 dmin = unit_f16(super + 32);
        out.d[0] = _mm512_mul_ps(d, unit_u8(_mm_and_si128(a, nibble)));
        out.d[1] = _mm512_mul_ps(d, unit_u8(_mm_and_si128(b, nibble)));
        out.m[0] = _mm512_mul_ps(dmin, unit_u8(_mm_and_si128(_mm_srli_epi16(a, 4), nibble)));
        out.m[1] = _mm512_mul_ps(dmin, unit_u8(_mm_and_si128(_mm_srli_epi16(b, 4), nibble)));
    } else if (krn_pack_halves(type)) {
        out.d[0] = out.m[0] = out.m[1] = _mm512_mul_ps(d, unit_i8(a));
        out.d[1] = _mm512_mul_ps(d, unit_i8(b));
    } else {
        out.d[0] = out.d[1] = _mm512_mul_ps(d, unit_u8(a));
        out.m[0] = out.m[1] = _mm512_mul_ps(unit_f16(super + 32), unit_u8(b));
    }
    return out;
}

/* A field of the panel, in every lane. */
KRN_INLINE __m512i all_i32(const uint8_t *p)
{
    int32_t v;
    memcpy(&v, p, sizeof v);
    return _mm512_set1_epi32(v);
}
KRN_INLINE __m512 all_f32(const uint8_t *p)
{
    float v;
    memcpy(&v, p, sizeof v);
    return _mm512_set1_ps(v);
}

#endif
