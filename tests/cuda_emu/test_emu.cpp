// test_emu.cpp: the emulation itself: a correct kernel gives the same in both orders, one that lacks a barrier does not, and what would
// hang or crash on a card ends the process with its reason.
#include "cuda_runtime.h"

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/wait.h>
#include <unistd.h>

// A sanitizer leaves signals to us.
extern "C" const char *__asan_default_options() { return "handle_segv=0:handle_abort=0"; }
extern "C" const char *__tsan_default_options() { return "handle_segv=0:handle_abort=0"; }

extern "C" cudaStream_t krn_cuda_stream(void) { return nullptr; }

namespace {

int failures;
void check(bool ok, const char *what)
{
    printf("%-6s %s\n", ok ? "ok" : "FAILED", what);
    failures += !ok;
}

__global__ void rotate_kernel(int *x, bool with_barrier)
{
    __shared__ int s[64];
    int i = (int)threadIdx.x;
    s[i] = x[i];
    if (with_barrier) __syncthreads();
    x[i] = s[(i + 1) % 64];
}
__global__ void bring_kernel(const int *x, int *y, bool waits)
{
    __shared__ int4 s[1];
    s[0] = {0, 0, 0, 0};
    KRN_BRING(s, x);
    KRN_BRING_GROUP();
    if (waits) KRN_WAIT_FOR(0);
    y[0] = s[0].y;
}
__global__ void sum_kernel(int *x)
{
    int v = x[threadIdx.x];
    for (int o = 16; o; o >>= 1) v += __shfl_xor_sync(0xffffffffu, v, o);
    x[threadIdx.x] = v;
    if (threadIdx.x == 0) atomicAdd(&x[0], (int)blockIdx.x);
}
__global__ void half_a_barrier_kernel(int *x)
{
    if (threadIdx.x == 32) __syncthreads();
    else if (threadIdx.x > 32) x[threadIdx.x] = __shfl_sync(0xffffffffu, x[threadIdx.x], 1);
}
__global__ void wrong_mask_kernel(int *x) { x[threadIdx.x] = __shfl_xor_sync(0x0000ffffu, x[threadIdx.x], 1); }
#ifdef CUDA_EMU_RACES // kinds: with what between the write of a thread's own and the read of its neighbour's
__global__ void neighbours_kernel(int *x, int between)
{
    __shared__ int s[64];
    int i = (int)threadIdx.x, v = 0;
    s[i] = x[i];
    if (between == 1) __syncwarp();
    if (between == 2) v = __shfl_sync(0xffffffffu, i, 0);
    if (between == 3) __syncthreads();
    x[i] = s[(i + 1) % (int)blockDim.x] + v;
}
__global__ void bytes_kernel(unsigned char *to) { to[threadIdx.x] = (unsigned char)threadIdx.x; }
__global__ void all_at_one_kernel(int *x, int how)
{
    if (how == 1) atomicAdd(x, 1);
    else if (how == 2 && blockIdx.x == 0) x[0] = 1;
    else if (how == 2) x[1] = x[0];
    else if (blockIdx.x == threadIdx.x) x[0] = 1;
}
#endif
__global__ void read_kernel(const int *from, int *to) { *to = *from; }

int *device_ints(int n, int first = 0)
{
    void *p;
    int values[64];
    for (int i = 0; i < n; i++) values[i] = first + i;
    if (cudaMalloc(&p, sizeof values) || cudaMemcpyAsync(p, values, sizeof values, cudaMemcpyHostToDevice, nullptr)) abort();
    return (int *)p;
}

// Shared memory still holds what the last kernel left there: other numbers each time.
void rotated(const char *order, bool with_barrier, int first, int out[64])
{
    setenv("CUDA_EMU_ORDER", order, 1);
    int *x = device_ints(64, first);
    KRN_LAUNCH(rotate_kernel, dim3(1), dim3(64), 0, x, with_barrier);
    if (cudaMemcpyAsync(out, x, 64 * sizeof *out, cudaMemcpyDeviceToHost, nullptr)) abort();
    for (int i = 0; i < 64; i++) out[i] -= first;
    setenv("CUDA_EMU_ORDER", "forward", 1);
}

void brought(const char *order, bool waits, int out[1])
{
    setenv("CUDA_EMU_ORDER", order, 1);
    int *x = device_ints(4), *y = device_ints(1);
    KRN_LAUNCH(bring_kernel, dim3(1), dim3(1), 0, x, y, waits);
    if (cudaMemcpyAsync(out, y, sizeof *out, cudaMemcpyDeviceToHost, nullptr)) abort();
    setenv("CUDA_EMU_ORDER", "forward", 1);
}

// Does f end the process by this signal?
template <class F> bool dies(int signal, F f)
{
    fflush(stdout);
    setenv("CUDA_EMU_QUIET", "1", 1); // no search for the place of each
    pid_t pid = fork();
    if (pid == 0) {
        if (!freopen("/dev/null", "w", stderr)) _exit(1);
        f();
        _exit(0);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    unsetenv("CUDA_EMU_QUIET");
    return WIFSIGNALED(status) && WTERMSIG(status) == signal;
}

#ifdef CUDA_EMU_RACES
int *x;
void races()
{
    x = device_ints(64);
    auto neighbours = [](int threads, int between) { KRN_LAUNCH(neighbours_kernel, dim3(1), dim3((unsigned)threads), 0, x, between); };
    check(dies(SIGABRT, [=] { neighbours(64, 0); }), "what a neighbour reads, with nothing between");
    check(dies(SIGABRT, [=] { neighbours(32, 2); }), "a shuffle orders nothing");
    check(dies(SIGABRT, [=] { neighbours(64, 1); }), "__syncwarp orders no other warp");
    neighbours(32, 1), neighbours(64, 3);
    check(dies(SIGABRT, [] { KRN_LAUNCH(all_at_one_kernel, dim3(2), dim3(2), 0, x, 0); }), "two blocks write the same");
    check(dies(SIGABRT, [] { KRN_LAUNCH(all_at_one_kernel, dim3(2), dim3(1), 0, x, 2); }), "a block reads what another has written");
    KRN_LAUNCH(all_at_one_kernel, dim3(2), dim3(64), 0, x, 1);
    KRN_LAUNCH(all_at_one_kernel, dim3(1), dim3(1), 0, x, 2); // another grid
    void *odd;
    if (cudaMalloc(&odd, 61)) abort();
    KRN_LAUNCH(bytes_kernel, dim3(1), dim3(61), 0, (unsigned char *)odd);
    check(dies(SIGABRT, [=] { KRN_LAUNCH(bytes_kernel, dim3(1), dim3(62), 0, (unsigned char *)odd); }), "a byte behind what is allocated");
}
#endif

} // namespace

// Whoever runs the tests may have set any of the emulation's switches for other programs.
void forget_environment()
{
    for (const char *name : {"ORDER", "BYTES", "PINNED", "DEVICES", "FAIL", "DRIVER", "DISPLAY", "APART", "ASYNC", "BUSY"}) {
        char var[32];
        snprintf(var, sizeof var, "CUDA_EMU_%s", name);
        unsetenv(var);
    }
}

int main()
{
    int a[64], b[64];
    forget_environment();
#ifdef CUDA_EMU_RACES
    races();
#endif
    rotated("forward", true, 1000, a), rotated("reverse", true, 2000, b);
    check(!memcmp(a, b, sizeof a) && a[0] == 1 && a[63] == 0, "with its barrier a kernel gives the same in both orders");
#ifndef CUDA_EMU_RACES
    rotated("forward", false, 3000, a), rotated("reverse", false, 4000, b);
    check(memcmp(a, b, sizeof a) != 0, "without it the orders differ");
#endif

    brought("forward", true, a), brought("reverse", true, b);
    check(a[0] == 1 && b[0] == 1, "what is brought is there after the wait");
    brought("forward", false, a), brought("reverse", false, b);
    check(a[0] == 0 && b[0] == 1, "without it the orders differ");

    int *x = device_ints(32);
    KRN_LAUNCH(sum_kernel, dim3(1), dim3(32), 0, x);
    check(!cudaMemcpyAsync(a, x, 32 * sizeof *a, cudaMemcpyDeviceToHost, nullptr) && a[0] == 496 && a[31] == 496, "shuffles exchange within a warp");

    check(dies(SIGABRT, [] { int *y = device_ints(64); KRN_LAUNCH(half_a_barrier_kernel, dim3(1), dim3(64), 0, y); }), "a barrier that not all reach");
    check(dies(SIGABRT, [] { int *y = device_ints(32); KRN_LAUNCH(wrong_mask_kernel, dim3(1), dim3(32), 0, y); }), "a mask that leaves a lane out");
    check(dies(SIGABRT, [] { int *y = device_ints(32), *h = (int *)malloc(64 << 20); KRN_LAUNCH(read_kernel, dim3(1), dim3(1), 0, h, y); }), "a host pointer given to a kernel");
    check(dies(SIGSEGV, [] { volatile int *y = device_ints(32); y[0] = 1; }), "the host writes through a device pointer");
    check(cudaMemcpyAsync(a, b, 4, cudaMemcpyDeviceToHost, nullptr) == cudaErrorInvalidValue, "a copy whose direction is wrong is refused");
    KRN_LAUNCH(sum_kernel, dim3(1), dim3(2048), 0, x);
    check(cudaGetLastError() == cudaErrorInvalidValue, "a block of 2048 threads is refused");
    return failures != 0;
}
