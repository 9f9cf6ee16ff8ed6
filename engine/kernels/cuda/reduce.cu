// reduce.cu: one row of logits to one sum: blocks reduce tiles on the device, the host the rest.
#include "engine/kernels/cuda/cuda.cuh"

extern "C" {
#include "engine/kernels/cuda/cuda.h"
}

namespace {

enum { LANES = 16 };

// A block is a tile of KRN_LSE_TILE ids.
__global__ void __launch_bounds__(KRN_CUDA_THREADS) sum_exp_kernel(const float *x, int32_t n, float m, float *out)
{
    cu_begin();
    __shared__ float p[KRN_LSE_TILE];
    __shared__ float lane[LANES];
    int32_t j = (int32_t)threadIdx.x, i0 = (int32_t)blockIdx.x * KRN_LSE_TILE, k = min(KRN_LSE_TILE, n - i0);
    for (int32_t i = j; i < k; i += KRN_CUDA_THREADS) p[i] = krn_math_exp(x[i0 + i] - m);
    __syncthreads();
    if (j < LANES) {
        float s = 0.0f;
        for (int32_t i = j; i < k; i += LANES) s = s + p[i];
        lane[j] = s;
    }
    for (int32_t half = LANES / 2; half; half /= 2) {
        __syncthreads();
        if (j < half) lane[j] = lane[j] + lane[j + half];
    }
    if (j == 0) out[blockIdx.x] = lane[0];
}

float tree_sum(const float *x, int32_t a, int32_t b)
{
    if (b - a == 1) return x[a];
    float left = tree_sum(x, a, tree_split(a, b));
    return left + tree_sum(x, tree_split(a, b), b);
}

} // namespace

extern "C" float krn_cuda_sum_exp(const float *x, int32_t n, float m)
{
    enum { MAX_TILES = KRN_CUDA_SCRATCH / (int)sizeof(float) };
    float tile[MAX_TILES];
    int32_t tiles = DIV_UP(n, KRN_LSE_TILE);
    if (tiles > (int32_t)MAX_TILES) return NAN; // a vocabulary of 16 million ids
    float *out = (float *)krn_cuda_scratch();
    KRN_LAUNCH(sum_exp_kernel, dim3((unsigned)tiles), dim3(KRN_CUDA_THREADS), 0, x, n, m, out);
    krn_cuda_launched("sum_exp");
    tile[0] = 0.0f;
    krn_cuda_fetch(tile, out, tiles * (int64_t)sizeof *tile);
    return tree_sum(tile, 0, tiles);
}
