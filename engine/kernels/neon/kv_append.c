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

/* Four values to E4M3, a byte in each lane: by the bits of normal numbers, and by adding 1.5 * 2^14, whose last place is 2^-9, for those below. */
static uint32x4_t to_e4m3(float32x4_t x)
{
    const float32x4_t add = vmath_all(0x1.8p14f);
    float32x4_t a = vminq_f32(vabsq_f32(x), vmath_all(448.0f));
    uint32x4_t u = vreinterpretq_u32_f32(a), odd = vandq_u32(vshrq_n_u32(u, 20), vdupq_n_u32(1));
    u = vshrq_n_u32(vaddq_u32(u, vaddq_u32(odd, vdupq_n_u32(0x7ffffu - (120u << 23)))), 20);
    uint32x4_t low = vsubq_u32(vreinterpretq_u32_f32(vaddq_f32(a, add)), vreinterpretq_u32_f32(add));
    u = vbslq_u32(vcltq_f32(a, vmath_all(0x1p-6f)), low, u);
    return vorrq_u32(u, vandq_u32(vshrq_n_u32(vreinterpretq_u32_f32(x), 24), vdupq_n_u32(0x80)));
}

static void put_e4m3(uint8_t *k, uint8_t *v, const float *k_row, const float *v_row, int32_t dim)
{
    for (int32_t d = 0; d < dim; d += LANES) {
        int32_t n = MIN(dim - d, LANES);
        uint32_t k_byte[LANES], v_byte[LANES];
        vst1q_u32(k_byte, to_e4m3(vmath_load(k_row + d, n)));
        for (int32_t i = 0; i < n; i++) k[(d + i) * KRN_KV_BLOCK] = (uint8_t)k_byte[i];
        if (!v) continue;
        vst1q_u32(v_byte, to_e4m3(vmath_load(v_row + d, n)));
        for (int32_t i = 0; i < n; i++) v[d + i] = (uint8_t)v_byte[i];
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
    else if (type == KV_FP8)
        put_e4m3(k_block + j, v ? v_block + (int64_t)j * dim : NULL, k, v, dim);
    else
        put_halves(type, (uint16_t *)k_block + j, v ? (uint16_t *)v_block + (int64_t)j * dim : NULL, k, v, dim);
}

void krn_neon_kv_append(const struct krn_kv_append *a)
{
    krn_kv_append_walk(a, put);
}
