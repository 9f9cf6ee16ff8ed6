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

namespace {

enum {
    TILES = 2,           // of a warp
    COLUMNS = 4,         // of 8 tokens, of a warp
    WARPS_DOWN = 4, WARPS_ACROSS = 2,
    BLOCK_ROWS = WARPS_DOWN * TILES * KRN_TILE,
    BLOCK_GROUPS = WARPS_ACROSS * COLUMNS * 8 / KRN_GROUP,
    UNITS = 4,           // in shared memory at once
    GROUP_BYTES = KRN_GROUP * KRN_UNIT_BYTES, // of one unit
    PIECE = 16,
};
static_assert((int)KRN_CUDA_THREADS == 32 * WARPS_DOWN * WARPS_ACROSS, "warps of a block");

constexpr int32_t MAGIC = 0x4b400000;
constexpr float MAGIC_FLOAT = 12582912.0f;

// The lane's part of a unit of a tile as an A operand: codes as in unit.cuh.
template <int TYPE>
__device__ void tile_operand(const cu_mat &w, const uint8_t *tile, int32_t unit, int32_t lane, int32_t a[4])
{
    int32_t row = lane / 4, j = lane % 4;
    const uint8_t *q = tile + w.pairs + (int64_t)(unit / 2) * cu_type<TYPE>::pair_bytes +
                       unit % 2 * cu_type<TYPE>::quant_bytes + row * 4;
#pragma unroll
    for (int half = 0; half < 2; half++) { // rows l/4 and l/4 + 8
        const uint8_t *at = q + half * 32;
        if constexpr (TYPE == DTYPE_Q8_0) {
            a[half] = (int32_t)(cu_word(at + j * 64) ^ 0x80808080u);
            a[half + 2] = (int32_t)(cu_word(at + (j + 4) * 64) ^ 0x80808080u);
        } else {
            uint32_t v = cu_word(at + j * 64), low = v & 0x0f0f0f0fu, high = v >> 4 & 0x0f0f0f0fu;
            if constexpr (TYPE == DTYPE_Q5_K) {
                uint32_t fifth = cu_word(at + 256);
                low |= (fifth >> j & 0x01010101u) << 4;
                high |= (fifth >> (j + 4) & 0x01010101u) << 4;
            }
            if constexpr (TYPE == DTYPE_Q6_K) {
                low |= (cu_word(at + 256) >> (2 * j) & 0x03030303u) << 4;
                high |= (cu_word(at + 320) >> (2 * j) & 0x03030303u) << 4;
            }
            a[half] = (int32_t)low;
            a[half + 2] = (int32_t)high;
        }
    }
}

__device__ float of_sum(int32_t c) { return __int_as_float(c) - MAGIC_FLOAT; }

// One unit of a tile with 8 tokens: four chains a lane, [row of 2][token of 2].
template <int TYPE>
__device__ void step(const int32_t a[4], const float d[2][2], const float m[2], const uint8_t *group, int32_t first,
                     int32_t lane, float acc[4])
{
    const uint8_t *q = group + (first + lane / 4) * KRN_UNIT + lane % 4 * 4;
    int32_t b[2] = {*(const int32_t *)q, *(const int32_t *)(q + 16)};
    int32_t token = first + lane % 4 * 2;
    float2 dx = *(const float2 *)(group + KRN_UNIT_D * KRN_GROUP + 4 * token);
    if constexpr (cu_type<TYPE>::halves) {
        int2 z0 = *(const int2 *)(group + KRN_UNIT_Z32 * KRN_GROUP + 4 * token);
        int2 z1 = *(const int2 *)(group + (KRN_UNIT_Z32 + 4) * KRN_GROUP + 4 * token);
        int32_t c0[4] = {MAGIC + z0.x, MAGIC + z0.y, MAGIC + z0.x, MAGIC + z0.y};
        int32_t c1[4] = {MAGIC + z1.x, MAGIC + z1.y, MAGIC + z1.x, MAGIC + z1.y};
        cu_mma_k16(c0, a[0], a[1], b[0]);
        cu_mma_k16(c1, a[2], a[3], b[1]);
#pragma unroll
        for (int e = 0; e < 4; e++) {
            float x = e % 2 ? dx.y : dx.x;
            acc[e] = fmaf(d[e / 2][0] * x, of_sum(c0[e]), acc[e]);
            acc[e] = fmaf(d[e / 2][1] * x, of_sum(c1[e]), acc[e]);
        }
    } else {
        int2 z = {0, 0};
        if (TYPE == DTYPE_Q4_0) z = *(const int2 *)(group + KRN_UNIT_Z8 * KRN_GROUP + 4 * token);
        int32_t c[4] = {MAGIC + z.x, MAGIC + z.y, MAGIC + z.x, MAGIC + z.y};
        cu_mma_k32(c, a, b);
        float2 s = make_float2(0.0f, 0.0f);
        if (cu_type<TYPE>::has_min) s = *(const float2 *)(group + KRN_UNIT_S * KRN_GROUP + 4 * token);
#pragma unroll
        for (int e = 0; e < 4; e++) {
            float x = e % 2 ? dx.y : dx.x;
            acc[e] = fmaf(d[e / 2][0] * x, of_sum(c[e]), acc[e]);
            if (cu_type<TYPE>::has_min) acc[e] = fmaf(-(m[e / 2] * x), e % 2 ? s.y : s.x, acc[e]);
        }
    }
}

// Chunk u0 of the block's groups into shared memory.
__device__ void load_panels(const uint8_t *panels, int32_t units, int32_t g0, int32_t n_groups, int32_t u0, int32_t n,
                            uint8_t (*to)[BLOCK_GROUPS][GROUP_BYTES])
{
    constexpr int PIECES = GROUP_BYTES / PIECE;
    for (int32_t i = (int32_t)threadIdx.x; i < n * n_groups * PIECES; i += KRN_CUDA_THREADS) {
        int32_t piece = i % PIECES, u = i / PIECES % n, g = i / PIECES / n;
        const uint8_t *from = panels + ((int64_t)(g0 + g) * units + u0 + u) * GROUP_BYTES;
        *(int4 *)(to[u][g] + piece * PIECE) = *(const int4 *)(from + piece * PIECE);
    }
}

template <int TYPE, int N>
__global__ void __launch_bounds__(KRN_CUDA_THREADS)
    mma_kernel(cu_mat w, const uint8_t *panels, int32_t all_groups, int32_t row0, int32_t row1, cu_out out, int32_t n_leaf,
               cu_leaves<N> leaves)
{
    __shared__ __align__(16) uint8_t shared[UNITS][BLOCK_GROUPS][GROUP_BYTES];
    constexpr int CHAINS = 4 * COLUMNS; // of a tile

    int32_t units = w.cols / KRN_UNIT, g0 = (int32_t)blockIdx.y * BLOCK_GROUPS, n_groups = min(all_groups - g0, BLOCK_GROUPS);
    int32_t lane = (int32_t)threadIdx.x % 32, warp = (int32_t)threadIdx.x / 32;
    int32_t first = row0 + (int32_t)blockIdx.x * BLOCK_ROWS + warp % WARPS_DOWN * TILES * KRN_TILE;
    int32_t column0 = warp / WARPS_DOWN * COLUMNS, columns = min(n_groups * KRN_GROUP / 8 - column0, COLUMNS);
    int32_t tiles = min((row1 - first + KRN_TILE - 1) / KRN_TILE, TILES);

    cu_chains<N, TILES * CHAINS> chains;
    chains.begin();
    // where chain e of this thread goes
    auto put = [&](int e, int32_t node, float v) {
        int32_t row = first + e / CHAINS * KRN_TILE + lane / 4 + e % 4 / 2 * 8;
        int32_t column = column0 + e % CHAINS / 4, token = g0 * KRN_GROUP + column * 8 + lane % 4 * 2 + e % 2;
        if (e / CHAINS < tiles && e % CHAINS / 4 < columns && row < row1) out.y[token * out.y_stride + node * out.node_stride + row] = v;
    };
    for (int32_t u0 = 0; u0 < units; u0 += UNITS) {
        int32_t n = min(UNITS, units - u0);
        load_panels(panels, units, g0, n_groups, u0, n, shared);
        __syncthreads();
        for (int32_t u = 0; u < n; u++) {
#pragma unroll
            for (int i = 0; i < TILES; i++) {
                if (i >= tiles) break;
                const uint8_t *tile = w.data + (int64_t)(first / KRN_TILE + i) * w.tile_bytes;
                int32_t a[4];
                float d[2][2], m[2];
                tile_operand<TYPE>(w, tile, u0 + u, lane, a);
                cu_unit_scales<TYPE>(w, tile, u0 + u, lane / 4, d[0], &m[0]);
                cu_unit_scales<TYPE>(w, tile, u0 + u, lane / 4 + 8, d[1], &m[1]);
#pragma unroll
                for (int k = 0; k < COLUMNS; k++) {
                    if (k >= columns) break; // the same for the whole warp
                    int32_t column = column0 + k;
                    step<TYPE>(a, d, m, shared[u][column / 2], column % 2 * 8, lane, chains.acc + i * CHAINS + k * 4);
                }
            }
            chains.reach((u0 + u + 1) * KRN_UNIT, leaves, n_leaf, put);
        }
        __syncthreads();
    }
    chains.end(put);
}

template <int TYPE, int N> void launch_leaves(const struct krn_matmul *a)
{
    cu_leaves<N> leaves;
    cu_leaves_of(a->leaves, a->w->cols, &leaves);
    int32_t groups = a->x->n_tok / KRN_GROUP;
    dim3 grid((unsigned)DIV_UP(a->row1 - a->row0, BLOCK_ROWS), (unsigned)DIV_UP(groups, BLOCK_GROUPS));
    KRN_LAUNCH((mma_kernel<TYPE, N>), grid, dim3(KRN_CUDA_THREADS), 0, cu_mat_of(a->w), a->x->q, groups, a->row0, a->row1,
               cu_out_of(a), a->leaves->hi - a->leaves->lo, leaves);
}

template <int TYPE> void launch(const struct krn_matmul *a)
{
    if (a->leaves->hi - a->leaves->lo == 1)
        launch_leaves<TYPE, 1>(a);
    else
        launch_leaves<TYPE, TREE_MAX_LEAF>(a);
}

} // namespace

extern "C" void krn_cuda_matmul_mma(const struct krn_matmul *a)
{
    switch (a->w->type) {
    case DTYPE_Q8_0: launch<DTYPE_Q8_0>(a); break;
    case DTYPE_Q4_0: launch<DTYPE_Q4_0>(a); break;
    case DTYPE_Q4_K: launch<DTYPE_Q4_K>(a); break;
    case DTYPE_Q5_K: launch<DTYPE_Q5_K>(a); break;
    case DTYPE_Q6_K: launch<DTYPE_Q6_K>(a); break;
    default: break; // not quantised: matmul_float.cu
    }
    krn_cuda_launched("matmul_mma");
}
