// tree_sum.cu: parts of a sum that ranks gathered, added in the one tree; a thread takes one element at a time.
//
// The program goes by value. Two, four and eight parts of equal standing, which is what tensor ranks of a
// power of two have, are added in registers; any other program by a stack.
#include "engine/kernels/cuda/cuda.cuh"

extern "C" {
#include "engine/kernels/cuda/cuda.h"
#include "engine/kernels/tree_sum.h"
}

namespace {

struct program {
    int32_t n;
    int16_t ops[2 * KRN_TREE_PARTS];
};

enum { MAX_BLOCKS = 1024 };

__global__ void __launch_bounds__(KRN_CUDA_THREADS)
    program_kernel(program p, const float *parts, int64_t stride, float *out, int64_t n)
{
    cu_begin();
    __shared__ float stack[KRN_TREE_DEPTH][KRN_CUDA_THREADS]; // a thread's own column
    int32_t j = (int32_t)threadIdx.x;
    for (int64_t i = (int64_t)blockIdx.x * KRN_CUDA_THREADS + threadIdx.x; i < n; i += (int64_t)gridDim.x * KRN_CUDA_THREADS) {
        int32_t h = 0;
        for (int32_t k = 0; k < p.n; k++) {
            int32_t op = p.ops[k];
            if (op >= 0)
                stack[h++][j] = parts[op * stride + i];
            else
                h--, stack[h - 1][j] = stack[h - 1][j] + stack[h][j];
        }
        out[i] = stack[0][j];
    }
}

// P parts, a power of two, halved again and again.
template <int P>
__global__ void __launch_bounds__(KRN_CUDA_THREADS) halves_kernel(const float *parts, int64_t stride, float *out, int64_t n)
{
    cu_begin();
    for (int64_t i = (int64_t)blockIdx.x * KRN_CUDA_THREADS + threadIdx.x; i < n; i += (int64_t)gridDim.x * KRN_CUDA_THREADS) {
        float v[P];
#pragma unroll
        for (int p = 0; p < P; p++) v[p] = parts[p * stride + i];
#pragma unroll
        for (int step = 1; step < P; step *= 2)
#pragma unroll
            for (int p = 0; p < P; p += 2 * step) v[p] = v[p] + v[p + step];
        out[i] = v[0];
    }
}

// Is it the program of P parts that are halved again and again?
bool halves(const struct krn_tree_sum *a, int32_t parts)
{
    int32_t next = 0, k = 0;
    if (a->n_ops != 2 * parts - 1) return false;
    while (next < parts) {
        if (a->ops[k++] != next++) return false;
        for (int32_t m = next; m % 2 == 0; m /= 2)
            if (a->ops[k++] != -1) return false;
    }
    return k == a->n_ops;
}

} // namespace

extern "C" void krn_cuda_tree_sum(const struct krn_tree_sum *a)
{
    if (a->n < 1) return;
    int64_t blocks = DIV_UP(a->n, KRN_CUDA_THREADS);
    dim3 grid((unsigned)(blocks < MAX_BLOCKS ? blocks : (int64_t)MAX_BLOCKS));
    dim3 block(KRN_CUDA_THREADS);
    if (halves(a, 1)) KRN_LAUNCH(halves_kernel<1>, grid, block, 0, a->parts, a->stride, a->out, a->n);
    else if (halves(a, 2)) KRN_LAUNCH(halves_kernel<2>, grid, block, 0, a->parts, a->stride, a->out, a->n);
    else if (halves(a, 4)) KRN_LAUNCH(halves_kernel<4>, grid, block, 0, a->parts, a->stride, a->out, a->n);
    else if (halves(a, 8)) KRN_LAUNCH(halves_kernel<8>, grid, block, 0, a->parts, a->stride, a->out, a->n);
    else {
        program p = {};
        p.n = a->n_ops;
        memcpy(p.ops, a->ops, (size_t)a->n_ops * sizeof *a->ops);
        KRN_LAUNCH(program_kernel, grid, block, 0, p, a->parts, a->stride, a->out, a->n);
    }
    krn_cuda_launched("tree_sum");
}
