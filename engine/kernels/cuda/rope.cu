// rope.cu: rotary positions: a thread turns one pair of one head.
#include "engine/kernels/cuda/cuda.cuh"

extern "C" {
#include "engine/kernels/cuda/cuda.h"
}

namespace {

// Grid: (tokens, pairs of all heads).
__global__ void __launch_bounds__(KRN_CUDA_THREADS)
    rope_kernel(float *x, int32_t n_head, int32_t head_dim, int32_t rot, bool interleaved,
                const float *const *cs, int32_t t0)
{
    cu_begin();
    int32_t n = (int32_t)(blockIdx.y * blockDim.x + threadIdx.x), t = t0 + (int32_t)blockIdx.x;
    int32_t half = rot / 2, head = n / half, i = n % half, step = interleaved ? 1 : half;
    if (head >= n_head) return;
    float *pair = x + ((int64_t)t * n_head + head) * head_dim + (interleaved ? 2 * i : i);
    float c = cs[t][2 * i], s = cs[t][2 * i + 1], x0 = pair[0], x1 = pair[step];
    pair[0] = fmaf(x0, c, -(x1 * s));
    pair[step] = fmaf(x0, s, x1 * c);
}

} // namespace

extern "C" void krn_cuda_rope(float *x, int32_t n_head, int32_t head_dim, int32_t rot, bool interleaved,
                              const float *const *cs, int32_t t0, int32_t t1)
{
    if (t0 >= t1 || rot < 2) return;
    KRN_LAUNCH(rope_kernel, cu_rows_by_columns(t1 - t0, n_head * (rot / 2)), dim3(KRN_CUDA_THREADS), 0, x, n_head, head_dim, rot, interleaved, cs, t0);
    krn_cuda_launched("rope");
}
