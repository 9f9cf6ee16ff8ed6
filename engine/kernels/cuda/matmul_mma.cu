// matmul_mma.cu: quantised weights times quantised activations for many tokens, on tensor cores.
//
// The contract's chain has one fma per unit of 32 (two for some types), whose operand is the unit's integer
// dot product: exactly what one mma of K = 32 gives for 16 rows and 8 tokens, and integers do not
// mind who adds them. So this is matmul_int8.cu to the last bit. A packed tile of 16 rows is an A operand
// as it lies in memory: a warp reads whole lines and masks nibbles. Activations of 64 tokens go
// through shared memory, a chunk of units at a time.
//
// Sums begin at 0x4b400000, which makes the integer, read as a float, 12582912 + sum: one addition
// instead of a slow conversion; |sum| < 2^22.
// A block: 8 warps, 128 rows by 64 tokens; a warp: two tiles by four times 8 tokens, 32 chains a thread.
// Full groups of 16 tokens only: matmul_int8.cu does the last ones.
// Awaits a card: its share of the matrix rate (docs/gpu-log.md).
#include "engine/kernels/cuda/chain.cuh"
#include "engine/kernels/cuda/mma.cuh"
#include "engine/kernels/cuda/unit.cuh"

extern "C" {
#include "engine/kernels/cuda/experts.h"
}

namespace {

enum {
    TILES = 2,           // of a warp
    COLUMNS = 4,         // of 8 tokens, of a warp
    WARPS_DOWN = 4, WARPS_ACROSS = 2,
    BLOCK_ROWS = WARPS_DOWN * TILES * KRN_TILE,
    BLOCK_GROUPS = WARPS_ACROSS * COLUMNS * 8 / KRN_GROUP,
    UNITS = 4,           // in shared memory at once
    GROUP_BYTES = KRN_GROUP * KRN_UNIT_BYTES, // of one unit
    PIECES = GROUP_BYTES / 16,
};
static_assert((int)KRN_CUDA_THREADS == 32 * WARPS_DOWN * WARPS_ACROSS, "warps of a block");
static_assert((int)KRN_PART == BLOCK_GROUPS * KRN_GROUP, "a part of an expert's rows is a block's");

constexpr int32_t MAGIC = 0x4b400000;
constexpr float MAGIC_FLOAT = 12582912.0f;

// The lane's part of a unit of a tile as an A operand: words j and j + 4 of cu_unit_codes, of two rows.
template <int TYPE>
__device__ void tile_operand(const cu_mat &w, const uint8_t *tile, int32_t unit, int32_t lane, int32_t a[4])
{
    using type = cu_type<TYPE>;
    constexpr int first = type::bits < 4 ? 0 : 4; // bits of the nibbles
    int32_t row = lane / 4, j = lane % 4;
    const uint8_t *q = tile + (w.pairs + unit / type::group * type::group_bytes + unit % type::group * type::quant_bytes + row * 4);
#pragma unroll
    for (int half = 0; half < 2; half++) { // rows l/4 and l/4 + 8
        const uint8_t *at = q + half * 32;
        uint32_t low = 0, high = 0;
        if constexpr (type::bits == 8) {
            low = cu_word(at + j * 64) ^ 0x80808080u, high = cu_word(at + (j + 4) * 64) ^ 0x80808080u;
        } else {
            if constexpr (first == 4) {
                uint32_t v = cu_word(at + j * 64);
                low = v & 0x0f0f0f0fu, high = v >> 4 & 0x0f0f0f0fu;
            }
            if constexpr (type::bits - first >= 2) {
                low |= (cu_word(at + first * 64) >> (2 * j) & 0x03030303u) << first;
                high |= (cu_word(at + first * 64 + 64) >> (2 * j) & 0x03030303u) << first;
            }
            if constexpr (type::bits % 2 == 1) {
                uint32_t last = cu_word(at + (type::bits - 1) * 64);
                low |= (last >> j & 0x01010101u) << (type::bits - 1);
                high |= (last >> (j + 4) & 0x01010101u) << (type::bits - 1);
            }
        }
        if constexpr (type::book) {
            uint32_t book[4];
#pragma unroll
            for (int i = 0; i < 4; i++) book[i] = cu_word(tile + KRN_BOOK_AT + 4 * i);
            low = cu_look_up(book, low) ^ 0x80808080u, high = cu_look_up(book, high) ^ 0x80808080u;
        }
        a[half] = (int32_t)low;
        a[half + 2] = (int32_t)high;
    }
}

// Where the integer sums of two neighbouring tokens begin: minus the offset of codes times the sum of x; of half unit h, or of the
// whole unit.
template <int TYPE> __device__ int2 sum_starts(const uint8_t *group, int32_t token, int h)
{
    constexpr int offset = cu_type<TYPE>::offset;
    int2 z = {0, 0};
    if constexpr (offset != 0) {
        constexpr bool halves = cu_type<TYPE>::halves;
        z = *(const int2 *)(group + (halves ? KRN_UNIT_Z32 + 4 * h : KRN_UNIT_Z8) * KRN_GROUP + 4 * token);
        constexpr int of = halves ? 32 : 8; // the panel's
        if constexpr (offset >= of)
            z.x *= offset / of, z.y *= offset / of;
        else
            z.x /= of / offset, z.y /= of / offset;
    }
    return z;
}

__device__ float of_sum(int32_t c) { return __int_as_float(c) - MAGIC_FLOAT; }

// One unit of a tile with 8 tokens: four chains a lane, [row of 2][token of 2].
template <int TYPE>
__device__ void step(const int32_t a[4], const float d[2][2], const float m[2][2], const uint8_t *group, int32_t first,
                     int32_t lane, float acc[4])
{
    using type = cu_type<TYPE>;
    const uint8_t *q = group + (first + lane / 4) * KRN_UNIT + lane % 4 * 4;
    int32_t b[2] = {*(const int32_t *)q, *(const int32_t *)(q + 16)};
    int32_t token = first + lane % 4 * 2;
    float2 dx = *(const float2 *)(group + KRN_UNIT_D * KRN_GROUP + 4 * token);
    if constexpr (type::halves) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int2 z = sum_starts<TYPE>(group, token, h);
            int32_t c[4] = {MAGIC + z.x, MAGIC + z.y, MAGIC + z.x, MAGIC + z.y};
            cu_mma_k16(c, a[2 * h], a[2 * h + 1], b[h]);
            float2 s = make_float2(0.0f, 0.0f);
            if constexpr (type::has_min) { // the panel has -32 s
                int2 z32 = *(const int2 *)(group + (KRN_UNIT_Z32 + 4 * h) * KRN_GROUP + 4 * token);
                s = make_float2((float)(z32.x / -32), (float)(z32.y / -32));
            }
#pragma unroll
            for (int e = 0; e < 4; e++) {
                float x = e % 2 ? dx.y : dx.x;
                acc[e] = fmaf(d[e / 2][h] * x, of_sum(c[e]), acc[e]);
                if (type::has_min) acc[e] = fmaf(-(m[e / 2][h] * x), e % 2 ? s.y : s.x, acc[e]);
            }
        }
    } else {
        int2 z = sum_starts<TYPE>(group, token, 0);
        int32_t c[4] = {MAGIC + z.x, MAGIC + z.y, MAGIC + z.x, MAGIC + z.y};
        cu_mma_k32(c, a, b);
        float2 s = make_float2(0.0f, 0.0f);
        if constexpr (type::has_min) s = *(const float2 *)(group + KRN_UNIT_S * KRN_GROUP + 4 * token);
#pragma unroll
        for (int e = 0; e < 4; e++) {
            float x = e % 2 ? dx.y : dx.x;
            acc[e] = fmaf(d[e / 2][0] * x, of_sum(c[e]), acc[e]);
            if (type::has_min) acc[e] = fmaf(-(m[e / 2][0] * x), e % 2 ? s.y : s.x, acc[e]);
        }
    }
}

// Units [u0, u0 + n) of the block's groups into shared memory: those of a group follow each other.
__device__ void load_panels(const uint8_t *panels, int32_t units, int32_t g0, int32_t n_groups, int32_t u0, int32_t n,
                            int4 (*to)[UNITS * PIECES])
{
    static_assert(UNITS * PIECES <= (int)KRN_CUDA_THREADS, "a piece a thread");
    int64_t all = cu_here(units);
    const int4 *from = (const int4 *)(panels + (g0 * all + u0) * GROUP_BYTES) + threadIdx.x;
    if ((int32_t)threadIdx.x < n * PIECES)
#pragma unroll
        for (int g = 0; g < BLOCK_GROUPS; g++)
            if (g < n_groups) to[g][threadIdx.x] = from[g * all * PIECES];
}

template <int TYPE, int N>
__global__ void __launch_bounds__(KRN_CUDA_THREADS, 2)
    mma_kernel(cu_mat w, const uint8_t *panels, int32_t all_groups, int32_t row0, int32_t row1, cu_out out, int32_t n_leaf,
               cu_leaves<N> leaves, cu_slots slots)
{
    cu_begin();
    __shared__ int4 shared[BLOCK_GROUPS][UNITS * PIECES];
    constexpr int CHAINS = 4 * COLUMNS; // of a tile

    int32_t units = w.cols / KRN_UNIT, g0 = (int32_t)blockIdx.y * BLOCK_GROUPS, n_groups = min(all_groups - g0, BLOCK_GROUPS);
    if (slots.data) {
        krn_part part = slots.parts[blockIdx.y];
        if (part.expert < 0) return;
        w.data = slots.data[part.expert], g0 = part.row0 / KRN_GROUP, n_groups = DIV_UP(part.n_rows, KRN_GROUP);
        if (!w.data) return;
    }
    int32_t lane = (int32_t)threadIdx.x % 32, warp = (int32_t)threadIdx.x / 32;
    int32_t first = row0 + (int32_t)blockIdx.x * BLOCK_ROWS + warp % WARPS_DOWN * TILES * KRN_TILE;
    int32_t column0 = warp / WARPS_DOWN * COLUMNS, columns = min(n_groups * KRN_GROUP / 8 - column0, COLUMNS);
    int32_t tiles = columns > 0 ? min((row1 - first + KRN_TILE - 1) / KRN_TILE, TILES) : 0; // experts of prompts have few tokens

    cu_chains<N, TILES * CHAINS> chains;
    cu_waiting<N, TILES * CHAINS> waiting;
    chains.begin(leaves);
    auto put = [&](int32_t node, const float *v) {
        int64_t stride = cu_here(out.y_stride);
        float *y = out.y + (g0 * KRN_GROUP + column0 * 8 + lane % 4 * 2) * stride + node * out.node_stride + first + lane / 4;
        int32_t rows = row1 - first - lane / 4;
#pragma unroll
        for (int e = 0; e < TILES * CHAINS; e++) {
            int row = e / CHAINS * KRN_TILE + e % 4 / 2 * 8, column = e % CHAINS / 4;
            if (row < rows && column < columns) y[(column * 8 + e % 2) * stride + row] = v[e];
        }
    };
    for (int32_t u0 = 0; u0 < units; u0 += UNITS) {
        int32_t n = min(UNITS, units - u0);
        load_panels(panels, units, g0, n_groups, u0, n, shared);
        __syncthreads();
        for (int32_t u = 0; u < n; u++) {
#pragma unroll
            for (int i = 0; i < TILES; i++)
                if (i < tiles) {
                    const uint8_t *tile = w.data + cu_here((first / KRN_TILE + i) * w.tile_bytes);
                    int32_t a[4];
                    float d[2][2], m[2][2];
                    tile_operand<TYPE>(w, tile, u0 + u, lane, a);
                    cu_unit_scales<TYPE>(w, tile, u0 + u, lane / 4, d[0], m[0]);
                    cu_unit_scales<TYPE>(w, tile, u0 + u, lane / 4 + 8, d[1], m[1]);
#pragma unroll
                    for (int k = 0; k < COLUMNS; k++)
                        if (k < columns) { // the same for the whole warp
                            int32_t column = column0 + k;
                            step<TYPE>(a, d, m, (const uint8_t *)&shared[column / 2][u * PIECES], column % 2 * 8, lane, chains.acc + i * CHAINS + k * 4);
                        }
                }
            chains.reach((u0 + u + 1) * KRN_UNIT, leaves, n_leaf, waiting, put);
        }
        __syncthreads();
    }
    chains.end(put);
}

} // namespace

namespace {

// Groups of tokens, or parts of experts' rows; leaves_of: cu_leaves_of or cu_leaves_each.
template <class L> void launch(const struct krn_matmul *a, int32_t groups, int32_t across, const cu_slots &slots, const L &leaves_of)
{
    dim3 grid((unsigned)DIV_UP(a->row1 - a->row0, BLOCK_ROWS), (unsigned)across);
    cu_for_type(a->w->type, [&](auto t) {
        constexpr int TYPE = decltype(t)::value;
        if constexpr (cu_type<TYPE>::quant)
            cu_for_leaves<TYPE, CU_FEW_LEAVES>(a->leaves, [&](auto n) {
                constexpr int N = decltype(n)::value;
                cu_leaves<N> leaves = {};
                leaves_of(&leaves);
                KRN_LAUNCH((mma_kernel<TYPE, N>), grid, dim3(KRN_CUDA_THREADS), 0, cu_mat_of(a->w), a->x->q, groups, a->row0, a->row1,
                           cu_out_of(a), a->leaves->hi - a->leaves->lo, leaves, slots);
            });
    });
}

} // namespace

extern "C" void krn_cuda_matmul_mma(const struct krn_matmul *a)
{
    int32_t groups = a->x->n_tok / KRN_GROUP;
    launch(a, groups, DIV_UP(groups, BLOCK_GROUPS), cu_slots{}, [&](auto *l) { cu_leaves_of(a->leaves, a->w->cols, l); });
    krn_cuda_launched("matmul_mma");
}

extern "C" void krn_cuda_matmul_mma_grouped(const struct krn_matmul *a, const struct krn_grouped *g)
{
    launch(a, a->x->n_tok / KRN_GROUP, g->n_parts, cu_slots{g->data, nullptr, 1, g->parts}, [&](auto *l) { cu_leaves_each(a->leaves, a->w->cols, l); });
    krn_cuda_launched("matmul_mma_grouped");
}
