// bring.cuh: sixteen bytes at a time from memory to shared memory while a thread computes: cp.async, from compute capability 8.0 on, needs no
// registers for what is on its way. Older cards copy at once: the same order of calls, and of barriers, is right for both. The emulation brings as
// late as it may, or at once.
#ifndef ENGINE_KERNELS_CUDA_BRING_CUH
#define ENGINE_KERNELS_CUDA_BRING_CUH

#include "engine/kernels/cuda/cuda.cuh"

#if defined __CUDA_ARCH__ && __CUDA_ARCH__ >= 800
#define KRN_BRING(to, from)                                                                                                                          \
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"((uint32_t)__cvta_generic_to_shared(to)), "l"(__cvta_generic_to_global(from))      \
                 : "memory")
#define KRN_BRING_GROUP() asm volatile("cp.async.commit_group;" ::: "memory")
#define KRN_WAIT_FOR(n) asm volatile("cp.async.wait_group %0;" ::"n"(n) : "memory")
#elif !defined KRN_BRING
#define KRN_BRING(to, from) (void)(*(int4 *)(to) = *(const int4 *)(from))
#define KRN_BRING_GROUP() ((void)0)
#define KRN_WAIT_FOR(n) ((void)0)
#endif

// Both aligned to 16 bytes. Nobody reads `to` before cu_wait_for, and whoever read it has passed a barrier.
__device__ static inline void cu_bring(void *to, const void *from) { KRN_BRING(to, from); }

// What this thread has asked for since the last call is a group, possibly an empty one.
__device__ static inline void cu_bring_group() { KRN_BRING_GROUP(); }

// All of this thread's groups but the last N are there, for this thread; for others behind a barrier.
template <int N> __device__ static inline void cu_wait_for() { KRN_WAIT_FOR(N); }

#endif
