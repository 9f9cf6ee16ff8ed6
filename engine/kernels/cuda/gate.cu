// gate.cu: GELU in its two forms and the clamped SwiGLU; a thread is an element.
#include "engine/kernels/cuda/cuda.cuh"

extern "C" {
#include "engine/kernels/cuda/cuda.h"
}

namespace {

__device__ float gelu_tanh(float g)
{
    float e = krn_math_exp(g * fmaf(KRN_GELU_3, g * g, KRN_GELU_1));
    return g / (1.0f + e);
}

__device__ float gelu_erf(float g)
{
    float z = fabsf(g) * KRN_SQRT_HALF, t = 1.0f / fmaf(KRN_ERF_P, z, 1.0f);
    float p = fmaf(KRN_ERF_A5, t, KRN_ERF_A4);
    p = fmaf(p, t, KRN_ERF_A3);
    p = fmaf(p, t, KRN_ERF_A2);
    p = fmaf(p, t, KRN_ERF_A1);
    float h = 0.5f * ((p * t) * krn_math_exp(-(z * z)));
    return g * (g < 0 ? h : 1.0f - h);
}

__device__ float swiglu_clamped(float g, float u)
{
    g = g < KRN_SWIGLU_LIMIT ? g : KRN_SWIGLU_LIMIT;
    u = u < KRN_SWIGLU_LIMIT ? u : KRN_SWIGLU_LIMIT;
    u = u > -KRN_SWIGLU_LIMIT ? u : -KRN_SWIGLU_LIMIT;
    float e = krn_math_exp(g * -KRN_SWIGLU_ALPHA);
    return (g / (1.0f + e)) * (u + 1.0f);
}

__global__ void __launch_bounds__(KRN_CUDA_THREADS)
    gate_kernel(enum krn_gate kind, float *y, const float *g, const float *u, int64_t n)
{
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    if (kind == KRN_SWIGLU_CLAMPED) {
        y[i] = swiglu_clamped(g[i], u[i]);
        return;
    }
    float a = kind == KRN_GELU_TANH ? gelu_tanh(g[i]) : gelu_erf(g[i]);
    y[i] = u ? a * u[i] : a;
}

} // namespace

extern "C" void krn_cuda_gate(enum krn_gate kind, float *y, const float *g, const float *u, int64_t n)
{
    if (n < 1) return;
    KRN_LAUNCH(gate_kernel, dim3((unsigned)DIV_UP(n, KRN_CUDA_THREADS)), dim3(KRN_CUDA_THREADS), 0, kind, y, g, u, n);
    krn_cuda_launched("gate");
}
