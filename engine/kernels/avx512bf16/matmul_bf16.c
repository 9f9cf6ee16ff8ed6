/* matmul_bf16.c: the chain over pairs of columns by vdpbf16ps.
 *
 * Two rows of 16 elements that follow each other in a tile become, by one permutation, a vector of 16 pairs: one lane is one output row. Two
 * tiles x 8 tokens are 16 chains: a pair of columns costs 2 loads and 2 permutations of weights and 8 broadcasts for 16 dot products, so the
 * two dot products per cycle decide: 508 GFLOP/s on one Zen 5 core, 96 % of them; 393 with F16, whose conversion takes the rest. Nothing is
 * fetched ahead: the tokens of a prompt pass over weights that are near. */
#include "engine/kernels/avx512bf16/avx512bf16.h"

#include "engine/kernels/leaf_walk.h"

#include <immintrin.h>

enum { MAX_TILES = 2, MAX_TOK = 8, ROW = 32 /* bytes */ };

/* ---- activations ---- */

/* 32 columns at p as 16 words. */
KRN_INLINE __m512i round_line(const float *p, int32_t n)
{
    const uint32_t mask = n >= 32 ? UINT32_MAX : (1u << n) - 1;
    const __m512 low = _mm512_maskz_loadu_ps((__mmask16)mask, p), high = _mm512_maskz_loadu_ps((__mmask16)(mask >> 16), p + 16);
    return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

static void interleave(const struct krn_act *a, int32_t t0, int32_t t1, int32_t k0, int32_t k1)
{
    enum { LINE = 32 };
    const int32_t pairs = DIV_UP(a->cols, 2);
    uint32_t word[LINE / 2];
    ASSERT(k0 % 2 == 0 && (k1 % 2 == 0 || k1 == a->cols));
    for (int32_t k = k0; k < k1; k += LINE)
        for (int32_t t = t0; t < t1; t++) {
            int32_t first = t / KRN_GROUP * KRN_GROUP, width = krn_group_width(a->n_tok, first);
            int32_t n = DIV_UP(MIN(LINE, k1 - k), 2), end = t == a->n_tok - 1 ? width : t - first + 1;
            uint32_t *to = a->xb + (int64_t)first * pairs + (int64_t)(k / 2) * width;
            _mm512_storeu_si512(word, round_line(a->x + (int64_t)t * a->cols + k, k1 - k));
            for (int32_t i = 0; i < n; i++) {
                to[i * width + t - first] = word[i];
                for (int32_t lane = t - first + 1; lane < end; lane++) to[i * width + lane] = 0;
            }
        }
}

/* ---- products ---- */

/* Two rows as pairs; of the last one alone where there is no other. */
KRN_INLINE __m512bh load_pairs(const uint8_t *p, const enum dtype type, const bool alone)
{
    static const uint16_t order[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                       8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    __m512i v;
    if (type == DTYPE_F16) {
        const __m512 low = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
        const __m512 high = alone ? _mm512_setzero_ps() : _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(p + ROW)));
        v = (__m512i)_mm512_cvtne2ps_pbh(high, low);
    } else {
        v = alone ? _mm512_zextsi256_si512(_mm256_loadu_si256((const __m256i *)p)) : _mm512_loadu_si512(p);
    }
    return (__m512bh)_mm512_permutexvar_epi16(_mm512_loadu_si512(order), v);
}

struct block {
    const uint8_t *rows[MAX_TILES];
    __m512 acc[MAX_TILES][MAX_TOK];
};

/* Columns k and k + 1 of n_tiles tiles x n_tok lanes. */
KRN_INLINE void add_pair(struct block *b, const uint32_t *x, int64_t k, const enum dtype type, const int n_tiles, const int n_tok,
                         const bool alone)
{
    __m512bh w[MAX_TILES];
    KRN_UNROLL for (int m = 0; m < n_tiles; m++)
    {
        const uint8_t *p = b->rows[m] + k * ROW;
        w[m] = load_pairs(p, type, alone);
    }
    KRN_UNROLL for (int t = 0; t < n_tok; t++)
    {
        const __m512bh xt = (__m512bh)_mm512_set1_epi32((int32_t)x[t]);
        KRN_UNROLL for (int m = 0; m < n_tiles; m++) b->acc[m][t] = _mm512_dpbf16_ps(b->acc[m][t], w[m], xt);
    }
}

KRN_INLINE void chain(const struct krn_leaf_job *j, int32_t tile, int32_t lane, const enum dtype type, const int n_tiles, const int n_tok)
{
    const int64_t width = j->width;
    const uint32_t *x = (const uint32_t *)j->panel + lane;
    float *out = j->acc + (tile * width + lane) * KRN_TILE;
    struct block b;
    KRN_UNROLL for (int m = 0; m < n_tiles; m++)
    {
        b.rows[m] = j->tile + (tile + m) * j->w->tile_bytes;
        KRN_UNROLL for (int t = 0; t < n_tok; t++) b.acc[m][t] =
            j->more ? _mm512_load_ps(out + (m * width + t) * KRN_TILE) : _mm512_setzero_ps();
    }
    int64_t k = j->k0;
    for (; k + 1 < j->k1; k += 2) add_pair(&b, x + k / 2 * width, k, type, n_tiles, n_tok, false);
    if (k < j->k1) add_pair(&b, x + k / 2 * width, k, type, n_tiles, n_tok, true);
    KRN_UNROLL for (int m = 0; m < n_tiles; m++) KRN_UNROLL for (int t = 0; t < n_tok; t++)
        _mm512_store_ps(out + (m * width + t) * KRN_TILE, b.acc[m][t]);
}

/* All lanes of a panel for n_tiles tiles; widths are those of krn_group_width. */
KRN_INLINE void lanes(const struct krn_leaf_job *j, int32_t tile, const enum dtype type, const int n_tiles)
{
    switch (j->width) {
    case 1: chain(j, tile, 0, type, n_tiles, 1); break;
    case 2: chain(j, tile, 0, type, n_tiles, 2); break;
    case 4: chain(j, tile, 0, type, n_tiles, 4); break;
    case 6: chain(j, tile, 0, type, n_tiles, 6); break;
    case 12:
        chain(j, tile, 0, type, n_tiles, 6);
        chain(j, tile, 6, type, n_tiles, 6);
        break;
    default:
        for (int32_t lane = 0; lane < j->width; lane += MAX_TOK) chain(j, tile, lane, type, n_tiles, MAX_TOK);
    }
}

KRN_INLINE void chains(const struct krn_leaf_job *j, const enum dtype type)
{
    ASSERT(j->k0 % 2 == 0);
    int32_t tile = 0;
    for (; tile + MAX_TILES <= j->n_tiles; tile += MAX_TILES) lanes(j, tile, type, MAX_TILES);
    if (tile < j->n_tiles) lanes(j, tile, type, 1);
}

static void f16(const struct krn_leaf_job *j) { chains(j, DTYPE_F16); }
static void bf16(const struct krn_leaf_job *j) { chains(j, DTYPE_BF16); }

static void matmul(const struct krn_matmul *a)
{
    static const struct krn_leaf_kernel kernels[] = {{.fn = bf16, .single_tiles = KRN_WALK_TILES, .k_step = 256, .form = KRN_LEAF_BF16},
                                                     {.fn = f16, .single_tiles = KRN_WALK_TILES, .k_step = 256, .form = KRN_LEAF_BF16}};
    ASSERT(krn_rounded_takes(a->w->type) && a->x->xb);
    krn_leaf_walk(a, &kernels[a->w->type == DTYPE_F16]);
}

const struct krn_rounded krn_avx512bf16 = {.name = "avx512bf16", .interleave = interleave, .matmul = matmul};
