// heads.cu: a norm over all heads. A block of 64 lanes sums a head; a block norms a token's q or k, the sums of heads added one by one by its first thread.
#include "engine/kernels/cuda/lanes.cuh"

extern "C" {
#include "engine/kernels/cuda/heads.h"
}

namespace {

__global__ void __launch_bounds__(CU_LANES) squares_kernel(krn_head_squares a)
{
    cu_begin();
    __shared__ float lane[CU_LANES];
    int32_t n = a.nq + a.nkv, h = (int32_t)(blockIdx.x % (unsigned)n);
    int64_t t = blockIdx.x / (unsigned)n;
    const float *row = h < a.nq ? a.q + (t * a.nq + h) * a.head_dim : a.k + (t * a.nkv + h - a.nq) * a.head_dim;
    cu_lane_sum(lane, cu_squares(row, a.head_dim));
    if (threadIdx.x == 0) a.out[blockIdx.x] = lane[0];
}

__global__ void __launch_bounds__(KRN_CUDA_THREADS) norm_kernel(krn_head_norm a)
{
    cu_begin();
    __shared__ float some[KRN_CUDA_THREADS], sum;
    bool is_k = blockIdx.y;
    int64_t t = blockIdx.x;
    int32_t j = (int32_t)threadIdx.x, all = is_k ? a.all_kv : a.all_q, cols = (is_k ? a.nkv : a.nq) * a.head_dim;
    const krn_head_at *at = is_k ? a.at + a.all_q : a.at;
    const float *w = is_k ? a.wk : a.wq;
    float *x = (is_k ? a.k : a.q) + t * cols;
    if (j == 0) sum = 0.0f;
    for (int32_t h = 0; h < all; h += KRN_CUDA_THREADS) {
        int32_t n = min((int32_t)KRN_CUDA_THREADS, all - h);
        if (j < n) some[j] = a.sums[(int64_t)at[h + j].before * a.n_tok + t * at[h + j].width + at[h + j].at];
        __syncthreads();
        for (int32_t i = 0; i < n && j == 0; i++) sum = sum + some[i];
        __syncthreads();
    }
    float scale = 1.0f / sqrtf(sum / (float)(all * a.head_dim) + a.eps);
    for (int32_t i = j; i < cols; i += KRN_CUDA_THREADS) x[i] = (x[i] * scale) * w[i];
}

} // namespace

extern "C" void krn_cuda_head_squares(const struct krn_head_squares *a)
{
    int64_t n = (int64_t)a->n_tok * (a->nq + a->nkv);
    if (!n) return;
    KRN_LAUNCH(squares_kernel, dim3((unsigned)n), dim3(CU_LANES), 0, *a);
    krn_cuda_launched("head_squares");
}

extern "C" void krn_cuda_head_norm(const struct krn_head_norm *a)
{
    if (!a->n_tok) return;
    KRN_LAUNCH(norm_kernel, dim3((unsigned)a->n_tok, 2), dim3(KRN_CUDA_THREADS), 0, *a);
    krn_cuda_launched("head_norm");
}
