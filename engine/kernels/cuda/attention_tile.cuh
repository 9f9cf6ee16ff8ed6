// attention_tile.cuh: a tile of prompts' attention: up to 32 queries, the heads of a group for some tokens, that share every key and value. What
// attention_tile.cu, exact, and attention_round.cu, on tensor cores, have in common: the way through splits, weights, and what is merged.
//
// In a split of 256 keys come scores, weights (a lane of a warp is a row, the warps share the keys) and values; what it gave is merged into the
// output where it lies: after the last split that is the result. A row's keys begin at its window and end at its token; others have weight 0.
#ifndef ENGINE_KERNELS_CUDA_ATTENTION_TILE_CUH
#define ENGINE_KERNELS_CUDA_ATTENTION_TILE_CUH

#include "engine/kernels/cuda/attention.cuh"

extern "C" {
#include "engine/kernels/cuda/cuda.h"
}

namespace {

enum { ROWS = CU_TILE_ROWS, THREADS = 128, WARPS = THREADS / 32, KEYS = KRN_ATTN_SPLIT, BLOCK = KRN_KV_BLOCK, WIDE = 128 };
static_assert(ROWS == 32, "a lane of a warp per row");

// What became of a row in a split.
enum { FIRST = 1, MERGE = 2, LAST = 4 };

// What the threads share whatever computes; STRIDE: floats from one key's row of p to the next.
template <int STRIDE> struct tile {
    alignas(16) float p[KEYS][STRIDE]; // scores, then weights
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

// A split: it begins at key j0; blocks [b0, b1) of it have keys that somebody sees, and the last of them is before key n.
struct split {
    int32_t j0, b0, b1, n;
};

// Scores, capped if they are to be, to weights, 0 for keys that a row does not see; its sums, and what that means for its outputs. Returns how many keys all rows see the
// end of.
template <int STRIDE> __device__ int32_t weigh(const cu_job &a, tile<STRIDE> &s, const split &at, row &r)
{
    int32_t warp = (int32_t)threadIdx.x / 32, lane = (int32_t)threadIdx.x % 32;
    int32_t begin = max(r.first - at.j0, 0), end = max(min(r.last - at.j0, (int32_t)KEYS), 0), mode = 0;
    auto p = [&](int32_t j) -> float & { return s.p[j][lane]; };
    float m = -INFINITY;
    for (int32_t j = max(at.b0 * BLOCK, begin / WARPS * WARPS) + warp; j < end; j += WARPS) {
        if (j < begin) continue;
        float x = p(j);
        if (a.softcap > 0) p(j) = x = cu_capped(x, a.softcap);
        if (x > m) m = x;
    }
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

// The tile's rows: the heads from g0 on of a run's tokens. OPS: type of the cache; size, the values that are computed at once; blocks, of a
// multiprocessor; what else its
// threads share; scores: of all rows and keys of a split into s.p, and a barrier; values: [v0, v0 + size) of all rows over its keys, merged into
// the output, `common` being how many keys every row sees the end of.
template <class OPS> __device__ void run(const cu_job &a, typename OPS::shared &s, typename OPS::work &w, const cu_run &tokens, int32_t kv_head, int32_t g0)
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
    source<OPS::type> k = {a.kv.k, &a.kv, a.table[tokens.t0], kv_head}, v = {a.kv.v_dim ? a.kv.k : a.kv.v, &a.kv, a.table[tokens.t0], kv_head};
    for (int32_t j0 = first / KEYS * KEYS; j0 < last; j0 += KEYS) {
        int32_t n = min(last - j0, (int32_t)KEYS);
        split at = {j0, max(first - j0, 0) / BLOCK, DIV_UP(n, (int32_t)BLOCK), n};
        OPS::scores(a, s, w, k, at);
        int32_t common = weigh(a, s, at, r);
        for (int32_t v0 = 0; v0 < a.values; v0 += OPS::size) OPS::values(a, s, w, v, at, common, v0);
    }
}

// Grid: (kv heads of tiles, slices of the group's heads). The last tokens, which see most, begin first.
template <class OPS> __global__ void __launch_bounds__(THREADS, OPS::blocks) tile_kernel(cu_job a)
{
    cu_begin();
    __shared__ typename OPS::shared s;
    __shared__ typename OPS::work w;
    int32_t x = (int32_t)(gridDim.x - 1 - blockIdx.x), kv_head = x % a.kv.n_kv, first = x / a.kv.n_kv * a.tile, end = min(first + a.tile, a.n_tok);
    for (int32_t t = first; t < end;) {
        cu_run tokens = cu_run_of(a, t);
        if (tokens.is_tiles(a)) run<OPS>(a, s, w, tokens, kv_head, (int32_t)blockIdx.y * a.heads);
        t = tokens.t1;
    }
}

// ops<type, size>: OPS for both sizes.
template <template <int, int> class ops, int TYPE> void launch_tiles(const struct krn_attention *a)
{
    cu_job j = cu_job_of(a);
    dim3 grid((unsigned)(DIV_UP(j.n_tok, j.tile) * j.kv.n_kv), (unsigned)DIV_UP(j.n_head / j.kv.n_kv, j.heads));
    if (j.values > WIDE / 2)
        KRN_LAUNCH((tile_kernel<ops<TYPE, WIDE>>), grid, dim3(THREADS), 0, j);
    else
        KRN_LAUNCH((tile_kernel<ops<TYPE, WIDE / 2>>), grid, dim3(THREADS), 0, j);
}

} // namespace

#endif
