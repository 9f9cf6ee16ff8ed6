/* kv_append.c: sixteen values are converted at once; keys scatter, one column of their block. */
#include "engine/kernels/avx512/avx512.h"
#include "engine/kernels/avx512/vmath.h"
#include "engine/kernels/kv_block.h"

enum { NEAREST = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC };

/* ---- halves ---------------------------------------------------------------------------------- */

static __m256i to_bf16(__m512 x)
{
    __m512i u = _mm512_castps_si512(x), odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    u = _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(u, 16));
}

static __m256i to_half(enum kv_type type, __m512 x)
{
    return type == KV_F16 ? _mm512_cvtps_ph(x, NEAREST) : to_bf16(x);
}

static void put_halves(enum kv_type type, uint16_t *k, uint16_t *v, const float *k_row,
                       const float *v_row, int32_t dim)
{
    for (int32_t d = 0; d < dim; d += 16) {
        __mmask16 mask = vmath_first(dim - d);
        uint16_t half[16];
        _mm256_storeu_si256((__m256i *)half, to_half(type, _mm512_maskz_loadu_ps(mask, k_row + d)));
        if (v) _mm256_mask_storeu_epi16(v + d, mask, to_half(type, _mm512_maskz_loadu_ps(mask, v_row + d)));
        for (int32_t i = 0; i < 16 && d + i < dim; i++) k[(d + i) * KRN_KV_BLOCK] = half[i];
    }
}

/* Sixteen values to E4M3: by the bits of normal numbers, and by adding 1.5 * 2^14, whose last place is 2^-9, for those below. */
static __m128i to_e4m3(__m512 x)
{
    const __m512 add = _mm512_set1_ps(0x1.8p14f);
    __m512 a = _mm512_min_ps(_mm512_abs_ps(x), _mm512_set1_ps(448.0f));
    __m512i u = _mm512_castps_si512(a), odd = _mm512_and_si512(_mm512_srli_epi32(u, 20), _mm512_set1_epi32(1));
    u = _mm512_srli_epi32(_mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7ffff - (120 << 23)))), 20);
    __mmask16 is_low = _mm512_cmp_ps_mask(a, _mm512_set1_ps(0x1p-6f), _CMP_LT_OQ);
    u = _mm512_mask_sub_epi32(u, is_low, _mm512_castps_si512(_mm512_add_ps(a, add)), _mm512_castps_si512(add));
    __m512i sign = _mm512_and_si512(_mm512_srli_epi32(_mm512_castps_si512(x), 24), _mm512_set1_epi32(0x80));
    return _mm512_cvtepi32_epi8(_mm512_or_si512(u, sign));
}

static void put_e4m3(uint8_t *k, uint8_t *v, const float *k_row, const float *v_row, int32_t dim)
{
    for (int32_t d = 0; d < dim; d += 16) {
        __mmask16 mask = vmath_first(dim - d);
        uint8_t byte[16];
        _mm_storeu_si128((__m128i *)byte, to_e4m3(_mm512_maskz_loadu_ps(mask, k_row + d)));
        if (v) _mm_mask_storeu_epi8(v + d, mask, to_e4m3(_mm512_maskz_loadu_ps(mask, v_row + d)));
        for (int32_t i = 0; i < 16 && d + i < dim; i++) k[(d + i) * KRN_KV_BLOCK] = byte[i];
    }
}

static void put_floats(float *k, float *v, const float *k_row, const float *v_row, int32_t dim)
{
    if (v) memcpy(v, v_row, (size_t)dim * sizeof *v);
    for (int32_t d = 0; d < dim; d++) k[d * KRN_KV_BLOCK] = k_row[d];
}

/* ---- codes ----------------------------------------------------------------------------------- */

/* x[n], n <= 32, to n codes; returns their scale. */
static uint16_t codes_of(int8_t codes[KV_UNIT], const float *x, int32_t n)
{
    __m512 a = _mm512_maskz_loadu_ps(vmath_first(n), x),
           b = _mm512_maskz_loadu_ps(vmath_first(n - 16), x + 16);
    float inv, amax = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(a), _mm512_abs_ps(b)));
    uint16_t scale = krn_kv_scale(amax, &inv);
    __m512i qa = _mm512_cvtps_epi32(_mm512_mul_ps(a, _mm512_set1_ps(inv))),
            qb = _mm512_cvtps_epi32(_mm512_mul_ps(b, _mm512_set1_ps(inv)));
    _mm_storeu_si128((__m128i *)codes, _mm512_cvtepi32_epi8(qa));
    _mm_storeu_si128((__m128i *)(codes + 16), _mm512_cvtepi32_epi8(qb));
    return scale;
}

static void put_codes(uint8_t *k_block, uint8_t *v_block, int32_t j, const float *k, const float *v,
                      int32_t dim)
{
    uint16_t *k_scale = (uint16_t *)k_block, *v_scale = (uint16_t *)v_block;
    int8_t *k_code = (int8_t *)k_block + krn_kv_codes(dim) + j, codes[KV_UNIT];
    for (int32_t u = 0; u < krn_kv_units(dim); u++) {
        int32_t d = u * KV_UNIT, n = MIN(KV_UNIT, dim - d);
        k_scale[u * KRN_KV_BLOCK + j] = codes_of(codes, k + d, n);
        for (int32_t i = 0; i < n; i++) k_code[(d + i) * KRN_KV_BLOCK] = codes[i];
        if (!v) continue;
        v_scale[j * krn_kv_units(dim) + u] = codes_of(codes, v + d, n);
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

void krn_avx512_kv_append(const struct krn_kv_append *a)
{
    krn_kv_append_walk(a, put);
}
