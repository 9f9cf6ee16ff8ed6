// codes.cuh: a value of an activation to its int8 code; a warp is a unit, a lane a value.
#ifndef ENGINE_KERNELS_CUDA_CODES_CUH
#define ENGINE_KERNELS_CUDA_CODES_CUH

#include "engine/kernels/cuda/cuda.cuh"

__device__ static inline int32_t cu_sum_of_half(int32_t q)
{
    for (int o = 8; o; o >>= 1) q += __shfl_xor_sync(0xffffffffu, q, o);
    return q; // the half warp's
}

__device__ static inline void cu_put_empty(uint8_t *unit, int32_t width, int32_t lane, int32_t i)
{
    unit[lane * KRN_UNIT + i] = 0;
    if (i < 6) *(int32_t *)(unit + (KRN_UNIT_D + 4 * i) * width + 4 * lane) = 0;
}

// v is value i of unit u of token t, of n_tok rows of `cols`. By whole warps, i being the lane. Who does the last token clears the lanes after it.
__device__ static inline void cu_put_code(uint8_t *q, int32_t n_tok, int32_t cols, int32_t t, int32_t u, int32_t i, float v)
{
    int32_t t0 = t / KRN_GROUP * KRN_GROUP, width = krn_group_width(n_tok, t0), lane = t - t0;
    uint8_t *unit = q + ((int64_t)t0 * (cols / KRN_UNIT) + (int64_t)u * width) * KRN_UNIT_BYTES;
    float amax = fabsf(v);
    for (int o = 16; o; o >>= 1) {
        float other = __shfl_xor_sync(0xffffffffu, amax, o);
        amax = other > amax ? other : amax;
    }
    float inv = amax > 0.0f ? 127.0f / amax : 0.0f;
    inv = inv > FLT_MAX ? FLT_MAX : inv;
    int32_t n = __float_as_int(v * inv + KRN_ROUND) - __float_as_int(KRN_ROUND);
    unit[lane * KRN_UNIT + i] = (uint8_t)n;
    int32_t half = cu_sum_of_half((int8_t)n), other = __shfl_xor_sync(0xffffffffu, half, 16);
    int32_t sum = half + other;
    float f = i == 0 ? amax / 127.0f : (float)sum;
    int32_t field = i == 0   ? __float_as_int(f)
                    : i == 1 ? __float_as_int(f)
                    : i == 2 ? -8 * sum
                    : i == 3 ? -128 * sum
                    : i == 4 ? -32 * half
                             : 0;
    if (i < 5) *(int32_t *)(unit + (KRN_UNIT_D + 4 * i) * width + 4 * lane) = field;
    if (i == 16) *(int32_t *)(unit + (KRN_UNIT_Z32 + 4) * width + 4 * lane) = -32 * half;
    if (t == n_tok - 1)
        for (int32_t l = lane + 1; l < width; l++) cu_put_empty(unit, width, l, i);
}

#endif
