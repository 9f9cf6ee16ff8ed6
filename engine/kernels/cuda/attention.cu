// attention.cu: causal attention over paged keys and values.
//
// A block takes one item (kv head, token), or one split of it, for up to HEADS query heads of the
// group, which share every load of K and V. In a split of 256 keys a thread first is a key (its
// scores: chains over head_dim), then a lane of the sums, then a value of the output, or PER of them
// (chains over the keys). Splits lie at absolute positions, so neither batch nor chunking moves one.
// Values of latent heads are read from the keys, where those of a block lie side by side.
// In calls of many tokens those of a prompt are attention_tile.cu's: items of them end at once.
#include "engine/kernels/cuda/attention.cuh"
#include "engine/kernels/cuda/codes.cuh"

extern "C" {
#include "engine/kernels/cuda/cuda.h"
}

namespace {

enum { THREADS = KRN_CUDA_THREADS, LANES = KRN_KV_BLOCK };
// Of keys, when a thread has PER values of the output.
template <int PER> struct most { enum { DIM = PER == 1 ? (int)THREADS : (int)KRN_CUDA_KEYS }; };
static_assert(2 * (int)THREADS == (int)KRN_CUDA_VALUES, "two values a thread at most");
static_assert((int)THREADS == (int)KRN_ATTN_SPLIT, "a thread per key of a split");

// What the threads of a block share about a split.
template <int HEADS, int PER> struct shared {
    float qs[HEADS][most<PER>::DIM];   // queries times scale; zeros past the group
    float p[HEADS][KRN_ATTN_SPLIT];    // scores, then weights
    float reduce[HEADS][THREADS / 32]; // of the maxima, a warp each
    float lane[HEADS][LANES];
    float m[HEADS];
};

// Keys [a, b) of the split at j0, those that the token sees; thread i is key j0 + i.
struct keys {
    int32_t j0, a, b;
};

// Their scores into s.p, the maxima into s.m.
template <int TYPE, int HEADS, int PER>
__device__ void scores(const cu_job &a, shared<HEADS, PER> &s, const int32_t *table, int32_t kv_head, const keys &in)
{
    int32_t dim = a.kv.head_dim, j = in.j0 + (int32_t)threadIdx.x;
    bool there = j >= in.a && j < in.b;
    float acc[HEADS];
    for (int h = 0; h < HEADS; h++) acc[h] = 0.0f;
    if (there) {
        const uint8_t *block = cu_kv_block<TYPE>(a.kv.k, a.kv, table[j / KRN_KV_BLOCK], kv_head);
        for (int32_t d = 0; d < dim; d++) {
            float k = cu_kv_key<TYPE>(block, dim, d, j % KRN_KV_BLOCK);
#pragma unroll
            for (int h = 0; h < HEADS; h++) acc[h] = fmaf(s.qs[h][d], k, acc[h]);
        }
    }
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

// Scores to weights; their sums into s.lane[h][0].
template <int HEADS, int PER> __device__ void weigh(shared<HEADS, PER> &s, const keys &in)
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

// o[k * PER + e] = sum over the split's keys of p V for this thread's e-th value of its k-th head.
template <int TYPE, int HEADS, int PER>
__device__ void values(const cu_job &a, const shared<HEADS, PER> &s, const mine<HEADS> &x, const int32_t *table, int32_t kv_head,
                       const keys &in, float o[HEADS * PER])
{
    int32_t dim = a.kv.head_dim;
    for (int k = 0; k < HEADS * PER; k++) o[k] = 0.0f;
    if (!x.any) return;
    for (int32_t j = in.a; j < in.b; j++) {
        const uint8_t *block = cu_kv_block<TYPE>(a.kv.v_dim ? a.kv.k : a.kv.v, a.kv, table[j / KRN_KV_BLOCK], kv_head);
#pragma unroll
        for (int e = 0; e < PER; e++) {
            int32_t d = x.d + e * THREADS;
            if (PER > 1 && d >= a.values) continue;
            float v = a.kv.v_dim ? cu_kv_key<TYPE>(block, dim, d, j % KRN_KV_BLOCK) : cu_kv_value<TYPE>(block, dim, d, j % KRN_KV_BLOCK);
#pragma unroll
            for (int k = 0; k < HEADS; k++) {
                int32_t h = x.part + k * x.parts;
                if (h < HEADS) o[k * PER + e] = fmaf(s.p[h][j - in.j0], v, o[k * PER + e]);
            }
        }
    }
}

// Grid: (items or splits, slices of HEADS heads of the group).
template <int TYPE, int HEADS, int PER> __global__ void __launch_bounds__(THREADS) attention_kernel(cu_job a)
{
    cu_begin();
    __shared__ shared<HEADS, PER> s;
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
    float big_m[HEADS] = {}, big_l[HEADS] = {}, out[HEADS * PER] = {}, o[HEADS * PER];
    int32_t last = a.n_split ? first : pos;
    for (int32_t j0 = first; j0 <= last; j0 += KRN_ATTN_SPLIT) {
        keys in = {j0, max(j0, lo), min(pos + 1, j0 + KRN_ATTN_SPLIT)};
        scores<TYPE, HEADS, PER>(a, s, a.table[t], kv_head, in);
        weigh<HEADS, PER>(s, in);
        values<TYPE, HEADS, PER>(a, s, x, a.table[t], kv_head, in, o);
        for (int k = 0; k < HEADS && x.any; k++) {
            int32_t h = x.part + k * x.parts;
            if (h >= heads) continue;
            float m = s.m[h], l = s.lane[h][0];
            if (j0 == first) {
                big_m[k] = m, big_l[k] = l;
                for (int e = 0; e < PER; e++) out[k * PER + e] = o[k * PER + e];
                continue;
            }
            float next = m > big_m[k] ? m : big_m[k];
            float f = krn_math_exp(big_m[k] - next), g = krn_math_exp(m - next);
            big_m[k] = next;
            big_l[k] = fmaf(big_l[k], f, l * g);
            for (int e = 0; e < PER; e++) out[k * PER + e] = fmaf(out[k * PER + e], f, o[k * PER + e] * g);
        }
        __syncthreads(); // before the next split's scores overwrite p
    }
    for (int k = 0; k < HEADS && x.any; k++) {
        int32_t h = x.part + k * x.parts;
        if (h >= heads) continue;
        float *part = a.n_split ? a.partial + ((int64_t)item * group + g0 + h) * (a.values + 2) : nullptr;
        for (int e = 0; e < PER; e++) {
            int32_t d = x.d + e * THREADS;
            if (PER > 1 && d >= a.values) continue;
            if (part)
                part[d] = out[k * PER + e];
            else
                to[h * a.values + d] = cu_finished(a, (int32_t)head0 + h, out[k * PER + e], big_m[k], big_l[k]);
        }
        if (part && x.d == 0) part[a.values] = big_m[k], part[a.values + 1] = big_l[k];
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
