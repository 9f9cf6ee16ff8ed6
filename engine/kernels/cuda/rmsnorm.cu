// rmsnorm.cu: y = x / rms(x) * w; a block is a row, its first 64 threads are the 64 lanes of the sum.
#include "engine/kernels/cuda/lanes.cuh"

extern "C" {
#include "engine/kernels/cuda/cuda.h"
}

namespace {

__global__ void __launch_bounds__(KRN_CUDA_THREADS)
    rmsnorm_kernel(float *y, const float *x, const float *w, int32_t d, float eps, int32_t t0)
{
    cu_begin();
    __shared__ float lane[CU_LANES];
    int64_t at = (int64_t)(t0 + (int32_t)blockIdx.x) * d;
    const float *row = x + at;
    cu_lane_sum(lane, cu_squares(row, d));
    float scale = 1.0f / sqrtf(lane[0] / (float)d + eps);
    for (int32_t i = (int32_t)threadIdx.x; i < d; i += (int32_t)blockDim.x) y[at + i] = (row[i] * scale) * w[i];
}

__global__ void __launch_bounds__(KRN_CUDA_THREADS) sum_squares_kernel(const float *x, int32_t d, float *out)
{
    cu_begin();
    __shared__ float lane[CU_LANES];
    cu_lane_sum(lane, cu_squares(x, d));
    if (threadIdx.x == 0) *out = lane[0];
}

} // namespace

extern "C" void krn_cuda_rmsnorm(float *y, const float *x, const float *w, int32_t d, float eps, int32_t t0, int32_t t1)
{
    if (t0 >= t1) return;
    KRN_LAUNCH(rmsnorm_kernel, dim3((unsigned)(t1 - t0)), dim3((unsigned)cu_lane_threads(d)), 0, y, x, w, d, eps, t0);
    krn_cuda_launched("rmsnorm");
}

extern "C" float krn_cuda_sum_squares(const float *x, int32_t d)
{
    float sum = 0.0f, *out = (float *)krn_cuda_scratch();
    KRN_LAUNCH(sum_squares_kernel, dim3(1), dim3(CU_LANES), 0, x, d, out);
    krn_cuda_launched("sum_squares");
    krn_cuda_fetch(&sum, out, sizeof sum);
    return sum;
}
