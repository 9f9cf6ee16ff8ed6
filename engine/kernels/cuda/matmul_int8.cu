// matmul_int8.cu: quantised weights times quantised activations.
//
// A block computes one tile (16 rows) for one group of up to NT tokens. Units are independent but
// for their place in the chain, so all threads first turn units into the operands of their chain
// steps (integer dot products by dp4a, products of scales) in shared memory, and then one thread per
// output walks them in order. Weights are read once, as whole lines, straight from their packed form.
// Other blocks of the multiprocessor fill the time in which a block's other threads wait.
// Awaits a card: its share of the memory bandwidth (docs/gpu-log.md).
#include "engine/kernels/cuda/chain.cuh"
#include "engine/kernels/cuda/unit.cuh"

extern "C" {
#include "engine/kernels/cuda/experts.h"
}

namespace {

// Units in shared memory at once: as many as keep it near 16 KiB (32 for most K-quants).
template <int NT, int STEPS> constexpr int chunk_units = NT == 1 ? 64 : NT <= 4 ? 16 : STEPS == 4 ? 4 : 8;

__device__ int32_t panel_i32(const uint8_t *unit, int32_t field, int32_t width, int32_t lane)
{
    return *(const int32_t *)(unit + field * width + 4 * lane);
}
__device__ float panel_f32(const uint8_t *unit, int32_t field, int32_t width, int32_t lane)
{
    return *(const float *)(unit + field * width + 4 * lane);
}

// Where the integer sum of half h (of 0, or of a whole unit) begins: minus the offset times the sum of x.
template <int TYPE>
__device__ int32_t sum_start(const uint8_t *unit, int32_t width, int32_t lane, int h)
{
    constexpr int offset = cu_type<TYPE>::offset;
    if constexpr (offset == 0) return 0;
    if constexpr (cu_type<TYPE>::halves) {
        int32_t z = panel_i32(unit, KRN_UNIT_Z32 + 4 * h, width, lane);
        return offset == 32 ? z : z / (32 / (offset ? offset : 1));
    }
    int32_t z = h ? 0 : panel_i32(unit, KRN_UNIT_Z8, width, lane);
    return offset >= 8 ? z * (offset / 8) : z / 8;
}

// The operands of one unit's chain steps for one row and one token.
template <int TYPE>
__device__ void unit_steps(const uint8_t *unit, int32_t width, int32_t lane, const int32_t code[8],
                           const float d[2], const float m[2], float2 step[4])
{
    using type = cu_type<TYPE>;
    const int2 *x = (const int2 *)(unit + lane * KRN_UNIT); // units of 56 bytes a lane: aligned to 8, no more
    int2 x0 = x[0], x1 = x[1], x2 = x[2], x3 = x[3];
    float dx = panel_f32(unit, KRN_UNIT_D, width, lane);
    int32_t a = sum_start<TYPE>(unit, width, lane, 0), b = sum_start<TYPE>(unit, width, lane, 1); // of the two half units
    a = __dp4a(code[0], x0.x, a), a = __dp4a(code[1], x0.y, a);
    a = __dp4a(code[2], x1.x, a), a = __dp4a(code[3], x1.y, a);
    b = __dp4a(code[4], x2.x, b), b = __dp4a(code[5], x2.y, b);
    b = __dp4a(code[6], x3.x, b), b = __dp4a(code[7], x3.y, b);
    if constexpr (type::halves) {
        constexpr int second = type::has_min ? 2 : 1;
        step[0] = make_float2(d[0] * dx, (float)a);
        step[second] = make_float2(d[1] * dx, (float)b);
        if constexpr (type::has_min)
            for (int h = 0; h < 2; h++) // the panel has -32 s
                step[2 * h + 1] = make_float2(-(m[h] * dx), (float)(panel_i32(unit, KRN_UNIT_Z32 + 4 * h, width, lane) / -32));
    } else {
        step[0] = make_float2(d[0] * dx, (float)(a + b));
        if constexpr (type::has_min) step[1] = make_float2(-(m[0] * dx), panel_f32(unit, KRN_UNIT_S, width, lane));
    }
}

// Matrices that are multiplied with the same rows in one launch, each with its share of the grid's x.
struct cu_part {
    const uint8_t *data;
    float *y;
    int64_t y_stride;
    int32_t row0, row1;
    uint32_t block0; // its first
};
template <int N> struct cu_parts {
    cu_mat w; // what all have in common: not data, nor rows
    int64_t node_stride;
    cu_part part[N];

    __device__ cu_part here() const
    {
        cu_part p = part[0];
        for (int i = 1; i < N; i++)
            if (blockIdx.x >= part[i].block0) p = part[i];
        return p;
    }
};
// With K whole, as of q, k and v; else one.
template <int N> constexpr int cu_most_parts = N == 1 ? 3 : 1;

// Of one leaf, four blocks have a place on a multiprocessor: while some wait for memory, others compute.
template <int TYPE, int NT, int N>
__global__ void __launch_bounds__(KRN_CUDA_THREADS, N == 1 ? 4 : 2)
    int8_kernel(cu_parts<cu_most_parts<N>> parts, const uint8_t *panels, int32_t n_tok, int32_t first_tok, int32_t n_leaf, cu_leaves<N> leaves,
                cu_slots slots)
{
    cu_part p = parts.here();
    cu_mat w = parts.w;
    w.data = p.data;
    if (!slots.data) cu_ahead(w.data + (int64_t)(blockIdx.x - p.block0 + (uint32_t)(p.row0 / KRN_TILE)) * w.tile_bytes, w.tile_bytes);
    cu_begin();
    constexpr int STEPS = cu_type<TYPE>::steps, UNITS = chunk_units<NT, STEPS>;
    __shared__ float2 steps[UNITS][STEPS][NT][KRN_TILE];

    int32_t units = w.cols / KRN_UNIT, t0 = first_tok + (int32_t)blockIdx.y * KRN_GROUP, to = t0, lane0 = 0;
    if (slots.data) {
        int32_t t = (int32_t)blockIdx.y / slots.per;
        t0 = t / KRN_GROUP * KRN_GROUP, lane0 = t - t0, to = (int32_t)blockIdx.y;
        w.data = slots.data[slots.ids[to]];
        if (!w.data) return;
    }
    int32_t width = krn_group_width(n_tok, t0), lanes = slots.data ? 1 : min(width, n_tok - t0);
    const uint8_t *panel = panels + (int64_t)t0 * units * KRN_UNIT_BYTES;
    cu_tile tile(w, p.row0 - (int32_t)p.block0 * KRN_TILE, p.row1, to, min(lanes, NT), cu_out{p.y, p.y_stride, parts.node_stride});

    cu_chains<N, 1> chain;
    cu_waiting<N, 1> waiting;
    chain.begin(leaves);
    for (int32_t u0 = 0; u0 < units; u0 += UNITS) {
        int32_t n = min(UNITS, units - u0);
        // slots share the chunk's units, and where there are more slots than units, the tokens
        constexpr int SLOTS = KRN_CUDA_THREADS / KRN_TILE;
        constexpr int PARTS = SLOTS > UNITS ? SLOTS / UNITS : 1;
        for (int32_t i = tile.slot / PARTS; i < n; i += SLOTS / PARTS) {
            int32_t code[8];
            float d[2], m[2];
            cu_unit_codes<TYPE>(w, tile.data, u0 + i, tile.row, code);
            cu_unit_scales<TYPE>(w, tile.data, u0 + i, tile.row, d, m);
            const uint8_t *unit = panel + (int64_t)(u0 + i) * width * KRN_UNIT_BYTES;
            for (int32_t t = tile.slot % PARTS; t < lanes; t += PARTS) {
                float2 s[4];
                unit_steps<TYPE>(unit, width, lane0 + t, code, d, m, s);
                for (int k = 0; k < STEPS; k++) steps[i][k][t][tile.row] = s[k];
            }
        }
        __syncthreads();
        if (tile.works)
            for (int32_t i = 0; i < n; i++) {
                for (int k = 0; k < STEPS; k++) {
                    float2 s = steps[i][k][tile.slot][tile.row];
                    chain.acc[0] = fmaf(s.x, s.y, chain.acc[0]);
                }
                chain.reach((u0 + i + 1) * KRN_UNIT, leaves, n_leaf, waiting, tile);
            }
        __syncthreads();
    }
    chain.end(tile);
}

template <int N> cu_parts<N> parts_of(const struct krn_matmul a[], int32_t n, unsigned *blocks)
{
    cu_parts<N> p = {cu_mat_of(a->w), a->node_stride, {}};
    *blocks = 0;
    for (int i = 0; i < N; i++) {
        p.part[i].block0 = UINT32_MAX;
        if (i >= n) continue;
        p.part[i] = {a[i].w->data, a[i].y, a[i].y_stride, a[i].row0, a[i].row1, *blocks};
        *blocks += (unsigned)DIV_UP(a[i].row1 - a[i].row0, KRN_TILE);
    }
    return p;
}

// Tokens from first_tok on, a multiple of KRN_GROUP, of n products of the same rows.
template <int TYPE, int NT> void launch_tokens(const struct krn_matmul a[], int32_t n, int32_t first_tok)
{
    cu_for_leaves<TYPE>(a->leaves, [&](auto leaf) {
        constexpr int N = decltype(leaf)::value, MOST = cu_most_parts<N>;
        cu_leaves<N> leaves = {};
        cu_leaves_of(a->leaves, a->w->cols, &leaves);
        for (int32_t i = 0; i < n; i += MOST) {
            unsigned blocks;
            cu_parts<MOST> parts = parts_of<MOST>(a + i, MIN(n - i, MOST), &blocks);
            dim3 grid(blocks, (unsigned)DIV_UP(a->x->n_tok - first_tok, KRN_GROUP));
            KRN_LAUNCH((int8_kernel<TYPE, NT, N>), grid, dim3(KRN_CUDA_THREADS), 0, parts, a->x->q, a->x->n_tok, first_tok,
                       a->leaves->hi - a->leaves->lo, leaves, cu_slots{});
        }
    });
}

template <int TYPE> void launch_slots(const struct krn_matmul *a, const struct krn_slots *s)
{
    cu_for_leaves<TYPE>(a->leaves, [&](auto leaf) {
        constexpr int N = decltype(leaf)::value, MOST = cu_most_parts<N>;
        cu_leaves<N> leaves = {};
        cu_leaves_each(a->leaves, a->w->cols, &leaves);
        unsigned blocks;
        cu_parts<MOST> parts = parts_of<MOST>(a, 1, &blocks);
        dim3 grid(blocks, (unsigned)s->n_slots);
        KRN_LAUNCH((int8_kernel<TYPE, 1, N>), grid, dim3(KRN_CUDA_THREADS), 0, parts, a->x->q, a->x->n_tok, 0, a->leaves->hi - a->leaves->lo, leaves,
                   cu_slots{s->data, s->ids, s->per, nullptr});
    });
}

} // namespace

extern "C" void krn_cuda_matmul_slots(const struct krn_matmul *a, const struct krn_slots *s)
{
    if (a->row0 >= a->row1 || s->n_slots < 1) return;
    if (!krn_pack_is_quant(a->w->type) || !a->x->q) {
        krn_cuda_matmul_float_slots(a, s);
        return;
    }
    cu_for_type(a->w->type, [&](auto t) {
        constexpr int TYPE = decltype(t)::value;
        if constexpr (cu_type<TYPE>::quant) launch_slots<TYPE>(a, s);
    });
    krn_cuda_launched("matmul_slots");
}

extern "C" void krn_cuda_matmul_grouped(const struct krn_matmul *a, const struct krn_grouped *g)
{
    if (a->row0 >= a->row1 || g->n_parts < 1) return;
    if (!krn_pack_is_quant(a->w->type) || !a->x->q)
        krn_cuda_matmul_float_grouped(a, g);
    else
        krn_cuda_matmul_mma_grouped(a, g);
}

extern "C" void krn_cuda_matmul_int8(const struct krn_matmul *a, int32_t n, int32_t first_tok)
{
    int32_t n_tok = a->x->n_tok - first_tok;
    cu_for_type(a->w->type, [&](auto t) {
        constexpr int TYPE = decltype(t)::value;
        if constexpr (cu_type<TYPE>::quant) {
            if (n_tok == 1) {
                launch_tokens<TYPE, 1>(a, n, first_tok);
                return;
            }
            if constexpr (!cu_is_rare(TYPE))
                if (n_tok <= 4) {
                    launch_tokens<TYPE, 4>(a, n, first_tok);
                    return;
                }
            launch_tokens<TYPE, KRN_GROUP>(a, n, first_tok);
        }
    });
    krn_cuda_launched("matmul_int8");
}
