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
    int32_t first = row0 + (int32_t)blockIdx.x * KRN_TILE;
    const uint8_t *tile = w.data + first / KRN_TILE * w.tile_bytes;
    int32_t row = (int32_t)threadIdx.x % KRN_TILE, t = (int32_t)threadIdx.x / KRN_TILE;
    bool owner = t < lanes && first + row < row1;
    float *y = out.y + (t0 + t) * out.y_stride + first + row;

    cu_chain<N> chain;
    chain.begin();
    for (int32_t k0 = 0; k0 < w.cols; k0 += PIECE) {
        int32_t n = min(PIECE, w.cols - k0);
        load_weights<TYPE>(w, tile, k0, n, weights);
        for (int32_t lane = 0; lane < lanes; lane++)
            for (int32_t k = (int32_t)threadIdx.x; k < n; k += KRN_CUDA_THREADS)
                values[lane][k] = x[(int64_t)(t0 + lane) * w.cols + k0 + k];
        __syncthreads();
        if (t < lanes)
            for (int32_t k = 0; k < n; k++) {
                chain.acc = fmaf(weights[k][row], values[t][k], chain.acc);
                chain.reach(k0 + k + 1, leaves, n_leaf, y, out.node_stride, owner);
            }
        __syncthreads();
    }
    chain.end(y, owner);
}

template <int TYPE, int NT, int N> void launch_leaves(const struct krn_matmul *a)
{
    const struct krn_leaves *l = a->leaves;
    cu_leaves<N> leaves = {};
    if (N == 1)
        leaves.end[0] = a->w->cols, leaves.merges[0] = CU_NODE_ENDS;
    else
        cu_leaves_of(l, &leaves);
    dim3 grid((unsigned)DIV_UP(a->row1 - a->row0, KRN_TILE), (unsigned)DIV_UP(a->x->n_tok, NT));
    cu_out out = {a->y, a->y_stride, a->node_stride};
    KRN_LAUNCH((float_kernel<TYPE, NT, N>), grid, dim3(KRN_CUDA_THREADS), 0, cu_mat_of(a->w), a->x->x,
               a->x->n_tok, a->row0, a->row1, out, l->hi - l->lo, leaves);
}

template <int TYPE> void launch(const struct krn_matmul *a)
{
    bool one = a->leaves->hi - a->leaves->lo == 1;
    if (a->x->n_tok == 1 && one)
        launch_leaves<TYPE, 1, 1>(a);
    else if (a->x->n_tok == 1)
        launch_leaves<TYPE, 1, TREE_MAX_LEAF>(a);
    else if (one)
        launch_leaves<TYPE, KRN_GROUP, 1>(a);
    else
        launch_leaves<TYPE, KRN_GROUP, TREE_MAX_LEAF>(a);
}

// Types that fewer people have: fewer kernels, so that a build ends; the same bits.
template <int TYPE> void launch_few(const struct krn_matmul *a)
{
    if (a->x->n_tok == 1)
        launch_leaves<TYPE, 1, TREE_MAX_LEAF>(a);
    else
        launch_leaves<TYPE, KRN_GROUP, TREE_MAX_LEAF>(a);
}

} // namespace

extern "C" void krn_cuda_matmul_float(const struct krn_matmul *a)
{
    switch (a->w->type) {
    case DTYPE_F32: launch<DTYPE_F32>(a); break;
    case DTYPE_F16: launch<DTYPE_F16>(a); break;
    case DTYPE_BF16: launch<DTYPE_BF16>(a); break;
    case DTYPE_Q8_0: launch<DTYPE_Q8_0>(a); break;
    case DTYPE_Q4_0: launch<DTYPE_Q4_0>(a); break;
    case DTYPE_Q4_K: launch<DTYPE_Q4_K>(a); break;
    case DTYPE_Q5_K: launch<DTYPE_Q5_K>(a); break;
    case DTYPE_Q6_K: launch<DTYPE_Q6_K>(a); break;
    case DTYPE_Q4_1: launch_few<DTYPE_Q4_1>(a); break;
    case DTYPE_Q5_0: launch_few<DTYPE_Q5_0>(a); break;
    case DTYPE_Q5_1: launch_few<DTYPE_Q5_1>(a); break;
    case DTYPE_Q2_K: launch_few<DTYPE_Q2_K>(a); break;
    case DTYPE_Q3_K: launch_few<DTYPE_Q3_K>(a); break;
    case DTYPE_IQ4_NL: launch_few<DTYPE_IQ4_NL>(a); break;
    case DTYPE_IQ4_XS: launch_few<DTYPE_IQ4_XS>(a); break;
    case DTYPE_IQ2_S: launch_few<DTYPE_IQ2_S>(a); break;
    case DTYPE_TQ2_0: launch_few<DTYPE_TQ2_0>(a); break;
    case DTYPE_MXFP4: launch_few<DTYPE_MXFP4>(a); break;
    default: break; // no layout
    }
    krn_cuda_launched("matmul_float");
}
