// gate.cu: GELU in its two forms and the clamped SwiGLU; a thread is an element.
#include "engine/kernels/cuda/gate.cuh"

extern "C" {
#include "engine/kernels/cuda/cuda.h"
}

namespace {

__global__ void __launch_bounds__(KRN_CUDA_THREADS)
    gate_kernel(enum krn_gate kind, float *y, const float *g, const float *u, int64_t n)
{
    cu_begin();
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    y[i] = cu_gate(kind, g[i], u, i);
}

} // namespace

extern "C" void krn_cuda_gate(enum krn_gate kind, float *y, const float *g, const float *u, int64_t n)
{
    if (n < 1) return;
    KRN_LAUNCH(gate_kernel, dim3((unsigned)DIV_UP(n, KRN_CUDA_THREADS)), dim3(KRN_CUDA_THREADS), 0, kind, y, g, u, n);
    krn_cuda_launched("gate");
}
