/* kv_append.c: eight values are converted at once; keys scatter, one column of their block. */
#include "engine/kernels/avx2/avx2.h"
#include "engine/kernels/avx2/vmath.h"

static void append_f16(uint16_t *k, uint16_t *v, const float *k_row, const float *v_row,
                       int32_t dim)
{
    enum { NEAREST = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC };
    for (int32_t d = 0; d < dim; d += 8) {
        int32_t n = MIN(dim - d, 8);
        uint16_t k_half[8], v_half[8];
        _mm_storeu_si128((__m128i *)k_half, _mm256_cvtps_ph(vmath_load(k_row + d, n), NEAREST));
        _mm_storeu_si128((__m128i *)v_half, _mm256_cvtps_ph(vmath_load(v_row + d, n), NEAREST));
        memcpy(v + d, v_half, (size_t)n * sizeof *v);
        for (int32_t i = 0; i < n; i++) k[(d + i) * KRN_KV_BLOCK] = k_half[i];
    }
}

static void append_f32(float *k, float *v, const float *k_row, const float *v_row, int32_t dim)
{
    memcpy(v, v_row, (size_t)dim * sizeof *v);
    for (int32_t d = 0; d < dim; d++) k[d * KRN_KV_BLOCK] = k_row[d];
}

void krn_avx2_kv_append(const struct krn_kv_append *a)
{
    const struct krn_kv *kv = a->kv;
    int32_t dim = kv->head_dim;
    for (int32_t t = a->t0; t < a->t1; t++) {
        int64_t block = a->table[t][a->pos[t] / KRN_KV_BLOCK];
        int32_t slot = a->pos[t] % KRN_KV_BLOCK;
        for (int32_t h = 0; h < kv->n_kv; h++) {
            int64_t base = (block * kv->n_kv + h) * dim * KRN_KV_BLOCK;
            int64_t k = base + slot, v = base + (int64_t)slot * dim,
                    row = ((int64_t)t * kv->n_kv + h) * dim;
            if (kv->f16)
                append_f16((uint16_t *)kv->k + k, (uint16_t *)kv->v + v, a->k + row, a->v + row,
                           dim);
            else
                append_f32((float *)kv->k + k, (float *)kv->v + v, a->k + row, a->v + row, dim);
        }
    }
}
