// attention_tile.cu: attention of prompts: tokens of one sequence that stand side by side share every key and value.
//
// A tile is what attention.cu does one token at a time, to the last bit: an output is the same chain, only its neighbours differ.
//   scores  go chain by chain over head_dim: DEPTH dimensions of all keys, widened once, and of the queries are in shared memory; a thread has
//           8 rows by 8 keys of chains in registers;
//   values  SIZE dimensions at a time go over the keys, a block of 16 in shared memory; a thread has 4 dimensions of some rows.
// Keys before a row's window have weight 0, which leaves a chain at +0; those behind its token never enter it, since there they could turn a -0
// round. What is read next comes while the last is computed.
// Awaits a card: its share of the f32 rate (docs/gpu-log.md).
#include "engine/kernels/cuda/attention_tile.cuh"

namespace {

enum { DEPTH = 8 };
static_assert(KV_UNIT % DEPTH == 0, "a scale for all dimensions in shared memory");

struct floats {
    float4 q[DEPTH][ROWS / 4]; // queries times scale
    union {
        float4 k[DEPTH][KEYS / 4];
        float4 v[BLOCK][WIDE / 4];
    };
};

// Dimensions [d, d + DEPTH) of keys: a thread's pieces of them, first as they are stored, then widened into shared memory. From keys of blocks
// [b0, b1) of the split, which is at block `first` of the sequence; what lies outside is left.
template <int TYPE> struct keys_ahead {
    static constexpr int elements = piece<TYPE>::n, of_block = DEPTH * BLOCK / elements, each = of_block * KEYS / BLOCK / THREADS;
    static_assert(THREADS % of_block == 0, "the same place in each block");
    int4 raw[each] = {};
    int4 scales[TYPE == KV_Q8_0 ? 2 : 1] = {};

    __device__ static int32_t block_of(int i) { return (int32_t)(threadIdx.x / of_block) + i * (THREADS / of_block); }
    __device__ static int32_t at() { return (int32_t)(threadIdx.x % of_block) * elements; } // in each block

    __device__ void fetch(const source<TYPE> &from, int32_t dim, int32_t first, int32_t b0, int32_t b1, int32_t d)
    {
#pragma unroll
        for (int i = 0; i < each; i++) {
            int32_t b = block_of(i);
            if (b < b0 || b >= b1 || d + at() / BLOCK >= dim) continue;
            const uint8_t *block = from.block(first + b);
            raw[i] = *(const int4 *)(block + cu_kv_codes<TYPE>(dim) + ((int64_t)d * BLOCK + at()) * piece<TYPE>::size);
            if (TYPE == KV_Q8_0)
                for (int h = 0; h < 2; h++) scales[h] = ((const int4 *)(block + d / KV_UNIT * BLOCK * 2))[h];
        }
    }
    __device__ void put(floats &w, int32_t b0, int32_t b1) const
    {
#pragma unroll
        for (int i = 0; i < each; i++) {
            int32_t b = block_of(i);
            if (b < b0 || b >= b1) continue;
            float4 *to = &w.k[at() / BLOCK][(b * BLOCK + at() % BLOCK) / 4];
#pragma unroll
            for (int e = 0; e < elements; e += 4) {
                float v[4];
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    v[j] = element<TYPE>(raw[i], e + j);
                    if (TYPE == KV_Q8_0) v[j] = v[j] * element<KV_F16>(scales[(e + j) / 8], (e + j) % 8);
                }
                to[e / 4] = {v[0], v[1], v[2], v[3]};
            }
        }
    }
};

// Values [v0, v0 + SIZE) of a block of positions, likewise. Of latent heads they are keys, where the positions of a value lie side by side.
// Rows that do not begin at multiples of 16 bytes are read value by value.
template <int TYPE, int SIZE> struct values_ahead {
    static constexpr int elements = piece<TYPE>::n, all = BLOCK * SIZE / elements, each = DIV_UP(all, THREADS);
    int4 raw[each] = {};
    int4 scales[TYPE == KV_Q8_0 ? 2 : 1] = {};

    __device__ static int32_t index(int i) { return ((int32_t)threadIdx.x + i * THREADS) * elements; } // of its first element
    __device__ static bool whole(const krn_kv &kv) { return kv.v_dim || kv.head_dim * piece<TYPE>::size % 16 == 0; }

    __device__ void fetch(const krn_kv &kv, const uint8_t *block, int32_t v0)
    {
        if (!whole(kv)) return;
        int32_t dim = kv.head_dim;
        const uint8_t *codes = block + cu_kv_codes<TYPE>(dim);
#pragma unroll
        for (int i = 0; i < each; i++) {
            if (index(i) >= BLOCK * SIZE) continue;
            int32_t j = index(i) / SIZE, d = v0 + index(i) % SIZE;
            if (kv.v_dim) j = index(i) % BLOCK, d = v0 + index(i) / BLOCK;
            if (d >= dim) continue;
            raw[i] = *(const int4 *)(codes + (kv.v_dim ? (int64_t)d * BLOCK + j : (int64_t)j * dim + d) * piece<TYPE>::size);
            if (TYPE != KV_Q8_0) continue;
            if (kv.v_dim)
                for (int h = 0; h < 2; h++) scales[h] = ((const int4 *)(block + d / KV_UNIT * BLOCK * 2))[h];
            else
                scales[0].x = ((const uint16_t *)block)[j * DIV_UP(dim, KV_UNIT) + d / KV_UNIT];
        }
    }
    __device__ void put(floats &w, const krn_kv &kv, const uint8_t *block, int32_t v0) const
    {
        float *to = (float *)w.v;
        if (!whole(kv)) {
            for (int32_t i = (int32_t)threadIdx.x; i < BLOCK * SIZE; i += THREADS)
                if (v0 + i % SIZE < kv.head_dim) to[i / SIZE * WIDE + i % SIZE] = cu_kv_value<TYPE>(block, kv.head_dim, v0 + i % SIZE, i / SIZE);
            return;
        }
#pragma unroll
        for (int i = 0; i < each; i++) {
            if (index(i) >= BLOCK * SIZE) continue;
            if (kv.v_dim) {
                int32_t j = index(i) % BLOCK, d = index(i) / BLOCK;
#pragma unroll
                for (int e = 0; e < elements; e++) {
                    float v = element<TYPE>(raw[i], e);
                    to[(j + e) * WIDE + d] = TYPE == KV_Q8_0 ? v * element<KV_F16>(scales[e / 8], e % 8) : v;
                }
                continue;
            }
            float scale = TYPE == KV_Q8_0 ? cu_f16((uint16_t)scales[0].x) : 1.0f;
#pragma unroll
            for (int e = 0; e < elements; e += 4) {
                float v[4];
#pragma unroll
                for (int k = 0; k < 4; k++) v[k] = TYPE == KV_Q8_0 ? element<TYPE>(raw[i], e + k) * scale : element<TYPE>(raw[i], e + k);
                w.v[index(i) / SIZE][(index(i) % SIZE + e) / 4] = {v[0], v[1], v[2], v[3]};
            }
        }
    }
};

template <int TYPE, int SIZE> struct exact {
    static constexpr int type = TYPE, size = SIZE, blocks = TYPE == KV_F32 ? 2 : 3;
    typedef tile<ROWS> shared;
    typedef floats work;

    static __device__ void scores(const cu_job &a, shared &s, work &w, const source<TYPE> &from, const split &at)
    {
        int32_t dim = a.kv.head_dim, warp = (int32_t)threadIdx.x / 32, lane = (int32_t)threadIdx.x % 32, part = lane / 8, column = warp * 8 + lane % 8;
        int32_t halves = at.b1 * BLOCK > KEYS / 2 ? 2 : 1, mine = (int32_t)threadIdx.x / 4, d_mine = (int32_t)threadIdx.x % 4 * 2;
        float acc[2][8][4] = {}; // [keys 4 column.., behind half of them][rows 4 part.., behind half of them][key]
        float q[2];
        keys_ahead<TYPE> ahead;
        auto fetch = [&](int32_t d) {
            ahead.fetch(from, dim, at.j0 / BLOCK, at.b0, at.b1, d);
            for (int i = 0; i < 2; i++) q[i] = s.from[mine] >= 0 && d + d_mine + i < dim ? a.q[s.from[mine] + d + d_mine + i] * a.scale : 0.0f;
        };
        fetch(0);
        for (int32_t d0 = 0; d0 < dim; d0 += DEPTH) {
            __syncthreads();
            ahead.put(w, at.b0, at.b1);
            for (int i = 0; i < 2; i++) ((float *)w.q[d_mine + i])[mine] = q[i];
            __syncthreads();
            if (d0 + DEPTH < dim) fetch(d0 + DEPTH);
            for (int32_t d = 0; d < min((int32_t)DEPTH, dim - d0); d++) {
                float4 lo = w.q[d][part], hi = w.q[d][4 + part];
                float r[8] = {lo.x, lo.y, lo.z, lo.w, hi.x, hi.y, hi.z, hi.w};
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    if (h >= halves) break;
                    float4 k = w.k[d][h * 32 + column];
                    float keys[4] = {k.x, k.y, k.z, k.w};
#pragma unroll
                    for (int i = 0; i < 8; i++)
#pragma unroll
                        for (int e = 0; e < 4; e++) acc[h][i][e] = fmaf(r[i], keys[e], acc[h][i][e]);
                }
            }
        }
#pragma unroll
        for (int h = 0; h < 2; h++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                float x[8];
#pragma unroll
                for (int i = 0; i < 8; i++) x[i] = acc[h][i][e];
                float4 *to = (float4 *)s.p[(h * 32 + column) * 4 + e];
                to[part] = {x[0], x[1], x[2], x[3]}, to[4 + part] = {x[4], x[5], x[6], x[7]};
            }
        __syncthreads();
    }

    static __device__ void values(const cu_job &a, shared &s, work &w, const source<TYPE> &from, const split &at, int32_t common, int32_t v0)
    {
        constexpr int MINE = SIZE / 16; // rows
        int32_t warp = (int32_t)threadIdx.x / 32, lane = (int32_t)threadIdx.x % 32, first = at.j0 / BLOCK;
        int32_t part = SIZE == WIDE ? lane / 8 : warp / 2 * 4 + lane / 8, column = (SIZE == WIDE ? warp : warp % 2) * 8 + lane % 8;
        auto row_of = [&](int i) { return i / 4 * 16 + part * 4 + i % 4; };
        float o[MINE][4] = {};
        int32_t end[MINE];
        values_ahead<TYPE, SIZE> ahead;
        ahead.fetch(a.kv, from.block(first + at.b0), v0);
        for (int32_t b = at.b0; b < at.b1; b++) {
            __syncthreads();
            ahead.put(w, a.kv, from.block(first + b), v0);
            __syncthreads();
            if (b + 1 < at.b1) ahead.fetch(a.kv, from.block(first + b + 1), v0);
            bool guarded = (b + 1) * BLOCK > common;
            if (guarded)
                for (int i = 0; i < MINE; i++) end[i] = s.end[row_of(i)];
            for (int32_t j = 0; j < BLOCK; j++) {
                int32_t key = b * BLOCK + j;
                float4 x = w.v[j][column], lo = ((const float4 *)s.p[key])[part], hi = lo;
                if (MINE == 8) hi = ((const float4 *)s.p[key])[4 + part];
                float p[8] = {lo.x, lo.y, lo.z, lo.w, hi.x, hi.y, hi.z, hi.w}, v[4] = {x.x, x.y, x.z, x.w};
                if (guarded) {
#pragma unroll
                    for (int i = 0; i < MINE; i++)
#pragma unroll
                        for (int e = 0; e < 4; e++) o[i][e] = key < end[i] ? fmaf(p[i], v[e], o[i][e]) : o[i][e];
                } else {
#pragma unroll
                    for (int i = 0; i < MINE; i++)
#pragma unroll
                        for (int e = 0; e < 4; e++) o[i][e] = fmaf(p[i], v[e], o[i][e]);
                }
            }
        }
#pragma unroll
        for (int i = 0; i < MINE; i++) {
            int32_t r = row_of(i), mode = s.mode[r];
            if (!mode) continue;
            float *out = a.out + s.to[r] + v0 + column * 4;
#pragma unroll
            for (int e = 0; e < 4; e++) {
                if (v0 + column * 4 + e >= a.values) break;
                float v = mode & MERGE ? fmaf(out[e], s.f[r], o[i][e] * s.g[r]) : o[i][e];
                out[e] = mode & LAST ? v * s.by[r] * s.inv[r] : v;
            }
        }
    }
};

} // namespace

extern "C" void krn_cuda_attention_tiles(const struct krn_attention *a)
{
    switch (a->kv->type) {
    case KV_F16: launch_tiles<exact, KV_F16>(a); break;
    case KV_BF16: launch_tiles<exact, KV_BF16>(a); break;
    case KV_Q8_0: launch_tiles<exact, KV_Q8_0>(a); break;
    case KV_FP8: launch_tiles<exact, KV_FP8>(a); break;
    default: launch_tiles<exact, KV_F32>(a);
    }
    krn_cuda_launched("attention_tiles");
}
