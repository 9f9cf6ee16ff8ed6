// cuda_runtime.h: stands in for the CUDA header of that name when a test compiles a kernel file for the
// processor: the language's words, and a grid's threads as fibers, one after the other.
//
// A thread runs until it meets the others (__syncthreads, a shuffle) or ends; then the next one goes
// on. A barrier that not all threads of a block reach, or a shuffle whose mask lies, ends the process
// with the block and thread. One thread at a time cannot show every race: CUDA_EMU_ORDER=reverse runs
// them from last to first, and a kernel that lacks a barrier then gives other bits (test_emu.cpp).
// Arguments are searched for pointers into the host's memory. x86-64 only. Not here: tensor cores,
// cp.async, cooperative groups, textures, PTX.
#ifndef TESTS_CUDA_EMU_CUDA_RUNTIME_H
#define TESTS_CUDA_EMU_CUDA_RUNTIME_H

#include "cuda_runtime_api.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>

#define __global__      static
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__      static thread_local

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
static inline float2 make_float2(float a, float b) { return {a, b}; }

namespace cuda_emu {

struct place {
    dim3 thread, block, block_dim, grid_dim;
    unsigned lane;
};
const place &here();
void sync_threads();
void begin(); // cu_begin: where CUDA_EMU_BEGINS is defined a thread that has not come here neither meets others nor ends
// The thread waits for another card; fibers of its block have nothing to do meanwhile.
void pause();
// engine/kernels/cuda/bring.cuh. In one order of threads what is brought is there at once (bring: false), in the other as late as it may be. The
// copies are made here, where they are accesses of the kernel.
bool bring(void *to, const void *from);
void bring_group();
bool arrives(unsigned n, void **to, const void **from); // the next piece of this thread's groups but the last n
inline void copy(void *to, const void *from) { *(int4 *)to = *(const int4 *)from; }
inline void bring_or_copy(void *to, const void *from)
{
    if (!bring(to, from)) copy(to, from);
}
inline void wait_for(unsigned n)
{
    void *to;
    const void *from;
    while (arrives(n, &to, &from)) copy(to, from);
}
// The value of lane `from` of the warp, once all lanes of the mask have brought theirs.
uint64_t exchange(unsigned mask, uint64_t mine, unsigned from);

void fence();
// Brings the lanes of the mask together; unlike a shuffle it orders what they have written.
void sync_warp(unsigned mask);
// Of an atomic operation (emu_race.cpp).
#ifdef CUDA_EMU_RACES
void touched_atomically(const void *p, size_t n);
#define CUDA_EMU_UNSEEN __attribute__((no_sanitize("thread"), noinline))
#else
static inline void touched_atomically(const void *, size_t) {}
#define CUDA_EMU_UNSEEN
#endif

// Runs body once per thread of every block.
typedef void (*body_fn)(void *arg);
void run(dim3 grid, dim3 block, body_fn body, void *arg);
// Ends the process when these bytes hold a pointer into mapped host memory.
void check_argument(const void *bytes, size_t n);

// Not where the compiler cannot clear padding: half of an old pointer left there, beside a number, would look like one.
template <class T> void check(const T &v)
{
#if __has_builtin(__builtin_clear_padding)
    T bare = v;
    __builtin_clear_padding(&bare);
    check_argument(&bare, sizeof bare);
#else
    (void)v;
#endif
}

// On the stream, or kept by a capture (emu_impl.h).
void tell(cudaStream_t s, std::function<void()> f);

template <class F> void launch(cudaStream_t s, dim3 grid, dim3 block, F f)
{
    tell(s, [=]() mutable { run(grid, block, [](void *arg) { (*(F *)arg)(); }, &f); });
}

// The arguments are copied first, as a real launch does.
template <class K, class... A> void call(K kernel, cudaStream_t s, dim3 grid, dim3 block, A... a)
{
    (check(a), ...);
    launch(s, grid, block, [=] { kernel(a...); });
}

template <class T> T shuffle(unsigned mask, T v, unsigned from)
{
    static_assert(sizeof(T) <= 8, "a shuffle moves up to 8 bytes");
    uint64_t bits = 0;
    memcpy(&bits, &v, sizeof v);
    bits = exchange(mask, bits, from);
    memcpy(&v, &bits, sizeof v);
    return v;
}

// Kernels with the parameter types of their declaration, whatever the arguments' are.
template <class... P> struct kernel_of {
    void (*f)(P...);
    void operator()(cudaStream_t s, dim3 grid, dim3 block, P... p) { call(f, s, grid, block, p...); }
};
template <class... P> kernel_of<P...> kernel(void (*f)(P...)) { return {f}; }

} // namespace cuda_emu

#define threadIdx (cuda_emu::here().thread)
#define blockIdx  (cuda_emu::here().block)
#define blockDim  (cuda_emu::here().block_dim)
#define gridDim   (cuda_emu::here().grid_dim)

#define KRN_LAUNCH(kernel_, grid, block, shared, ...)                                              \
    cuda_emu::kernel(kernel_)(krn_cuda_stream(), (grid), (block), __VA_ARGS__)

#define KRN_BEGIN() cuda_emu::begin()
#define KRN_PAUSE() cuda_emu::pause()
#define KRN_BRING(to, from) cuda_emu::bring_or_copy((to), (from))
#define KRN_BRING_GROUP() cuda_emu::bring_group()
#define KRN_WAIT_FOR(n) cuda_emu::wait_for(n)
// A flag that another card raises.
#define KRN_LOOK(flag)        __atomic_load_n((flag), __ATOMIC_ACQUIRE)
#define KRN_RAISE(flag, turn) __atomic_store_n((flag), (turn), __ATOMIC_RELEASE)
static inline void __threadfence_system() { cuda_emu::fence(); }
static inline void __syncthreads() { cuda_emu::sync_threads(); }
static inline void __syncwarp(unsigned mask = 0xffffffffu) { cuda_emu::sync_warp(mask); }
template <class T> static inline T __shfl_xor_sync(unsigned mask, T v, int x)
{
    return cuda_emu::shuffle(mask, v, cuda_emu::here().lane ^ (unsigned)x);
}
template <class T> static inline T __shfl_sync(unsigned mask, T v, int from)
{
    return cuda_emu::shuffle(mask, v, (unsigned)from & 31);
}
template <class T> static inline T __shfl_down_sync(unsigned mask, T v, unsigned by)
{
    unsigned lane = cuda_emu::here().lane;
    return cuda_emu::shuffle(mask, v, lane + by < 32 ? lane + by : lane);
}
template <class T> CUDA_EMU_UNSEEN static inline T atomicAdd(T *p, T v)
{
    cuda_emu::touched_atomically(p, sizeof *p);
    T old = *p;
    *p = old + v;
    return old;
}
static inline int min(int a, int b) { return a < b ? a : b; }
static inline int max(int a, int b) { return a > b ? a : b; }
static inline float __int_as_float(int i)
{
    float f;
    memcpy(&f, &i, sizeof f);
    return f;
}
static inline int __float_as_int(float f)
{
    int i;
    memcpy(&i, &f, sizeof i);
    return i;
}
/* Byte i of the result is byte (selector nibble i, 0..7) of y:x. */
static inline unsigned __byte_perm(unsigned x, unsigned y, unsigned s)
{
    uint64_t both = (uint64_t)y << 32 | x;
    unsigned out = 0;
    for (int i = 0; i < 4; i++) out |= (unsigned)(both >> (8 * (s >> (4 * i) & 7)) & 255) << (8 * i);
    return out;
}
static inline int __dp4a(int a, int b, int c)
{
    for (int i = 0; i < 32; i += 8) c += (int)(int8_t)(a >> i) * (int)(int8_t)(b >> i);
    return c;
}

#endif
