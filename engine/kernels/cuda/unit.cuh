// unit.cuh: one row of one unit of a packed tile in registers: codes as four bytes per word, scales.
// The layout is drawn in engine/kernels/pack.h; a 16-lane half warp that takes the 16 rows of a tile
// reads whole lines.
#ifndef ENGINE_KERNELS_CUDA_UNIT_CUH
#define ENGINE_KERNELS_CUDA_UNIT_CUH

#include "engine/kernels/cuda/cuda.cuh"

extern "C" {
#include "engine/kernels/experts.h"
}

// A packed matrix as a kernel takes it.
struct cu_mat {
    const uint8_t *data;
    int64_t tile_bytes;
    int32_t pairs; // from a tile's begin
    int32_t rows, cols;
};

static inline cu_mat cu_mat_of(const struct krn_mat *w)
{
    int32_t pairs = krn_pack_is_quant(w->type) ? (int32_t)krn_pack_pairs_at(w->type, w->cols) : 0;
    return {w->data, w->tile_bytes, pairs, w->rows, w->cols};
}

// Products of experts (engine/kernels/experts.h): row y of the grid is a slot, or, where there are parts, rows of one. data NULL: it is a group
// of tokens.
struct cu_slots {
    const uint8_t *const *data;
    const int32_t *ids;
    int32_t per;
    const struct krn_part *parts;
};

// What differs between layouts at compile time: pack.h's functions as constants.
template <int TYPE> struct cu_type {
    static constexpr bool quant = TYPE != DTYPE_F32 && TYPE != DTYPE_F16 && TYPE != DTYPE_BF16;
    static constexpr bool super = TYPE == DTYPE_Q2_K || TYPE == DTYPE_Q3_K || TYPE == DTYPE_Q4_K ||
                                  TYPE == DTYPE_Q5_K || TYPE == DTYPE_Q6_K || TYPE == DTYPE_IQ4_XS ||
                                  TYPE == DTYPE_IQ2_S || TYPE == DTYPE_TQ2_0;
    static constexpr bool book = TYPE == DTYPE_IQ4_NL || TYPE == DTYPE_IQ4_XS || TYPE == DTYPE_MXFP4 ||
                                 TYPE == DTYPE_IQ2_S;
    static constexpr bool has_min = TYPE == DTYPE_Q4_1 || TYPE == DTYPE_Q5_1 || TYPE == DTYPE_Q2_K ||
                                    TYPE == DTYPE_Q4_K || TYPE == DTYPE_Q5_K;
    static constexpr bool halves = TYPE == DTYPE_Q2_K || TYPE == DTYPE_Q3_K || TYPE == DTYPE_Q6_K ||
                                   TYPE == DTYPE_IQ2_S; // a scale per half unit
    static constexpr bool wide = TYPE == DTYPE_IQ4_XS || TYPE == DTYPE_IQ2_S; // f32 d of a super-block
    static constexpr int bits = TYPE == DTYPE_Q8_0                                                   ? 8
                                : TYPE == DTYPE_Q6_K                                                 ? 6
                                : TYPE == DTYPE_Q5_0 || TYPE == DTYPE_Q5_1 || TYPE == DTYPE_Q5_K     ? 5
                                : TYPE == DTYPE_Q3_K || TYPE == DTYPE_IQ2_S                          ? 3
                                : TYPE == DTYPE_Q2_K || TYPE == DTYPE_TQ2_0                          ? 2
                                                                                                     : 4;
    // what the panel's z fields take off; Q8_0 and books are made signed instead
    static constexpr int offset = TYPE == DTYPE_Q4_0    ? 8
                                  : TYPE == DTYPE_Q5_0  ? 16
                                  : TYPE == DTYPE_Q6_K  ? 32
                                  : TYPE == DTYPE_Q3_K  ? 4
                                  : TYPE == DTYPE_TQ2_0 ? 1
                                                        : 0;
    static constexpr int quant_bytes = bits * 64;
    static constexpr int scale_bytes = TYPE == DTYPE_Q4_1 || TYPE == DTYPE_Q5_1      ? 64
                                       : TYPE == DTYPE_IQ4_XS || TYPE == DTYPE_MXFP4 ? 16
                                       : TYPE == DTYPE_TQ2_0                         ? 0
                                                                                     : 32;
    static constexpr int group = scale_bytes ? 64 / (scale_bytes ? scale_bytes : 1) : 1; // units
    static constexpr int group_bytes = group * (quant_bytes + scale_bytes);
    static constexpr int super_bytes = TYPE == DTYPE_Q6_K || TYPE == DTYPE_Q3_K || TYPE == DTYPE_TQ2_0 ? 32 : 64;
    static constexpr int steps = (has_min ? 2 : 1) * (halves ? 2 : 1); // of the chain per unit
};

__device__ static inline uint32_t cu_word(const uint8_t *p) { return *(const uint32_t *)p; }
__device__ static inline float cu_f16_at(const uint8_t *p) { return cu_f16(*(const uint16_t *)p); }

// Four numbers of a book of 16 bytes.
__device__ static inline uint32_t cu_look_up(const uint32_t book[4], uint32_t v)
{
    uint32_t s = v & 0x07070707u, m = (v >> 3 & 0x01010101u) * 255u;
    s = (s | s >> 4) & 0x00ff00ffu;
    s = (s | s >> 8) & 0xffffu;
    return (__byte_perm(book[0], book[1], s) & ~m) | (__byte_perm(book[2], book[3], s) & m);
}

// Codes k = 4j..4j+3 of the unit in word j, as signed bytes: Q8_0 and values of books as they are, others
// with their offsets still in, which the panel's z fields take off.
template <int TYPE>
__device__ static inline void cu_unit_codes(const cu_mat &w, const uint8_t *tile, int32_t unit,
                                            int32_t row, int32_t code[8])
{
    using type = cu_type<TYPE>;
    constexpr int first = type::bits < 4 ? 0 : 4; // bits of the nibbles
    const uint8_t *q = tile + (w.pairs + unit / type::group * type::group_bytes + unit % type::group * type::quant_bytes + row * 4);
    if constexpr (type::bits == 8) {
#pragma unroll
        for (int j = 0; j < 8; j++) code[j] = (int32_t)(cu_word(q + j * 64) ^ 0x80808080u);
        return;
    }
    if constexpr (first == 4) {
#pragma unroll
        for (int j = 0; j < 4; j++) {
            uint32_t v = cu_word(q + j * 64);
            code[j] = (int32_t)(v & 0x0f0f0f0fu);
            code[4 + j] = (int32_t)(v >> 4 & 0x0f0f0f0fu);
        }
    }
    if constexpr (type::bits - first >= 2) {
        uint32_t pair[2] = {cu_word(q + first * 64), cu_word(q + first * 64 + 64)};
#pragma unroll
        for (int j = 0; j < 8; j++) {
            uint32_t v = (pair[j / 4] >> (j % 4 * 2) & 0x03030303u) << first;
            code[j] = (int32_t)(first ? (uint32_t)code[j] | v : v);
        }
    }
    if constexpr (type::bits % 2 == 1) {
        uint32_t last = cu_word(q + (type::bits - 1) * 64);
#pragma unroll
        for (int j = 0; j < 8; j++) code[j] |= (int32_t)((last >> j & 0x01010101u) << (type::bits - 1));
    }
    if constexpr (type::book) {
        uint32_t book[4];
#pragma unroll
        for (int i = 0; i < 4; i++) book[i] = cu_word(tile + KRN_BOOK_AT + 4 * i);
#pragma unroll
        for (int j = 0; j < 8; j++) code[j] = (int32_t)(cu_look_up(book, (uint32_t)code[j]) ^ 0x80808080u);
    }
}

// d[2] and m[2] of the half units, as krn_pack_unit_row gives them.
template <int TYPE>
__device__ static inline void cu_unit_scales(const cu_mat &w, const uint8_t *tile, int32_t unit,
                                             int32_t row, float d[2], float m[2])
{
    using type = cu_type<TYPE>;
    const uint8_t *s = tile + (w.pairs + unit / type::group * type::group_bytes + type::group * type::quant_bytes + unit % type::group * type::scale_bytes);
    m[0] = m[1] = 0.0f;
    if constexpr (TYPE == DTYPE_MXFP4) {
        uint32_t e = s[row];
        d[0] = d[1] = half_from_bits(e < 2 ? 0x00200000u << e : (e - 1) << 23);
    } else if constexpr (!type::super) {
        d[0] = d[1] = cu_f16_at(s + 2 * row);
        if constexpr (type::has_min) m[0] = m[1] = cu_f16_at(s + 32 + 2 * row);
    } else {
        int32_t at = (*(const int32_t *)tile + unit) / KRN_SUPER_UNITS; // the phase comes first in a tile
        const uint8_t *super = tile + (64 + at * type::super_bytes);
        float scale = type::wide ? *(const float *)(super + 4 * row) : cu_f16_at(super + 2 * row);
        if constexpr (TYPE == DTYPE_TQ2_0) {
            d[0] = d[1] = scale;
        } else if constexpr (TYPE == DTYPE_IQ4_XS) {
            d[0] = d[1] = scale * (float)(int8_t)s[row];
        } else if constexpr (TYPE == DTYPE_Q2_K) {
            float low = cu_f16_at(super + 32 + 2 * row);
            d[0] = scale * (float)(s[row] & 15), m[0] = low * (float)(s[row] >> 4);
            d[1] = scale * (float)(s[KRN_TILE + row] & 15), m[1] = low * (float)(s[KRN_TILE + row] >> 4);
        } else if constexpr (type::halves) {
            d[0] = scale * (float)(int8_t)s[row];
            d[1] = scale * (float)(int8_t)s[KRN_TILE + row];
        } else {
            d[0] = d[1] = scale * (float)s[row];
            m[0] = m[1] = cu_f16_at(super + 32 + 2 * row) * (float)s[KRN_TILE + row];
        }
    }
}

// Value k of a unit whose codes and scales are at hand, exactly engine/file/dequant.h's.
template <int TYPE>
__device__ static inline float cu_unit_value(const int32_t code[8], const float d[2], const float m[2], int k)
{
    int32_t q = (int8_t)(code[k / 4] >> (k % 4 * 8)) - cu_type<TYPE>::offset;
    float v = d[k / 16] * (float)q;
    return cu_type<TYPE>::has_min ? v - m[k / 16] : v;
}

// Element (k, row) of an unquantised tile.
template <int TYPE>
__device__ static inline float cu_element(const uint8_t *tile, int64_t i)
{
    if constexpr (TYPE == DTYPE_F32) {
        return ((const float *)tile)[i];
    } else {
        uint16_t h = ((const uint16_t *)tile)[i];
        return TYPE == DTYPE_F16 ? cu_f16(h) : cu_bf16(h);
    }
}

#endif
