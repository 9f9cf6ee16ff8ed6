// kv.cuh: engine/kernels/kv_block.h on the device: where elements lie in a head's block of 16 positions, and what they are.
#ifndef ENGINE_KERNELS_CUDA_KV_CUH
#define ENGINE_KERNELS_CUDA_KV_CUH

#include "engine/kernels/cuda/cuda.cuh"

template <int TYPE> __device__ inline int32_t cu_kv_codes(int32_t dim)
{
    return TYPE == KV_Q8_0 ? DIV_UP(dim, KV_UNIT) * KRN_KV_BLOCK * 2 : 0;
}

// Block `block` of kv head `head` in a plane.
template <int TYPE> __device__ inline uint8_t *cu_kv_block(void *plane, const struct krn_kv &kv, int64_t block, int32_t head)
{
    int32_t size = TYPE == KV_F32 ? 4 : TYPE == KV_Q8_0 || TYPE == KV_FP8 ? 1 : 2;
    int64_t bytes = (int64_t)kv.head_dim * KRN_KV_BLOCK * size + cu_kv_codes<TYPE>(kv.head_dim);
    return (uint8_t *)plane + (block * kv.n_kv + head) * bytes;
}

// Element i of a block; scale: the index of its q8_0 scale.
template <int TYPE> __device__ inline float cu_kv_get(const uint8_t *block, int32_t dim, int64_t i, int32_t scale)
{
    if (TYPE == KV_F32) return ((const float *)block)[i];
    if (TYPE == KV_F16) return cu_f16(((const uint16_t *)block)[i]);
    if (TYPE == KV_BF16) return cu_bf16(((const uint16_t *)block)[i]);
    if (TYPE == KV_FP8) return cu_e4m3(block[i]);
    return (float)((const int8_t *)block + cu_kv_codes<TYPE>(dim))[i] * cu_f16(((const uint16_t *)block)[scale]);
}

template <int TYPE> __device__ inline float cu_kv_key(const uint8_t *block, int32_t dim, int32_t d, int32_t j)
{
    return cu_kv_get<TYPE>(block, dim, (int64_t)d * KRN_KV_BLOCK + j, d / KV_UNIT * KRN_KV_BLOCK + j);
}

template <int TYPE> __device__ inline float cu_kv_value(const uint8_t *block, int32_t dim, int32_t d, int32_t j)
{
    return cu_kv_get<TYPE>(block, dim, (int64_t)j * dim + d, j * DIV_UP(dim, KV_UNIT) + d / KV_UNIT);
}

#endif
