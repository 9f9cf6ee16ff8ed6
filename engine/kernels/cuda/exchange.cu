// exchange.cu: base/exchange.h on a card. A block moves `each` values of every part at a time and waits for the same block of the other ranks only.
//
// What ranks write for each other goes past the caches that are not theirs (volatile), a fence of the whole system stands before a flag is
// raised and after it has been seen. Rooms may lie on another card or in the host's memory: the kernel does not know.
#include "engine/kernels/cuda/cuda.cuh"

extern "C" {
#include "base/exchange.h"
#include "engine/kernels/cuda/cuda.h"
#include "engine/kernels/tree_sum.h"
}

#ifndef KRN_PAUSE
#define KRN_PAUSE() ((void)0) // a read across the bus is pause enough
#define KRN_LOOK(flag) (*(flag))
#define KRN_RAISE(flag, turn) (*(flag) = (turn))
#endif

namespace {

struct job {
    struct exchange x;
    int64_t each;
    int16_t ops[EXCHANGE_OPS];
};

__device__ volatile uint32_t *flag_of(const uint8_t *room, int32_t block) { return (volatile uint32_t *)(room + block * EXCHANGE_FLAG); }

__device__ volatile float *region_of(const uint8_t *room, int32_t block, uint32_t turn)
{
    return (volatile float *)(room + EXCHANGE_BLOCKS * EXCHANGE_FLAG + ((int64_t)block * 2 + turn % 2) * EXCHANGE_REGION);
}

__device__ bool wait_for(volatile uint32_t *flag, uint32_t turn, const uint32_t *stop)
{
    enum { LOOK = 1024 };
    for (uint32_t k = 1; (int32_t)(KRN_LOOK(flag) - turn) < 0; k++) {
        if (k % LOOK == 0 && KRN_LOOK((const volatile uint32_t *)stop)) return false;
        KRN_PAUSE();
    }
    __threadfence_system();
    return true;
}

// A turn of a block, whose values are those at `at`.
struct where {
    int32_t block;
    uint32_t turn;
    int64_t at;
};

// Where the parts of rank r begin: in its room, or what this rank has itself.
__device__ const volatile float *parts_of(const job &a, const where &w, int32_t r)
{
    return r == a.x.rank ? a.x.mine + w.at : region_of(a.x.from[r], w.block, w.turn);
}

// A part of each rank, P of them, halved again and again; 0: any program, by a stack.
template <int P> __device__ float sum_at(const job &a, const where &w, int64_t mine_stride, int64_t i)
{
    if constexpr (P > 0) {
        float v[P];
#pragma unroll
        for (int p = 0; p < P; p++) v[p] = parts_of(a, w, p)[i];
#pragma unroll
        for (int step = 1; step < P; step *= 2)
#pragma unroll
            for (int p = 0; p < P; p += 2 * step) v[p] = v[p] + v[p + step];
        return v[0];
    } else {
        float stack[KRN_TREE_DEPTH];
        int32_t h = 0, r = 0;
        for (int32_t k = 0; k < a.x.n_ops; k++) {
            int32_t op = a.ops[k];
            if (op >= 0) {
                while (op >= a.x.first[r + 1]) r++; // parts come in order
                stack[h++] = parts_of(a, w, r)[(op - a.x.first[r]) * (r == a.x.rank ? mine_stride : a.each) + i];
            } else {
                h--, stack[h - 1] = stack[h - 1] + stack[h];
            }
        }
        return stack[0];
    }
}

// This rank has put its values of a turn: say so, and wait for the others. false: they do not come.
__device__ bool meet(const job &a, int32_t block, uint32_t turn, int32_t *lost)
{
    int32_t j = (int32_t)threadIdx.x;
    __threadfence_system();
    __syncthreads();
    if (j < a.x.n_to) KRN_RAISE(flag_of(a.x.to[j], block), turn);
    __syncwarp(); // all are raised before the first wait
    if (j < a.x.size && j != a.x.rank && !wait_for(flag_of(a.x.from[j], block), turn, a.x.stop)) *lost = 1;
    __syncthreads();
    return !*lost;
}

template <int P> __global__ void __launch_bounds__(KRN_CUDA_THREADS, 1) exchange_kernel(job a)
{
    cu_begin_alone();
    __shared__ int32_t lost;
    int32_t b = (int32_t)blockIdx.x, j = (int32_t)threadIdx.x, me = a.x.rank;
    bool sum = a.x.n_ops > 0;
    int32_t own = sum ? a.x.first[me + 1] - a.x.first[me] : 1;
    int64_t mine_n = sum ? a.x.n : a.x.len[me];
    uint32_t turn = a.x.turns[b];
    if (j == 0) lost = 0;
    for (int64_t at = b * a.each; at < a.x.n; at += gridDim.x * a.each) {
        int64_t mine_end = mine_n - at < a.each ? mine_n - at : a.each, end = a.x.n - at < a.each ? a.x.n - at : a.each;
        turn++;
        for (int32_t k = 0; k < a.x.n_to; k++) {
            volatile float *to = region_of(a.x.to[k], b, turn);
            for (int32_t p = 0; p < own; p++)
                for (int64_t i = j; i < mine_end; i += KRN_CUDA_THREADS) to[p * a.each + i] = a.x.mine[p * mine_n + at + i];
        }
        if (!meet(a, b, turn, &lost)) return;
        where w = {b, turn, at};
        if (sum) {
            for (int64_t i = j; i < end; i += KRN_CUDA_THREADS) a.x.out[at + i] = sum_at<P>(a, w, mine_n, i);
        } else {
            float *out = a.x.out + at;
            for (int32_t r = 0; r < a.x.size; out += a.x.len[r++]) {
                const volatile float *part = parts_of(a, w, r);
                for (int64_t i = j; i < a.each && at + i < a.x.len[r]; i += KRN_CUDA_THREADS) out[i] = part[i];
            }
        }
    }
    __syncthreads();
    if (j == 0) a.x.turns[b] = turn;
}

// A sum in two shots, a turn each: the slice of each rank goes to it, and its sum comes back.
template <int P> __global__ void __launch_bounds__(KRN_CUDA_THREADS, 1) two_shots_kernel(job a)
{
    cu_begin_alone();
    __shared__ int32_t lost;
    int32_t b = (int32_t)blockIdx.x, j = (int32_t)threadIdx.x, me = a.x.rank, own = a.x.first[me + 1] - a.x.first[me];
    uint32_t turn = a.x.turns[b];
    if (j == 0) lost = 0;
    for (int64_t at = b * a.each; at < a.x.n; at += gridDim.x * a.each) {
        int64_t end = a.x.n - at < a.each ? a.x.n - at : a.each, slice = exchange_slice(end, a.x.size);
        turn++;
        for (int32_t k = 0; k < a.x.n_to; k++) {
            volatile float *to = region_of(a.x.to[k], b, turn);
            int32_t reader = a.x.reader[k];
            int64_t i0 = reader < 0 ? 0 : reader * slice, i1 = reader < 0 || i0 + slice > end ? end : i0 + slice;
            for (int32_t p = 0; p < own; p++)
                for (int64_t i = i0 + j; i < i1; i += KRN_CUDA_THREADS) to[p * a.each + i] = a.x.mine[p * a.x.n + at + i];
        }
        if (!meet(a, b, turn, &lost)) return;
        where w = {b, turn, at};
        turn++;
        for (int64_t i = me * slice + j; i < (me + 1) * slice && i < end; i += KRN_CUDA_THREADS) {
            float v = sum_at<P>(a, w, a.x.n, i);
            a.x.out[at + i] = v;
            for (int32_t k = 0; k < a.x.n_to; k++) region_of(a.x.to[k], b, turn)[i] = v;
        }
        if (!meet(a, b, turn, &lost)) return;
        for (int32_t r = 0; r < a.x.size; r++) {
            if (r == me) continue;
            const volatile float *sums = region_of(a.x.from[r], b, turn);
            for (int64_t i = r * slice + j; i < (r + 1) * slice && i < end; i += KRN_CUDA_THREADS) a.x.out[at + i] = sums[i];
        }
    }
    __syncthreads();
    if (j == 0) a.x.turns[b] = turn;
}

template <int P> void launch(const job &a, dim3 grid)
{
    if (a.x.two_shots) KRN_LAUNCH(two_shots_kernel<P>, grid, dim3(KRN_CUDA_THREADS), 0, a);
    else KRN_LAUNCH(exchange_kernel<P>, grid, dim3(KRN_CUDA_THREADS), 0, a);
}

// Is it one part of each of P ranks, halved again and again?
bool halves(const struct exchange *x, int32_t ranks)
{
    int32_t next = 0, k = 0;
    if (x->size != ranks || x->n_ops != 2 * ranks - 1) return false;
    for (int32_t r = 0; r <= ranks; r++)
        if (x->first[r] != r) return false;
    while (next < ranks) {
        if (x->ops[k++] != next++) return false;
        for (int32_t m = next; m % 2 == 0; m /= 2)
            if (x->ops[k++] != -1) return false;
    }
    return k == x->n_ops;
}

} // namespace

extern "C" void krn_cuda_exchange(const struct exchange *x)
{
    job a = {};
    if (x->n < 1) return;
    a.x = *x;
    a.x.ops = nullptr; // the host's
    a.each = exchange_each(x);
    for (int32_t k = 0; k < x->n_ops; k++) a.ops[k] = x->ops[k];
    int64_t blocks = DIV_UP(x->n, a.each);
    dim3 grid((unsigned)(blocks < EXCHANGE_BLOCKS ? blocks : (int64_t)EXCHANGE_BLOCKS));
    if (halves(x, 2)) launch<2>(a, grid);
    else if (halves(x, 4)) launch<4>(a, grid);
    else if (halves(x, 8)) launch<8>(a, grid);
    else launch<0>(a, grid);
    krn_cuda_launched("exchange");
}
