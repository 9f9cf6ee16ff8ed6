/* matmul_float.c: the chain over elements: F32, F16 and BF16 weights, widened to f32 in registers.
 *
 * Per k: two vectors of 8 rows, one broadcast per token, 2 x tokens fused multiply-adds; 4 tokens
 * keep 8 chains in flight and fit the 16 registers. */
#include "engine/kernels/avx2/avx2.h"

#include <immintrin.h>

enum { MAX_TOK = 4, AHEAD = 4096 /* bytes fetched ahead */ };

KRN_INLINE __m256 load_half(const uint8_t *p, const enum dtype type)
{
    if (type == DTYPE_F32) return _mm256_loadu_ps((const float *)p);
    __m128i h = _mm_loadu_si128((const __m128i *)p);
    if (type == DTYPE_F16) return _mm256_cvtph_ps(h);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

/* n_tok lanes from `lane`. */
KRN_INLINE void chain(const struct krn_leaf_job *j, int32_t tile, int32_t lane,
                      const enum dtype type, const int n_tok)
{
    const int half_bytes = type == DTYPE_F32 ? 32 : 16;
    const int64_t width = j->width;
    const float *x = (const float *)j->panel + lane;
    const uint8_t *rows = j->tile + tile * j->w->tile_bytes;
    float *out = j->acc + (tile * width + lane) * KRN_TILE;
    __m256 acc[MAX_TOK][2];
    KRN_UNROLL for (int t = 0; t < n_tok; t++) KRN_UNROLL for (int half = 0; half < 2; half++)
        acc[t][half] =
            j->more ? _mm256_load_ps(out + t * KRN_TILE + 8 * half) : _mm256_setzero_ps();

    for (int64_t k = j->k0; k < j->k1; k++) {
        const uint8_t *p = rows + k * 2 * half_bytes;
        _mm_prefetch((const char *)p + AHEAD, _MM_HINT_T0);
        __m256 low = load_half(p, type), high = load_half(p + half_bytes, type);
        KRN_UNROLL for (int t = 0; t < n_tok; t++)
        {
            __m256 xt = _mm256_set1_ps(x[k * width + t]);
            acc[t][0] = _mm256_fmadd_ps(low, xt, acc[t][0]);
            acc[t][1] = _mm256_fmadd_ps(high, xt, acc[t][1]);
        }
    }
    KRN_UNROLL for (int t = 0; t < n_tok; t++) KRN_UNROLL for (int half = 0; half < 2; half++)
        _mm256_store_ps(out + t * KRN_TILE + 8 * half, acc[t][half]);
}

KRN_INLINE void chains(const struct krn_leaf_job *j, const enum dtype type)
{
    for (int32_t tile = 0; tile < j->n_tiles; tile++) {
        int32_t lane = 0;
        for (; lane + MAX_TOK <= j->width; lane += MAX_TOK) chain(j, tile, lane, type, MAX_TOK);
        for (; lane + 2 <= j->width; lane += 2) chain(j, tile, lane, type, 2);
        if (lane < j->width) chain(j, tile, lane, type, 1);
    }
}

static void f32(const struct krn_leaf_job *j)
{
    chains(j, DTYPE_F32);
}
static void f16(const struct krn_leaf_job *j)
{
    chains(j, DTYPE_F16);
}
static void bf16(const struct krn_leaf_job *j)
{
    chains(j, DTYPE_BF16);
}

#define KERNEL(f)                                                                                  \
    {                                                                                              \
        .fn = f, .single_tiles = 1, .k_step = 256, .form = KRN_LEAF_F32                                     \
    }
const struct krn_leaf_kernel krn_avx2_float[DTYPE_COUNT] = {
    [DTYPE_F32] = KERNEL(f32), [DTYPE_F16] = KERNEL(f16), [DTYPE_BF16] = KERNEL(bf16)};
