// quantize.cu: activations to int8, one scale per unit of 32: a warp is a unit, a lane a value.
#include "engine/kernels/cuda/codes.cuh"

extern "C" {
#include "engine/kernels/cuda/cuda.h"
}

namespace {

// Grid: (tokens, units), one warp per unit.
__global__ void __launch_bounds__(KRN_CUDA_THREADS)
    quantize_kernel(const float *x, uint8_t *q, int32_t n_tok, int32_t cols, int32_t t_begin, int32_t u0,
                    int32_t u1)
{
    cu_begin();
    int32_t warp = (int32_t)threadIdx.x / 32, i = (int32_t)threadIdx.x % 32;
    int32_t u = u0 + (int32_t)blockIdx.y * (KRN_CUDA_THREADS / 32) + warp;
    int32_t t = t_begin + (int32_t)blockIdx.x;
    if (u >= u1) return;
    cu_put_code(q, n_tok, cols, t, u, i, x[(int64_t)t * cols + u * KRN_UNIT + i]);
}

} // namespace

extern "C" void krn_cuda_quantize(const struct krn_act *a, int32_t t0, int32_t t1, int32_t u0, int32_t u1)
{
    if (t0 >= t1 || u0 >= u1) return;
    KRN_LAUNCH(quantize_kernel, cu_rows_by_columns(t1 - t0, (u1 - u0) * KRN_UNIT), dim3(KRN_CUDA_THREADS), 0, a->x, a->q, a->n_tok, a->cols, t0, u0, u1);
    krn_cuda_launched("quantize");
}
