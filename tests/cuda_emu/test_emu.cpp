// test_emu.cpp: the emulation itself: a correct kernel gives the same in both orders, one that lacks a barrier does not, and what would
// hang or crash on a card ends the process with its reason.
#include "cuda_runtime.h"

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/wait.h>
#include <unistd.h>

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

// Does f end the process by this signal?
template <class F> bool dies(int signal, F f)
{
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        if (!freopen("/dev/null", "w", stderr)) _exit(1);
        f();
        _exit(0);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    return WIFSIGNALED(status) && WTERMSIG(status) == signal;
}

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
    rotated("forward", true, 1000, a), rotated("reverse", true, 2000, b);
    check(!memcmp(a, b, sizeof a) && a[0] == 1 && a[63] == 0, "with its barrier a kernel gives the same in both orders");
    rotated("forward", false, 3000, a), rotated("reverse", false, 4000, b);
    check(memcmp(a, b, sizeof a) != 0, "without it the orders differ");

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
