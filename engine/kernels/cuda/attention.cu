// attention.cu: causal attention over paged keys and values.
//
// A block takes one item (kv head, token), or one split of it, for up to HEADS query heads of the
// group, which share every load of K and V. In a split of 256 keys a thread first is a key (its
// scores: chains over head_dim), then a lane of the sums, then a value of the output, or PER of them
// (chains over the keys). Splits lie at absolute positions, so neither batch nor chunking moves one.
//
// Keys and values come to shared memory as they are stored, sixteen bytes at a time, some stages ahead of the chains that read them: a warp brings
// the keys of its own lanes and waits for nobody else, values are brought by all. On its way are 12 KiB a block, and two blocks or more are on a
// multiprocessor; an H100 has to have some 19 KiB of each on their way (3.35 TB/s by 0.75 us, by 132).
// Values of latent heads are read from the keys, where those of a block lie side by side.
// In calls of many tokens those of a prompt are attention_tile.cu's: items of them end at once.
#include "engine/kernels/cuda/attention.cuh"
#include "engine/kernels/cuda/bring.cuh"
#include "engine/kernels/cuda/codes.cuh"

extern "C" {
#include "engine/kernels/cuda/cuda.h"
}

namespace {

enum { THREADS = KRN_CUDA_THREADS, LANES = KRN_KV_BLOCK, BLOCK = KRN_KV_BLOCK };
// Of keys, when a thread has PER values of the output.
template <int PER> struct most { enum { DIM = PER == 1 ? (int)THREADS : (int)KRN_CUDA_KEYS }; };
static_assert(2 * (int)THREADS == (int)KRN_CUDA_VALUES, "two values a thread at most");
static_assert((int)THREADS == (int)KRN_ATTN_SPLIT, "a thread per key of a split");

// Stages on their way. Of keys: RUN bytes of both blocks of a warp's keys, the second one's in other banks. Of values: a piece a thread.
template <int PER> struct ahead {
    enum { STAGES = PER == 1 ? 4 : 3, RUN = 16 * BLOCK, HALF = RUN + 64, OF_WARP = STAGES * 2 * HALF, OF_VALUES = 16 * (int)THREADS };
    static constexpr bool values = PER == 1; // more than THREADS values are read where they are: they are keys, mostly
};

// What the threads of a block share about a split.
template <int TYPE, int HEADS, int PER> struct shared {
    alignas(16) float qs[HEADS][most<PER>::DIM]; // queries times scale; zeros past the group
    float p[HEADS][KRN_ATTN_SPLIT];              // scores, then weights
    alignas(16) uint8_t stages[THREADS / 32 * ahead<PER>::OF_WARP];
    alignas(16) uint16_t scales[TYPE == KV_Q8_0 && ahead<PER>::values ? KRN_ATTN_SPLIT * (int)THREADS / KV_UNIT : 8]; // of values, [key][unit]
    float reduce[HEADS][THREADS / 32]; // of the maxima, a warp each
    float lane[HEADS][LANES];
    float m[HEADS];
    float big_m[HEADS], big_l[HEADS], f[HEADS], g[HEADS]; // so far; what the outputs so far, and this split's, are multiplied by
};

// Keys [a, b) of the split at j0, those that the token sees; thread i is key j0 + i.
struct keys {
    int32_t j0, a, b;
};

template <int TYPE> constexpr int size_of = TYPE == KV_F32 ? 4 : TYPE == KV_Q8_0 || TYPE == KV_FP8 ? 1 : 2;

// An element as it is before a scale.
template <int TYPE> __device__ float widened(const uint8_t *at)
{
    if (TYPE == KV_F32) return *(const float *)at;
    if (TYPE == KV_F16) return cu_f16(*(const uint16_t *)at);
    if (TYPE == KV_BF16) return cu_bf16(*(const uint16_t *)at);
    return TYPE == KV_FP8 ? cu_e4m3(*at) : (float)*(const int8_t *)at;
}

// acc[h] += the chain over head_dim of this thread's key, which is there. A stage: RUN bytes of a block, DEPTH dimensions of its positions.
template <int TYPE, int HEADS, int PER>
__device__ void chains_of_key(const cu_job &a, shared<TYPE, HEADS, PER> &s, const int32_t *table, int32_t kv_head, const keys &in, float acc[HEADS])
{
    typedef ahead<PER> ring;
    constexpr int SIZE = size_of<TYPE>, DEPTH = 16 / SIZE;
    int32_t dim = a.kv.head_dim, j = in.j0 + (int32_t)threadIdx.x, slot = j % BLOCK, n = DIV_UP(dim, DEPTH);
    bool there = j >= in.a && j < in.b, any = j - slot < in.b && j - slot + BLOCK > in.a; // any: of the block
    const uint8_t *block = any ? cu_kv_block<TYPE>(a.kv.k, a.kv, table[j / BLOCK], kv_head) : nullptr, *from = block + cu_kv_codes<TYPE>(dim) + slot * 16;
    uint8_t *to = s.stages + threadIdx.x / 32 * ring::OF_WARP + threadIdx.x % 32 / BLOCK * ring::HALF;
    auto fetch = [&](int32_t i) {
        if (any && i * ring::RUN + slot * 16 < dim * BLOCK * SIZE) cu_bring(to + i % ring::STAGES * 2 * ring::HALF + slot * 16, from + i * ring::RUN);
        cu_bring_group();
    };
    uint16_t next = 0; // the scale of the unit that comes
    float scale = 1.0f;
    if (TYPE == KV_Q8_0 && there) next = ((const uint16_t *)block)[slot];
    for (int32_t i = 0; i < ring::STAGES - 1; i++) fetch(i);
    for (int32_t i = 0; i < n; i++) {
        cu_wait_for<ring::STAGES - 2>();
        __syncwarp(); // the warp's pieces are there, and what they were brought over has been read
        fetch(i + ring::STAGES - 1);
        if (!there) continue;
        int32_t d0 = i * DEPTH;
        if (TYPE == KV_Q8_0 && d0 % KV_UNIT == 0) {
            scale = cu_f16(next);
            if (d0 + KV_UNIT < dim) next = ((const uint16_t *)block)[(d0 / KV_UNIT + 1) * BLOCK + slot];
        }
        const uint8_t *at = to + i % ring::STAGES * 2 * ring::HALF + slot * SIZE;
        auto key = [&](int32_t d) {
            float k = widened<TYPE>(at + d * BLOCK * SIZE);
            return TYPE == KV_Q8_0 ? k * scale : k;
        };
        if (d0 + DEPTH <= dim) {
#pragma unroll
            for (int32_t d = 0; d < DEPTH; d += 4) {
                float k[4] = {key(d), key(d + 1), key(d + 2), key(d + 3)};
#pragma unroll
                for (int h = 0; h < HEADS; h++) {
                    float4 q = *(const float4 *)&s.qs[h][d0 + d];
                    acc[h] = fmaf(q.w, k[3], fmaf(q.z, k[2], fmaf(q.y, k[1], fmaf(q.x, k[0], acc[h]))));
                }
            }
        } else {
#pragma unroll 1
            for (int32_t d = 0; d < dim - d0; d++) {
                float k = key(d);
#pragma unroll
                for (int h = 0; h < HEADS; h++) acc[h] = fmaf(s.qs[h][d0 + d], k, acc[h]);
            }
        }
    }
}

// Their scores into s.p, the maxima into s.m.
template <int TYPE, int HEADS, int PER>
__device__ void scores(const cu_job &a, shared<TYPE, HEADS, PER> &s, const int32_t *table, int32_t kv_head, const keys &in)
{
    int32_t j = in.j0 + (int32_t)threadIdx.x;
    bool there = j >= in.a && j < in.b;
    float acc[HEADS];
#pragma unroll
    for (int h = 0; h < HEADS; h++) acc[h] = 0.0f;
    if (j / 32 * 32 < in.b && j / 32 * 32 + 32 > in.a) chains_of_key(a, s, table, kv_head, in, acc); // the same for a warp
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
        float score = a.softcap > 0 ? cu_capped(acc[h], a.softcap) : acc[h];
        if (there) s.p[h][threadIdx.x] = score;
        float m = there ? score : -INFINITY;
        for (int o = 16; o; o >>= 1) {
            float other = __shfl_xor_sync(0xffffffffu, m, o);
            m = other > m ? other : m;
        }
        if (threadIdx.x % 32 == 0) s.reduce[h][threadIdx.x / 32] = m;
    }
    __syncthreads();
    if (threadIdx.x < HEADS) {
        float m = s.reduce[threadIdx.x][0];
        for (int i = 1; i < THREADS / 32; i++) m = s.reduce[threadIdx.x][i] > m ? s.reduce[threadIdx.x][i] : m;
        s.m[threadIdx.x] = m;
    }
    __syncthreads();
}

// Scores to weights; their sums, and what they mean for those of the splits before. first_split: there are none.
template <int TYPE, int HEADS, int PER> __device__ void weigh(shared<TYPE, HEADS, PER> &s, const keys &in, bool first_split)
{
    int32_t j = (int32_t)threadIdx.x, first = in.a - in.j0, n = in.b - in.j0;
    if (j >= first && j < n)
        for (int h = 0; h < HEADS; h++) s.p[h][j] = krn_math_exp(s.p[h][j] - s.m[h]);
    __syncthreads();
    for (int32_t i = j; i < HEADS * LANES; i += THREADS) {
        float l = 0.0f;
        for (int32_t k = i % LANES; k < n; k += LANES)
            if (k >= first) l = l + s.p[i / LANES][k];
        s.lane[i / LANES][i % LANES] = l;
    }
    for (int32_t half = LANES / 2; half; half /= 2) {
        __syncthreads();
        for (int32_t i = j; i < HEADS * half; i += THREADS) {
            float *lane = s.lane[i / half];
            lane[i % half] = lane[i % half] + lane[i % half + half];
        }
    }
    if (j < HEADS) { // who added the last two
        float m = s.m[j], l = s.lane[j][0], next = first_split || m > s.big_m[j] ? m : s.big_m[j];
        if (!first_split) {
            s.f[j] = krn_math_exp(s.big_m[j] - next), s.g[j] = krn_math_exp(m - next);
            l = fmaf(s.big_l[j], s.f[j], l * s.g[j]);
        }
        s.big_m[j] = next, s.big_l[j] = l;
    }
    __syncthreads();
}

// A thread's outputs: values d, d + THREADS, ... of heads part, part + parts, ...
template <int HEADS> struct mine {
    int32_t d, part, parts;
    bool any;
};
template <int HEADS> __device__ mine<HEADS> share(int32_t dim)
{
    mine<HEADS> x;
    x.parts = max(THREADS / dim, 1);
    x.d = (int32_t)threadIdx.x % min(dim, (int32_t)THREADS), x.part = (int32_t)threadIdx.x / min(dim, (int32_t)THREADS);
    x.any = x.part < x.parts;
    return x;
}

// How a split's values come: `rows` keys a stage, from key j0 on; this thread brings 16 bytes of key j0 + row, `at` bytes behind its begin.
struct stream {
    int32_t j0, rows, row, at, bytes; // bytes: of a key
    bool whole;                       // else values are read where they are
};
template <int TYPE, int PER> __device__ stream stream_of(const cu_job &a, const keys &in)
{
    stream v = {in.a / BLOCK * BLOCK, 0, 0, 0, a.values * size_of<TYPE>, false};
    if (!ahead<PER>::values || a.kv.v_dim || v.bytes % 16) return v;
    int32_t pieces = v.bytes / 16;
    v.whole = true, v.rows = THREADS / pieces / 4 * 4, v.row = (int32_t)threadIdx.x / pieces, v.at = (int32_t)threadIdx.x % pieces * 16;
    return v;
}

template <int TYPE, int HEADS, int PER>
__device__ void bring_values(const cu_job &a, shared<TYPE, HEADS, PER> &s, const stream &v, const int32_t *table, int32_t kv_head, const keys &in, int32_t i)
{
    int32_t j = v.j0 + i * v.rows + v.row;
    if (v.row < v.rows && j >= in.a && j < in.b) {
        const uint8_t *block = cu_kv_block<TYPE>(a.kv.v, a.kv, table[j / BLOCK], kv_head) + cu_kv_codes<TYPE>(a.values);
        cu_bring(s.stages + i % ahead<PER>::STAGES * ahead<PER>::OF_VALUES + threadIdx.x * 16, block + j % BLOCK * v.bytes + v.at);
    }
    cu_bring_group();
}

// The first stages, and all scales; whoever read the keys' stages has passed a barrier.
template <int TYPE, int HEADS, int PER>
__device__ void begin_values(const cu_job &a, shared<TYPE, HEADS, PER> &s, const stream &v, const int32_t *table, int32_t kv_head, const keys &in)
{
    if (!v.whole) return;
    if (TYPE == KV_Q8_0) {
        int32_t pieces = DIV_UP(a.values, KV_UNIT) * 2, b = (int32_t)threadIdx.x / pieces, j = in.j0 + b * BLOCK; // a block's scales: 32 bytes a unit
        if (j < in.b && j + BLOCK > in.a && b < KRN_ATTN_SPLIT / BLOCK)
            cu_bring((uint8_t *)s.scales + threadIdx.x * 16, cu_kv_block<TYPE>(a.kv.v, a.kv, table[j / BLOCK], kv_head) + threadIdx.x % pieces * 16);
    }
    for (int32_t i = 0; i < ahead<PER>::STAGES - 1; i++) bring_values(a, s, v, table, kv_head, in, i);
}

// o[k * PER + e] = sum over the split's keys of p V for this thread's e-th value of its k-th head.
template <int TYPE, int HEADS, int PER>
__device__ void values_there(const cu_job &a, const shared<TYPE, HEADS, PER> &s, const mine<HEADS> &x, const int32_t *table, int32_t kv_head,
                             const keys &in, float o[HEADS * PER])
{
    int32_t dim = a.kv.head_dim;
    if (!x.any) return;
    for (int32_t j = in.a; j < in.b; j++) {
        const uint8_t *block = cu_kv_block<TYPE>(a.kv.v_dim ? a.kv.k : a.kv.v, a.kv, table[j / BLOCK], kv_head);
#pragma unroll
        for (int e = 0; e < PER; e++) {
            int32_t d = x.d + e * THREADS;
            if (PER > 1 && d >= a.values) continue;
            float v = a.kv.v_dim ? cu_kv_key<TYPE>(block, dim, d, j % BLOCK) : cu_kv_value<TYPE>(block, dim, d, j % BLOCK);
#pragma unroll
            for (int k = 0; k < HEADS; k++) {
                int32_t h = x.part + k * x.parts;
                if (h < HEADS) o[k * PER + e] = fmaf(s.p[h][j - in.j0], v, o[k * PER + e]);
            }
        }
    }
}

template <int TYPE, int HEADS, int PER>
__device__ void values(const cu_job &a, shared<TYPE, HEADS, PER> &s, const stream &v, const mine<HEADS> &x, const int32_t *table, int32_t kv_head,
                       const keys &in, float o[HEADS * PER])
{
#pragma unroll
    for (int k = 0; k < HEADS * PER; k++) o[k] = 0.0f;
    if (!v.whole) {
        values_there(a, s, x, table, kv_head, in, o);
        return;
    }
    if constexpr (ahead<PER>::values) {
        constexpr int SIZE = size_of<TYPE>, STAGES = ahead<PER>::STAGES;
        int32_t units = DIV_UP(a.values, KV_UNIT), unit = x.d / KV_UNIT;
        for (int32_t i = 0, j0 = v.j0; j0 < in.b; i++, j0 += v.rows) {
            cu_wait_for<STAGES - 2>();
            __syncthreads(); // all pieces are there, and what they were brought over has been read
            bring_values(a, s, v, table, kv_head, in, i + STAGES - 1);
            if (!x.any) continue;
            const uint8_t *at = s.stages + i % STAGES * ahead<PER>::OF_VALUES + x.d * SIZE;
            auto value = [&](int32_t j) {
                float f = widened<TYPE>(at + (j - j0) * v.bytes);
                return TYPE == KV_Q8_0 ? f * cu_f16(s.scales[(j - in.j0) * units + unit]) : f;
            };
#pragma unroll 1
            for (int32_t j = j0; j < min(j0 + v.rows, in.b); j += 4) {
                if (j >= in.a && j + 4 <= in.b) {
                    float f[4] = {value(j), value(j + 1), value(j + 2), value(j + 3)};
#pragma unroll
                    for (int k = 0; k < HEADS; k++) {
                        int32_t h = x.part + k * x.parts;
                        if (h >= HEADS) continue;
                        float4 p = *(const float4 *)&s.p[h][j - in.j0];
                        o[k] = fmaf(p.w, f[3], fmaf(p.z, f[2], fmaf(p.y, f[1], fmaf(p.x, f[0], o[k]))));
                    }
                } else {
#pragma unroll 1
                    for (int32_t e = max(j, in.a); e < min(j + 4, in.b); e++) {
                        float f = value(e);
#pragma unroll
                        for (int k = 0; k < HEADS; k++) {
                            int32_t h = x.part + k * x.parts;
                            if (h < HEADS) o[k] = fmaf(s.p[h][e - in.j0], f, o[k]);
                        }
                    }
                }
            }
        }
    }
}

// Blocks of a multiprocessor, for which registers are kept.
template <int HEADS, int PER> constexpr int blocks = HEADS == 8 || PER == 2 ? 2 : HEADS == 4 ? 3 : 4;

// Grid: (items or splits, slices of HEADS heads of the group).
template <int TYPE, int HEADS, int PER> __global__ void __launch_bounds__(THREADS, blocks<HEADS, PER>) attention_kernel(cu_job a)
{
    cu_begin();
    __shared__ shared<TYPE, HEADS, PER> s;
    int32_t item = a.i0 + (int32_t)blockIdx.x, per = a.n_split ? a.n_split : 1;
    int32_t kv_head = item / per / a.n_tok, t = item / per % a.n_tok, pos = a.pos[t];
    int32_t group = a.n_head / a.kv.n_kv, dim = a.kv.head_dim, g0 = (int32_t)blockIdx.y * HEADS;
    int32_t heads = min(HEADS, group - g0), lo = a.first_of(pos);
    int32_t first = a.n_split ? item % per * KRN_ATTN_SPLIT : lo / KRN_ATTN_SPLIT * KRN_ATTN_SPLIT;
    int64_t head0 = kv_head * group + g0;
    const float *q = a.q + t * a.q_stride + head0 * dim;
    float *to = a.out + t * a.out_stride + head0 * a.values;
    if (first > pos || first + KRN_ATTN_SPLIT <= lo) return; // a split without keys, or padding
    if (a.tile && cu_run_of(a, t).is_tiles(a)) return;

    for (int32_t i = (int32_t)threadIdx.x; i < HEADS * dim; i += THREADS)
        s.qs[i / dim][i % dim] = i / dim < heads ? q[i] * a.scale : 0.0f;
    __syncthreads();

    mine<HEADS> x = share<HEADS>(a.values);
    float out[HEADS * PER] = {}, o[HEADS * PER];
    int32_t last = a.n_split ? first : pos;
    for (int32_t j0 = first; j0 <= last; j0 += KRN_ATTN_SPLIT) {
        keys in = {j0, max(j0, lo), min(pos + 1, j0 + KRN_ATTN_SPLIT)};
        stream v = stream_of<TYPE, PER>(a, in);
        scores(a, s, a.table[t], kv_head, in);
        begin_values(a, s, v, a.table[t], kv_head, in);
        weigh(s, in, j0 == first);
        values(a, s, v, x, a.table[t], kv_head, in, o);
#pragma unroll
        for (int k = 0; k < HEADS; k++) {
            int32_t h = x.part + k * x.parts;
            if (!x.any || h >= heads) continue;
#pragma unroll
            for (int e = 0; e < PER; e++) out[k * PER + e] = j0 == first ? o[k * PER + e] : fmaf(out[k * PER + e], s.f[h], o[k * PER + e] * s.g[h]);
        }
        __syncthreads(); // before the next split's scores overwrite p
    }
    if (!a.n_split && (int32_t)threadIdx.x < heads) {
        cu_ending e = cu_ending_of(a, (int32_t)head0 + (int32_t)threadIdx.x, s.big_m[threadIdx.x], s.big_l[threadIdx.x]);
        s.f[threadIdx.x] = e.by, s.g[threadIdx.x] = e.inv;
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < HEADS; k++) {
        int32_t h = x.part + k * x.parts;
        if (!x.any || h >= heads) continue;
        float *part = a.n_split ? a.partial + ((int64_t)item * group + g0 + h) * (a.values + 2) : nullptr;
#pragma unroll
        for (int e = 0; e < PER; e++) {
            int32_t d = x.d + e * THREADS;
            if (PER > 1 && d >= a.values) continue;
            if (part)
                part[d] = out[k * PER + e];
            else
                to[h * a.values + d] = out[k * PER + e] * s.f[h] * s.g[h];
        }
        if (part && x.d == 0) part[a.values] = s.big_m[h], part[a.values + 1] = s.big_l[h];
    }
}

// Grid: (items, heads of the group, values by THREADS); a thread is a value, and a warp one of the units of codes, where they are wanted.
__global__ void __launch_bounds__(THREADS) merge_kernel(cu_job a, uint8_t *q)
{
    cu_begin();
    int32_t item = a.i0 + (int32_t)blockIdx.x, kv_head = item / a.n_tok, t = item % a.n_tok;
    int32_t group = a.n_head / a.kv.n_kv, dim = a.values, g = (int32_t)blockIdx.y, d = (int32_t)(blockIdx.z * blockDim.x + threadIdx.x);
    if (d >= dim) return;
    int32_t first = a.first_of(a.pos[t]) / KRN_ATTN_SPLIT;
    int64_t next = (int64_t)group * (dim + 2);
    const float *part = a.partial + ((int64_t)item * a.n_split + first) * next + g * (dim + 2);
    float m = part[dim], l = part[dim + 1], out = part[d];
    for (int32_t s = first + 1; s <= a.pos[t] / KRN_ATTN_SPLIT; s++) {
        part += next;
        float larger = part[dim] > m ? part[dim] : m;
        float f = krn_math_exp(m - larger), b = krn_math_exp(part[dim] - larger);
        m = larger;
        l = fmaf(l, f, part[dim + 1] * b);
        out = fmaf(out, f, part[d] * b);
    }
    int32_t head = kv_head * group + g;
    float y = cu_finished(a, head, out, m, l);
    a.out[t * a.out_stride + (int64_t)head * dim + d] = y;
    if (q) cu_put_code(q, a.n_tok, a.n_head * dim, t, (head * dim + d) / KRN_UNIT, d % KRN_UNIT, y);
}

template <int TYPE, int HEADS> void launch(const struct krn_attention *a)
{
    int32_t group = a->n_head / a->kv->n_kv;
    dim3 grid((unsigned)(a->i1 - a->i0), (unsigned)DIV_UP(group, HEADS));
    if (a->kv->head_dim <= THREADS)
        KRN_LAUNCH((attention_kernel<TYPE, HEADS, 1>), grid, dim3(THREADS), 0, cu_job_of(a));
    else
        KRN_LAUNCH((attention_kernel<TYPE, HEADS, 2>), grid, dim3(THREADS), 0, cu_job_of(a));
}

template <int TYPE> void launch_heads(const struct krn_attention *a)
{
    int32_t group = a->n_head / a->kv->n_kv;
    if (group == 1)
        launch<TYPE, 1>(a);
    else if (group <= 4)
        launch<TYPE, 4>(a);
    else
        launch<TYPE, 8>(a);
}

// Tokens that are no tile's.
void launch_items(const struct krn_attention *a)
{
    switch (a->kv->type) {
    case KV_F16: launch_heads<KV_F16>(a); break;
    case KV_BF16: launch_heads<KV_BF16>(a); break;
    case KV_Q8_0: launch_heads<KV_Q8_0>(a); break;
    case KV_FP8: launch_heads<KV_FP8>(a); break;
    default: launch_heads<KV_F32>(a);
    }
    krn_cuda_launched("attention");
}

} // namespace

extern "C" void krn_cuda_attention(const struct krn_attention *a)
{
    if (a->i0 >= a->i1) return;
    if (cu_job_of(a).tile) krn_cuda_attention_tiles(a);
    launch_items(a);
}

extern "C" void krn_cuda_rounded_attention(const struct krn_attention *a)
{
    if (a->i0 >= a->i1) return;
    if (cu_job_of(a).tile) krn_cuda_attention_rounded_tiles(a);
    launch_items(a);
}

extern "C" void krn_cuda_merge(const struct krn_attention *a, uint8_t *q)
{
    if (a->i0 >= a->i1) return;
    int32_t values = krn_kv_values(a->kv), threads = MIN(ROUND_UP(values, 32), (int32_t)THREADS);
    dim3 grid((unsigned)(a->i1 - a->i0), (unsigned)(a->n_head / a->kv->n_kv), (unsigned)DIV_UP(values, threads));
    KRN_LAUNCH(merge_kernel, grid, dim3((unsigned)threads), 0, cu_job_of(a), q);
    krn_cuda_launched("attention_merge");
}

extern "C" void krn_cuda_attention_merge(const struct krn_attention *a) { krn_cuda_merge(a, nullptr); }
