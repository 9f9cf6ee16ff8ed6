// wire.cu: base/wire.h on a card: parts of a sum as the fewer bytes that leave the host, and what came back as a sum. A lane is a value, a warp one
// block of q8.
#include "engine/kernels/cuda/cuda.cuh"

extern "C" {
#include "base/wire.h"
#include "engine/kernels/cuda/cuda.h"
}

namespace {

enum { MAX_BLOCKS = 4096 };
static_assert((int)WIRE_BLOCK == 32, "a warp is a block of q8");

__device__ float sum_of(const wire_pack &a, int64_t i)
{
    float x = a.parts[i];
    for (int32_t p = 1; p < a.n_parts; p++) x = x + a.parts[p * a.stride + i];
    return x;
}

// What is larger than 65504 becomes that.
__device__ uint16_t saturated(float x)
{
    uint32_t u = (uint32_t)__float_as_int(x);
    return (u & 0x7fffffff) >= 0x477ff000 ? (uint16_t)((u >> 16 & 0x8000) | 0x7bff) : cu_to_f16(x);
}

__global__ void __launch_bounds__(KRN_CUDA_THREADS) pack_f16_kernel(wire_pack a)
{
    cu_begin();
    for (int64_t i = (int64_t)blockIdx.x * KRN_CUDA_THREADS + threadIdx.x; i < a.n; i += (int64_t)gridDim.x * KRN_CUDA_THREADS)
        ((uint16_t *)a.out)[i] = saturated(sum_of(a, i));
}

__global__ void __launch_bounds__(KRN_CUDA_THREADS) pack_q8_kernel(wire_pack a)
{
    cu_begin();
    int32_t lane = (int32_t)threadIdx.x % 32;
    int64_t blocks = (a.n + WIRE_BLOCK - 1) / WIRE_BLOCK, step = (int64_t)gridDim.x * (KRN_CUDA_THREADS / 32);
    for (int64_t b = (int64_t)blockIdx.x * (KRN_CUDA_THREADS / 32) + threadIdx.x / 32; b < blocks; b += step) {
        int64_t i = b * WIRE_BLOCK + lane;
        float x = i < a.n ? sum_of(a, i) : 0.0f, most = fabsf(x);
        for (int o = 16; o; o >>= 1) {
            float other = __shfl_xor_sync(0xffffffffu, most, o);
            most = other > most ? other : most;
        }
        float inverse = most > 0x1p-100f ? 127 / most : 0;
        uint8_t *to = (uint8_t *)a.out + b * WIRE_Q8_BYTES;
        if (lane == 0) *(float *)to = most / 127;
        ((int8_t *)to)[4 + lane] = (int8_t)rintf(x * inverse);
    }
}

template <bool Q8> __device__ float value(const uint8_t *packed, int64_t i)
{
    if (!Q8) return cu_f16(((const uint16_t *)packed)[i]);
    const uint8_t *b = packed + i / WIRE_BLOCK * WIRE_Q8_BYTES;
    return *(const float *)b * (float)((const int8_t *)b)[4 + i % WIRE_BLOCK];
}

template <bool Q8> __global__ void __launch_bounds__(KRN_CUDA_THREADS) unpack_kernel(wire_unpack a)
{
    cu_begin();
    for (int64_t i = (int64_t)blockIdx.x * KRN_CUDA_THREADS + threadIdx.x; i < a.n; i += (int64_t)gridDim.x * KRN_CUDA_THREADS) {
        const uint8_t *in = (const uint8_t *)a.in;
        float x = a.n_parts ? 0.0f : value<Q8>(in, i);
        for (int32_t p = 0; p < a.n_parts; p++) x = x + value<Q8>(in + p * a.stride, i);
        a.out[i] = x;
    }
}

dim3 grid_of(int64_t n)
{
    int64_t blocks = DIV_UP(n, KRN_CUDA_THREADS);
    return dim3((unsigned)(blocks < MAX_BLOCKS ? blocks : (int64_t)MAX_BLOCKS));
}

} // namespace

extern "C" void krn_cuda_wire_pack(const struct wire_pack *a)
{
    if (a->n < 1) return;
    if (a->q8) KRN_LAUNCH(pack_q8_kernel, grid_of(a->n), dim3(KRN_CUDA_THREADS), 0, *a);
    else KRN_LAUNCH(pack_f16_kernel, grid_of(a->n), dim3(KRN_CUDA_THREADS), 0, *a);
    krn_cuda_launched("wire_pack");
}

extern "C" void krn_cuda_wire_unpack(const struct wire_unpack *a)
{
    if (a->n < 1) return;
    if (a->q8) KRN_LAUNCH(unpack_kernel<true>, grid_of(a->n), dim3(KRN_CUDA_THREADS), 0, *a);
    else KRN_LAUNCH(unpack_kernel<false>, grid_of(a->n), dim3(KRN_CUDA_THREADS), 0, *a);
    krn_cuda_launched("wire_unpack");
}
