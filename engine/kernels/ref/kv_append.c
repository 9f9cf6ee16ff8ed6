/* kv_append.c: new keys and values into their paged blocks. */
#include "engine/kernels/kv_block.h"
#include "engine/kernels/math.h"
#include "engine/kernels/ref/ref.h"

/* x[n], one unit, to codes that stand `step` apart; returns the scale. */
static uint16_t put_codes(int8_t *codes, int64_t step, const float *x, int32_t n)
{
    float amax = 0.0f, inv;
    for (int32_t i = 0; i < n; i++) amax = fabsf(x[i]) > amax ? fabsf(x[i]) : amax;
    uint16_t scale = krn_kv_scale(amax, &inv);
    /* adding 1.5 * 2^23 rounds to the nearest integer, ties to even */
    for (int32_t i = 0; i < n; i++)
        codes[i * step] = (int8_t)(int32_t)(krn_math_bits(x[i] * inv + KRN_ROUND) - krn_math_bits(KRN_ROUND));
    return scale;
}

static void put_q8(uint8_t *k_block, uint8_t *v_block, int32_t j, const float *k, const float *v, int32_t dim)
{
    uint16_t *k_scale = (uint16_t *)k_block, *v_scale = (uint16_t *)v_block;
    for (int32_t u = 0; u < krn_kv_units(dim); u++) {
        int32_t d = u * KV_UNIT, n = MIN(KV_UNIT, dim - d), at = krn_kv_codes(dim);
        k_scale[u * KRN_KV_BLOCK + j] = put_codes((int8_t *)k_block + at + d * KRN_KV_BLOCK + j, KRN_KV_BLOCK, k + d, n);
        if (v) v_scale[j * krn_kv_units(dim) + u] = put_codes((int8_t *)v_block + at + (int64_t)j * dim + d, 1, v + d, n);
    }
}

static void put_element(enum kv_type type, uint8_t *block, int64_t i, float x)
{
    if (type == KV_F32) ((float *)block)[i] = x;
    else if (type == KV_FP8) block[i] = half_f32_to_e4m3(x);
    else ((uint16_t *)block)[i] = type == KV_F16 ? half_f32_to_f16(x) : half_f32_to_bf16(x);
}

static void put(enum kv_type type, uint8_t *k_block, uint8_t *v_block, int32_t j, const float *k, const float *v, int32_t dim)
{
    if (type == KV_Q8_0) {
        put_q8(k_block, v_block, j, k, v, dim);
        return;
    }
    for (int32_t d = 0; d < dim; d++) {
        put_element(type, k_block, d * KRN_KV_BLOCK + j, k[d]);
        if (v) put_element(type, v_block, (int64_t)j * dim + d, v[d]);
    }
}

void krn_ref_kv_append(const struct krn_kv_append *a)
{
    krn_kv_append_walk(a, put);
}
