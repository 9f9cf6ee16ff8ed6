// experts.cu: engine/kernels/experts.h but for its products (matmul_int8.cu, matmul_mma.cu, matmul_float.cu): the choice, slots by expert, and
// what is added up by the choice.
//
// The choice of a token is a block's: exponentials and comparisons are shared out, sums are one thread's, since their order is the contract.
#include "engine/kernels/cuda/cuda.cuh"

extern "C" {
#include "engine/kernels/cuda/experts.h"
#include "proto/limits.h"
}

namespace {

enum { THREADS = KRN_CUDA_THREADS };

struct scored {
    float v;
    int32_t id; // -1: nobody
};

__device__ bool before(scored b, scored a) { return b.id >= 0 && (a.id < 0 || b.v > a.v || (b.v == a.v && b.id < a.id)); }

// What the threads of a token share.
struct shared {
    float x[LIMIT_EXPERTS], score[LIMIT_EXPERTS]; // score: in the end the weights of the chosen
    int32_t chosen[LIMIT_EXPERTS];                // ascending
    bool taken[LIMIT_EXPERTS];
    float of[LIMIT_EXPERTS]; // groups of experts: what they are worth
    bool open[LIMIT_EXPERTS];
    scored best[THREADS];
    float max, sum;
};

// By all threads: x[n] = e^(x - max) / their sum.
__device__ void softmax(shared &s, int32_t n)
{
    int32_t j = (int32_t)threadIdx.x;
    if (j == 0) {
        float m = s.x[0];
        for (int32_t i = 1; i < n; i++) m = s.x[i] > m ? s.x[i] : m;
        s.max = m;
    }
    __syncthreads();
    for (int32_t i = j; i < n; i += THREADS) s.x[i] = krn_math_exp(s.x[i] - s.max);
    __syncthreads();
    if (j == 0) {
        s.sum = 0.0f;
        for (int32_t i = 0; i < n; i++) s.sum = s.sum + s.x[i];
    }
    __syncthreads();
    for (int32_t i = j; i < n; i += THREADS) s.x[i] = s.x[i] / s.sum;
    __syncthreads();
}

__device__ int32_t best_of(const float *v, int32_t i0, int32_t i1, const bool *taken)
{
    int32_t at = -1;
    for (int32_t i = i0; i < i1; i++)
        if (!taken[i] && (at < 0 || v[i] > v[at])) at = i;
    return at;
}

// By one thread, as route.c: experts of groups that do not stay are taken.
__device__ void close_groups(const krn_route &a, shared &s)
{
    int32_t each = a.n / a.n_groups;
    for (int32_t g = 0; g < a.n_groups; g++) {
        s.open[g] = false;
        int32_t first = best_of(s.score, g * each, (g + 1) * each, s.taken), second = -1;
        if (first < 0) first = g * each;
        s.of[g] = s.score[first];
        s.taken[first] = true;
        if (a.gating == KRN_GATING_SIGMOID) second = best_of(s.score, g * each, (g + 1) * each, s.taken);
        if (second >= 0) s.of[g] = s.of[g] + s.score[second];
        s.taken[first] = false;
    }
    for (int32_t k = 0; k < a.groups_used; k++) {
        int32_t g = best_of(s.of, 0, a.n_groups, s.open);
        if (g >= 0) s.open[g] = true;
    }
    for (int32_t e = 0; e < a.n; e++) s.taken[e] = !s.open[e / each];
}

// By all threads: the best that is not taken, which then is.
__device__ int32_t take(shared &s, int32_t n)
{
    int32_t j = (int32_t)threadIdx.x;
    scored mine = {0.0f, -1};
    for (int32_t i = j; i < n; i += THREADS) {
        scored b = {s.score[i], i};
        if (!s.taken[i] && before(b, mine)) mine = b;
    }
    s.best[j] = mine;
    for (int32_t half = THREADS / 2; half; half /= 2) {
        __syncthreads();
        if (j < half && before(s.best[j + half], s.best[j])) s.best[j] = s.best[j + half];
    }
    __syncthreads();
    int32_t e = s.best[0].id < 0 ? 0 : s.best[0].id;
    __syncthreads(); // before best is written again
    if (j == 0) s.taken[e] = true;
    return e;
}

// By one thread: the weights of the chosen.
__device__ void weigh(const krn_route &a, shared &s)
{
    float sum = 0.0f, *w = s.score;
    for (int32_t k = 0; k < a.used; k++) w[k] = s.x[s.chosen[k]];
    if (a.gating == KRN_GATING_SOFTMAX_CHOSEN) {
        float m = w[0], all = 0.0f;
        for (int32_t k = 1; k < a.used; k++) m = w[k] > m ? w[k] : m;
        for (int32_t k = 0; k < a.used; k++) all = all + (w[k] = krn_math_exp(w[k] - m));
        for (int32_t k = 0; k < a.used; k++) w[k] = w[k] / all;
    }
    for (int32_t k = 0; k < a.used && a.gating == KRN_GATING_SIGMOID_CHOSEN; k++) w[k] = 1.0f / (1.0f + krn_math_exp(-w[k]));
    for (int32_t k = 0; k < a.used; k++) sum = sum + w[k];
    for (int32_t k = 0; k < a.used && a.renorm; k++) w[k] = w[k] / sum;
    for (int32_t k = 0; k < a.used; k++) w[k] = w[k] * a.scale;
}

// Block: a token.
__global__ void __launch_bounds__(THREADS) route_kernel(krn_route a)
{
    cu_begin();
    __shared__ shared s;
    int32_t j = (int32_t)threadIdx.x, t = (int32_t)blockIdx.x;
    for (int32_t i = j; i < a.n; i += THREADS) {
        s.x[i] = a.logits[(int64_t)t * a.n + i];
        s.taken[i] = false;
    }
    __syncthreads();
    if (a.gating == KRN_GATING_SOFTMAX) softmax(s, a.n);
    for (int32_t i = j; i < a.n; i += THREADS) {
        if (a.gating == KRN_GATING_SIGMOID) s.x[i] = 1.0f / (1.0f + krn_math_exp(-s.x[i]));
        s.score[i] = a.shift ? s.x[i] + a.shift[i] : s.x[i];
    }
    __syncthreads();
    if (a.n_groups > 1) {
        if (j == 0) close_groups(a, s);
        __syncthreads();
    }
    for (int32_t k = 0; k < a.used; k++) {
        int32_t e = take(s, a.n), i = k;
        __syncthreads();
        if (j > 0) continue;
        for (; i > 0 && s.chosen[i - 1] > e; i--) s.chosen[i] = s.chosen[i - 1];
        s.chosen[i] = e;
    }
    if (j == 0) weigh(a, s);
    __syncthreads();
    for (int32_t k = j; k < a.used; k += THREADS) a.ids[t * a.used + k] = s.chosen[k], a.weights[t * a.used + k] = s.score[k];
    if (a.shared && j == 0) a.shared[t] = a.shared_gated ? 1.0f / (1.0f + krn_math_exp(-a.shared[t])) : 1.0f;
}

// What the threads share that sort slots by expert: how many each has, then where its next one goes.
struct sorted {
    int32_t count[LIMIT_EXPERTS], next[LIMIT_EXPERTS];
    int32_t rows[THREADS], parts[THREADS]; // of a thread's experts; then of all before them and these
};

// By one block: thread j has the experts from e0 + j * each on.
__global__ void __launch_bounds__(THREADS) group_kernel(krn_grouping a, int32_t n_rows, int32_t n_parts)
{
    cu_begin();
    __shared__ sorted s;
    int32_t j = (int32_t)threadIdx.x, each = DIV_UP(a.e1 - a.e0, (int32_t)THREADS), e0 = min(a.e0 + j * each, a.e1), e1 = min(e0 + each, a.e1), rows = 0, parts = 0;
    for (int32_t e = j; e < a.n; e += THREADS) s.count[e] = 0;
    for (int32_t i = j; i < n_rows; i += THREADS) {
        a.token[i] = -1, a.expert[i] = -1;
        if (a.scale) a.scale[i] = 0.0f;
    }
    __syncthreads();
    for (int32_t i = j; i < a.n_slots; i += THREADS) atomicAdd(&s.count[a.ids[i]], 1);
    __syncthreads();
    for (int32_t e = e0; e < e1; e++) rows += ROUND_UP(s.count[e], KRN_GROUP), parts += DIV_UP(s.count[e], KRN_PART);
    s.rows[j] = rows, s.parts[j] = parts;
    for (int32_t by = 1; by < THREADS; by *= 2) {
        __syncthreads();
        int32_t r = j >= by ? s.rows[j - by] : 0, p = j >= by ? s.parts[j - by] : 0;
        __syncthreads();
        s.rows[j] += r, s.parts[j] += p;
    }
    int32_t row = s.rows[j] - rows, part = s.parts[j] - parts;
    for (int32_t e = e0; e < e1; row += ROUND_UP(s.count[e], KRN_GROUP), e++) {
        s.next[e] = row;
        for (int32_t i = 0; i < s.count[e]; i += KRN_PART) a.parts[part++] = {e, row + i, min(s.count[e] - i, (int32_t)KRN_PART)};
    }
    __syncthreads();
    for (int32_t i = s.parts[THREADS - 1] + j; i < n_parts; i += THREADS) a.parts[i] = {-1, 0, 0};
    for (int32_t i = j; i < a.n_slots; i += THREADS) {
        int32_t e = a.ids[i];
        if (e < a.e0 || e >= a.e1) {
            a.at[i] = -1;
            continue;
        }
        int32_t at = atomicAdd(&s.next[e], 1);
        a.at[i] = at, a.token[at] = i / a.per, a.expert[at] = e;
        if (a.scale) a.scale[at] = a.weights[i];
    }
}

struct program {
    int32_t n;
    int16_t ops[2 * KRN_TREE_PARTS];
};

// Grid: (tokens, columns).
__global__ void __launch_bounds__(THREADS) combine_kernel(krn_combine a, program p)
{
    cu_begin();
    int32_t c = (int32_t)(blockIdx.y * THREADS + threadIdx.x), t = (int32_t)blockIdx.x, h = 0, next = 0; // next: slot of a whole expert
    int32_t j = (int32_t)threadIdx.x;
    __shared__ float stack[KRN_TREE_DEPTH][THREADS]; // a thread's own column
    if (c >= a.rows) return;
    const float *w = a.weights + t * a.used;
    for (int32_t k = 0; k < p.n; k++) {
        int64_t leaf = p.ops[k];
        if (leaf < 0) {
            h--, stack[h - 1][j] = stack[h - 1][j] + stack[h][j];
            continue;
        }
        const float *y = a.y + (a.leaf ? 0 : leaf * a.y_rows * a.rows) + c;
        float v = 0.0f;
        int32_t end = a.used;
        if (a.leaf) { // ids and leaves ascend
            const int32_t *ids = a.ids + (int64_t)t * a.used;
            while (next < a.used && a.leaf[ids[next]] < leaf) next++;
            for (end = next; end < a.used && a.leaf[ids[end]] == leaf;) end++;
        }
        for (int32_t i = next; i < end; i++) {
            int64_t slot = (int64_t)t * a.used + i, row = a.at ? a.at[slot] : slot;
            v = fmaf(w[i], y[row * a.rows], v);
        }
        if (a.shared) v = fmaf(a.shared_weights[t], a.shared[(leaf * a.n_tok + t) * a.rows + c], v);
        stack[h++][j] = v;
    }
    a.to[t * a.to_stride + c] = stack[0][j];
}

// Grid: (slots, columns).
__global__ void __launch_bounds__(THREADS) slot_bias_kernel(krn_slot_bias a)
{
    cu_begin();
    int32_t c = (int32_t)(blockIdx.y * THREADS + threadIdx.x), slot = (int32_t)blockIdx.x;
    if (c >= a.n) return;
    const float *bias = a.ids[slot] < 0 ? nullptr : a.bias[a.ids[slot]];
    float *y = a.y + (int64_t)slot * a.n + c;
    if (bias) *y = *y + bias[c];
}

// Grid: (tokens, columns).
__global__ void __launch_bounds__(THREADS) token_bias_kernel(krn_token_bias a)
{
    cu_begin();
    int32_t c = (int32_t)(blockIdx.y * THREADS + threadIdx.x), t = (int32_t)blockIdx.x;
    if (c >= a.n) return;
    float v = a.sum[(int64_t)t * a.n + c];
    for (int32_t k = 0; k < a.used && a.bias; k++) v = fmaf(a.weights[t * a.used + k], a.bias[a.ids[t * a.used + k]][c], v);
    if (a.shared) v = fmaf(a.shared_weights[t], a.shared[c], v);
    a.sum[(int64_t)t * a.n + c] = v;
}

} // namespace

extern "C" void krn_cuda_route(const struct krn_route *a)
{
    if (a->n_tok < 1) return;
    KRN_LAUNCH(route_kernel, dim3((unsigned)a->n_tok), dim3(THREADS), 0, *a);
    krn_cuda_launched("route");
}

extern "C" void krn_cuda_group(const struct krn_grouping *a)
{
    if (a->n_slots < 1) return;
    KRN_LAUNCH(group_kernel, dim3(1), dim3(THREADS), 0, *a, krn_grouping_rows(a->n_slots, a->e1 - a->e0), krn_grouping_parts(a->n_slots, a->e1 - a->e0));
    krn_cuda_launched("group");
}

extern "C" void krn_cuda_combine(const struct krn_combine *a)
{
    program p = {};
    if (a->n_tok < 1 || a->rows < 1) return;
    p.n = a->n_ops;
    for (int32_t k = 0; k < a->n_ops; k++) p.ops[k] = a->ops[k];
    krn_combine x = *a;
    x.ops = nullptr; // the host's
    KRN_LAUNCH(combine_kernel, cu_rows_by_columns(a->n_tok, a->rows), dim3(THREADS), 0, x, p);
    krn_cuda_launched("combine");
}

extern "C" void krn_cuda_slot_bias(const struct krn_slot_bias *a)
{
    if (a->n_slots < 1 || a->n < 1) return;
    KRN_LAUNCH(slot_bias_kernel, cu_rows_by_columns(a->n_slots, a->n), dim3(THREADS), 0, *a);
    krn_cuda_launched("slot_bias");
}

extern "C" void krn_cuda_token_bias(const struct krn_token_bias *a)
{
    if (a->n_tok < 1 || a->n < 1) return;
    KRN_LAUNCH(token_bias_kernel, cu_rows_by_columns(a->n_tok, a->n), dim3(THREADS), 0, *a);
    krn_cuda_launched("token_bias");
}
