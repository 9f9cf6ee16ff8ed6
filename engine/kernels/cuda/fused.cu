// fused.cu: what stands between the products of a layer, see engine/kernels/fused.h.
//
// At one token each of these is a few microseconds, nearly all of them waiting: for the launch, for memory, for the other threads of a
// block. So the row stays in shared memory or registers from one operation to the next, and there is one wait where there were several.
#include "engine/kernels/cuda/attention.cuh"
#include "engine/kernels/cuda/codes.cuh"
#include "engine/kernels/cuda/gate.cuh"
#include "engine/kernels/cuda/kv_put.cuh"
#include "engine/kernels/cuda/lanes.cuh"

extern "C" {
#include "engine/kernels/cuda/cuda.h"
}

namespace {

// Grids: x is the tokens, which may be more than y and z allow.

__global__ void __launch_bounds__(KRN_CUDA_THREADS) bias_kernel(float *y, const float *bias, int32_t cols)
{
    cu_begin();
    int32_t i = (int32_t)(blockIdx.y * blockDim.x + threadIdx.x);
    float *row = y + (int64_t)blockIdx.x * cols;
    if (i < cols) row[i] = row[i] + bias[i];
}

// ---- enter ----

enum { ROW = 8192, ENTER_THREADS = 1024 }; // values of a row in shared memory; threads at most

// Lane j's part of the row's sum of squares, continued over values [at, at + n) of the row, which lie in shared memory; at is a multiple of the lanes.
__device__ float squares_on(float s, const float *v, int32_t n)
{
    if (threadIdx.x < CU_LANES)
        for (int32_t i = (int32_t)threadIdx.x; i < n; i += CU_LANES) s = fmaf(v[i], v[i], s);
    return s;
}

// 1 / rms of the row whose value i is of(i), for all threads; the last ROW values, or what there is of them, stay in v.
template <class F> __device__ float norm_scale(float *v, float *lane, int32_t d, float eps, const F &of)
{
    float s = 0.0f;
    for (int32_t at = 0; at < d; at += ROW) {
        int32_t n = min(d - at, (int32_t)ROW);
        __syncthreads(); // what was there has been read
        for (int32_t i = (int32_t)threadIdx.x; i < n; i += (int32_t)blockDim.x) v[i] = of(at + i);
        __syncthreads();
        s = squares_on(s, v, n);
    }
    cu_lane_sum(lane, s);
    return 1.0f / sqrtf(lane[0] / (float)d + eps);
}

// A block is a row.
__global__ void __launch_bounds__(ENTER_THREADS) enter_kernel(krn_enter a)
{
    cu_begin();
    __shared__ float v[ROW], lane[CU_LANES];
    int32_t t = (int32_t)blockIdx.x, d = a.d, me = (int32_t)threadIdx.x, step = (int32_t)blockDim.x;
    float *x = a.x + (int64_t)t * d, *h = a.h + (int64_t)t * d;
    const float *sum = a.sum ? a.sum + (int64_t)t * d : nullptr;
    float post = a.sum && a.post ? norm_scale(v, lane, d, a.eps, [&](int32_t i) { return sum[i]; }) : 0.0f;
    auto receive = [&](int32_t i) {
        if (!sum) return x[i];
        float s = sum[i];
        if (a.post) s = (s * post) * a.post[i];
        if (a.scale != 1.0f) s = s * a.scale;
        return x[i] = x[i] + s;
    };
    float scale = 0.0f;
    if (a.w) scale = norm_scale(v, lane, d, a.eps, receive);
    else
        for (int32_t i = me; i < d; i += step) (void)receive(i);
    // A thread reads of x what it wrote itself: a long row has parts of as many values as its threads divide.
    const float *row = a.w && d <= ROW ? v : x;
    for (int32_t i = me; i < d; i += step) {
        float y = a.w ? (row[i] * scale) * a.w[i] : row[i];
        h[i] = y;
        if (a.q) cu_put_code(a.q, a.n_tok, d, t, i / KRN_UNIT, i % KRN_UNIT, y); // d is whole units: whole warps come here
    }
}

// ---- heads ----

struct cu_heads {
    krn_heads a;
    krn_kv kv;
};

enum { HEAD_THREADS = 128 };

__device__ void head_norm(float *x, float *lane, const float *w, int32_t dim, float eps)
{
    __syncthreads();
    cu_lane_sum(lane, cu_squares(x, dim));
    float scale = 1.0f / sqrtf(lane[0] / (float)dim + eps);
    for (int32_t i = (int32_t)threadIdx.x; i < dim; i += HEAD_THREADS) x[i] = (x[i] * scale) * w[i];
}

__device__ void head_rope(float *x, const krn_heads &a, int32_t t)
{
    __syncthreads();
    int32_t half = a.rot / 2, step = a.interleaved ? 1 : half;
    for (int32_t i = (int32_t)threadIdx.x; i < half; i += HEAD_THREADS) {
        float *pair = x + (a.interleaved ? 2 * i : i);
        float c = a.cs[t][2 * i], s = a.cs[t][2 * i + 1], x0 = pair[0], x1 = pair[step];
        pair[0] = fmaf(x0, c, -(x1 * s));
        pair[step] = fmaf(x0, s, x1 * c);
    }
}

// Into position `slot` of a block of one head: a key's values stand a block's positions apart, a value's side by side.
template <int TYPE> __device__ void head_put(uint8_t *block, const float *x, int32_t dim, int32_t slot, bool key)
{
    if constexpr (TYPE == KV_Q8_0) {
        int32_t units = DIV_UP(dim, KV_UNIT);
        int8_t *codes = (int8_t *)block + cu_kv_codes<TYPE>(dim);
        for (int32_t u = (int32_t)threadIdx.x; u < units; u += HEAD_THREADS) {
            int32_t d = u * KV_UNIT, n = min((int32_t)KV_UNIT, dim - d);
            int64_t at = key ? (int64_t)d * KRN_KV_BLOCK + slot : (int64_t)slot * dim + d;
            ((uint16_t *)block)[key ? u * KRN_KV_BLOCK + slot : slot * units + u] =
                cu_kv_put_codes(codes + at, key ? KRN_KV_BLOCK : 1, x + d, n);
        }
    } else {
        for (int32_t d = (int32_t)threadIdx.x; d < dim; d += HEAD_THREADS)
            cu_kv_put<TYPE>(block, key ? (int64_t)d * KRN_KV_BLOCK + slot : (int64_t)slot * dim + d, x[d]);
    }
}

// Grid: (tokens, heads of q, k and v).
template <int TYPE> __global__ void __launch_bounds__(HEAD_THREADS) heads_kernel(cu_heads j)
{
    cu_begin();
    __shared__ float x[KRN_CUDA_KEYS], lane[CU_LANES];
    const krn_heads &a = j.a;
    int32_t n = (int32_t)blockIdx.y, t = (int32_t)blockIdx.x, dim = j.kv.head_dim, n_kv = j.kv.n_kv;
    bool is_q = n < a.n_q, is_k = !is_q && n < a.n_q + n_kv;
    int32_t head = is_q ? n : is_k ? n - a.n_q : n - a.n_q - n_kv;
    if (!is_q && a.to.pos[t] < 0) return; // padding
    float *q = a.q + ((int64_t)t * a.n_q + head) * dim;
    const float *from = is_q ? q : (is_k ? a.to.k : a.to.v) + ((int64_t)t * n_kv + head) * dim;
    const float *bias = is_q ? a.bq : is_k ? a.bk : a.bv, *w = is_q ? a.q_norm : is_k ? a.k_norm : nullptr;
    for (int32_t i = (int32_t)threadIdx.x; i < dim; i += HEAD_THREADS) x[i] = bias ? from[i] + bias[head * dim + i] : from[i];
    if (w) w += head * a.norm_stride;
    if (w && !a.norm_last) head_norm(x, lane, w, dim, a.eps);
    if (a.rot && (is_q || is_k)) head_rope(x, a, t);
    if (w && a.norm_last) head_norm(x, lane, w, dim, a.eps);
    __syncthreads();
    if (is_q) {
        for (int32_t i = (int32_t)threadIdx.x; i < dim; i += HEAD_THREADS) q[i] = x[i];
        return;
    }
    int32_t pos = a.to.pos[t];
    uint8_t *block = cu_kv_block<TYPE>(is_k ? j.kv.k : j.kv.v, j.kv, a.to.table[t][pos / KRN_KV_BLOCK], head);
    head_put<TYPE>(block, x, dim, pos % KRN_KV_BLOCK, is_k);
}

template <int TYPE> void launch_heads(const krn_heads *a)
{
    dim3 grid((unsigned)a->n_tok, (unsigned)(a->n_q + 2 * a->to.kv->n_kv));
    cu_heads j = {*a, *a->to.kv};
    j.a.to.kv = nullptr; // the host's
    KRN_LAUNCH(heads_kernel<TYPE>, grid, dim3(HEAD_THREADS), 0, j);
}

// ---- gate ----

// A warp is a unit of a row, as quantize.cu has it. Grid: (tokens, values).
__global__ void __launch_bounds__(KRN_CUDA_THREADS) gated_kernel(krn_gated a)
{
    cu_begin();
    int32_t t = (int32_t)blockIdx.x, i = (int32_t)(blockIdx.y * blockDim.x + threadIdx.x);
    if (i >= a.cols) return; // whole warps
    int64_t e = (int64_t)t * a.cols + i;
    float y = a.silu ? cu_silu_mul(a.g[e], a.u[e]) : cu_gate(a.kind, a.g[e], a.u, e);
    a.y[e] = y;
    cu_put_code(a.q, a.n_tok, a.cols, t, i / KRN_UNIT, i % KRN_UNIT, y);
}

} // namespace

extern "C" void krn_cuda_bias(const struct krn_bias *a)
{
    if (a->n_tok < 1 || a->cols < 1) return;
    dim3 grid((unsigned)a->n_tok, (unsigned)DIV_UP(a->cols, KRN_CUDA_THREADS));
    KRN_LAUNCH(bias_kernel, grid, dim3(KRN_CUDA_THREADS), 0, a->y, a->bias, a->cols);
    krn_cuda_launched("bias");
}

extern "C" void krn_cuda_enter(const struct krn_enter *a)
{
    if (a->n_tok < 1) return;
    // Eight values a thread: a row of 8192 keeps a whole block busy, a short one does not wait for threads without work.
    int32_t threads = MIN(ROUND_UP(MAX(DIV_UP(a->d, 8), (int32_t)CU_LANES), 32), (int32_t)ENTER_THREADS);
    KRN_LAUNCH(enter_kernel, dim3((unsigned)a->n_tok), dim3((unsigned)threads), 0, *a);
    krn_cuda_launched("enter");
}

extern "C" void krn_cuda_heads(const struct krn_heads *a)
{
    if (a->n_tok < 1) return;
    switch (a->to.kv->type) {
    case KV_F16: launch_heads<KV_F16>(a); break;
    case KV_BF16: launch_heads<KV_BF16>(a); break;
    case KV_Q8_0: launch_heads<KV_Q8_0>(a); break;
    case KV_FP8: launch_heads<KV_FP8>(a); break;
    default: launch_heads<KV_F32>(a);
    }
    krn_cuda_launched("heads");
}

extern "C" void krn_cuda_gated(const struct krn_gated *a)
{
    if (a->n_tok < 1 || a->cols < 1) return;
    dim3 grid((unsigned)a->n_tok, (unsigned)DIV_UP(a->cols, KRN_CUDA_THREADS));
    KRN_LAUNCH(gated_kernel, grid, dim3(KRN_CUDA_THREADS), 0, *a);
    krn_cuda_launched("gated");
}
