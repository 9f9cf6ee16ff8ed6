/* matmul_float.c: the chain over elements: F32, F16 and BF16 weights, widened to f32 in registers.
 *
 * Per k: two vectors of 8 rows, one broadcast per token, 2 x tokens fused multiply-adds; 4 tokens
 * keep 8 chains in flight and fit the 16 registers. */
#include "engine/kernels/avx2/avx2.h"

#include <immintrin.h>

enum { MAX_TOK = 4, AHEAD = 4096 /* bytes fetched ahead when every weight is used once */ };

KRN_INLINE __m256 load_half(const uint8_t *p, const enum dtype type)
{
    if (type == DTYPE_F32) return _mm256_loadu_ps((const float *)p);
    __m128i h = _mm_loadu_si128((const __m128i *)p);
    if (type == DTYPE_F16) return _mm256_cvtph_ps(h);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

KRN_INLINE void chain(const struct krn_leaf_job *j, const enum dtype type, const int n_tok)
{
    const int half_bytes = type == DTYPE_F32 ? 32 : 16;
    const int64_t cols = j->x->cols;
    const float *x = j->x->x + j->t0 * cols;
    __m256 acc[MAX_TOK][2];
    KRN_UNROLL for (int t = 0; t < n_tok; t++) acc[t][0] = acc[t][1] = _mm256_setzero_ps();

    for (int64_t k = j->k0; k < j->k1; k++) {
        const uint8_t *p = j->tile + k * 2 * half_bytes;
        if (n_tok == 1) _mm_prefetch((const char *)p + AHEAD, _MM_HINT_T0);
        __m256 low = load_half(p, type), high = load_half(p + half_bytes, type);
        KRN_UNROLL for (int t = 0; t < n_tok; t++) {
            __m256 xt = _mm256_set1_ps(x[t * cols + k]);
            acc[t][0] = _mm256_fmadd_ps(low, xt, acc[t][0]);
            acc[t][1] = _mm256_fmadd_ps(high, xt, acc[t][1]);
        }
    }
    KRN_UNROLL for (int t = 0; t < n_tok; t++) {
        _mm256_store_ps(j->acc + t * KRN_TILE, acc[t][0]);
        _mm256_store_ps(j->acc + t * KRN_TILE + 8, acc[t][1]);
    }
}

KRN_INLINE void run(const struct krn_leaf_job *j, const enum dtype type, int32_t n_tok)
{
    switch (n_tok) {
    case 1: chain(j, type, 1); break;
    case 2: chain(j, type, 2); break;
    case 4: chain(j, type, 4); break;
    }
}

static void leaf_float(const struct krn_leaf_job *j, int32_t n_tiles, int32_t n_tok)
{
    (void)n_tiles;
    switch (j->w->type) {
    case DTYPE_F32: run(j, DTYPE_F32, n_tok); break;
    case DTYPE_F16: run(j, DTYPE_F16, n_tok); break;
    default: run(j, DTYPE_BF16, n_tok); break;
    }
}

const struct krn_leaf_kernel krn_avx2_leaf_float = {1, MAX_TOK, leaf_float};
