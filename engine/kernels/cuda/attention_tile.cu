// attention_tile.cu: attention of prompts: tokens of one sequence that stand side by side share every key and value.
//
// A block takes a tile: up to ROWS queries, the heads of a group for some tokens, which is what attention.cu does one token at a time, to the
// last bit: an output is the same chain, only its neighbours differ. In a split of 256 keys
//   scores   go chain by chain over head_dim: DEPTH dimensions of all keys, widened once, and of the queries are in shared memory; a thread has
//            8 rows by 8 keys of chains in registers;
//   weights  a lane of a warp is a row, the warps share the keys;
//   values   SIZE dimensions at a time go over the keys, a block of 16 in shared memory; a thread has 4 dimensions of some rows.
// What the split gave is merged into the output where it lies: after the last split it is the result.
// A row's keys begin at its window and end at its token. What lies before gets the weight 0, which leaves a chain at +0; what lies behind never
// enters it, since there it could turn a -0 round. What is read next comes while the last is computed.
// Awaits a card: its share of the f32 rate (docs/gpu-log.md).
#include "engine/kernels/cuda/attention.cuh"

extern "C" {
#include "engine/kernels/cuda/cuda.h"
}

namespace {

enum { ROWS = CU_TILE_ROWS, THREADS = 128, WARPS = THREADS / 32, KEYS = KRN_ATTN_SPLIT, BLOCK = KRN_KV_BLOCK, DEPTH = 8, WIDE = 128 };
static_assert(ROWS == 32, "a lane of a warp per row");
static_assert(KV_UNIT % DEPTH == 0, "a scale for all dimensions in shared memory");

// What became of a row in a split.
enum { FIRST = 1, MERGE = 2, LAST = 4 };

struct shared {
    float4 p[KEYS][ROWS / 4];   // scores, then weights
    float4 q[DEPTH][ROWS / 4];  // queries times scale
    union {
        float4 k[DEPTH][KEYS / 4];
        float4 v[BLOCK][WIDE / 4];
    };
    float max[WARPS][ROWS], sum[WARPS][ROWS];
    float f[ROWS], g[ROWS], by[ROWS], inv[ROWS];
    int32_t end[ROWS], mode[ROWS];
    int64_t from[ROWS], to[ROWS]; // of q and out
};

// Sixteen bytes of a block of keys or values: how many elements these are, and one of them as it is before a scale.
template <int TYPE> struct piece {
    static constexpr int size = TYPE == KV_F32 ? 4 : TYPE == KV_Q8_0 || TYPE == KV_FP8 ? 1 : 2;
    static constexpr int n = 16 / size;
};
template <int TYPE> __device__ float element(const int4 &v, int i)
{
    const uint32_t words[4] = {(uint32_t)v.x, (uint32_t)v.y, (uint32_t)v.z, (uint32_t)v.w};
    uint32_t w = words[i * piece<TYPE>::size / 4];
    if (TYPE == KV_F32) return __int_as_float((int)w);
    if (TYPE == KV_F16) return cu_f16((uint16_t)(w >> (i % 2 * 16)));
    if (TYPE == KV_BF16) return cu_bf16((uint16_t)(w >> (i % 2 * 16)));
    uint8_t c = (uint8_t)(w >> (i % 4 * 8));
    return TYPE == KV_FP8 ? cu_e4m3(c) : (float)(int8_t)c;
}

// Where a block of the sequence lies in a plane.
template <int TYPE> struct source {
    void *plane;
    const struct krn_kv *kv;
    const int32_t *table;
    int32_t head;
    __device__ const uint8_t *block(int32_t b) const { return cu_kv_block<TYPE>(plane, *kv, table[b], head); }
};

// Dimensions [d, d + DEPTH) of keys: a thread's pieces of them, first as they are stored, then widened into shared memory. From keys of blocks
// [b0, b1) of the split, which is at block `first` of the sequence; what lies outside is left.
template <int TYPE> struct keys_ahead {
    static constexpr int elements = piece<TYPE>::n, of_block = DEPTH * BLOCK / elements, each = of_block * KEYS / BLOCK / THREADS;
    int4 raw[each] = {};
    int4 scales[TYPE == KV_Q8_0 ? 2 : 1] = {};

    __device__ static int32_t block_of(int i) { return ((int32_t)threadIdx.x + i * THREADS) / of_block; }
    __device__ static int32_t at(int i) { return ((int32_t)threadIdx.x + i * THREADS) % of_block * elements; }

    __device__ void fetch(const source<TYPE> &from, int32_t dim, int32_t first, int32_t b0, int32_t b1, int32_t d)
    {
#pragma unroll
        for (int i = 0; i < each; i++) {
            int32_t b = block_of(i);
            if (b < b0 || b >= b1 || d + at(i) / BLOCK >= dim) continue;
            const uint8_t *block = from.block(first + b);
            raw[i] = *(const int4 *)(block + cu_kv_codes<TYPE>(dim) + ((int64_t)d * BLOCK + at(i)) * piece<TYPE>::size);
            if (TYPE == KV_Q8_0)
                for (int h = 0; h < 2; h++) scales[h] = ((const int4 *)(block + d / KV_UNIT * BLOCK * 2))[h];
        }
    }
    __device__ void put(shared &s, int32_t b0, int32_t b1) const
    {
#pragma unroll
        for (int i = 0; i < each; i++) {
            int32_t b = block_of(i);
            if (b < b0 || b >= b1) continue;
            float4 *to = &s.k[at(i) / BLOCK][(b * BLOCK + at(i) % BLOCK) / 4];
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
    __device__ void put(shared &s, const krn_kv &kv, const uint8_t *block, int32_t v0) const
    {
        float *to = (float *)s.v;
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
                s.v[index(i) / SIZE][(index(i) % SIZE + e) / 4] = {v[0], v[1], v[2], v[3]};
            }
        }
    }
};

// A row as its lane knows it, the same in every warp: the keys it sees, [first, last), and its sums so far.
struct row {
    int32_t first, last, head;
    bool there;
    float m, l;
};

__device__ int32_t least_of(int32_t v)
{
    for (int o = 16; o; o >>= 1) v = min(v, __shfl_xor_sync(0xffffffffu, v, o));
    return v;
}

// A split: it begins at key j0; blocks [b0, b1) of it have keys that somebody sees.
struct split {
    int32_t j0, b0, b1;
};

// Scores of all rows and keys into s.p.
template <int TYPE> __device__ void scores(const cu_job &a, shared &s, const source<TYPE> &from, const split &at)
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
        ahead.put(s, at.b0, at.b1);
        for (int i = 0; i < 2; i++) ((float *)s.q[d_mine + i])[mine] = q[i];
        __syncthreads();
        if (d0 + DEPTH < dim) fetch(d0 + DEPTH);
        for (int32_t d = 0; d < min((int32_t)DEPTH, dim - d0); d++) {
            float4 lo = s.q[d][part], hi = s.q[d][4 + part];
            float r[8] = {lo.x, lo.y, lo.z, lo.w, hi.x, hi.y, hi.z, hi.w};
#pragma unroll
            for (int h = 0; h < 2; h++) {
                if (h >= halves) break;
                float4 k = s.k[d][h * 32 + column];
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
            for (int i = 0; i < 8; i++) x[i] = a.softcap > 0 ? cu_capped(acc[h][i][e], a.softcap) : acc[h][i][e];
            float4 *to = s.p[(h * 32 + column) * 4 + e];
            to[part] = {x[0], x[1], x[2], x[3]}, to[4 + part] = {x[4], x[5], x[6], x[7]};
        }
    __syncthreads();
}

// Scores to weights, 0 for keys that a row does not see; its sums, and what that means for its outputs. Returns how many keys all rows see the
// end of.
__device__ int32_t weigh(const cu_job &a, shared &s, const split &at, row &r)
{
    int32_t warp = (int32_t)threadIdx.x / 32, lane = (int32_t)threadIdx.x % 32;
    int32_t begin = max(r.first - at.j0, 0), end = max(min(r.last - at.j0, (int32_t)KEYS), 0), mode = 0;
    auto p = [&](int32_t j) -> float & { return ((float *)s.p[j])[lane]; };
    float m = -INFINITY;
    for (int32_t j = at.b0 * BLOCK + warp; j < at.b1 * BLOCK; j += WARPS)
        if (j >= begin && j < end && p(j) > m) m = p(j);
    s.max[warp][lane] = m;
    __syncthreads();
    for (int32_t w = 0; w < WARPS; w++) m = s.max[w][lane] > m ? s.max[w][lane] : m;
    float sum[4] = {}; // of keys warp + 4 k modulo 16
    for (int32_t j0 = at.b0 * BLOCK + warp; j0 < at.b1 * BLOCK; j0 += BLOCK)
#pragma unroll
        for (int k = 0; k < 4; k++) {
            int32_t j = j0 + k * WARPS;
            float w = j >= begin && j < end ? krn_math_exp(p(j) - m) : 0.0f;
            p(j) = w;
            sum[k] = sum[k] + w;
        }
    s.sum[warp][lane] = (sum[0] + sum[2]) + (sum[1] + sum[3]);
    __syncthreads();
    float l = (s.sum[0][lane] + s.sum[2][lane]) + (s.sum[1][lane] + s.sum[3][lane]), f = 0.0f, g = 0.0f;
    if (begin < end && r.first >= at.j0) {
        mode = FIRST, r.m = m, r.l = l;
    } else if (begin < end) {
        float next = m > r.m ? m : r.m;
        mode = MERGE, f = krn_math_exp(r.m - next), g = krn_math_exp(m - next);
        r.m = next, r.l = fmaf(r.l, f, l * g);
    }
    if (begin < end && r.last <= at.j0 + KEYS) mode |= LAST;
    if (warp == 0) {
        s.mode[lane] = mode, s.end[lane] = end, s.f[lane] = f, s.g[lane] = g;
        if (mode & LAST) {
            cu_ending e = cu_ending_of(a, r.head, r.m, r.l);
            s.by[lane] = e.by, s.inv[lane] = e.inv;
        }
    }
    return least_of(r.there ? end : (int32_t)KEYS);
}

// Values [v0, v0 + SIZE) of all rows over the split's keys, merged into the output.
template <int TYPE, int SIZE> __device__ void values(const cu_job &a, shared &s, const source<TYPE> &from, const split &at, int32_t common, int32_t v0)
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
        ahead.put(s, a.kv, from.block(first + b), v0);
        __syncthreads();
        if (b + 1 < at.b1) ahead.fetch(a.kv, from.block(first + b + 1), v0);
        bool guarded = (b + 1) * BLOCK > common;
        if (guarded)
            for (int i = 0; i < MINE; i++) end[i] = s.end[row_of(i)];
        for (int32_t j = 0; j < BLOCK; j++) {
            int32_t key = b * BLOCK + j;
            float4 x = s.v[j][column], lo = s.p[key][part], hi = lo;
            if (MINE == 8) hi = s.p[key][4 + part];
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

// The tile's rows: the heads from g0 on of a run's tokens.
template <int TYPE, int SIZE> __device__ void run(const cu_job &a, shared &s, const cu_run &tokens, int32_t kv_head, int32_t g0)
{
    int32_t lane = (int32_t)threadIdx.x % 32, group = a.n_head / a.kv.n_kv, heads = min(a.heads, group - g0);
    int32_t t = tokens.t0 + lane / heads, item = kv_head * a.n_tok + t;
    row r = {};
    r.there = t < tokens.t1 && item >= a.i0 && item < a.i1;
    r.head = kv_head * group + g0 + lane % heads;
    if (r.there) r.first = a.first_of(a.pos[t]), r.last = a.pos[t] + 1;
    __syncthreads(); // whoever still reads what the last run left
    if (threadIdx.x < 32) {
        s.from[lane] = r.there ? t * a.q_stride + (int64_t)r.head * a.kv.head_dim : -1;
        s.to[lane] = t * a.out_stride + (int64_t)r.head * a.values;
    }
    __syncthreads();
    int32_t first = least_of(r.first < r.last ? r.first : INT32_MAX), last = -least_of(-r.last);
    source<TYPE> k = {a.kv.k, &a.kv, a.table[tokens.t0], kv_head}, v = {a.kv.v_dim ? a.kv.k : a.kv.v, &a.kv, a.table[tokens.t0], kv_head};
    for (int32_t j0 = first / KEYS * KEYS; j0 < last; j0 += KEYS) {
        split at = {j0, max(first - j0, 0) / BLOCK, DIV_UP(min(last - j0, (int32_t)KEYS), (int32_t)BLOCK)};
        scores(a, s, k, at);
        int32_t common = weigh(a, s, at, r);
        for (int32_t v0 = 0; v0 < a.values; v0 += SIZE) values<TYPE, SIZE>(a, s, v, at, common, v0);
    }
}

// Grid: (kv heads of tiles, slices of the group's heads). The last tokens, which see most, begin first.
template <int TYPE, int SIZE> __global__ void __launch_bounds__(THREADS, TYPE == KV_F32 ? 2 : 3) tile_kernel(cu_job a)
{
    __shared__ shared s;
    int32_t x = (int32_t)(gridDim.x - 1 - blockIdx.x), kv_head = x % a.kv.n_kv, first = x / a.kv.n_kv * a.tile, end = min(first + a.tile, a.n_tok);
    for (int32_t t = first; t < end;) {
        cu_run tokens = cu_run_of(a, t);
        if (tokens.is_tiles(a)) run<TYPE, SIZE>(a, s, tokens, kv_head, (int32_t)blockIdx.y * a.heads);
        t = tokens.t1;
    }
}

template <int TYPE> void launch(const cu_job &j)
{
    dim3 grid((unsigned)(DIV_UP(j.n_tok, j.tile) * j.kv.n_kv), (unsigned)DIV_UP(j.n_head / j.kv.n_kv, j.heads));
    if (j.values > WIDE / 2)
        KRN_LAUNCH((tile_kernel<TYPE, WIDE>), grid, dim3(THREADS), 0, j);
    else
        KRN_LAUNCH((tile_kernel<TYPE, WIDE / 2>), grid, dim3(THREADS), 0, j);
}

} // namespace

extern "C" void krn_cuda_attention_tiles(const struct krn_attention *a)
{
    switch (a->kv->type) {
    case KV_F16: launch<KV_F16>(cu_job_of(a)); break;
    case KV_BF16: launch<KV_BF16>(cu_job_of(a)); break;
    case KV_Q8_0: launch<KV_Q8_0>(cu_job_of(a)); break;
    case KV_FP8: launch<KV_FP8>(cu_job_of(a)); break;
    default: launch<KV_F32>(cu_job_of(a));
    }
    krn_cuda_launched("attention_tiles");
}
