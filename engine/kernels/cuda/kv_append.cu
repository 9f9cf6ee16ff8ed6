// kv_append.cu: new keys and values into their paged blocks; a thread takes one value of each.
#include "engine/kernels/cuda/cuda.cuh"

extern "C" {
#include "engine/kernels/cuda/cuda.h"
}

namespace {

template <bool F16> __device__ void put(void *plane, int64_t i, float x)
{
    if (F16)
        ((uint16_t *)plane)[i] = cu_to_f16(x);
    else
        ((float *)plane)[i] = x;
}

// Grid: (values of a token, tokens).
template <bool F16>
__global__ void __launch_bounds__(KRN_CUDA_THREADS)
    append_kernel(struct krn_kv kv, const float *k, const float *v, const int32_t *pos,
                  const int32_t *const *table, int32_t t0)
{
    int32_t i = (int32_t)(blockIdx.x * blockDim.x + threadIdx.x), t = t0 + (int32_t)blockIdx.y;
    int32_t dim = kv.head_dim, head = i / dim, d = i % dim;
    if (head >= kv.n_kv) return;
    int32_t slot = pos[t] % KRN_KV_BLOCK;
    int64_t block = table[t][pos[t] / KRN_KV_BLOCK];
    int64_t base = (block * kv.n_kv + head) * dim * KRN_KV_BLOCK, from = (int64_t)t * kv.n_kv * dim + i;
    put<F16>(kv.k, base + d * KRN_KV_BLOCK + slot, k[from]);
    put<F16>(kv.v, base + (int64_t)slot * dim + d, v[from]);
}

} // namespace

extern "C" void krn_cuda_kv_append(const struct krn_kv_append *a)
{
    if (a->t0 >= a->t1) return;
    dim3 grid((unsigned)DIV_UP(a->kv->n_kv * a->kv->head_dim, KRN_CUDA_THREADS), (unsigned)(a->t1 - a->t0));
    if (a->kv->f16)
        KRN_LAUNCH(append_kernel<true>, grid, dim3(KRN_CUDA_THREADS), 0, *a->kv, a->k, a->v, a->pos, a->table,
                   a->t0);
    else
        KRN_LAUNCH(append_kernel<false>, grid, dim3(KRN_CUDA_THREADS), 0, *a->kv, a->k, a->v, a->pos,
                   a->table, a->t0);
    krn_cuda_launched("kv_append");
}
