/* unit.h: one unit (32 values of K) of half a packed tile in registers: codes and scales of 8 rows.
 * The layout is drawn in engine/kernels/pack.h. */
#ifndef ENGINE_KERNELS_AVX2_UNIT_H
#define ENGINE_KERNELS_AVX2_UNIT_H

#include "engine/kernels/leaf_walk.h"
#include "engine/kernels/pack.h"

#include <immintrin.h>

enum { UNIT_VECTORS = 8 };

/* v shifted so that its bit `from` becomes bit `to` (of every byte, with what masks then leave). */
KRN_INLINE __m256i bit_to(__m256i v, const int from, const int to)
{
    return from < to ? _mm256_slli_epi16(v, from < to ? to - from : 0)
                     : _mm256_srli_epi16(v, from < to ? 0 : from - to);
}

/* The codes as stored, or the book's values + 128 (q: already at the half of the tile); vector j holds
 * k = 4j..4j+3. */
KRN_INLINE void unit_codes(const struct krn_planes *p, const uint8_t *q, const enum dtype type,
                           __m256i w[UNIT_VECTORS])
{
    const int bits = krn_pack_bits(type), first = bits < 4 ? 0 : 4;
    if (bits == 8) {
        KRN_UNROLL for (int j = 0; j < UNIT_VECTORS; j++) w[j] =
            _mm256_loadu_si256((const __m256i *)(q + 64 * j));
        return;
    }
    if (first) {
        const __m256i nibble = _mm256_set1_epi8(15);
        KRN_UNROLL for (int j = 0; j < 4; j++)
        {
            __m256i v = _mm256_loadu_si256((const __m256i *)(q + 64 * j));
            w[j] = _mm256_and_si256(v, nibble);
            w[j + 4] = _mm256_and_si256(_mm256_srli_epi16(v, 4), nibble);
        }
        q += 256;
    }
    if (bits - first >= 2) {
        const __m256i mask = _mm256_set1_epi8((char)(3 << first));
        KRN_UNROLL for (int j = 0; j < UNIT_VECTORS; j++)
        {
            __m256i v = _mm256_loadu_si256((const __m256i *)(q + j / 4 * 64));
            __m256i h = _mm256_and_si256(bit_to(v, 2 * (j % 4), first), mask);
            w[j] = first ? _mm256_or_si256(w[j], h) : h;
        }
        q += 128;
    }
    if (bits % 2) {
        const __m256i mask = _mm256_set1_epi8((char)(1 << (bits - 1)));
        __m256i v = _mm256_loadu_si256((const __m256i *)q);
        KRN_UNROLL for (int j = 0; j < UNIT_VECTORS; j++) w[j] =
            _mm256_or_si256(w[j], _mm256_and_si256(bit_to(v, j, bits - 1), mask));
    }
    if (krn_pack_has_book(type)) {
        const __m256i book = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)p->book));
        KRN_UNROLL for (int j = 0; j < UNIT_VECTORS; j++) w[j] = _mm256_shuffle_epi8(book, w[j]);
    }
}

KRN_INLINE __m256 unit_f16(const uint8_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}
KRN_INLINE __m128i load_8_bytes(const uint8_t *p)
{
    return _mm_loadl_epi64((const __m128i *)p);
}

KRN_INLINE __m256 unit_u8(__m128i v)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(v));
}
KRN_INLINE __m256 unit_i8(__m128i v)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(v));
}

/* 2^(e - 128): below e = 2 a subnormal. */
KRN_INLINE __m256 unit_e8(const uint8_t *s)
{
    const __m256i e = _mm256_cvtepu8_epi32(load_8_bytes(s));
    const __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, _mm256_set1_epi32(1)), 23);
    const __m256i tiny = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), e);
    return _mm256_castsi256_ps(
        _mm256_blendv_epi8(normal, tiny, _mm256_cmpgt_epi32(_mm256_set1_epi32(2), e)));
}

/* d[0], d[1] the scales of the half units; m the minimums times their scales, of types that have them. */
struct unit_scales {
    __m256 d[2], m[2];
};

/* row: 0 or 8. */
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
    const uint8_t *super = krn_pack_super(type, p, unit);
    if (type == DTYPE_TQ2_0) {
        out.d[0] = out.d[1] = out.m[0] = out.m[1] = unit_f16(super + 2 * row);
        return out;
    }
    const __m128i a = load_8_bytes(s + row);
    const bool wide = type == DTYPE_IQ4_XS || type == DTYPE_IQ2_S;
    const __m256 d = wide ? _mm256_loadu_ps((const float *)(const void *)super + row) : unit_f16(super + 2 * row);
    if (type == DTYPE_IQ4_XS) {
        out.d[0] = out.d[1] = out.m[0] = out.m[1] = _mm256_mul_ps(d, unit_i8(a));
        return out;
    }
    const __m128i b = load_8_bytes(s + KRN_TILE + row);
    if (type == DTYPE_Q2_K) {
        const __m128i nibble = _mm_set1_epi8(15);
        const __m256 dmin = unit_f16(super + 32 + 2 * row);
        out.d[0] = _mm256_mul_ps(d, unit_u8(_mm_and_si128(a, nibble)));
        out.d[1] = _mm256_mul_ps(d, unit_u8(_mm_and_si128(b, nibble)));
        out.m[0] = _mm256_mul_ps(dmin, unit_u8(_mm_and_si128(_mm_srli_epi16(a, 4), nibble)));
        out.m[1] = _mm256_mul_ps(dmin, unit_u8(_mm_and_si128(_mm_srli_epi16(b, 4), nibble)));
    } else if (krn_pack_halves(type)) {
        out.d[0] = out.m[0] = out.m[1] = _mm256_mul_ps(d, unit_i8(a));
        out.d[1] = _mm256_mul_ps(d, unit_i8(b));
    } else {
        out.d[0] = out.d[1] = _mm256_mul_ps(d, unit_u8(a));
        out.m[0] = out.m[1] = _mm256_mul_ps(unit_f16(super + 32 + 2 * row), unit_u8(b));
    }
    return out;
}

#endif
