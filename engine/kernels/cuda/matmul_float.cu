// matmul_float.cu: weights of any type times f32 activations: one fma per value, in order.
//
// A block computes one tile (16 rows) for up to NT tokens: all threads widen or dequantise a piece of
// the tile into shared memory beside the same columns of x, then one thread per output continues its
// chain over the piece. The chain's latency bounds a single token here; that is the price of bits that
// do not depend on the machine.
#include "engine/kernels/cuda/chain.cuh"
#include "engine/kernels/cuda/unit.cuh"

namespace {

enum { PIECE = 256 }; // columns in shared memory at once: 16 KiB of weights, up to 16 KiB of x

template <int TYPE>
__device__ void load_weights(const cu_mat &w, const uint8_t *tile, int32_t k0, int32_t n,
                             float (*to)[KRN_TILE])
{
    int32_t row = (int32_t)threadIdx.x % KRN_TILE, slot = (int32_t)threadIdx.x / KRN_TILE;
    if constexpr (!cu_type<TYPE>::quant) {
        for (int32_t k = slot; k < n; k += KRN_CUDA_THREADS / KRN_TILE)
            to[k][row] = cu_element<TYPE>(tile, (int64_t)(k0 + k) * KRN_TILE + row);
    } else {
        for (int32_t i = slot; i < n / KRN_UNIT; i += KRN_CUDA_THREADS / KRN_TILE) {
            int32_t code[8];
            float d[2], m[2];
            cu_unit_codes<TYPE>(w, tile, k0 / KRN_UNIT + i, row, code);
            cu_unit_scales<TYPE>(w, tile, k0 / KRN_UNIT + i, row, d, m);
#pragma unroll
            for (int k = 0; k < KRN_UNIT; k++)
                to[i * KRN_UNIT + k][row] = cu_unit_value<TYPE>(code, d, m, k);
        }
    }
}

template <int TYPE, int NT, int N>
__global__ void __launch_bounds__(KRN_CUDA_THREADS)
    float_kernel(cu_mat w, const float *x, int32_t n_tok, int32_t row0, int32_t row1, cu_out out,
                 int32_t n_leaf, cu_leaves<N> leaves)
{
    __shared__ float weights[PIECE][KRN_TILE];
    __shared__ float values[NT][PIECE];

    int32_t t0 = (int32_t)blockIdx.y * NT, lanes = min(NT, n_tok - t0);
    cu_tile tile(w, row0, row1, t0, lanes, out);

    cu_chains<N, 1> chain;
    chain.begin();
    for (int32_t k0 = 0; k0 < w.cols; k0 += PIECE) {
        int32_t n = min(PIECE, w.cols - k0);
        load_weights<TYPE>(w, tile.data, k0, n, weights);
        for (int32_t lane = 0; lane < lanes; lane++)
            for (int32_t k = (int32_t)threadIdx.x; k < n; k += KRN_CUDA_THREADS)
                values[lane][k] = x[(int64_t)(t0 + lane) * w.cols + k0 + k];
        __syncthreads();
        if (tile.works)
            for (int32_t k = 0; k < n; k++) {
                chain.acc[0] = fmaf(weights[k][tile.row], values[tile.slot][k], chain.acc[0]);
                chain.reach(k0 + k + 1, leaves, n_leaf, tile);
            }
        __syncthreads();
    }
    chain.end(tile);
}

template <int TYPE, int NT> void launch(const struct krn_matmul *a)
{
    cu_for_leaves<TYPE>(a->leaves, [&](auto n) {
        constexpr int N = decltype(n)::value;
        cu_leaves<N> leaves = {};
        cu_leaves_of(a->leaves, a->w->cols, &leaves);
        dim3 grid((unsigned)DIV_UP(a->row1 - a->row0, KRN_TILE), (unsigned)DIV_UP(a->x->n_tok, NT));
        KRN_LAUNCH((float_kernel<TYPE, NT, N>), grid, dim3(KRN_CUDA_THREADS), 0, cu_mat_of(a->w), a->x->x, a->x->n_tok, a->row0,
                   a->row1, cu_out_of(a), a->leaves->hi - a->leaves->lo, leaves);
    });
}

} // namespace

extern "C" void krn_cuda_matmul_float(const struct krn_matmul *a)
{
    cu_for_type(a->w->type, [&](auto t) {
        constexpr int TYPE = decltype(t)::value;
        if (a->x->n_tok == 1)
            launch<TYPE, 1>(a);
        else
            launch<TYPE, KRN_GROUP>(a);
    });
    krn_cuda_launched("matmul_float");
}
