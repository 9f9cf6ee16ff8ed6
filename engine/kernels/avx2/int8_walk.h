/* int8_walk.h: what AVX2 and AVX-VNNI share of the chain over units of 32: the panel's fields, decoding, the loops over units and lanes.
 * A folder brings the sums themselves: of one lane against codes in registers, of a few lanes against codes in L1. */
#ifndef ENGINE_KERNELS_AVX2_INT8_WALK_H
#define ENGINE_KERNELS_AVX2_INT8_WALK_H

#include "engine/kernels/avx2/unit.h"

enum {
    NARROW = 2,   /* lanes at most that keep the codes of half a tile in registers */
    AHEAD = 6144, /* bytes fetched ahead */
};

KRN_INLINE __m256i all_i32(const uint8_t *p)
{
    int32_t v;
    memcpy(&v, p, sizeof v);
    return _mm256_set1_epi32(v);
}
KRN_INLINE __m256 all_f32(const uint8_t *p)
{
    float v;
    memcpy(&v, p, sizeof v);
    return _mm256_set1_ps(v);
}

/* Where the integer sum of half h (of 0, or of a whole unit) begins: minus the offset times the sum of x. */
KRN_INLINE __m256i start_of(const uint8_t *f, int32_t width, const int h, const enum dtype type)
{
    const int offset = krn_pack_offset(type);
    if (!offset) return _mm256_setzero_si256();
    if (krn_pack_halves(type)) {
        const __m256i z = all_i32(f + (KRN_UNIT_Z32 + 4 * h) * width);
        return offset == 32 ? z : offset > 32 ? _mm256_slli_epi32(z, 2) : _mm256_srai_epi32(z, 3);
    }
    if (offset == 128) return all_i32(f + KRN_UNIT_Z128 * width);
    const __m256i z = all_i32(f + KRN_UNIT_Z8 * width);
    return offset == 8 ? z : offset > 8 ? _mm256_slli_epi32(z, 1) : _mm256_srai_epi32(z, 3);
}

/* The sum of the activations of half h, or of a whole unit. */
KRN_INLINE __m256 sum_of_x(const uint8_t *f, int32_t width, const int h, const enum dtype type)
{
    if (!krn_pack_halves(type)) return all_f32(f + KRN_UNIT_S * width);
    const __m256 z = _mm256_cvtepi32_ps(all_i32(f + (KRN_UNIT_Z32 + 4 * h) * width));
    return _mm256_mul_ps(z, _mm256_set1_ps(-0x1p-5f)); /* the panel has -32 s */
}

/* The integer sum of half h, or of a whole unit, onto an accumulator. */
KRN_INLINE __m256 add_sum(__m256 acc, __m256i isum, const struct unit_scales *sc, const int h,
                          const uint8_t *f, int32_t width, const enum dtype type)
{
    const __m256 dx = all_f32(f + KRN_UNIT_D * width);
    acc = _mm256_fmadd_ps(_mm256_mul_ps(sc->d[h], dx), _mm256_cvtepi32_ps(isum), acc);
    if (krn_pack_has_min(type))
        acc = _mm256_fnmadd_ps(_mm256_mul_ps(sc->m[h], dx), sum_of_x(f, width, h, type), acc);
    return acc;
}

KRN_INLINE void fetch_ahead(const uint8_t *p, int n)
{
    KRN_UNROLL for (int i = 0; i < n; i += 64)
        _mm_prefetch((const char *)p + AHEAD + i, _MM_HINT_T0);
}

/* ---- one lane or two ------------------------------------------------------------------------- */

/* One unit of half a tile, lane t of a panel `width` lanes wide, onto its accumulator. */
typedef __m256 (*int8_unit_fn)(__m256 acc, const __m256i w[UNIT_VECTORS], const struct unit_scales *sc, const uint8_t *x,
                               const int width, const int t, const enum dtype type);

KRN_INLINE void narrow_chain(const struct krn_leaf_job *j, int32_t tile, const enum dtype type, const int width,
                             int8_unit_fn add_unit)
{
    const struct krn_planes p =
        krn_pack_planes(type, j->tile + tile * j->w->tile_bytes, j->w->cols);
    const int quant_bytes = krn_pack_quant_bytes(type);
    float *out = j->acc + tile * width * KRN_TILE;
    __m256 acc[2][NARROW];
    KRN_UNROLL for (int t = 0; t < width; t++) KRN_UNROLL for (int half = 0; half < 2; half++)
        acc[half][t] =
            j->more ? _mm256_load_ps(out + t * KRN_TILE + 8 * half) : _mm256_setzero_ps();

    if (krn_pack_is_super(type) && j->k0 == 0) krn_pack_fetch_front(&p, AHEAD);
    for (int32_t u = j->k0 / KRN_UNIT; u < j->k1 / KRN_UNIT; u++) {
        const uint8_t *codes = p.pairs + krn_pack_codes_at(type, u);
        const uint8_t *x = (const uint8_t *)j->panel + (int64_t)u * width * KRN_UNIT_BYTES;
        fetch_ahead(codes, quant_bytes + 64); /* the scales follow */
        KRN_UNROLL for (int half = 0; half < 2; half++)
        {
            __m256i w[UNIT_VECTORS];
            unit_codes(&p, codes + 32 * half, type, w);
            const struct unit_scales sc = unit_scales(&p, u, 8 * half, type);
            KRN_UNROLL for (int t = 0; t < width; t++) acc[half][t] =
                add_unit(acc[half][t], w, &sc, x, width, t, type);
        }
    }
    KRN_UNROLL for (int t = 0; t < width; t++) KRN_UNROLL for (int half = 0; half < 2; half++)
        _mm256_store_ps(out + t * KRN_TILE + 8 * half, acc[half][t]);
}

/* ---- four lanes and more --------------------------------------------------------------------- */

/* A unit of 16 rows as 8 lines of codes, vector j at 64 j: kept in L1, since 16 vectors of codes do
 * not fit in the registers beside the sums. Q8_0 has them in the tile. */
KRN_INLINE const uint8_t *code_lines(const struct krn_planes *p, const uint8_t *codes,
                                     const enum dtype type, uint8_t *lines)
{
    if (type == DTYPE_Q8_0) return codes;
    KRN_UNROLL for (int half = 0; half < 2; half++)
    {
        __m256i w[UNIT_VECTORS];
        unit_codes(p, codes + 32 * half, type, w);
        KRN_UNROLL for (int j = 0; j < UNIT_VECTORS; j++)
            _mm256_store_si256((__m256i *)(lines + 64 * j + 32 * half), w[j]);
    }
    return lines;
}

/* One unit of n lanes from `lane` onto acc[n][16]; scales of the two halves of the tile. */
typedef void (*int8_lanes_fn)(float *acc, const uint8_t *lines, const struct unit_scales sc[2], const uint8_t *x, int32_t width,
                              int32_t lane, const int n, const enum dtype type);

/* All lanes, n (a divisor of the width) at a time: codes are decoded once per unit. */
KRN_INLINE void wide_chain(const struct krn_leaf_job *j, int32_t tile, const enum dtype type, const int n,
                           int8_lanes_fn add_lanes)
{
    const struct krn_planes p =
        krn_pack_planes(type, j->tile + tile * j->w->tile_bytes, j->w->cols);
    const int quant_bytes = krn_pack_quant_bytes(type);
    float *acc = j->acc + tile * j->width * KRN_TILE;
    _Alignas(64) uint8_t buffer[64 * UNIT_VECTORS];
    if (!j->more) memset(acc, 0, (size_t)j->width * KRN_TILE * sizeof *acc);

    if (krn_pack_is_super(type) && j->k0 == 0) krn_pack_fetch_front(&p, AHEAD);
    for (int32_t u = j->k0 / KRN_UNIT; u < j->k1 / KRN_UNIT; u++) {
        const uint8_t *codes = p.pairs + krn_pack_codes_at(type, u);
        const uint8_t *x = (const uint8_t *)j->panel + (int64_t)u * j->width * KRN_UNIT_BYTES;
        fetch_ahead(codes, quant_bytes + 64); /* the scales follow */
        const uint8_t *lines = code_lines(&p, codes, type, buffer);
        const struct unit_scales sc[2] = {unit_scales(&p, u, 0, type), unit_scales(&p, u, 8, type)};
        for (int32_t lane = 0; lane < j->width; lane += n)
            add_lanes(acc + lane * KRN_TILE, lines, sc, x, j->width, lane, n, type);
    }
}

/* Panels of more than NARROW lanes, an even number, go `most` lanes at a time, or `least` where those do not divide them. */
KRN_INLINE void int8_chains(const struct krn_leaf_job *j, const enum dtype type, int8_unit_fn add_unit, int8_lanes_fn add_lanes,
                            const int most, const int least)
{
    for (int32_t tile = 0; tile < j->n_tiles; tile++)
        if (j->width == 1)
            narrow_chain(j, tile, type, 1, add_unit);
        else if (j->width == 2)
            narrow_chain(j, tile, type, 2, add_unit);
        else if (j->width % most == 0)
            wide_chain(j, tile, type, most, add_lanes);
        else
            wide_chain(j, tile, type, least, add_lanes);
}

enum { K_STEP = 2048 };
/* A layout's function, around the folder's add_unit and add_lanes, and its place in the folder's table. */
#define INT8_CHAINS(T)                                                                             \
    static void chains_##T(const struct krn_leaf_job *j)                                           \
    {                                                                                              \
        int8_chains(j, DTYPE_##T, add_unit, add_lanes, MOST, LEAST);                               \
    }
#define INT8_KERNEL(T) [DTYPE_##T] = {.fn = chains_##T, .single_tiles = 1, .k_step = K_STEP},

#endif
