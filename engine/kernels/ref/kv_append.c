/* kv_append.c: new keys and values into their paged blocks. */
#include "engine/file/half.h"
#include "engine/kernels/ref/ref.h"

static void put(void *plane, bool f16, int64_t i, float x)
{
    if (f16)
        ((uint16_t *)plane)[i] = half_f32_to_f16(x);
    else
        ((float *)plane)[i] = x;
}

void krn_ref_kv_append(const struct krn_kv_append *a)
{
    const struct krn_kv *kv = a->kv;
    int32_t dim = kv->head_dim;
    for (int32_t t = a->t0; t < a->t1; t++) {
        int64_t block = a->table[t][a->pos[t] / KRN_KV_BLOCK];
        int32_t slot = a->pos[t] % KRN_KV_BLOCK;
        for (int32_t h = 0; h < kv->n_kv; h++) {
            int64_t base = (block * kv->n_kv + h) * dim * KRN_KV_BLOCK;
            int64_t row = ((int64_t)t * kv->n_kv + h) * dim;
            for (int32_t d = 0; d < dim; d++) {
                put(kv->k, kv->f16, base + d * KRN_KV_BLOCK + slot, a->k[row + d]);
                put(kv->v, kv->f16, base + slot * dim + d, a->v[row + d]);
            }
        }
    }
}
