/* matmul_float.c: the chain over elements: F32, F16 and BF16 weights, widened to f32 in registers.
 *
 * Per k: one vector of 16 rows per tile, one broadcast per token, tiles x tokens fused
 * multiply-adds: 2 tiles x 8 tokens for batches, and 4 tiles for one token, so that four chains are
 * in flight. bf16 is widened by a shift: the bf16 dot instruction rounds otherwise. */
#include "engine/kernels/avx512/avx512.h"

#include <immintrin.h>

/* Bytes fetched ahead: the most that measures well, with 4 streams and with 1 or 2. */
enum { MAX_TILES = 4, MAX_TOK = 8, AHEAD_ONE = 2048, AHEAD = 4096 };

KRN_INLINE __m512 load_row(const uint8_t *p, const enum dtype type)
{
    if (type == DTYPE_F32) return _mm512_loadu_ps(p);
    __m256i h = _mm256_loadu_si256((const __m256i *)p);
    if (type == DTYPE_F16) return _mm512_cvtph_ps(h);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

/* n_tiles tiles from `tile`, n_tok lanes from `lane`. */
KRN_INLINE void chain(const struct krn_leaf_job *j, int32_t tile, int32_t lane,
                      const enum dtype type, const int n_tiles, const int n_tok)
{
    const int row_bytes = type == DTYPE_F32 ? 64 : 32;
    const int64_t width = j->width;
    const float *x = (const float *)j->panel + lane;
    const uint8_t *rows[MAX_TILES];
    float *out = j->acc + (tile * width + lane) * KRN_TILE;
    __m512 acc[MAX_TILES][MAX_TOK], w[MAX_TILES];
    KRN_UNROLL for (int m = 0; m < n_tiles; m++)
    {
        rows[m] = j->tile + (tile + m) * j->w->tile_bytes;
        KRN_UNROLL for (int t = 0; t < n_tok; t++) acc[m][t] =
            j->more ? _mm512_load_ps(out + (m * width + t) * KRN_TILE) : _mm512_setzero_ps();
    }
    for (int64_t k = j->k0; k < j->k1; k++) {
        KRN_UNROLL for (int m = 0; m < n_tiles; m++)
        {
            const uint8_t *p = rows[m] + k * row_bytes;
            _mm_prefetch((const char *)p + (n_tiles == MAX_TILES ? AHEAD_ONE : AHEAD), _MM_HINT_T0);
            w[m] = load_row(p, type);
        }
        KRN_UNROLL for (int t = 0; t < n_tok; t++)
        {
            __m512 xt = _mm512_set1_ps(x[k * width + t]);
            KRN_UNROLL for (int m = 0; m < n_tiles; m++) acc[m][t] =
                _mm512_fmadd_ps(w[m], xt, acc[m][t]);
        }
    }
    KRN_UNROLL for (int m = 0; m < n_tiles; m++) KRN_UNROLL for (int t = 0; t < n_tok; t++)
        _mm512_store_ps(out + (m * width + t) * KRN_TILE, acc[m][t]);
}

/* All lanes of a panel for n_tiles tiles; widths are those of krn_group_width. */
KRN_INLINE void lanes(const struct krn_leaf_job *j, int32_t tile, const enum dtype type,
                      const int n_tiles)
{
    switch (j->width) {
    case 1:
        chain(j, tile, 0, type, n_tiles, 1);
        break;
    case 2:
        chain(j, tile, 0, type, n_tiles, 2);
        break;
    case 4:
        chain(j, tile, 0, type, n_tiles, 4);
        break;
    case 6:
        chain(j, tile, 0, type, n_tiles, 6);
        break;
    case 12:
        chain(j, tile, 0, type, n_tiles, 6);
        chain(j, tile, 6, type, n_tiles, 6);
        break;
    default:
        for (int32_t lane = 0; lane < j->width; lane += MAX_TOK)
            chain(j, tile, lane, type, n_tiles, MAX_TOK);
    }
}

KRN_INLINE void chains(const struct krn_leaf_job *j, const enum dtype type)
{
    if (j->width == 1 && j->n_tiles == MAX_TILES) {
        chain(j, 0, 0, type, MAX_TILES, 1);
        return;
    }
    int32_t tile = 0;
    for (; tile + 2 <= j->n_tiles; tile += 2) lanes(j, tile, type, 2);
    if (tile < j->n_tiles) lanes(j, tile, type, 1);
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
        .fn = f, .single_tiles = MAX_TILES, .k_step = 256, .form = KRN_LEAF_F32                             \
    }
const struct krn_leaf_kernel krn_avx512_float[DTYPE_COUNT] = {
    [DTYPE_F32] = KERNEL(f32), [DTYPE_F16] = KERNEL(f16), [DTYPE_BF16] = KERNEL(bf16)};
