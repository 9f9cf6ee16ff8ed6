// layernorm.cu: y = (x - mean) / deviation * w + b; a block is a row, its first 64 threads are the lanes.
#include "engine/kernels/cuda/lanes.cuh"

extern "C" {
#include "engine/kernels/cuda/cuda.h"
}

namespace {

__global__ void __launch_bounds__(KRN_CUDA_THREADS)
    layernorm_kernel(float *y, const float *x, const float *w, const float *b, int32_t d, float eps, int32_t t0)
{
    cu_begin();
    __shared__ float lane[2][CU_LANES];
    int64_t at = (int64_t)(t0 + (int32_t)blockIdx.x) * d;
    int32_t j = (int32_t)threadIdx.x;
    const float *row = x + at;
    float s = 0.0f;
    for (int32_t i = j; i < d && j < CU_LANES; i += CU_LANES) s = s + row[i];
    cu_lane_sum(lane[0], s);
    float mean = lane[0][0] / (float)d, v = 0.0f;
    for (int32_t i = j; i < d && j < CU_LANES; i += CU_LANES) {
        float c = row[i] - mean;
        v = fmaf(c, c, v);
    }
    cu_lane_sum(lane[1], v);
    float scale = 1.0f / sqrtf(lane[1][0] / (float)d + eps);
    for (int32_t i = j; i < d; i += (int32_t)blockDim.x) {
        float c = (row[i] - mean) * scale;
        y[at + i] = b ? fmaf(c, w[i], b[i]) : c * w[i];
    }
}

} // namespace

extern "C" void krn_cuda_layernorm(float *y, const float *x, const float *w, const float *b, int32_t d, float eps, int32_t t0,
                                   int32_t t1)
{
    if (t0 >= t1) return;
    KRN_LAUNCH(layernorm_kernel, dim3((unsigned)(t1 - t0)), dim3((unsigned)cu_lane_threads(d)), 0, y, x, w, b, d, eps, t0);
    krn_cuda_launched("layernorm");
}
