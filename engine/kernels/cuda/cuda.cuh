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
int krn_cuda_early(void);                 // kernels may begin early, see cu_begin
void *krn_cuda_scratch(void);             // KRN_CUDA_SCRATCH bytes on the device, for reductions
void krn_cuda_fetch(void *dst, const void *src, int64_t bytes); // to the host, waits
}

enum { KRN_CUDA_THREADS = 256, KRN_CUDA_SCRATCH = 64 << 10 };

#ifndef KRN_LAUNCH
// Programmatic dependent launch: the kernel may be given its place while the one before it still works, see cu_begin.
template <class... P, class... A> static inline void cu_launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, const A &...a)
{
    cudaLaunchAttribute early;
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t c = {};
    c.gridDim = grid, c.blockDim = block, c.dynamicSmemBytes = shared, c.stream = krn_cuda_stream();
    c.attrs = &early, c.numAttrs = krn_cuda_early() ? 1 : 0;
    (void)cudaLaunchKernelEx(&c, kernel, P(a)...); // krn_cuda_launched tells
}
#define KRN_LAUNCH(kernel, grid, block, shared, ...) cu_launch(kernel, (grid), (block), (shared), __VA_ARGS__)
#define KRN_BEGIN() ((void)0)
#endif

// A grid of rows, of tokens mostly, by their columns, a thread each: any number of rows go in x, columns in y, which ends at 65535.
static inline dim3 cu_rows_by_columns(int32_t rows, int32_t cols) { return dim3((unsigned)rows, (unsigned)DIV_UP(cols, (int32_t)KRN_CUDA_THREADS)); }

// The first thing that every kernel does. Cards of compute capability 9.0 and newer let it begin while the kernel before it works: here it waits
// until that one has ended and its writes can be read, and lets the next one begin. Before it nothing may be read but weights (cu_ahead), and
// nothing written; and all threads come here, since a kernel that ended without would let the next one pass those before.
__device__ static inline void cu_begin()
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;\n\tgriddepcontrol.launch_dependents;" ::: "memory");
#else
    KRN_BEGIN();
#endif
}

// The same of a kernel that waits for another rank: the next one comes when it has ended. Its blocks would have a place meanwhile and do nothing,
// and where ranks share a card they could be those that the other rank's kernels need.
__device__ static inline void cu_begin_alone()
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#else
    KRN_BEGIN();
#endif
}

// A block's first weights on their way to the second-level cache, while the kernel before it works: a line a thread.
__device__ static inline void cu_ahead(const uint8_t *p, int64_t bytes)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    enum { LINE = 128, MOST = 16 << 10 }; // all blocks that have a place together stay well below the cache's size
    int64_t at = (int64_t)threadIdx.x * LINE;
    if (at < (bytes < MOST ? bytes : (int64_t)MOST)) asm volatile("prefetch.global.L2 [%0];" ::"l"(p + at));
#else
    (void)p, (void)bytes;
#endif
}

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
