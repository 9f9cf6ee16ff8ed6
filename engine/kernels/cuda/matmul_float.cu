// matmul_float.cu: weights of any type times f32 activations: one fma per value, in order.
//
// A block computes one tile (16 rows) for up to NT tokens: all threads widen or dequantise a piece of
// the tile into shared memory beside the same columns of x, then one thread per output continues its
// chain over the piece. The chain's latency bounds a single token here; that is the price of bits that
// do not depend on the machine.
//
// Unquantised weights and many tokens: a block computes WIDE rows for WIDE tokens, a thread 4 by 4 chains,
// which take turns: 16 independent steps for 8 values out of shared memory.
#include "engine/kernels/cuda/chain.cuh"
#include "engine/kernels/cuda/unit.cuh"

extern "C" {
#include "engine/kernels/cuda/experts.h"
}

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
                 int32_t n_leaf, cu_leaves<N> leaves, cu_slots slots)
{
    cu_begin();
    __shared__ float weights[PIECE][KRN_TILE];
    __shared__ float values[NT][PIECE];

    int32_t t0 = (int32_t)blockIdx.y * NT, lanes = min(NT, n_tok - t0), to = t0;
    if (slots.parts) {
        constexpr int PIECES = KRN_PART / KRN_GROUP;
        krn_part part = slots.parts[blockIdx.y / PIECES];
        int32_t piece = (int32_t)blockIdx.y % PIECES * KRN_GROUP;
        if (part.expert < 0 || piece >= part.n_rows) return;
        to = t0 = part.row0 + piece, lanes = NT;
        w.data = slots.data[part.expert];
        if (!w.data) return;
    } else if (slots.data) {
        to = (int32_t)blockIdx.y, t0 = to / slots.per, lanes = 1;
        w.data = slots.data[slots.ids[to]];
        if (!w.data) return;
    }
    cu_tile tile(w, row0, row1, to, lanes, out);

    cu_chains<N, 1> chain;
    cu_waiting<N, 1> waiting;
    chain.begin(leaves);
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
                chain.reach(k0 + k + 1, leaves, n_leaf, waiting, tile);
            }
        __syncthreads();
    }
    chain.end(tile);
}

enum { WIDE = 64, WIDE_PIECE = 32, EACH = 4, WIDE_TOKENS = 2 * KRN_GROUP }; // WIDE_TOKENS: from so many on

// Columns [k0, k0 + n) of the block's rows and tokens as [column][row], [column][token]; nothing there is zero.
template <int TYPE>
__device__ void load_wide(const cu_mat &w, int32_t first, const float *x, int32_t t0, int32_t n_tok, int32_t k0, int32_t n,
                          float (*weights)[WIDE], float (*values)[WIDE])
{
    constexpr int TILES = WIDE / KRN_TILE;
    int32_t j = (int32_t)threadIdx.x;
    for (int32_t i = j; i < TILES * WIDE_PIECE * KRN_TILE; i += KRN_CUDA_THREADS) {
        int32_t tile = i / (WIDE_PIECE * KRN_TILE), k = i / KRN_TILE % WIDE_PIECE, row = i % KRN_TILE;
        bool there = first + tile * KRN_TILE < w.rows && k < n;
        weights[k][tile * KRN_TILE + row] =
            there ? cu_element<TYPE>(w.data + (int64_t)(first / KRN_TILE + tile) * w.tile_bytes, (int64_t)(k0 + k) * KRN_TILE + row) : 0.0f;
    }
    int32_t t = j % WIDE; // neighbours take neighbouring tokens: a sector of each row at a time
    constexpr int COLUMNS = WIDE_PIECE / (KRN_CUDA_THREADS / WIDE);
    for (int32_t i = 0; i < COLUMNS; i++) {
        int32_t k = j / WIDE * COLUMNS + i;
        values[k][t] = t0 + t < n_tok && k < n ? x[(int64_t)(t0 + t) * w.cols + k0 + k] : 0.0f;
    }
}

// Grid: (WIDE rows, WIDE tokens).
template <int TYPE, int N>
__global__ void __launch_bounds__(KRN_CUDA_THREADS)
    wide_kernel(cu_mat w, const float *x, int32_t n_tok, int32_t row0, int32_t row1, cu_out out, int32_t n_leaf, cu_leaves<N> leaves, cu_slots slots)
{
    cu_begin();
    __shared__ float4 weights[WIDE_PIECE][WIDE / EACH], values[WIDE_PIECE][WIDE / EACH];
    int32_t first = row0 + (int32_t)blockIdx.x * WIDE, t0 = (int32_t)blockIdx.y * WIDE;
    if (slots.parts) {
        krn_part part = slots.parts[blockIdx.y];
        if (part.expert < 0) return;
        w.data = slots.data[part.expert], t0 = part.row0, n_tok = t0 + part.n_rows;
        if (!w.data) return;
    }
    int32_t a = (int32_t)threadIdx.x % (WIDE / EACH), b = (int32_t)threadIdx.x / (WIDE / EACH); // rows 4a.., tokens 4b..

    cu_chains<N, EACH * EACH> chains;
    cu_waiting<N, EACH * EACH> waiting;
    chains.begin(leaves);
    auto put = [&](int32_t node, const float *v) {
        int64_t stride = cu_here(out.y_stride);
        float *y = out.y + (t0 + b * EACH) * stride + node * out.node_stride + first + a * EACH;
#pragma unroll
        for (int e = 0; e < EACH * EACH; e++)
            if (first + a * EACH + e % EACH < row1 && t0 + b * EACH + e / EACH < n_tok) y[e / EACH * stride + e % EACH] = v[e];
    };
    for (int32_t k0 = 0; k0 < w.cols; k0 += WIDE_PIECE) {
        int32_t n = min((int32_t)WIDE_PIECE, w.cols - k0);
        load_wide<TYPE>(w, first, x, t0, n_tok, k0, n, (float(*)[WIDE])weights, (float(*)[WIDE])values);
        __syncthreads();
        for (int32_t k = 0; k < n; k++) {
            float4 p = weights[k][a], q = values[k][b];
            float r[EACH] = {p.x, p.y, p.z, p.w}, t[EACH] = {q.x, q.y, q.z, q.w};
#pragma unroll
            for (int e = 0; e < EACH * EACH; e++) chains.acc[e] = fmaf(r[e % EACH], t[e / EACH], chains.acc[e]);
            chains.reach(k0 + k + 1, leaves, n_leaf, waiting, put);
        }
        __syncthreads();
    }
    chains.end(put);
}

template <int TYPE> void launch_wide(const struct krn_matmul *a)
{
    cu_for_leaves<TYPE, CU_FEW_LEAVES>(a->leaves, [&](auto n) {
        constexpr int N = decltype(n)::value;
        cu_leaves<N> leaves = {};
        cu_leaves_of(a->leaves, a->w->cols, &leaves);
        dim3 grid((unsigned)DIV_UP(a->row1 - a->row0, (int32_t)WIDE), (unsigned)DIV_UP(a->x->n_tok, (int32_t)WIDE));
        KRN_LAUNCH((wide_kernel<TYPE, N>), grid, dim3(KRN_CUDA_THREADS), 0, cu_mat_of(a->w), a->x->x, a->x->n_tok, a->row0, a->row1,
                   cu_out_of(a), a->leaves->hi - a->leaves->lo, leaves, cu_slots{});
    });
}

template <int TYPE, int NT> void launch(const struct krn_matmul *a)
{
    cu_for_leaves<TYPE>(a->leaves, [&](auto n) {
        constexpr int N = decltype(n)::value;
        cu_leaves<N> leaves = {};
        cu_leaves_of(a->leaves, a->w->cols, &leaves);
        dim3 grid((unsigned)DIV_UP(a->row1 - a->row0, KRN_TILE), (unsigned)DIV_UP(a->x->n_tok, NT));
        KRN_LAUNCH((float_kernel<TYPE, NT, N>), grid, dim3(KRN_CUDA_THREADS), 0, cu_mat_of(a->w), a->x->x, a->x->n_tok, a->row0,
                   a->row1, cu_out_of(a), a->leaves->hi - a->leaves->lo, leaves, cu_slots{});
    });
}

template <int TYPE> void launch_slots(const struct krn_matmul *a, const struct krn_slots *s)
{
    cu_for_leaves<TYPE>(a->leaves, [&](auto n) {
        constexpr int N = decltype(n)::value;
        cu_leaves<N> leaves = {};
        cu_leaves_each(a->leaves, a->w->cols, &leaves);
        dim3 grid((unsigned)DIV_UP(a->row1 - a->row0, KRN_TILE), (unsigned)s->n_slots);
        KRN_LAUNCH((float_kernel<TYPE, 1, N>), grid, dim3(KRN_CUDA_THREADS), 0, cu_mat_of(a->w), a->x->x, a->x->n_tok, a->row0, a->row1,
                   cu_out_of(a), a->leaves->hi - a->leaves->lo, leaves, cu_slots{s->data, s->ids, s->per, nullptr});
    });
}

// Parts of experts' rows: wide ones of unquantised weights, else groups of tokens.
template <int TYPE> void launch_grouped(const struct krn_matmul *a, const struct krn_grouped *g)
{
    static_assert((int)KRN_PART == (int)WIDE, "a part of an expert's rows is a wide block's");
    constexpr int MOST = cu_type<TYPE>::quant ? (int)TREE_MAX_LEAF : (int)CU_FEW_LEAVES;
    cu_for_leaves<TYPE, MOST>(a->leaves, [&](auto n) {
        constexpr int N = decltype(n)::value;
        cu_leaves<N> leaves = {};
        cu_leaves_each(a->leaves, a->w->cols, &leaves);
        cu_slots slots = {g->data, nullptr, 1, g->parts};
        int32_t n_leaf = a->leaves->hi - a->leaves->lo, rows = a->row1 - a->row0;
        if constexpr (!cu_type<TYPE>::quant)
            KRN_LAUNCH((wide_kernel<TYPE, N>), dim3((unsigned)DIV_UP(rows, (int32_t)WIDE), (unsigned)g->n_parts), dim3(KRN_CUDA_THREADS), 0, cu_mat_of(a->w),
                       a->x->x, a->x->n_tok, a->row0, a->row1, cu_out_of(a), n_leaf, leaves, slots);
        else
            KRN_LAUNCH((float_kernel<TYPE, KRN_GROUP, N>), dim3((unsigned)DIV_UP(rows, KRN_TILE), (unsigned)(g->n_parts * (KRN_PART / KRN_GROUP))),
                       dim3(KRN_CUDA_THREADS), 0, cu_mat_of(a->w), a->x->x, a->x->n_tok, a->row0, a->row1, cu_out_of(a), n_leaf, leaves, slots);
    });
}

} // namespace

extern "C" void krn_cuda_matmul_float_grouped(const struct krn_matmul *a, const struct krn_grouped *g)
{
    cu_for_type(a->w->type, [&](auto t) { launch_grouped<decltype(t)::value>(a, g); });
    krn_cuda_launched("matmul_float_grouped");
}

extern "C" void krn_cuda_matmul_float_slots(const struct krn_matmul *a, const struct krn_slots *s)
{
    cu_for_type(a->w->type, [&](auto t) { launch_slots<decltype(t)::value>(a, s); });
    krn_cuda_launched("matmul_float_slots");
}

extern "C" void krn_cuda_matmul_float(const struct krn_matmul *a)
{
    cu_for_type(a->w->type, [&](auto t) {
        constexpr int TYPE = decltype(t)::value;
        if constexpr (!cu_type<TYPE>::quant)
            if (a->x->n_tok >= (int32_t)WIDE_TOKENS && cu_few_leaves(a->leaves)) {
                launch_wide<TYPE>(a);
                return;
            }
        if (a->x->n_tok == 1)
            launch<TYPE, 1>(a);
        else
            launch<TYPE, KRN_GROUP>(a);
    });
    krn_cuda_launched("matmul_float");
}
