// attention.cuh: what the kernels of attention share: their argument, which tokens are whose, how a head's output ends.
#ifndef ENGINE_KERNELS_CUDA_ATTENTION_CUH
#define ENGINE_KERNELS_CUDA_ATTENTION_CUH

#include "engine/kernels/cuda/kv.cuh"

enum {
    CU_TILE_ROWS = 32,    // queries of a tile: heads of a group times tokens of a sequence
    CU_TILE_TOKENS = 64,  // calls of more tokens look for prompts; steps of up to so many rows are graphs, whose kernels would mostly find none
};

// By value: krn_attention with its kv taken in.
struct cu_job {
    struct krn_kv kv;
    const float *q;
    float *out, *partial;
    const int32_t *pos;
    const int32_t *const *table;
    int32_t n_tok, n_head, i0, i1, n_split, window, chunked, values;
    int64_t q_stride, out_stride; // of tokens
    float scale, softcap;
    const float *sinks;
    int32_t heads, tile; // of a tile: heads, and tokens, which begin at a multiple; tile 0: there are none

    // The first key that a token at this position sees.
    __device__ int32_t first_of(int32_t pos) const
    {
        if (window <= 0 || pos < window) return 0;
        return chunked ? pos - pos % window : pos - window + 1;
    }
};

// Tokens of one sequence, as far as they lie in one tile. A run that fills half of it is the tile kernel's, a shorter one goes token by token.
struct cu_run {
    int32_t t0, t1;
    __device__ bool is_tiles(const cu_job &a) const { return 2 * (t1 - t0) >= a.tile; }
};
__device__ static inline cu_run cu_run_of(const cu_job &a, int32_t t)
{
    int32_t first = t / a.tile * a.tile, end = min(first + a.tile, a.n_tok);
    cu_run r = {t, t + 1};
    while (r.t0 > first && a.table[r.t0 - 1] == a.table[t]) r.t0--;
    while (r.t1 < end && a.table[r.t1] == a.table[t]) r.t1++;
    return r;
}

__device__ static inline float cu_capped(float x, float cap)
{
    float t = krn_math_exp(x * (2.0f / cap));
    return ((t - 1.0f) / (t + 1.0f)) * cap;
}

// A head's output after the last split, times by and then times inv: the sink, if there is one, and the division.
struct cu_ending {
    float by, inv;
};
__device__ static inline cu_ending cu_ending_of(const cu_job &a, int32_t head, float m, float l)
{
    if (!a.sinks) return {1.0f, 1.0f / l};
    float sink = a.sinks[head], next = sink > m ? sink : m, by = krn_math_exp(m - next);
    return {by, 1.0f / fmaf(l, by, krn_math_exp(sink - next))};
}
__device__ static inline float cu_finished(const cu_job &a, int32_t head, float out, float m, float l)
{
    cu_ending e = cu_ending_of(a, head, m, l);
    return out * e.by * e.inv;
}

static inline cu_job cu_job_of(const struct krn_attention *a)
{
    int32_t values = krn_kv_values(a->kv), group = a->n_head / a->kv->n_kv, heads = DIV_UP(group, DIV_UP(group, (int32_t)CU_TILE_ROWS));
    int64_t q_row = (int64_t)a->n_head * a->kv->head_dim, out_row = (int64_t)a->n_head * values;
    bool tiles = !a->n_split && a->n_tok > (int32_t)CU_TILE_TOKENS;
    return cu_job{*a->kv,    a->q,      a->out,     a->partial, a->pos, a->table, a->n_tok, a->n_head, a->i0, a->i1,
                  a->n_split, a->window, a->chunked, values, a->q_stride ? a->q_stride : q_row, a->out_stride ? a->out_stride : out_row,
                  a->scale, a->softcap, a->sinks, heads, tiles ? (int32_t)CU_TILE_ROWS / heads : 0};
}

#endif
