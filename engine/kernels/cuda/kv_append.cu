// kv_append.cu: new keys and values into their paged blocks; a thread takes one value of each, or, in q8_0, one unit of one of them.
#include "engine/kernels/cuda/kv_put.cuh"

extern "C" {
#include "engine/kernels/cuda/cuda.h"
}

namespace {

// Grid: (tokens, values of a token).
template <int TYPE>
__global__ void __launch_bounds__(KRN_CUDA_THREADS)
    append_kernel(struct krn_kv kv, const float *k, const float *v, const int32_t *pos,
                  const int32_t *const *table, int32_t t0)
{
    cu_begin();
    int32_t i = (int32_t)(blockIdx.y * blockDim.x + threadIdx.x), t = t0 + (int32_t)blockIdx.x;
    int32_t dim = kv.head_dim, head = i / dim, d = i % dim;
    if (head >= kv.n_kv || pos[t] < 0) return; // padding
    int32_t slot = pos[t] % KRN_KV_BLOCK;
    int64_t block = table[t][pos[t] / KRN_KV_BLOCK], from = (int64_t)t * kv.n_kv * dim + i;
    cu_kv_put<TYPE>(cu_kv_block<TYPE>(kv.k, kv, block, head), (int64_t)d * KRN_KV_BLOCK + slot, k[from]);
    if (!kv.v_dim) cu_kv_put<TYPE>(cu_kv_block<TYPE>(kv.v, kv, block, head), (int64_t)slot * dim + d, v[from]);
}

// Grid: (tokens, units of a token's keys and values).
__global__ void __launch_bounds__(KRN_CUDA_THREADS)
    append_codes_kernel(struct krn_kv kv, const float *k, const float *v, const int32_t *pos,
                        const int32_t *const *table, int32_t t0)
{
    cu_begin();
    int32_t i = (int32_t)(blockIdx.y * blockDim.x + threadIdx.x), t = t0 + (int32_t)blockIdx.x;
    int32_t dim = kv.head_dim, units = DIV_UP(dim, KV_UNIT), head = i / 2 / units, u = i / 2 % units;
    if (head >= kv.n_kv || pos[t] < 0 || (kv.v_dim && i % 2)) return;
    int32_t slot = pos[t] % KRN_KV_BLOCK, d = u * KV_UNIT, n = min((int32_t)KV_UNIT, dim - d);
    int64_t block = table[t][pos[t] / KRN_KV_BLOCK], from = ((int64_t)t * kv.n_kv + head) * dim + d;
    uint8_t *to = cu_kv_block<KV_Q8_0>(i % 2 ? kv.v : kv.k, kv, block, head);
    int8_t *codes = (int8_t *)to + cu_kv_codes<KV_Q8_0>(dim);
    if (i % 2)
        ((uint16_t *)to)[slot * units + u] = cu_kv_put_codes(codes + (int64_t)slot * dim + d, 1, v + from, n);
    else
        ((uint16_t *)to)[u * KRN_KV_BLOCK + slot] =
            cu_kv_put_codes(codes + (int64_t)d * KRN_KV_BLOCK + slot, KRN_KV_BLOCK, k + from, n);
}

template <int TYPE> void launch(const struct krn_kv_append *a)
{
    dim3 grid = cu_rows_by_columns(a->t1 - a->t0, a->kv->n_kv * a->kv->head_dim);
    KRN_LAUNCH(append_kernel<TYPE>, grid, dim3(KRN_CUDA_THREADS), 0, *a->kv, a->k, a->v, a->pos, a->table, a->t0);
}

void launch_codes(const struct krn_kv_append *a)
{
    int32_t n = 2 * a->kv->n_kv * DIV_UP(a->kv->head_dim, KV_UNIT);
    dim3 grid = cu_rows_by_columns(a->t1 - a->t0, n);
    KRN_LAUNCH(append_codes_kernel, grid, dim3(KRN_CUDA_THREADS), 0, *a->kv, a->k, a->v, a->pos, a->table, a->t0);
}

} // namespace

extern "C" void krn_cuda_kv_append(const struct krn_kv_append *a)
{
    if (a->t0 >= a->t1) return;
    switch (a->kv->type) {
    case KV_F16: launch<KV_F16>(a); break;
    case KV_BF16: launch<KV_BF16>(a); break;
    case KV_Q8_0: launch_codes(a); break;
    case KV_FP8: launch<KV_FP8>(a); break;
    default: launch<KV_F32>(a);
    }
    krn_cuda_launched("kv_append");
}
