// rounded.cu: BF16 and F16 weights times activations rounded to bf16, on tensor cores: engine/kernels/rounded.h with the sums of a leaf in the
// card's own order. From compute capability 8.0 on; of many tokens by NVIDIA's library where it is there (lt.cu).
//
// A block computes ROWS rows for TOKENS tokens, leaf by leaf: DEPTH columns of both come to shared memory, then each of its 8 warps multiplies
// its 32 rows by its 32 tokens. What lies behind a leaf's end there is zero. Awaits a card: its share of the bf16 rate (docs/gpu-log.md).
#include "engine/kernels/cuda/chain.cuh"
#include "engine/kernels/cuda/mma.cuh"

extern "C" {
#include "engine/kernels/cuda/cuda.h"
#include "engine/kernels/cuda/lt.h"
#include "engine/kernels/rounded.h"
}

namespace {

enum {
    ROWS = 64, TOKENS = 128, DEPTH = 32,
    ROW_STRIDE = ROWS + 8,        // halves: so that eight columns lie in different banks
    PAIR_STRIDE = DEPTH / 2 + 4,  // words: so that eight tokens do
    DOWN = 2, ACROSS = 4,         // products of 16 by 8 of a warp
};

// Grid: (tokens, pairs of columns): a row of xb has the pairs of its token.
__global__ void __launch_bounds__(KRN_CUDA_THREADS) pairs_kernel(const float *x, uint32_t *xb, int32_t cols, int32_t pair0, int32_t pair1, int32_t t0)
{
    cu_begin();
    int32_t p = pair0 + (int32_t)(blockIdx.y * KRN_CUDA_THREADS + threadIdx.x), pairs = (cols + 1) / 2;
    int64_t t = t0 + (int32_t)blockIdx.x;
    if (p >= pair1) return;
    const float *from = x + t * cols + 2 * p;
    uint32_t high = 2 * p + 1 < cols ? cu_to_bf16(from[1]) : 0;
    xb[t * pairs + p] = cu_to_bf16(from[0]) | high << 16;
}

// Two halves of an F16 word as BF16; a BF16 word as it is.
template <int TYPE> __device__ uint32_t as_bf16(uint32_t w)
{
    if (TYPE == DTYPE_BF16) return w;
    return cu_to_bf16(cu_f16((uint16_t)w)) | (uint32_t)cu_to_bf16(cu_f16((uint16_t)(w >> 16))) << 16;
}

// Columns [k0, k0 + DEPTH) of the block's rows as [column][row]: each thread eight rows of one.
template <int TYPE> __device__ void load_rows(const cu_mat &w, int32_t first, int32_t k0, int32_t end, uint16_t *to)
{
    static_assert(ROWS / 8 * DEPTH == KRN_CUDA_THREADS, "a thread takes eight rows of a column");
    int32_t i = (int32_t)threadIdx.x, tile = i / (2 * DEPTH), k = i / 2 % DEPTH, half = i % 2;
    int4 v = {0, 0, 0, 0};
    if (k0 + k < end && first + tile * KRN_TILE < w.rows)
        v = *(const int4 *)(w.data + (int64_t)(first / KRN_TILE + tile) * w.tile_bytes + ((int64_t)(k0 + k) * KRN_TILE + half * 8) * 2);
    v.x = (int)as_bf16<TYPE>((uint32_t)v.x), v.y = (int)as_bf16<TYPE>((uint32_t)v.y);
    v.z = (int)as_bf16<TYPE>((uint32_t)v.z), v.w = (int)as_bf16<TYPE>((uint32_t)v.w);
    *(int4 *)(to + k * ROW_STRIDE + tile * KRN_TILE + half * 8) = v;
}

// The same columns of the block's tokens as [token][pair].
__device__ void load_tokens(const uint32_t *xb, int32_t pairs, int32_t t0, int32_t n_tok, int32_t k0, int32_t end, uint32_t *to)
{
    for (int32_t i = (int32_t)threadIdx.x; i < TOKENS * DEPTH / 2; i += KRN_CUDA_THREADS) {
        int32_t t = i / (DEPTH / 2), p = i % (DEPTH / 2);
        to[t * PAIR_STRIDE + p] = t0 + t < n_tok && k0 + 2 * p < end ? xb[(int64_t)(t0 + t) * pairs + k0 / 2 + p] : 0;
    }
}

template <int TYPE, int N>
__global__ void __launch_bounds__(KRN_CUDA_THREADS)
    rounded_kernel(cu_mat w, const uint32_t *xb, int32_t n_tok, int32_t row0, int32_t row1, cu_out out, int32_t n_leaf, cu_leaves<N> leaves)
{
    cu_begin();
    __shared__ int4 rows_shared[DEPTH * ROW_STRIDE / 8];
    __shared__ uint32_t tokens[TOKENS * PAIR_STRIDE];
    uint16_t *rows = (uint16_t *)rows_shared;
    int32_t first = row0 + (int32_t)blockIdx.x * ROWS, t0 = (int32_t)blockIdx.y * TOKENS, pairs = (w.cols + 1) / 2;
    int32_t lane = (int32_t)threadIdx.x % 32, warp = (int32_t)threadIdx.x / 32;
    int32_t down = warp % 2 * DOWN * 16, across = warp / 2 * ACROSS * 8; // of this warp, in the block

    cu_chains<N, DOWN * ACROSS * 4> chains;
    cu_waiting<N, DOWN * ACROSS * 4> waiting;
    chains.begin(leaves);
    auto put = [&](int32_t node, const float *v) {
        int64_t stride = cu_here(out.y_stride);
        int32_t row0_mine = first + down + lane / 4, token0 = t0 + across + lane % 4 * 2;
        float *y = out.y + token0 * stride + node * out.node_stride + row0_mine;
#pragma unroll
        for (int e = 0; e < DOWN * ACROSS * 4; e++) {
            int row = e / (ACROSS * 4) * 16 + e % 4 / 2 * 8, token = e / 4 % ACROSS * 8 + e % 2;
            if (row0_mine + row < row1 && token0 + token < n_tok) y[token * stride + row] = v[e];
        }
    };
    for (int32_t leaf = 0, k0 = 0; leaf < (N == 1 ? 1 : n_leaf); leaf++) {
        int32_t end = leaves.end[leaf];
        for (; k0 < end; k0 += DEPTH) {
            load_rows<TYPE>(w, first, k0, end, rows);
            load_tokens(xb, pairs, t0, n_tok, k0, end, tokens);
            __syncthreads();
#pragma unroll
            for (int32_t k = 0; k < DEPTH; k += 16) {
                uint32_t b[ACROSS][2];
#pragma unroll
                for (int j = 0; j < ACROSS; j++) {
                    const uint32_t *from = tokens + (across + j * 8 + lane / 4) * PAIR_STRIDE + k / 2 + lane % 4;
                    b[j][0] = from[0], b[j][1] = from[4];
                }
#pragma unroll
                for (int i = 0; i < DOWN; i++) {
                    uint32_t a[4];
                    cu_load_a(a, rows + k * ROW_STRIDE + down + i * 16, ROW_STRIDE, lane);
#pragma unroll
                    for (int j = 0; j < ACROSS; j++) cu_mma_bf16(chains.acc + (i * ACROSS + j) * 4, a, b[j]);
                }
            }
            __syncthreads();
        }
        k0 = end;
        chains.reach(end, leaves, n_leaf, waiting, put);
    }
    chains.end(put);
}

template <int TYPE> void launch(const struct krn_matmul *a)
{
    cu_for_leaves<TYPE, CU_FEW_LEAVES>(a->leaves, [&](auto n) {
        constexpr int N = decltype(n)::value;
        cu_leaves<N> leaves = {};
        cu_leaves_of(a->leaves, a->w->cols, &leaves);
        dim3 grid((unsigned)DIV_UP(a->row1 - a->row0, (int32_t)ROWS), (unsigned)DIV_UP(a->x->n_tok, (int32_t)TOKENS));
        KRN_LAUNCH((rounded_kernel<TYPE, N>), grid, dim3(KRN_CUDA_THREADS), 0, cu_mat_of(a->w), a->x->xb, a->x->n_tok, a->row0, a->row1, cu_out_of(a),
                   a->leaves->hi - a->leaves->lo, leaves);
    });
}

} // namespace

extern "C" void krn_cuda_rounded_pairs(const struct krn_act *a, int32_t t0, int32_t t1, int32_t k0, int32_t k1)
{
    int32_t p0 = k0 / 2, p1 = (k1 + 1) / 2;
    if (t0 >= t1 || p0 >= p1) return;
    KRN_LAUNCH(pairs_kernel, cu_rows_by_columns(t1 - t0, p1 - p0), dim3(KRN_CUDA_THREADS), 0, a->x, a->xb, a->cols, p0, p1, t0);
    krn_cuda_launched("rounded_pairs");
}

extern "C" void krn_cuda_rounded_matmul(const struct krn_matmul *a)
{
    if (a->row0 >= a->row1 || a->x->n_tok < 1) return;
    if (krn_cuda_lt_matmul(a)) return;
    if (!cu_few_leaves(a->leaves)) {
        krn_cuda_matmul_float(a);
        return;
    }
    if (a->w->type == DTYPE_BF16) launch<DTYPE_BF16>(a);
    else launch<DTYPE_F16>(a);
    krn_cuda_launched("rounded_matmul");
}
