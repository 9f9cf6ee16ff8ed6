/* unit.h: one unit (32 values of K) of a packed tile in registers: codes and scales of 16 rows. The
 * layout is drawn in engine/kernels/pack.h. */
#ifndef ENGINE_KERNELS_AVX512_UNIT_H
#define ENGINE_KERNELS_AVX512_UNIT_H

#include "engine/kernels/leaf_walk.h"
#include "engine/kernels/pack.h"

#include <immintrin.h>

enum { UNIT_VECTORS = 8 };

/* The unsigned codes; vector j holds k = 4j..4j+3. */
KRN_INLINE void unit_codes(const uint8_t *q, const enum dtype type, __m512i w[UNIT_VECTORS])
{
    if (type == DTYPE_Q8_0) {
        KRN_UNROLL for (int j = 0; j < UNIT_VECTORS; j++) w[j] = _mm512_loadu_si512(q + 64 * j);
        return;
    }
    const __m512i nibble = _mm512_set1_epi8(15);
    KRN_UNROLL for (int j = 0; j < 4; j++)
    {
        __m512i v = _mm512_loadu_si512(q + 64 * j);
        w[j] = _mm512_and_si512(v, nibble);
        w[j + 4] = _mm512_and_si512(_mm512_srli_epi16(v, 4), nibble);
    }
    if (type == DTYPE_Q5_K) {
        const __m512i bit = _mm512_set1_epi8(16);
        __m512i v = _mm512_loadu_si512(q + 256);
        KRN_UNROLL for (int j = 0; j < UNIT_VECTORS; j++)
        {
            __m512i h = j < 4 ? _mm512_slli_epi16(v, (unsigned)(j < 4 ? 4 - j : 0))
                              : _mm512_srli_epi16(v, (unsigned)(j < 4 ? 0 : j - 4));
            w[j] = _mm512_or_si512(w[j], _mm512_and_si512(h, bit));
        }
    }
    if (type == DTYPE_Q6_K) {
        const __m512i bits = _mm512_set1_epi8(48);
        KRN_UNROLL for (int j = 0; j < UNIT_VECTORS; j++)
        {
            __m512i v = _mm512_loadu_si512(q + 256 + j / 4 * 64);
            int i = j % 4;
            __m512i h = i < 2 ? _mm512_slli_epi16(v, (unsigned)(i < 2 ? 4 - 2 * i : 0))
                              : _mm512_srli_epi16(v, (unsigned)(i < 2 ? 0 : 2 * i - 4));
            w[j] = _mm512_or_si512(w[j], _mm512_and_si512(h, bits));
        }
    }
}

KRN_INLINE __m512 unit_f16(const uint8_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}

/* d[0], d[1] the scales of the half units; m the minimum times its scale (Q4_K, Q5_K). */
struct unit_scales {
    __m512 d[2], m;
};

KRN_INLINE struct unit_scales unit_scales(const struct krn_planes *p, int32_t unit,
                                          const enum dtype type)
{
    struct unit_scales out;
    const uint8_t *s = p->pairs + krn_pack_scales_at(type, unit);
    if (type == DTYPE_Q8_0 || type == DTYPE_Q4_0) {
        out.d[0] = out.d[1] = out.m = unit_f16(s);
        return out;
    }
    const uint8_t *super = krn_pack_super(type, p, unit);
    __m128i a = _mm_loadu_si128((const __m128i *)s),
            b = _mm_loadu_si128((const __m128i *)(s + KRN_TILE));
    __m512 d = unit_f16(super);
    if (type == DTYPE_Q6_K) {
        out.d[0] = out.m = _mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(a)));
        out.d[1] = _mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(b)));
    } else {
        out.d[0] = out.d[1] = _mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(a)));
        out.m = _mm512_mul_ps(unit_f16(super + 32), _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(b)));
    }
    return out;
}

#endif
