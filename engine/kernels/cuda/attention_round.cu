// attention_round.cu: attention of prompts on tensor cores, for `--exact off` (engine/kernels/rounded.h): attention_tile.cu with queries, keys,
// weights and values as halves, f16 or, of a bf16 cache, bf16, and sums in the card's own order. Splits, their merging and what a row sees are the
// same. From compute capability 8.0 on.
//
//   scores  keys times queries: as they lie in a block, keys are an A operand; a warp has 64 keys of all rows, DEPTH dimensions at a time;
//   values  likewise: 16 positions of values are an A operand of SIZE rows, weights the B; a warp has a quarter of the values.
// What no row sees the end of is zero, since a weight of 0 does not hide what is no number. Awaits a card (docs/gpu-log.md).
#include "engine/kernels/cuda/attention_tile.cuh"
#include "engine/kernels/cuda/mma.cuh"

namespace {

enum {
    DEPTH = 16,
    KEY_STRIDE = KEYS + 8,        // halves: so that eight dimensions lie in different banks
    VALUE_STRIDE = WIDE + 8,      // so that eight positions do
    PAIR_STRIDE = DEPTH / 2 + 4,  // words: so that eight rows do
    P_STRIDE = ROWS + 4,          // floats: so that eight keys do
    DOWN = KEYS / WARPS / 16, ACROSS = ROWS / 8, // products of 16 by 8 of a warp's scores
};
static_assert(KV_UNIT % DEPTH == 0, "a scale for all dimensions in shared memory");

struct halves {
    uint32_t q[ROWS * PAIR_STRIDE]; // queries times scale, pairs of dimensions
    union {
        int4 k[DEPTH * KEY_STRIDE / 8];
        int4 v[BLOCK * VALUE_STRIDE / 8];
    };
};

// A cache's elements and what goes with them: bf16 stays that, all others are f16.
template <int TYPE> __device__ uint16_t half_of(float x)
{
    if (TYPE == KV_BF16) return cu_to_bf16(x);
    return cu_to_f16(x > 65504.0f ? 65504.0f : x < -65504.0f ? -65504.0f : x);
}
template <int TYPE> __device__ uint32_t pair_of(float low, float high) { return half_of<TYPE>(low) | (uint32_t)half_of<TYPE>(high) << 16; }
template <int TYPE> __device__ void multiply(float c[4], const uint32_t a[4], const uint32_t b[2])
{
    if (TYPE == KV_BF16) cu_mma_bf16(c, a, b);
    else cu_mma_f16(c, a, b);
}

// A piece (attention_tile.cuh) as it is stored; with q8_0 the scales of its elements, all of one, or one each.
template <int TYPE> struct stored {
    int4 raw = {}, scales[TYPE == KV_Q8_0 ? 2 : 1] = {};
    __device__ uint16_t at(int i, bool one) const
    {
        if (piece<TYPE>::size == 2) return (uint16_t)(((const uint32_t *)&raw)[i / 2] >> (i % 2 * 16));
        float v = element<TYPE>(raw, i);
        return half_of<TYPE>(TYPE == KV_Q8_0 ? v * element<KV_F16>(scales[one ? 0 : i / 8], one ? 0 : i % 8) : v);
    }
    // All of them side by side.
    __device__ void put(int4 *to, bool one) const
    {
        if constexpr (piece<TYPE>::size == 2) {
            *to = raw;
        } else {
#pragma unroll
            for (int h = 0; h < 2; h++) {
                uint32_t w[4];
#pragma unroll
                for (int i = 0; i < 4; i++) w[i] = at(h * 8 + i * 2, one) | (uint32_t)at(h * 8 + i * 2 + 1, one) << 16;
                to[h] = {(int)w[0], (int)w[1], (int)w[2], (int)w[3]};
            }
        }
    }
    // Of dimension d at position j of a block that has positions side by side.
    __device__ void fetch_positions(const uint8_t *block, int32_t dim, int32_t d, int32_t j)
    {
        raw = *(const int4 *)(block + cu_kv_codes<TYPE>(dim) + ((int64_t)d * BLOCK + j) * piece<TYPE>::size);
        if (TYPE == KV_Q8_0)
            for (int h = 0; h < 2; h++) scales[h] = ((const int4 *)(block + d / KV_UNIT * BLOCK * 2))[h];
    }
    // Of one that has dimensions side by side.
    __device__ void fetch_values(const uint8_t *block, int32_t dim, int32_t d, int32_t j)
    {
        raw = *(const int4 *)(block + cu_kv_codes<TYPE>(dim) + ((int64_t)j * dim + d) * piece<TYPE>::size);
        if (TYPE == KV_Q8_0) scales[0].x = ((const uint16_t *)block)[j * DIV_UP(dim, KV_UNIT) + d / KV_UNIT];
    }
};

template <int TYPE, int SIZE> struct rounded {
    static constexpr int type = TYPE, size = SIZE, blocks = 3;
    typedef tile<P_STRIDE> shared;
    typedef halves work;
    static constexpr int elements = piece<TYPE>::n;

    // Dimensions [d, d + DEPTH) of keys, first as a thread's pieces; behind the last dimension: zeros.
    struct keys_ahead {
        static constexpr int of_block = DEPTH * BLOCK / elements, each = of_block * KEYS / BLOCK / THREADS;
        static_assert(THREADS % of_block == 0, "the same place in each block");
        stored<TYPE> pieces[each];
        __device__ static int32_t block_of(int i) { return (int32_t)(threadIdx.x / of_block) + i * (THREADS / of_block); }
        __device__ static int32_t at() { return (int32_t)(threadIdx.x % of_block) * elements; } // in each block
        __device__ void fetch(const cu_job &a, const source<TYPE> &from, const split &s, int32_t d)
        {
#pragma unroll
            for (int i = 0; i < each; i++) {
                int32_t b = block_of(i);
                pieces[i] = {};
                if (b >= s.b0 && b < s.b1 && d + at() / BLOCK < a.kv.head_dim)
                    pieces[i].fetch_positions(from.block(s.j0 / BLOCK + b), a.kv.head_dim, d + at() / BLOCK, at() % BLOCK);
            }
        }
        __device__ void put(work &w) const
        {
#pragma unroll
            for (int i = 0; i < each; i++) pieces[i].put(&w.k[(at() / BLOCK * KEY_STRIDE + block_of(i) * BLOCK + at() % BLOCK) / 8], false);
        }
    };

    // A warp's 64 keys by all rows.
    static __device__ void scores(const cu_job &a, shared &s, work &w, const source<TYPE> &from, const split &at)
    {
        int32_t dim = a.kv.head_dim, warp = (int32_t)threadIdx.x / 32, lane = (int32_t)threadIdx.x % 32;
        int32_t mine = (int32_t)threadIdx.x / 4, pair = (int32_t)threadIdx.x % 4; // the queries that it brings: pairs pair and pair + 4 of a row
        float c[DOWN][ACROSS][4] = {};
        uint32_t q[2];
        keys_ahead ahead;
        auto fetch = [&](int32_t d0) {
            ahead.fetch(a, from, at, d0);
#pragma unroll
            for (int i = 0; i < 2; i++) {
                float v[2];
#pragma unroll
                for (int k = 0; k < 2; k++) {
                    int32_t d = d0 + (pair + 4 * i) * 2 + k;
                    v[k] = s.from[mine] >= 0 && d < dim ? a.q[s.from[mine] + d] * a.scale : 0.0f;
                }
                q[i] = pair_of<TYPE>(v[0], v[1]);
            }
        };
        fetch(0);
        for (int32_t d0 = 0; d0 < dim; d0 += DEPTH) {
            __syncthreads();
            ahead.put(w);
            w.q[mine * PAIR_STRIDE + pair] = q[0], w.q[mine * PAIR_STRIDE + pair + 4] = q[1];
            __syncthreads();
            if (d0 + DEPTH < dim) fetch(d0 + DEPTH);
            if (warp * (KEYS / WARPS) >= at.b1 * BLOCK) continue; // the same for the whole warp
            uint32_t b[ACROSS][2];
#pragma unroll
            for (int j = 0; j < ACROSS; j++) {
                const uint32_t *row = w.q + (j * 8 + lane / 4) * PAIR_STRIDE + lane % 4;
                b[j][0] = row[0], b[j][1] = row[4];
            }
#pragma unroll
            for (int i = 0; i < DOWN; i++) {
                uint32_t k[4];
                cu_load_a(k, (const uint16_t *)w.k + warp * (KEYS / WARPS) + i * 16, KEY_STRIDE, lane);
#pragma unroll
                for (int j = 0; j < ACROSS; j++) multiply<TYPE>(c[i][j], k, b[j]);
            }
        }
#pragma unroll
        for (int i = 0; i < DOWN; i++)
#pragma unroll
            for (int j = 0; j < ACROSS; j++)
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    int32_t key = warp * (KEYS / WARPS) + i * 16 + lane / 4 + e / 2 * 8;
                    s.p[key][j * 8 + lane % 4 * 2 + e % 2] = c[i][j][e];
                }
        __syncthreads();
    }

    // Values [v0, v0 + SIZE) of a block of positions, likewise; positions from n on are zeros.
    struct values_ahead {
        static constexpr int each = DIV_UP(BLOCK * SIZE / elements, THREADS);
        stored<TYPE> pieces[each];
        __device__ static int32_t index(int i) { return ((int32_t)threadIdx.x + i * THREADS) * elements; }
        __device__ static bool whole(const krn_kv &kv) { return kv.v_dim || kv.head_dim * piece<TYPE>::size % 16 == 0; }
        __device__ void fetch(const krn_kv &kv, const uint8_t *block, int32_t v0, int32_t n)
        {
            if (!whole(kv)) return;
#pragma unroll
            for (int i = 0; i < each; i++) {
                int32_t at = index(i), d = v0 + (kv.v_dim ? at / BLOCK : at % SIZE);
                pieces[i] = {};
                if (at >= BLOCK * SIZE || d >= kv.head_dim) continue;
                if (kv.v_dim) pieces[i].fetch_positions(block, kv.head_dim, d, at % BLOCK);
                else if (at / SIZE < n) pieces[i].fetch_values(block, kv.head_dim, d, at / SIZE);
            }
        }
        __device__ void put(work &w, const krn_kv &kv, const uint8_t *block, int32_t v0, int32_t n) const
        {
            uint16_t *to = (uint16_t *)w.v;
            if (!whole(kv)) {
                for (int32_t i = (int32_t)threadIdx.x; i < BLOCK * SIZE; i += THREADS) {
                    bool there = i / SIZE < n && v0 + i % SIZE < kv.head_dim;
                    to[i / SIZE * VALUE_STRIDE + i % SIZE] = there ? half_of<TYPE>(cu_kv_value<TYPE>(block, kv.head_dim, v0 + i % SIZE, i / SIZE)) : 0;
                }
                return;
            }
#pragma unroll
            for (int i = 0; i < each; i++) {
                int32_t at = index(i);
                if (at >= BLOCK * SIZE) continue;
                if (!kv.v_dim) {
                    pieces[i].put(&w.v[(at / SIZE * VALUE_STRIDE + at % SIZE) / 8], true);
                    continue;
                }
#pragma unroll
                for (int e = 0; e < elements; e++)
                    to[(at % BLOCK + e) * VALUE_STRIDE + at / BLOCK] = at % BLOCK + e < n ? pieces[i].at(e, false) : 0;
            }
        }
    };

    static __device__ void values(const cu_job &a, shared &s, work &w, const source<TYPE> &from, const split &at, int32_t, int32_t v0)
    {
        constexpr int TALL = SIZE / WARPS / 16; // products of 16 values of a warp
        int32_t warp = (int32_t)threadIdx.x / 32, lane = (int32_t)threadIdx.x % 32, first = at.j0 / BLOCK;
        float c[TALL][ACROSS][4] = {};
        values_ahead ahead;
        ahead.fetch(a.kv, from.block(first + at.b0), v0, at.n - at.b0 * BLOCK);
        for (int32_t b = at.b0; b < at.b1; b++) {
            __syncthreads();
            ahead.put(w, a.kv, from.block(first + b), v0, at.n - b * BLOCK);
            __syncthreads();
            if (b + 1 < at.b1) ahead.fetch(a.kv, from.block(first + b + 1), v0, at.n - (b + 1) * BLOCK);
            uint32_t p[ACROSS][2];
#pragma unroll
            for (int j = 0; j < ACROSS; j++)
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    int32_t key = b * BLOCK + lane % 4 * 2 + h * 8;
                    p[j][h] = pair_of<TYPE>(s.p[key][j * 8 + lane / 4], s.p[key + 1][j * 8 + lane / 4]);
                }
#pragma unroll
            for (int i = 0; i < TALL; i++) {
                uint32_t v[4];
                cu_load_a(v, (const uint16_t *)w.v + (warp * TALL + i) * 16, VALUE_STRIDE, lane);
#pragma unroll
                for (int j = 0; j < ACROSS; j++) multiply<TYPE>(c[i][j], v, p[j]);
            }
        }
#pragma unroll
        for (int i = 0; i < TALL; i++)
#pragma unroll
            for (int j = 0; j < ACROSS; j++)
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    int32_t r = j * 8 + lane % 4 * 2 + e % 2, d = v0 + (warp * TALL + i) * 16 + lane / 4 + e / 2 * 8, mode = s.mode[r];
                    if (!mode || d >= a.values) continue;
                    float *out = a.out + s.to[r] + d, v = mode & MERGE ? fmaf(*out, s.f[r], c[i][j][e] * s.g[r]) : c[i][j][e];
                    *out = mode & LAST ? v * s.by[r] * s.inv[r] : v;
                }
    }
};

} // namespace

extern "C" void krn_cuda_attention_rounded_tiles(const struct krn_attention *a)
{
    switch (a->kv->type) {
    case KV_F16: launch_tiles<rounded, KV_F16>(a); break;
    case KV_BF16: launch_tiles<rounded, KV_BF16>(a); break;
    case KV_Q8_0: launch_tiles<rounded, KV_Q8_0>(a); break;
    case KV_FP8: launch_tiles<rounded, KV_FP8>(a); break;
    default: krn_cuda_attention_tiles(a); return;
    }
    krn_cuda_launched("attention_rounded_tiles");
}
