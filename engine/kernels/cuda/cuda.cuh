// cuda.cuh: what the CUDA kernels share. Contracts: engine/kernels/table.h; pointers are device
// pointers, structs that hold them are the host's and are taken apart before a launch.
//
// Every kernel computes the same chain of fused multiply-adds per output as `ref`, so its bits are
// the CPU's: no fast math, no contraction (-fmad=false), denormals kept, our own e^x (math.h). What
// is free is who computes what: integer sums, loads and independent chains are spread over threads.
//
// The files compile for the GPU by nvcc, and as C++ for the tests, where tests/cuda_emu stands in
// for <cuda_runtime.h> and runs a grid's threads one by one. Launches go through KRN_LAUNCH and
// dynamic shared memory through KRN_SHARED, which that header defines its own way.
#ifndef ENGINE_KERNELS_CUDA_CUDA_CUH
#define ENGINE_KERNELS_CUDA_CUDA_CUH

#include <cuda_runtime.h>

#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>

#define _Noreturn [[noreturn]]
extern "C" {
#include "engine/kernels/table.h"
#include "engine/kernels/pack.h"
#include "engine/kernels/panel.h"
#include "engine/kernels/math.h"
#include "engine/file/half.h"

// Of the calling thread's device (engine/backend/cuda/plugin.c).
cudaStream_t krn_cuda_stream(void);
void krn_cuda_launched(const char *what); // remembers the first failed launch
void *krn_cuda_scratch(void);             // KRN_CUDA_SCRATCH bytes on the device, for reductions
void krn_cuda_fetch(void *dst, const void *src, int64_t bytes); // to the host, waits
}

enum { KRN_CUDA_THREADS = 256, KRN_CUDA_SCRATCH = 64 << 10 };

#ifndef KRN_LAUNCH
#define KRN_LAUNCH(kernel, grid, block, shared, ...)                                               \
    kernel<<<(grid), (block), (shared), krn_cuda_stream()>>>(__VA_ARGS__)
#endif

#ifdef __CUDA_ARCH__
__device__ static inline float cu_f16(uint16_t h)
{
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h));
    return f;
}
__device__ static inline uint16_t cu_to_f16(float f)
{
    uint16_t h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f));
    return h;
}
#else
__device__ static inline float cu_f16(uint16_t h) { return half_f16_to_f32(h); }
__device__ static inline uint16_t cu_to_f16(float f) { return half_f32_to_f16(f); }
#endif
__device__ static inline uint16_t cu_to_bf16(float f) // of a finite number
{
    uint32_t u = (uint32_t)__float_as_int(f);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}
// E4M3 (never its NaN) is f16 with its exponent 8 too small: 4 bits of it, 3 of mantissa.
__device__ static inline float cu_e4m3(uint8_t c)
{
    return cu_f16((uint16_t)((c & 0x80) << 8 | (c & 0x7f) << 7)) * 256.0f;
}
__device__ static inline float cu_bf16(uint16_t h) { return __int_as_float((int)((uint32_t)h << 16)); }

#endif
