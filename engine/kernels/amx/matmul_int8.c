/* matmul_int8.c: the chain over units of 32, a unit's integer sums for 16 rows and up to 16 lanes by
 * one product of tiles. The chain asks for one rounding per unit, so a product never spans units:
 * half of a tile's depth is used, and what bounds it is the 16 conversions, products of scales and
 * multiply-adds that follow each (48 on two pipes for 8,192 products: 3.6 times what vpdpbusd can).
 * Codes lose their offset while they are decoded, so sums start at 0. Narrow panels are AVX-512's:
 * memory bounds them.
 *
 * Not measured yet: no machine with AMX was at hand; tests/kernels/amx_emu.c checks everything but
 * the instructions. */
#include "engine/kernels/amx/amx.h"
#include "engine/kernels/amx/tile.h"
#include "engine/kernels/avx512/avx512.h"
#include "engine/kernels/avx512/unit.h"

enum { LEAST = 6 /* lanes */, AHEAD = 6144 /* bytes fetched ahead */ };

/* The unit's codes as signed bytes, 8 lines. */
KRN_INLINE void code_lines(const struct krn_planes *p, const uint8_t *codes,
                           const enum dtype type, uint8_t *lines)
{
    __m512i w[UNIT_VECTORS];
    unit_codes(p, codes, type, w);
    KRN_UNROLL for (int j = 0; j < UNIT_VECTORS; j++)
        _mm512_store_si512(lines + 64 * j, _mm512_sub_epi8(w[j], _mm512_set1_epi8((char)krn_pack_offset(type))));
}

/* The sum of the activations of half h, or of a whole unit. */
KRN_INLINE __m512 sum_of_x(const uint8_t *f, const int width, const int h, const enum dtype type)
{
    if (!krn_pack_halves(type)) return all_f32(f + KRN_UNIT_S * width);
    const __m512 z = _mm512_cvtepi32_ps(all_i32(f + (KRN_UNIT_Z32 + 4 * h) * width));
    return _mm512_mul_ps(z, _mm512_set1_ps(-0x1p-5f)); /* the panel has -32 s */
}

/* The integer sums of half h, or of a whole unit, onto the lanes' accumulators. */
KRN_INLINE void add_sums(__m512 acc[KRN_GROUP], const int32_t *sum, const struct unit_scales *sc,
                         const int h, const uint8_t *x, const int width, const enum dtype type)
{
    KRN_UNROLL for (int t = 0; t < width; t++)
    {
        const uint8_t *f = x + 4 * t;
        const __m512 dx = all_f32(f + KRN_UNIT_D * width);
        __m512 isum = _mm512_cvtepi32_ps(_mm512_load_si512(sum + t * KRN_TILE));
        acc[t] = _mm512_fmadd_ps(_mm512_mul_ps(sc->d[h], dx), isum, acc[t]);
        if (krn_pack_has_min(type))
            acc[t] = _mm512_fnmadd_ps(_mm512_mul_ps(sc->m[h], dx), sum_of_x(f, width, h, type),
                                      acc[t]);
    }
}

KRN_INLINE void chain(const struct krn_leaf_job *j, int32_t tile, const enum dtype type,
                      const int width)
{
    const int quant_bytes = krn_pack_quant_bytes(type);
    const struct krn_planes p =
        krn_pack_planes(type, j->tile + tile * j->w->tile_bytes, j->w->cols);
    float *out = j->acc + tile * width * KRN_TILE;
    _Alignas(64) uint8_t lines[64 * UNIT_VECTORS];
    _Alignas(64) int32_t sum[2][KRN_GROUP * KRN_TILE];
    __m512 acc[KRN_GROUP];
    KRN_UNROLL for (int t = 0; t < width; t++) acc[t] =
        j->more ? _mm512_load_ps(out + t * KRN_TILE) : _mm512_setzero_ps();

    if (krn_pack_is_super(type) && j->k0 == 0) krn_pack_fetch_front(&p, AHEAD);
    for (int32_t u = j->k0 / KRN_UNIT; u < j->k1 / KRN_UNIT; u++) {
        const uint8_t *x = (const uint8_t *)j->panel + (int64_t)u * width * KRN_UNIT_BYTES;
        const uint8_t *codes = p.pairs + krn_pack_codes_at(type, u);
        KRN_UNROLL for (int i = 0; i <= quant_bytes; i += 64)
            _mm_prefetch((const char *)codes + AHEAD + i, _MM_HINT_T0);
        code_lines(&p, codes, type, lines);
        const struct unit_scales sc = unit_scales(&p, u, type);
        if (krn_pack_halves(type)) {
            tiles_half(sum[0], x, lines);
            tiles_half(sum[1], x + KRN_UNIT / 2, lines + 4 * 64);
            add_sums(acc, sum[0], &sc, 0, x, width, type);
            add_sums(acc, sum[1], &sc, 1, x, width, type);
        } else {
            tiles_unit(sum[0], x, lines);
            add_sums(acc, sum[0], &sc, 0, x, width, type);
        }
    }
    KRN_UNROLL for (int t = 0; t < width; t++) _mm512_store_ps(out + t * KRN_TILE, acc[t]);
}

KRN_INLINE void chains(const struct krn_leaf_job *j, const enum dtype type)
{
    if (j->width < LEAST) {
        krn_avx512_int8[type].fn(j);
        return;
    }
    tiles_shape(j->width);
    for (int32_t tile = 0; tile < j->n_tiles; tile++) switch (j->width) {
        case 6:
            chain(j, tile, type, 6);
            break;
        case 8:
            chain(j, tile, type, 8);
            break;
        case 12:
            chain(j, tile, type, 12);
            break;
        case 16:
            chain(j, tile, type, 16);
            break;
        }
    tiles_release();
}

#define CHAINS(T)                                                                                  \
    static void chains_##T(const struct krn_leaf_job *j)                                           \
    {                                                                                              \
        chains(j, DTYPE_##T);                                                                      \
    }
KRN_QUANT_LAYOUTS(CHAINS)

enum { K_STEP = 2048 };
#define KERNEL(T) [DTYPE_##T] = {.fn = chains_##T, .single_tiles = 1, .k_step = K_STEP},
const struct krn_leaf_kernel krn_amx_int8[DTYPE_COUNT] = {KRN_QUANT_LAYOUTS(KERNEL)};
