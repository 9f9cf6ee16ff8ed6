// unit.cuh: one row of one unit of a packed tile in registers: codes as four bytes per word, scales.
// The layout is drawn in engine/kernels/pack.h; a 16-lane half warp that takes the 16 rows of a tile
// reads whole lines.
#ifndef ENGINE_KERNELS_CUDA_UNIT_CUH
#define ENGINE_KERNELS_CUDA_UNIT_CUH

#include "engine/kernels/cuda/cuda.cuh"

// A packed matrix as a kernel takes it.
struct cu_mat {
    const uint8_t *data;
    int64_t tile_bytes;
    int64_t pairs; // from a tile's begin
    int32_t rows, cols;
};

static inline cu_mat cu_mat_of(const struct krn_mat *w)
{
    int64_t pairs = krn_pack_is_quant(w->type) ? krn_pack_pairs_at(w->type, w->cols) : 0;
    return {w->data, w->tile_bytes, pairs, w->rows, w->cols};
}

// What differs between types at compile time.
template <int TYPE> struct cu_type {
    static constexpr bool super = TYPE == DTYPE_Q4_K || TYPE == DTYPE_Q5_K || TYPE == DTYPE_Q6_K;
    static constexpr bool quant = super || TYPE == DTYPE_Q8_0 || TYPE == DTYPE_Q4_0;
    static constexpr bool has_min = TYPE == DTYPE_Q4_K || TYPE == DTYPE_Q5_K;
    static constexpr bool halves = TYPE == DTYPE_Q6_K; // a scale per half unit
    static constexpr int quant_bytes =
        TYPE == DTYPE_Q8_0 ? 512 : TYPE == DTYPE_Q5_K ? 320 : TYPE == DTYPE_Q6_K ? 384 : 256;
    static constexpr int pair_bytes = 2 * (quant_bytes + KRN_SCALE_BYTES);
    static constexpr int super_bytes = TYPE == DTYPE_Q6_K ? 32 : 64;
    static constexpr int steps = has_min || halves ? 2 : 1; // of the chain per unit
};

__device__ static inline uint32_t cu_word(const uint8_t *p) { return *(const uint32_t *)p; }
__device__ static inline float cu_f16_at(const uint8_t *p) { return cu_f16(*(const uint16_t *)p); }

// Codes k = 4j..4j+3 of the unit in word j, as signed bytes: Q8_0 as they are, Q4_0 and Q6_K with
// their offsets (8, 32) still in, which the panel's z fields take off.
template <int TYPE>
__device__ static inline void cu_unit_codes(const cu_mat &w, const uint8_t *tile, int32_t unit,
                                            int32_t row, int32_t code[8])
{
    const uint8_t *q = tile + w.pairs + (int64_t)(unit / 2) * cu_type<TYPE>::pair_bytes +
                       unit % 2 * cu_type<TYPE>::quant_bytes + row * 4;
    if constexpr (TYPE == DTYPE_Q8_0) {
#pragma unroll
        for (int j = 0; j < 8; j++) code[j] = (int32_t)(cu_word(q + j * 64) ^ 0x80808080u);
    } else {
#pragma unroll
        for (int j = 0; j < 4; j++) {
            uint32_t v = cu_word(q + j * 64);
            code[j] = (int32_t)(v & 0x0f0f0f0fu);
            code[4 + j] = (int32_t)(v >> 4 & 0x0f0f0f0fu);
        }
    }
    if constexpr (TYPE == DTYPE_Q5_K) {
        uint32_t high = cu_word(q + 256);
#pragma unroll
        for (int j = 0; j < 8; j++) code[j] |= (int32_t)((high >> j & 0x01010101u) << 4);
    }
    if constexpr (TYPE == DTYPE_Q6_K) {
        uint32_t high[2] = {cu_word(q + 256), cu_word(q + 320)};
#pragma unroll
        for (int j = 0; j < 8; j++)
            code[j] |= (int32_t)((high[j / 4] >> (j % 4 * 2) & 0x03030303u) << 4);
    }
}

// d[2] of the half units and m, as krn_pack_unit_row gives them.
template <int TYPE>
__device__ static inline void cu_unit_scales(const cu_mat &w, const uint8_t *tile, int32_t unit,
                                             int32_t row, float d[2], float *m)
{
    const uint8_t *s = tile + w.pairs + (int64_t)(unit / 2) * cu_type<TYPE>::pair_bytes +
                       2 * cu_type<TYPE>::quant_bytes + unit % 2 * KRN_SCALE_BYTES;
    *m = 0.0f;
    if constexpr (!cu_type<TYPE>::super) {
        d[0] = d[1] = cu_f16_at(s + 2 * row);
    } else {
        int32_t at = (*(const int32_t *)tile + unit) / KRN_SUPER_UNITS; // the phase comes first in a tile
        const uint8_t *super = tile + 64 + (int64_t)at * cu_type<TYPE>::super_bytes;
        float scale = cu_f16_at(super + 2 * row);
        if constexpr (TYPE == DTYPE_Q6_K) {
            d[0] = scale * (float)(int8_t)s[row];
            d[1] = scale * (float)(int8_t)s[KRN_TILE + row];
        } else {
            d[0] = d[1] = scale * (float)s[row];
            *m = cu_f16_at(super + 32 + 2 * row) * (float)s[KRN_TILE + row];
        }
    }
}

// Value k of a unit whose codes and scales are at hand, exactly engine/file/dequant.h's.
template <int TYPE>
__device__ static inline float cu_unit_value(const int32_t code[8], const float d[2], float m, int k)
{
    int32_t q = (int8_t)(code[k / 4] >> (k % 4 * 8));
    if (TYPE == DTYPE_Q4_0) q -= 8;
    if (TYPE == DTYPE_Q6_K) q -= 32;
    float v = d[k / 16] * (float)q;
    return cu_type<TYPE>::has_min ? v - m : v;
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
