// kv_put.cuh: values into a head's block of the cache.
#ifndef ENGINE_KERNELS_CUDA_KV_PUT_CUH
#define ENGINE_KERNELS_CUDA_KV_PUT_CUH

#include "engine/kernels/cuda/kv.cuh"

template <int TYPE> __device__ static inline void cu_kv_put(uint8_t *block, int64_t i, float x)
{
    if (TYPE == KV_F32)
        ((float *)block)[i] = x;
    else if (TYPE == KV_FP8)
        block[i] = half_f32_to_e4m3(x);
    else
        ((uint16_t *)block)[i] = TYPE == KV_F16 ? cu_to_f16(x) : cu_to_bf16(x);
}

// x[n], one unit, to codes that stand `step` apart; returns the scale.
__device__ static inline uint16_t cu_kv_put_codes(int8_t *codes, int64_t step, const float *x, int32_t n)
{
    float amax = 0.0f;
    for (int32_t i = 0; i < n; i++) amax = fabsf(x[i]) > amax ? fabsf(x[i]) : amax;
    float d = amax / 127.0f, inv = amax > 0.0f ? 127.0f / amax : 0.0f;
    inv = inv > FLT_MAX ? FLT_MAX : inv;
    for (int32_t i = 0; i < n; i++) {
        float big = x[i] * inv + KRN_ROUND; // adding 1.5 * 2^23 rounds to the nearest integer, ties to even
        codes[i * step] = (int8_t)(__float_as_int(big) - __float_as_int(KRN_ROUND));
    }
    return cu_to_f16(d > 65504.0f ? 65504.0f : d);
}

#endif
