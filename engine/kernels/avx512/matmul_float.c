/* matmul_float.c: the chain over elements: F32, F16 and BF16 weights, widened to f32 in registers.
 *
 * Per k: one vector of 16 rows per tile, one broadcast per token, tiles x tokens fused
 * multiply-adds. Two tiles at once, so that even a single token has two chains in flight. bf16 is
 * widened by a shift: the bf16 dot instruction rounds otherwise and is slower besides. */
#include "engine/kernels/avx512/avx512.h"

#include <immintrin.h>

enum {
    MAX_TILES = 2,
    MAX_TOK = 8,
    AHEAD = 4096 /* bytes fetched ahead when every weight is used once */
};

KRN_INLINE __m512 load_row(const uint8_t *p, const enum dtype type)
{
    if (type == DTYPE_F32) return _mm512_loadu_ps(p);
    __m256i h = _mm256_loadu_si256((const __m256i *)p);
    if (type == DTYPE_F16) return _mm512_cvtph_ps(h);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

KRN_INLINE void chain(const struct krn_leaf_job *j, const enum dtype type, const int n_tiles,
                      const int n_tok)
{
    const int row_bytes = type == DTYPE_F32 ? 64 : 32;
    const int64_t cols = j->x->cols;
    const float *x = j->x->x + j->t0 * cols;
    const uint8_t *tile[MAX_TILES] = {j->tile, j->tile + (n_tiles > 1 ? j->w->tile_bytes : 0)};
    __m512 acc[MAX_TILES][MAX_TOK], w[MAX_TILES];
    KRN_UNROLL for (int m = 0; m < n_tiles; m++)
        KRN_UNROLL for (int t = 0; t < n_tok; t++) acc[m][t] = _mm512_setzero_ps();

    for (int64_t k = j->k0; k < j->k1; k++) {
        KRN_UNROLL for (int m = 0; m < n_tiles; m++) {
            const uint8_t *p = tile[m] + k * row_bytes;
            if (n_tok == 1) _mm_prefetch((const char *)p + AHEAD, _MM_HINT_T0);
            w[m] = load_row(p, type);
        }
        KRN_UNROLL for (int t = 0; t < n_tok; t++) {
            __m512 xt = _mm512_set1_ps(x[t * cols + k]);
            KRN_UNROLL for (int m = 0; m < n_tiles; m++)
                acc[m][t] = _mm512_fmadd_ps(w[m], xt, acc[m][t]);
        }
    }
    KRN_UNROLL for (int m = 0; m < n_tiles; m++)
        KRN_UNROLL for (int t = 0; t < n_tok; t++)
            _mm512_store_ps(j->acc + (m * n_tok + t) * KRN_TILE, acc[m][t]);
}

KRN_INLINE void run(const struct krn_leaf_job *j, const enum dtype type, int32_t n_tiles,
                    int32_t n_tok)
{
    switch (n_tiles * 16 + n_tok) {
    case 16 + 1: chain(j, type, 1, 1); break;
    case 16 + 2: chain(j, type, 1, 2); break;
    case 16 + 4: chain(j, type, 1, 4); break;
    case 16 + 8: chain(j, type, 1, 8); break;
    case 32 + 1: chain(j, type, 2, 1); break;
    case 32 + 2: chain(j, type, 2, 2); break;
    case 32 + 4: chain(j, type, 2, 4); break;
    case 32 + 8: chain(j, type, 2, 8); break;
    }
}

static void leaf_float(const struct krn_leaf_job *j, int32_t n_tiles, int32_t n_tok)
{
    switch (j->w->type) {
    case DTYPE_F32: run(j, DTYPE_F32, n_tiles, n_tok); break;
    case DTYPE_F16: run(j, DTYPE_F16, n_tiles, n_tok); break;
    default: run(j, DTYPE_BF16, n_tiles, n_tok); break;
    }
}

const struct krn_leaf_kernel krn_avx512_leaf_float = {MAX_TILES, MAX_TOK, leaf_float};
