/* unit.h: one unit (32 values of K) of half a packed tile in registers: codes and scales of 8 rows.
 * The layout is drawn in engine/kernels/pack.h. */
#ifndef ENGINE_KERNELS_AVX2_UNIT_H
#define ENGINE_KERNELS_AVX2_UNIT_H

#include "engine/kernels/leaf_walk.h"
#include "engine/kernels/pack.h"

#include <immintrin.h>

enum { UNIT_VECTORS = 8 };

/* The codes as stored (q: already at the half of the tile); vector j holds k = 4j..4j+3. */
KRN_INLINE void unit_codes(const uint8_t *q, const enum dtype type, __m256i w[UNIT_VECTORS])
{
    if (type == DTYPE_Q8_0) {
        KRN_UNROLL for (int j = 0; j < UNIT_VECTORS; j++) w[j] =
            _mm256_loadu_si256((const __m256i *)(q + 64 * j));
        return;
    }
    const __m256i nibble = _mm256_set1_epi8(15);
    KRN_UNROLL for (int j = 0; j < 4; j++)
    {
        __m256i v = _mm256_loadu_si256((const __m256i *)(q + 64 * j));
        w[j] = _mm256_and_si256(v, nibble);
        w[j + 4] = _mm256_and_si256(_mm256_srli_epi16(v, 4), nibble);
    }
    if (type == DTYPE_Q5_K) {
        const __m256i bit = _mm256_set1_epi8(16);
        __m256i v = _mm256_loadu_si256((const __m256i *)(q + 256));
        KRN_UNROLL for (int j = 0; j < UNIT_VECTORS; j++)
        {
            __m256i h = j < 4 ? _mm256_slli_epi16(v, j < 4 ? 4 - j : 0)
                              : _mm256_srli_epi16(v, j < 4 ? 0 : j - 4);
            w[j] = _mm256_or_si256(w[j], _mm256_and_si256(h, bit));
        }
    }
    if (type == DTYPE_Q6_K) {
        const __m256i bits = _mm256_set1_epi8(48);
        KRN_UNROLL for (int j = 0; j < UNIT_VECTORS; j++)
        {
            __m256i v = _mm256_loadu_si256((const __m256i *)(q + 256 + j / 4 * 64));
            int i = j % 4;
            __m256i h = i < 2 ? _mm256_slli_epi16(v, i < 2 ? 4 - 2 * i : 0)
                              : _mm256_srli_epi16(v, i < 2 ? 0 : 2 * i - 4);
            w[j] = _mm256_or_si256(w[j], _mm256_and_si256(h, bits));
        }
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

/* d[0], d[1] the scales of the half units; m the minimum times its scale (Q4_K, Q5_K). */
struct unit_scales {
    __m256 d[2], m;
};

/* row: 0 or 8. */
KRN_INLINE struct unit_scales unit_scales(const struct krn_planes *p, int32_t unit, int32_t row,
                                          const enum dtype type)
{
    struct unit_scales out;
    const uint8_t *s = p->pairs + krn_pack_scales_at(type, unit);
    if (type == DTYPE_Q8_0 || type == DTYPE_Q4_0) {
        out.d[0] = out.d[1] = out.m = unit_f16(s + 2 * row);
        return out;
    }
    const uint8_t *super = krn_pack_super(type, p, unit);
    __m128i a = load_8_bytes(s + row), b = load_8_bytes(s + KRN_TILE + row);
    __m256 d = unit_f16(super + 2 * row);
    if (type == DTYPE_Q6_K) {
        out.d[0] = out.m = _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(a)));
        out.d[1] = _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(b)));
    } else {
        out.d[0] = out.d[1] = _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(a)));
        out.m = _mm256_mul_ps(unit_f16(super + 32 + 2 * row),
                              _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(b)));
    }
    return out;
}

#endif
