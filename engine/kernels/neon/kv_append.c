/* kv_append.c: four values are converted at once; keys scatter, one column of their block. */
#include "engine/kernels/kv_block.h"
#include "engine/kernels/neon/codes.h"
#include "engine/kernels/neon/neon.h"

/* ---- halves ---------------------------------------------------------------------------------- */

static uint16x4_t to_half(enum kv_type type, float32x4_t x)
{
    return type == KV_F16 ? vmath_to_f16(x) : vmath_to_bf16(x);
}

static void put_halves(enum kv_type type, uint16_t *k, uint16_t *v, const float *k_row,
                       const float *v_row, int32_t dim)
{
    for (int32_t d = 0; d < dim; d += LANES) {
        int32_t n = MIN(dim - d, LANES);
        uint16_t k_half[LANES], v_half[LANES];
        vst1_u16(k_half, to_half(type, vmath_load(k_row + d, n)));
        for (int32_t i = 0; i < n; i++) k[(d + i) * KRN_KV_BLOCK] = k_half[i];
        if (!v) continue;
        vst1_u16(v_half, to_half(type, vmath_load(v_row + d, n)));
        memcpy(v + d, v_half, (size_t)n * sizeof *v);
    }
}

static void put_floats(float *k, float *v, const float *k_row, const float *v_row, int32_t dim)
{
    if (v) memcpy(v, v_row, (size_t)dim * sizeof *v);
    for (int32_t d = 0; d < dim; d++) k[d * KRN_KV_BLOCK] = k_row[d];
}

/* ---- codes ----------------------------------------------------------------------------------- */

/* x[n], n <= 32, to n codes; returns their scale. */
static uint16_t unit_codes(int8_t codes[KV_UNIT], const float *x, int32_t n)
{
    float32x4_t v[CODE_VECTORS];
    float inv;
    int32_t sum[2];
    uint16_t scale = krn_kv_scale(codes_load(x, n, v), &inv);
    codes_of(v, inv, codes, sum);
    return scale;
}

static void put_codes(uint8_t *k_block, uint8_t *v_block, int32_t j, const float *k, const float *v,
                      int32_t dim)
{
    uint16_t *k_scale = (uint16_t *)k_block, *v_scale = (uint16_t *)v_block;
    int8_t *k_code = (int8_t *)k_block + krn_kv_codes(dim) + j, codes[KV_UNIT];
    for (int32_t u = 0; u < krn_kv_units(dim); u++) {
        int32_t d = u * KV_UNIT, n = MIN(KV_UNIT, dim - d);
        k_scale[u * KRN_KV_BLOCK + j] = unit_codes(codes, k + d, n);
        for (int32_t i = 0; i < n; i++) k_code[(d + i) * KRN_KV_BLOCK] = codes[i];
        if (!v) continue;
        v_scale[j * krn_kv_units(dim) + u] = unit_codes(codes, v + d, n);
        memcpy(v_block + krn_kv_codes(dim) + (int64_t)j * dim + d, codes, (size_t)n);
    }
}

static void put(enum kv_type type, uint8_t *k_block, uint8_t *v_block, int32_t j, const float *k,
                const float *v, int32_t dim)
{
    if (type == KV_Q8_0)
        put_codes(k_block, v_block, j, k, v, dim);
    else if (type == KV_F32)
        put_floats((float *)k_block + j, v ? (float *)v_block + (int64_t)j * dim : NULL, k, v, dim);
    else
        put_halves(type, (uint16_t *)k_block + j, v ? (uint16_t *)v_block + (int64_t)j * dim : NULL, k, v, dim);
}

void krn_neon_kv_append(const struct krn_kv_append *a)
{
    krn_kv_append_walk(a, put);
}
