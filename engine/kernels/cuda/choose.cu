// choose.cu: of each row of logits the one that is largest, with noise or without, or the few largest: a block reduces a piece of a row, then a
// block the row's pieces. And tokens that stay here: chosen for the next step's inputs, which the host has not seen.
//
// Both choices are orders without ties (of equals the lowest index), so who compares first shows nowhere.
#include "engine/kernels/cuda/cuda.cuh"

extern "C" {
#include "base/rng.h"
#include "engine/kernels/cuda/choose.h"
#include "engine/kernels/cuda/cuda.h"
#include "engine/kernels/few.h"
}

namespace {

enum { MAX_PIECES = KRN_CUDA_SCRATCH / (KRN_CHOOSE_ROWS * (int)sizeof(krn_pick)), PIECE = 4 * KRN_CUDA_THREADS };

// Numbers before NaN, larger before smaller, the lower index among equals; id -1 is nothing.
struct largest {
    static __device__ bool beats(krn_pick b, krn_pick a)
    {
        if (b.id < 0 || a.id < 0) return a.id < 0 && b.id >= 0;
        bool b_nan = b.z != b.z, a_nan = a.z != a.z;
        if (b_nan || a_nan) return b_nan == a_nan ? b.id < a.id : a_nan;
        return b.z > a.z || (b.z == a.z && b.id < a.id);
    }
};

// The best of what each thread of the block has, for thread 0.
__device__ krn_pick best_of_block(krn_pick mine)
{
    __shared__ krn_pick all[KRN_CUDA_THREADS];
    int32_t j = (int32_t)threadIdx.x;
    all[j] = mine;
    for (int32_t half = KRN_CUDA_THREADS / 2; half; half /= 2) {
        __syncthreads();
        if (j < half && largest::beats(all[j + half], all[j])) all[j] = all[j + half];
    }
    return j == 0 ? all[0] : mine; // what others would read, thread 0 may still be writing
}

__device__ krn_pick nothing() { return krn_pick{-INFINITY, -1}; }

// Grid of both: (pieces of `piece` values, rows).
__global__ void __launch_bounds__(KRN_CUDA_THREADS) best_kernel(const float *x, int32_t n, int32_t piece, int32_t id0, krn_pick *out)
{
    cu_begin();
    int32_t i0 = (int32_t)blockIdx.x * piece, i1 = min(n, i0 + piece);
    x += (int64_t)blockIdx.y * n;
    krn_pick mine = nothing();
    for (int32_t i = i0 + (int32_t)threadIdx.x; i < i1; i += KRN_CUDA_THREADS) {
        krn_pick b = {x[i], id0 + i};
        if (largest::beats(b, mine)) mine = b;
    }
    mine = best_of_block(mine);
    if (threadIdx.x == 0) out[blockIdx.y * gridDim.x + blockIdx.x] = mine;
}

__global__ void __launch_bounds__(KRN_CUDA_THREADS)
    draw_kernel(const float *x, int32_t n, int32_t piece, int32_t id0, const krn_noise *how, const krn_pick *best, krn_pick *out)
{
    cu_begin();
    int32_t i0 = (int32_t)blockIdx.x * piece, i1 = min(n, i0 + piece);
    krn_noise h = how[blockIdx.y];
    float max = best[blockIdx.y].z;
    if (!(h.t > 0.0f) || h.top) return;
    x += (int64_t)blockIdx.y * n;
    krn_pick mine = nothing();
    for (int32_t i = i0 + (int32_t)threadIdx.x; i < i1; i += KRN_CUDA_THREADS) {
        float z = (x[i] - max) / h.t;
        if (!(z >= h.least && z > -INFINITY)) continue;
        krn_pick b = {z + krn_math_gumbel(rng_mix(h.key ^ (uint64_t)(id0 + i))), id0 + i};
        if (largest::beats(b, mine)) mine = b;
    }
    mine = best_of_block(mine);
    if (threadIdx.x == 0) out[blockIdx.y * gridDim.x + blockIdx.x] = mine;
}

// A block per row. how NULL: every row.
__global__ void __launch_bounds__(KRN_CUDA_THREADS) rows_kernel(const krn_pick *of_pieces, int32_t pieces, const krn_noise *how, krn_pick *out)
{
    cu_begin();
    if (how && (!(how[blockIdx.x].t > 0.0f) || how[blockIdx.x].top)) return;
    krn_pick mine = nothing();
    for (int32_t i = (int32_t)threadIdx.x; i < pieces; i += KRN_CUDA_THREADS) {
        krn_pick b = of_pieces[blockIdx.x * pieces + i];
        if (largest::beats(b, mine)) mine = b;
    }
    mine = best_of_block(mine);
    if (threadIdx.x == 0) out[blockIdx.x] = mine;
}

// What candidates are taken from: a piece of a row of logits, or the pieces' best.
struct tempered {
    const float *x;
    float max, t;
    int32_t id0;
    __device__ krn_pick operator()(int32_t i) const
    {
        float z = (x[i] - max) / t;
        return z > -INFINITY ? krn_pick{z, id0 + i} : krn_pick{-INFINITY, -1};
    }
};
struct listed {
    const krn_pick *c;
    int32_t k;    // of each list so many
    int64_t each; // from one to the next
    __device__ krn_pick operator()(int32_t i) const { return c[i / k * each + i % k]; }
};

// The best of this thread's candidates in [i0, i1) that `last` beats; last.id -1: of all.
template <class FROM> __device__ krn_pick next_of(const FROM &from, int32_t i0, int32_t i1, krn_pick last)
{
    krn_pick mine = nothing();
    for (int32_t i = i0 + (int32_t)threadIdx.x; i < i1; i += KRN_CUDA_THREADS) {
        krn_pick b = from(i);
        if ((last.id < 0 || largest::beats(last, b)) && largest::beats(b, mine)) mine = b;
    }
    return mine;
}

// out[k]: the best of [i0, i1), best first. Each thread has its best ready; who has given it away looks for its next.
template <class FROM> __device__ void best_first(const FROM &from, int32_t i0, int32_t i1, int32_t k, krn_pick *out)
{
    __shared__ krn_pick of_warps[KRN_CUDA_THREADS / 32];
    krn_pick mine = next_of(from, i0, i1, nothing()), best = mine;
    for (int32_t r = 0; r < k; r++) {
        best = mine;
        for (int o = 16; o; o >>= 1) {
            krn_pick b = {__shfl_xor_sync(0xffffffffu, best.z, o), __shfl_xor_sync(0xffffffffu, best.id, o)};
            if (largest::beats(b, best)) best = b;
        }
        if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = best;
        __syncthreads();
        best = of_warps[0];
        for (int w = 1; w < KRN_CUDA_THREADS / 32; w++)
            if (largest::beats(of_warps[w], best)) best = of_warps[w];
        if (threadIdx.x == 0) out[r] = best;
        if (best.id >= 0 && best.id == mine.id) mine = next_of(from, i0, i1, best);
        __syncthreads(); // before the next round's warps write
    }
}

// Grid: (pieces, rows).
__global__ void __launch_bounds__(KRN_CUDA_THREADS)
    top_kernel(const float *x, int32_t n, int32_t piece, int32_t id0, const krn_noise *how, const krn_pick *best, krn_pick *out)
{
    cu_begin();
    int32_t i0 = (int32_t)blockIdx.x * piece, i1 = min(n, i0 + piece);
    krn_noise h = how[blockIdx.y];
    if (!(h.t > 0.0f) || !h.top) return;
    tempered from = {x + (int64_t)blockIdx.y * n, best[blockIdx.y].z, h.t, id0};
    best_first(from, i0, i1, h.top, out + ((int64_t)blockIdx.y * KRN_CHOOSE_PIECES + blockIdx.x) * KRN_TOP);
}

// A block per row.
__global__ void __launch_bounds__(KRN_CUDA_THREADS) top_rows_kernel(const krn_pick *of_pieces, int32_t pieces, const krn_noise *how, krn_pick *out)
{
    cu_begin();
    krn_noise h = how[blockIdx.x];
    if (!(h.t > 0.0f) || !h.top) return;
    listed from = {of_pieces + (int64_t)blockIdx.x * KRN_CHOOSE_PIECES * KRN_TOP, h.top, KRN_TOP};
    best_first(from, 0, pieces * h.top, h.top, out + (int64_t)blockIdx.x * KRN_TOP);
}

// A block per row.
__global__ void __launch_bounds__(KRN_CUDA_THREADS)
    merge_top_kernel(int32_t size, int64_t each, const krn_pick *all, const krn_noise *how, krn_pick *out)
{
    cu_begin();
    krn_noise h = how[blockIdx.x];
    if (!(h.t > 0.0f) || !h.top) return;
    listed from = {all + (int64_t)blockIdx.x * KRN_TOP, h.top, each};
    best_first(from, 0, size * h.top, h.top, out + (int64_t)blockIdx.x * KRN_TOP);
}

// A block per row: one thread narrows, what is left is drawn by all.
__global__ void __launch_bounds__(KRN_CUDA_THREADS) among_kernel(const krn_noise *how, const krn_pick *top, krn_pick *drawn)
{
    __shared__ krn_few few;
    cu_begin();
    krn_noise h = how[blockIdx.x];
    if (!(h.t > 0.0f) || !h.top) return;
    int32_t j = (int32_t)threadIdx.x;
    if (j < h.top) {
        few.c[j] = top[(int64_t)blockIdx.x * KRN_TOP + j];
        few.e[j] = krn_math_exp(few.c[j].z);
    }
    __syncthreads();
    if (j == 0) {
        int32_t n = 0;
        while (n < h.top && few.c[n].id >= 0) n++;
        few.n = n;
        krn_few_narrow(&few, &h);
    }
    __syncthreads();
    krn_pick mine = nothing();
    if (j < few.n) mine = krn_pick{few.c[j].z + krn_math_gumbel(rng_mix(h.key ^ (uint64_t)few.c[j].id)), few.c[j].id};
    mine = best_of_block(mine);
    if (j == 0) drawn[blockIdx.x] = mine;
}

// A thread per row. Ranks in order, as the host goes through them (engine/head_slices.c).
__global__ void __launch_bounds__(KRN_CUDA_THREADS) merge_best_kernel(int32_t n, int32_t size, int64_t each, const krn_pick *all, krn_pick *out)
{
    cu_begin();
    int32_t i = (int32_t)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i >= n) return;
    krn_pick best = all[i];
    for (int32_t r = 1; r < size; r++) {
        krn_pick b = all[r * each + i];
        if (best.id < 0 || b.z > best.z) best = b;
    }
    out[i] = best;
}

// A thread per row.
__global__ void __launch_bounds__(KRN_CUDA_THREADS)
    chosen_kernel(int32_t n, const krn_noise *how, const krn_pick *best, const krn_pick *drawn, int32_t *there, int32_t *host)
{
    cu_begin();
    int32_t i = (int32_t)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i >= n) return;
    krn_pick b = best[i];
    int32_t id = b.id;
    if (how && how[i].t > 0.0f && b.z > -INFINITY && drawn[i].id >= 0) id = drawn[i].id;
    there[i] = host[i] = id;
}

__global__ void __launch_bounds__(KRN_CUDA_THREADS) inputs_kernel(int32_t n, int32_t *ids, const int32_t *chosen, int32_t id0, int32_t rows)
{
    cu_begin();
    int32_t i = (int32_t)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i >= n) return;
    int32_t id = ids[i] < 0 ? chosen[-1 - ids[i]] : ids[i];
    ids[i] = id >= id0 && id - id0 < rows ? id - id0 : -1;
}

unsigned blocks_of(int32_t n) { return (unsigned)DIV_UP(n, KRN_CUDA_THREADS); }

int32_t piece_of(int32_t n) { return MAX((int32_t)PIECE, DIV_UP(n, (int32_t)MAX_PIECES)); }

void of_rows(int32_t n_rows, int32_t pieces, const krn_noise *how, krn_pick *out)
{
    KRN_LAUNCH(rows_kernel, dim3((unsigned)n_rows), dim3(KRN_CUDA_THREADS), 0, (const krn_pick *)krn_cuda_scratch(), pieces, how, out);
}

} // namespace

extern "C" void krn_cuda_best(const float *x, int32_t n_rows, int32_t n, int32_t id0, struct krn_pick *best)
{
    if (n_rows < 1 || n < 1) return;
    int32_t piece = piece_of(n), pieces = DIV_UP(n, piece);
    KRN_LAUNCH(best_kernel, dim3((unsigned)pieces, (unsigned)n_rows), dim3(KRN_CUDA_THREADS), 0, x, n, piece, id0, (krn_pick *)krn_cuda_scratch());
    of_rows(n_rows, pieces, nullptr, best);
    krn_cuda_launched("best");
}

extern "C" void krn_cuda_draw(const float *x, int32_t n_rows, int32_t n, int32_t id0, const struct krn_noise *how, const struct krn_pick *best,
                              struct krn_pick *drawn)
{
    if (n_rows < 1 || n < 1) return;
    int32_t piece = piece_of(n), pieces = DIV_UP(n, piece);
    KRN_LAUNCH(draw_kernel, dim3((unsigned)pieces, (unsigned)n_rows), dim3(KRN_CUDA_THREADS), 0, x, n, piece, id0, how, best,
               (krn_pick *)krn_cuda_scratch());
    of_rows(n_rows, pieces, how, drawn);
    krn_cuda_launched("draw");
}

extern "C" void krn_cuda_top(const float *x, int32_t n_rows, int32_t n, int32_t id0, const struct krn_noise *how, const struct krn_pick *best,
                             struct krn_pick *scratch, struct krn_pick *top)
{
    if (n_rows < 1 || n < 1) return;
    int32_t piece = MAX((int32_t)PIECE, DIV_UP(n, (int32_t)KRN_CHOOSE_PIECES)), pieces = DIV_UP(n, piece);
    KRN_LAUNCH(top_kernel, dim3((unsigned)pieces, (unsigned)n_rows), dim3(KRN_CUDA_THREADS), 0, x, n, piece, id0, how, best, scratch);
    KRN_LAUNCH(top_rows_kernel, dim3((unsigned)n_rows), dim3(KRN_CUDA_THREADS), 0, (const krn_pick *)scratch, pieces, how, top);
    krn_cuda_launched("top");
}

extern "C" void krn_cuda_chosen(int32_t n, const struct krn_noise *how, const struct krn_pick *best, const struct krn_pick *drawn, int32_t *there,
                                int32_t *host)
{
    if (n < 1) return;
    KRN_LAUNCH(chosen_kernel, dim3(blocks_of(n)), dim3(KRN_CUDA_THREADS), 0, n, how, best, drawn, there, host);
    krn_cuda_launched("chosen");
}

extern "C" void krn_cuda_among(int32_t n_rows, const struct krn_noise *how, const struct krn_pick *top, struct krn_pick *drawn)
{
    if (n_rows < 1) return;
    KRN_LAUNCH(among_kernel, dim3((unsigned)n_rows), dim3(KRN_CUDA_THREADS), 0, how, top, drawn);
    krn_cuda_launched("among");
}

extern "C" void krn_cuda_merge_best(int32_t n, int32_t size, int64_t each, const struct krn_pick *all, struct krn_pick *out)
{
    if (n < 1) return;
    KRN_LAUNCH(merge_best_kernel, dim3(blocks_of(n)), dim3(KRN_CUDA_THREADS), 0, n, size, each, all, out);
    krn_cuda_launched("merge_best");
}

extern "C" void krn_cuda_merge_top(int32_t n, int32_t size, int64_t each, const struct krn_pick *all, const struct krn_noise *how, struct krn_pick *out)
{
    if (n < 1) return;
    KRN_LAUNCH(merge_top_kernel, dim3((unsigned)n), dim3(KRN_CUDA_THREADS), 0, size, each, all, how, out);
    krn_cuda_launched("merge_top");
}

extern "C" void krn_cuda_inputs(int32_t n, int32_t *ids, const int32_t *chosen, int32_t id0, int32_t rows)
{
    if (n < 1) return;
    KRN_LAUNCH(inputs_kernel, dim3(blocks_of(n)), dim3(KRN_CUDA_THREADS), 0, n, ids, chosen, id0, rows);
    krn_cuda_launched("inputs");
}

extern "C" int32_t krn_cuda_argmax(const float *x, int32_t n)
{
    krn_pick best = {0.0f, 0}, *out = (krn_pick *)krn_cuda_scratch() + (int)MAX_PIECES;
    krn_cuda_best(x, 1, n, 0, out);
    krn_cuda_fetch(&best, out, (int64_t)sizeof best);
    return best.id;
}
