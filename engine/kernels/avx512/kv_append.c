/* kv_append.c: sixteen values are converted at once; keys scatter, one column of their block. */
#include "engine/kernels/avx512/avx512.h"
#include "engine/kernels/avx512/vmath.h"

static void append_f16(uint16_t *k, uint16_t *v, const float *k_row, const float *v_row,
                       int32_t dim)
{
    enum { NEAREST = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC };
    for (int32_t d = 0; d < dim; d += 16) {
        __mmask16 mask = vmath_first(dim - d);
        uint16_t half[16];
        __m512 kf = _mm512_maskz_loadu_ps(mask, k_row + d),
               vf = _mm512_maskz_loadu_ps(mask, v_row + d);
        _mm256_storeu_si256((__m256i *)half, _mm512_cvtps_ph(kf, NEAREST));
        _mm256_mask_storeu_epi16(v + d, mask, _mm512_cvtps_ph(vf, NEAREST));
        for (int32_t i = 0; i < 16 && d + i < dim; i++) k[(d + i) * KRN_KV_BLOCK] = half[i];
    }
}

static void append_f32(float *k, float *v, const float *k_row, const float *v_row, int32_t dim)
{
    memcpy(v, v_row, (size_t)dim * sizeof *v);
    for (int32_t d = 0; d < dim; d++) k[d * KRN_KV_BLOCK] = k_row[d];
}

void krn_avx512_kv_append(const struct krn_kv_append *a)
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
