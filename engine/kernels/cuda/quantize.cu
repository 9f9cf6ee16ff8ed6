// quantize.cu: activations to int8, one scale per unit of 32: a warp is a unit, a lane a value.
#include "engine/kernels/cuda/cuda.cuh"

extern "C" {
#include "engine/kernels/cuda/cuda.h"
}

namespace {

__device__ int32_t sum_of_half(int32_t q)
{
    for (int o = 8; o; o >>= 1) q += __shfl_xor_sync(0xffffffffu, q, o);
    return q; // the half warp's
}

__device__ void put_empty(uint8_t *unit, int32_t width, int32_t lane, int32_t i)
{
    unit[lane * KRN_UNIT + i] = 0;
    if (i < 6) *(int32_t *)(unit + (KRN_UNIT_D + 4 * i) * width + 4 * lane) = 0;
}

// Grid: (units, tokens), one warp per unit.
__global__ void __launch_bounds__(KRN_CUDA_THREADS)
    quantize_kernel(const float *x, uint8_t *q, int32_t n_tok, int32_t cols, int32_t t_begin, int32_t u0,
                    int32_t u1)
{
    int32_t warp = (int32_t)threadIdx.x / 32, i = (int32_t)threadIdx.x % 32;
    int32_t u = u0 + (int32_t)blockIdx.x * (KRN_CUDA_THREADS / 32) + warp;
    int32_t t = t_begin + (int32_t)blockIdx.y;
    if (u >= u1) return;
    int32_t t0 = t / KRN_GROUP * KRN_GROUP, width = krn_group_width(n_tok, t0), lane = t - t0;
    uint8_t *unit = q + ((int64_t)t0 * (cols / KRN_UNIT) + (int64_t)u * width) * KRN_UNIT_BYTES;

    float v = x[(int64_t)t * cols + u * KRN_UNIT + i], amax = fabsf(v);
    for (int o = 16; o; o >>= 1) {
        float other = __shfl_xor_sync(0xffffffffu, amax, o);
        amax = other > amax ? other : amax;
    }
    float inv = amax > 0.0f ? 127.0f / amax : 0.0f;
    inv = inv > FLT_MAX ? FLT_MAX : inv;
    int32_t n = __float_as_int(v * inv + KRN_ROUND) - __float_as_int(KRN_ROUND);
    unit[lane * KRN_UNIT + i] = (uint8_t)n;
    int32_t half = sum_of_half((int8_t)n), other = __shfl_xor_sync(0xffffffffu, half, 16);
    int32_t sum = half + other;
    float f = i == 0 ? amax / 127.0f : (float)sum;
    int32_t field = i == 0   ? __float_as_int(f)
                    : i == 1 ? __float_as_int(f)
                    : i == 2 ? -8 * sum
                    : i == 3 ? -128 * sum
                    : i == 4 ? -32 * half
                             : 0;
    if (i < 5) *(int32_t *)(unit + (KRN_UNIT_D + 4 * i) * width + 4 * lane) = field;
    if (i == 16) *(int32_t *)(unit + (KRN_UNIT_Z32 + 4) * width + 4 * lane) = -32 * half;
    if (t == n_tok - 1) // who does the last token clears the lanes after it
        for (int32_t l = lane + 1; l < width; l++) put_empty(unit, width, l, i);
}

} // namespace

extern "C" void krn_cuda_quantize(const struct krn_act *a, int32_t t0, int32_t t1, int32_t u0, int32_t u1)
{
    if (t0 >= t1 || u0 >= u1) return;
    dim3 grid((unsigned)DIV_UP(u1 - u0, KRN_CUDA_THREADS / 32), (unsigned)(t1 - t0));
    KRN_LAUNCH(quantize_kernel, grid, dim3(KRN_CUDA_THREADS), 0, a->x, a->q, a->n_tok, a->cols, t0, u0, u1);
    krn_cuda_launched("quantize");
}
