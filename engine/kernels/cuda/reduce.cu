// reduce.cu: one row of logits to one value: blocks reduce pieces on the device, the host the rest.
#include "engine/kernels/cuda/cuda.cuh"

extern "C" {
#include "engine/kernels/cuda/cuda.h"
}

namespace {

struct best {
    float v;
    int32_t i;
};

enum { PIECE = 1024, MAX_PIECES = KRN_CUDA_SCRATCH / (int)sizeof(best), LANES = 16 };

// Is b before a? Numbers before NaN, larger before smaller, the lower index among equals.
__host__ __device__ bool beats(best b, best a)
{
    bool b_nan = b.v != b.v, a_nan = a.v != a.v;
    if (b_nan || a_nan) return b_nan == a_nan ? b.i < a.i : a_nan;
    return b.v > a.v || (b.v == a.v && b.i < a.i);
}

__global__ void __launch_bounds__(KRN_CUDA_THREADS) argmax_kernel(const float *x, int32_t n, int32_t piece, best *out)
{
    __shared__ best all[KRN_CUDA_THREADS];
    int32_t j = (int32_t)threadIdx.x, i0 = (int32_t)blockIdx.x * piece, i1 = min(n, i0 + piece);
    best mine = {x[i0], i0};
    for (int32_t i = i0 + j; i < i1; i += KRN_CUDA_THREADS) {
        best b = {x[i], i};
        if (beats(b, mine)) mine = b;
    }
    all[j] = mine;
    for (int32_t half = KRN_CUDA_THREADS / 2; half; half /= 2) {
        __syncthreads();
        if (j < half && beats(all[j + half], all[j])) all[j] = all[j + half];
    }
    if (j == 0) out[blockIdx.x] = all[0];
}

// A block is a tile of KRN_LSE_TILE ids.
__global__ void __launch_bounds__(KRN_CUDA_THREADS) sum_exp_kernel(const float *x, int32_t n, float m, float *out)
{
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

extern "C" int32_t krn_cuda_argmax(const float *x, int32_t n)
{
    static_assert((int)MAX_PIECES <= 8192, "pieces come to the host's stack");
    best piece[MAX_PIECES];
    int32_t each = MAX((int32_t)PIECE, DIV_UP(n, (int32_t)MAX_PIECES)), pieces = DIV_UP(n, each);
    best *out = (best *)krn_cuda_scratch();
    KRN_LAUNCH(argmax_kernel, dim3((unsigned)pieces), dim3(KRN_CUDA_THREADS), 0, x, n, each, out);
    krn_cuda_launched("argmax");
    piece[0] = best{0.0f, 0};
    krn_cuda_fetch(piece, out, pieces * (int64_t)sizeof *piece);
    best b = piece[0];
    for (int32_t i = 1; i < pieces; i++)
        if (beats(piece[i], b)) b = piece[i];
    return b.i;
}

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
