// elementwise.cu: operations of one element with one element.
#include "engine/kernels/cuda/gate.cuh"

extern "C" {
#include "engine/kernels/cuda/cuda.h"
}

namespace {

__device__ int64_t index_here() { return (int64_t)blockIdx.x * blockDim.x + threadIdx.x; }

__global__ void __launch_bounds__(KRN_CUDA_THREADS) add_kernel(float *x, const float *y, int64_t n)
{
    cu_begin();
    int64_t i = index_here();
    if (i < n) x[i] = x[i] + y[i];
}

__global__ void __launch_bounds__(KRN_CUDA_THREADS) mul_kernel(float *x, const float *y, int64_t n)
{
    cu_begin();
    int64_t i = index_here();
    if (i < n) x[i] = x[i] * y[i];
}

__global__ void __launch_bounds__(KRN_CUDA_THREADS) scale_kernel(float *x, float a, int64_t n)
{
    cu_begin();
    int64_t i = index_here();
    if (i < n) x[i] = x[i] * a;
}

__global__ void __launch_bounds__(KRN_CUDA_THREADS) axpy_kernel(float *y, float a, const float *x, int64_t n)
{
    cu_begin();
    int64_t i = index_here();
    if (i < n) y[i] = fmaf(a, x[i], y[i]);
}

__global__ void __launch_bounds__(KRN_CUDA_THREADS) softcap_kernel(float *x, float cap, int64_t n)
{
    cu_begin();
    int64_t i = index_here();
    if (i >= n) return;
    float t = krn_math_exp(x[i] * (2.0f / cap));
    x[i] = ((t - 1.0f) / (t + 1.0f)) * cap;
}

__global__ void __launch_bounds__(KRN_CUDA_THREADS)
    silu_mul_kernel(float *y, const float *g, const float *u, int64_t n)
{
    cu_begin();
    int64_t i = index_here();
    if (i >= n) return;
    y[i] = cu_silu_mul(g[i], u[i]);
}

dim3 grid_of(int64_t n) { return dim3((unsigned)DIV_UP(n, KRN_CUDA_THREADS)); }

} // namespace

extern "C" void krn_cuda_add(float *x, const float *y, int64_t n)
{
    if (n < 1) return;
    KRN_LAUNCH(add_kernel, grid_of(n), dim3(KRN_CUDA_THREADS), 0, x, y, n);
    krn_cuda_launched("add");
}

extern "C" void krn_cuda_silu_mul(float *y, const float *g, const float *u, int64_t n)
{
    if (n < 1) return;
    KRN_LAUNCH(silu_mul_kernel, grid_of(n), dim3(KRN_CUDA_THREADS), 0, y, g, u, n);
    krn_cuda_launched("silu_mul");
}

extern "C" void krn_cuda_mul(float *x, const float *y, int64_t n)
{
    if (n < 1) return;
    KRN_LAUNCH(mul_kernel, grid_of(n), dim3(KRN_CUDA_THREADS), 0, x, y, n);
    krn_cuda_launched("mul");
}

extern "C" void krn_cuda_scale(float *x, float a, int64_t n)
{
    if (n < 1) return;
    KRN_LAUNCH(scale_kernel, grid_of(n), dim3(KRN_CUDA_THREADS), 0, x, a, n);
    krn_cuda_launched("scale");
}

extern "C" void krn_cuda_axpy(float *y, float a, const float *x, int64_t n)
{
    if (n < 1) return;
    KRN_LAUNCH(axpy_kernel, grid_of(n), dim3(KRN_CUDA_THREADS), 0, y, a, x, n);
    krn_cuda_launched("axpy");
}

extern "C" void krn_cuda_softcap(float *x, float cap, int64_t n)
{
    if (n < 1) return;
    KRN_LAUNCH(softcap_kernel, grid_of(n), dim3(KRN_CUDA_THREADS), 0, x, cap, n);
    krn_cuda_launched("softcap");
}
