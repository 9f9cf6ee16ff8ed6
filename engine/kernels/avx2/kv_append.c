/* kv_append.c: eight values are converted at once; keys scatter, one column of their block. */
#include "engine/kernels/avx2/avx2.h"
#include "engine/kernels/avx2/vmath.h"
#include "engine/kernels/kv_block.h"

enum { NEAREST = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC };

/* ---- halves ---------------------------------------------------------------------------------- */

static __m128i to_bf16(__m256 x)
{
    __m256i u = _mm256_castps_si256(x), odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    u = _mm256_srli_epi32(_mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
    return _mm_packus_epi32(_mm256_castsi256_si128(u), _mm256_extracti128_si256(u, 1));
}

static __m128i to_half(enum kv_type type, __m256 x)
{
    return type == KV_F16 ? _mm256_cvtps_ph(x, NEAREST) : to_bf16(x);
}

static void put_halves(enum kv_type type, uint16_t *k, uint16_t *v, const float *k_row,
                       const float *v_row, int32_t dim)
{
    for (int32_t d = 0; d < dim; d += 8) {
        int32_t n = MIN(dim - d, 8);
        uint16_t k_half[8], v_half[8];
        _mm_storeu_si128((__m128i *)k_half, to_half(type, vmath_load(k_row + d, n)));
        for (int32_t i = 0; i < n; i++) k[(d + i) * KRN_KV_BLOCK] = k_half[i];
        if (!v) continue;
        _mm_storeu_si128((__m128i *)v_half, to_half(type, vmath_load(v_row + d, n)));
        memcpy(v + d, v_half, (size_t)n * sizeof *v);
    }
}

/* Eight values to E4M3, a byte in each lane: by the bits of normal numbers, and by adding 1.5 * 2^14, whose last place is 2^-9, for those below. */
static __m256i to_e4m3(__m256 x)
{
    const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(INT32_MAX)), add = _mm256_set1_ps(0x1.8p14f);
    __m256 a = _mm256_min_ps(_mm256_and_ps(x, magnitude), _mm256_set1_ps(448.0f));
    __m256i u = _mm256_castps_si256(a), odd = _mm256_and_si256(_mm256_srli_epi32(u, 20), _mm256_set1_epi32(1));
    u = _mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7ffff - (120 << 23))));
    __m256i low = _mm256_sub_epi32(_mm256_castps_si256(_mm256_add_ps(a, add)), _mm256_castps_si256(add));
    __m256 is_low = _mm256_cmp_ps(a, _mm256_set1_ps(0x1p-6f), _CMP_LT_OQ);
    u = _mm256_blendv_epi8(_mm256_srli_epi32(u, 20), low, _mm256_castps_si256(is_low));
    __m256i sign = _mm256_srli_epi32(_mm256_castps_si256(_mm256_andnot_ps(magnitude, x)), 24);
    return _mm256_or_si256(u, sign);
}

static void put_e4m3(uint8_t *k, uint8_t *v, const float *k_row, const float *v_row, int32_t dim)
{
    for (int32_t d = 0; d < dim; d += 8) {
        int32_t n = MIN(dim - d, 8);
        uint32_t k_byte[8], v_byte[8];
        _mm256_storeu_si256((__m256i *)k_byte, to_e4m3(vmath_load(k_row + d, n)));
        for (int32_t i = 0; i < n; i++) k[(d + i) * KRN_KV_BLOCK] = (uint8_t)k_byte[i];
        if (!v) continue;
        _mm256_storeu_si256((__m256i *)v_byte, to_e4m3(vmath_load(v_row + d, n)));
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
static uint16_t codes_of(int8_t codes[KV_UNIT], const float *x, int32_t n)
{
    const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(INT32_MAX));
    __m256 v[4], big = _mm256_setzero_ps();
    for (int32_t i = 0; i < 4; i++) {
        v[i] = vmath_load(x + 8 * i, MAX(n - 8 * i, 0));
        big = _mm256_max_ps(big, _mm256_and_ps(v[i], magnitude));
    }
    float inv;
    uint16_t scale = krn_kv_scale(vmath_max(big), &inv);
    __m256i c[4];
    for (int32_t i = 0; i < 4; i++) c[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], _mm256_set1_ps(inv)));
    /* packing works within halves of a vector: put the groups of four bytes back in order */
    __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(c[0], c[1]), _mm256_packs_epi32(c[2], c[3]));
    bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_storeu_si256((__m256i *)codes, bytes);
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

void krn_avx2_kv_append(const struct krn_kv_append *a)
{
    krn_kv_append_walk(a, put);
}
