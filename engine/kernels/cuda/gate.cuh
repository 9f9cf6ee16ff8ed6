// gate.cuh: what a gate makes of one element.
#ifndef ENGINE_KERNELS_CUDA_GATE_CUH
#define ENGINE_KERNELS_CUDA_GATE_CUH

#include "engine/kernels/cuda/cuda.cuh"

__device__ static inline float cu_silu_mul(float g, float u)
{
    float e = krn_math_exp(-g);
    return (g / (1.0f + e)) * u;
}

__device__ static inline float cu_gelu_tanh(float g)
{
    float e = krn_math_exp(g * fmaf(KRN_GELU_3, g * g, KRN_GELU_1));
    return g / (1.0f + e);
}

__device__ static inline float cu_gelu_erf(float g)
{
    float z = fabsf(g) * KRN_SQRT_HALF, t = 1.0f / fmaf(KRN_ERF_P, z, 1.0f);
    float p = fmaf(KRN_ERF_A5, t, KRN_ERF_A4);
    p = fmaf(p, t, KRN_ERF_A3);
    p = fmaf(p, t, KRN_ERF_A2);
    p = fmaf(p, t, KRN_ERF_A1);
    float h = 0.5f * ((p * t) * krn_math_exp(-(z * z)));
    return g * (g < 0 ? h : 1.0f - h);
}

__device__ static inline float cu_swiglu_clamped(float g, float u)
{
    g = g < KRN_SWIGLU_LIMIT ? g : KRN_SWIGLU_LIMIT;
    u = u < KRN_SWIGLU_LIMIT ? u : KRN_SWIGLU_LIMIT;
    u = u > -KRN_SWIGLU_LIMIT ? u : -KRN_SWIGLU_LIMIT;
    float e = krn_math_exp(g * -KRN_SWIGLU_ALPHA);
    return (g / (1.0f + e)) * (u + 1.0f);
}

// u NULL: there is none.
__device__ static inline float cu_gate(enum krn_gate kind, float g, const float *u, int64_t i)
{
    if (kind == KRN_SWIGLU_CLAMPED) return cu_swiglu_clamped(g, u[i]);
    float a = kind == KRN_GELU_TANH ? cu_gelu_tanh(g) : cu_gelu_erf(g);
    return u ? a * u[i] : a;
}

#endif
