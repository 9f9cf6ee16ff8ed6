/* int8_walk.h: the chain over units of 32, around a dot product of bytes that the including folder
 * brings (neon, dotprod, i8mm): every unit of every row is one integer sum, exact, however formed.
 *
 * Codes of 4 rows fit in 8 registers as signed bytes. Up to 4 lanes keep their sums of a whole tile
 * in registers; a wider panel leaves them in j->acc, where a load and a store per 32 products hide
 * behind the products, and decodes each unit once. */
#ifndef ENGINE_KERNELS_NEON_INT8_WALK_H
#define ENGINE_KERNELS_NEON_INT8_WALK_H

#include "engine/kernels/neon/unit.h"

enum { NARROW = 4, AHEAD = 1024 /* bytes of weights fetched ahead */ };

/* Sums over n (4 or 8) vectors of codes and 4 n activations: one per row, exact. */
typedef int32x4_t (*int8_dot_fn)(const int8x16_t *w, const int8_t *q, const int n,
                                 const enum dtype type);

KRN_INLINE float32x4_t all_f32(const uint8_t *p)
{
    float v;
    memcpy(&v, p, sizeof v);
    return vdupq_n_f32(v);
}
KRN_INLINE int32x4_t all_i32(const uint8_t *p)
{
    int32_t v;
    memcpy(&v, p, sizeof v);
    return vdupq_n_s32(v);
}

/* What is missing of the integer sum of half h (of 0, or of a whole unit): minus the offset times the sum of x. */
KRN_INLINE int32x4_t offset_of(const uint8_t *f, int32_t width, const int h, const enum dtype type)
{
    const int offset = krn_pack_offset(type);
    if (krn_pack_halves(type)) {
        const int32x4_t z = all_i32(f + (KRN_UNIT_Z32 + 4 * h) * width);
        return offset == 32 ? z : vshrq_n_s32(z, 3);
    }
    const int32x4_t z = all_i32(f + KRN_UNIT_Z8 * width);
    return offset == 8 ? z : offset > 8 ? vshlq_n_s32(z, 1) : vshrq_n_s32(z, 3);
}

/* The sum of the activations of half h, or of a whole unit. */
KRN_INLINE float32x4_t sum_of_x(const uint8_t *f, int32_t width, const int h, const enum dtype type)
{
    if (!krn_pack_halves(type)) return all_f32(f + KRN_UNIT_S * width);
    const float32x4_t z = vcvtq_f32_s32(all_i32(f + (KRN_UNIT_Z32 + 4 * h) * width));
    return vmulq_f32(z, vdupq_n_f32(-0x1p-5f)); /* the panel has -32 s */
}

/* The integer sums of a unit (of types with a scale per half: isum[0], isum[1]) onto an accumulator. f: the
 * panel's fields of this lane. */
KRN_INLINE float32x4_t add_sums(float32x4_t acc, const int32x4_t isum[2],
                                const struct unit_scales *sc, const uint8_t *f, int32_t width,
                                const enum dtype type)
{
    const float32x4_t dx = all_f32(f + KRN_UNIT_D * width);
    const bool shifted = krn_pack_offset(type) && !unit_is_signed(type);
    const int parts = krn_pack_halves(type) ? 2 : 1;
    KRN_UNROLL for (int h = 0; h < parts; h++)
    {
        int32x4_t s = shifted ? vaddq_s32(isum[h], offset_of(f, width, h, type)) : isum[h];
        acc = vfmaq_f32(acc, vmulq_f32(sc->d[h], dx), vcvtq_f32_s32(s));
        if (krn_pack_has_min(type))
            acc = vfmsq_f32(acc, vmulq_f32(sc->m[h], dx), sum_of_x(f, width, h, type));
    }
    return acc;
}

/* One unit of lane t of a panel `width` lanes wide. */
KRN_INLINE float32x4_t add_unit(float32x4_t acc, const int8x16_t w[UNIT_VECTORS],
                                const struct unit_scales *sc, const uint8_t *x, int32_t width,
                                int32_t t, const enum dtype type, int8_dot_fn dot)
{
    const int8_t *q = (const int8_t *)x + t * KRN_UNIT;
    int32x4_t isum[2];
    if (krn_pack_halves(type)) {
        isum[0] = dot(w, q, 4, type);
        isum[1] = dot(w + 4, q + 16, 4, type);
    } else {
        isum[0] = isum[1] = dot(w, q, UNIT_VECTORS, type);
    }
    return add_sums(acc, isum, sc, x + 4 * t, width, type);
}

KRN_INLINE void fetch_ahead(const uint8_t *p, int n)
{
    KRN_UNROLL for (int i = 0; i < n; i += 64) __builtin_prefetch(p + AHEAD + i);
}

/* All lanes of a panel of 1, 2 or 4. */
KRN_INLINE void narrow_chain(const struct krn_leaf_job *j, int32_t tile, const enum dtype type,
                             const int width, int8_dot_fn dot)
{
    const struct krn_planes p =
        krn_pack_planes(type, j->tile + tile * j->w->tile_bytes, j->w->cols);
    const int quant_bytes = krn_pack_quant_bytes(type);
    float *out = j->acc + tile * width * KRN_TILE;
    float32x4_t acc[NARROW][QUARTERS];
    KRN_UNROLL for (int t = 0; t < width; t++) KRN_UNROLL for (int i = 0; i < QUARTERS; i++)
        acc[t][i] = j->more ? vld1q_f32(out + t * KRN_TILE + LANES * i) : vmath_zero();

    if (krn_pack_is_super(type) && j->k0 == 0) krn_pack_fetch_front(&p, AHEAD);
    for (int32_t u = j->k0 / KRN_UNIT; u < j->k1 / KRN_UNIT; u++) {
        const uint8_t *codes = p.pairs + krn_pack_codes_at(type, u);
        const uint8_t *x = (const uint8_t *)j->panel + (int64_t)u * width * KRN_UNIT_BYTES;
        fetch_ahead(codes, quant_bytes + 64); /* the scales follow */
        KRN_UNROLL for (int i = 0; i < QUARTERS; i++)
        {
            int8x16_t w[UNIT_VECTORS];
            unit_codes(&p, codes + 16 * i, type, w);
            const struct unit_scales sc = unit_scales(&p, u, LANES * i, type);
            KRN_UNROLL for (int t = 0; t < width; t++) acc[t][i] =
                add_unit(acc[t][i], w, &sc, x, width, t, type, dot);
        }
    }
    KRN_UNROLL for (int t = 0; t < width; t++) KRN_UNROLL for (int i = 0; i < QUARTERS; i++)
        vst1q_f32(out + t * KRN_TILE + LANES * i, acc[t][i]);
}

/* One unit of 4 rows against all lanes, acc: [width][KRN_TILE] from those rows on. */
typedef void (*int8_lanes_fn)(float *acc, const int8x16_t w[UNIT_VECTORS],
                              const struct unit_scales *sc, const uint8_t *x, int32_t width,
                              const enum dtype type);

KRN_INLINE void wide_chain(const struct krn_leaf_job *j, int32_t tile, const enum dtype type,
                           int8_lanes_fn lanes)
{
    const struct krn_planes p =
        krn_pack_planes(type, j->tile + tile * j->w->tile_bytes, j->w->cols);
    const int quant_bytes = krn_pack_quant_bytes(type);
    float *acc = j->acc + tile * j->width * KRN_TILE;
    if (!j->more) memset(acc, 0, (size_t)j->width * KRN_TILE * sizeof *acc);

    if (krn_pack_is_super(type) && j->k0 == 0) krn_pack_fetch_front(&p, AHEAD);
    for (int32_t u = j->k0 / KRN_UNIT; u < j->k1 / KRN_UNIT; u++) {
        const uint8_t *codes = p.pairs + krn_pack_codes_at(type, u);
        const uint8_t *x = (const uint8_t *)j->panel + (int64_t)u * j->width * KRN_UNIT_BYTES;
        fetch_ahead(codes, quant_bytes + 64);
        for (int32_t i = 0; i < QUARTERS; i++) {
            int8x16_t w[UNIT_VECTORS];
            unit_codes(&p, codes + 16 * i, type, w);
            const struct unit_scales sc = unit_scales(&p, u, LANES * i, type);
            lanes(acc + LANES * i, w, &sc, x, j->width, type);
        }
    }
}

KRN_INLINE void int8_chains(const struct krn_leaf_job *j, const enum dtype type, int8_dot_fn dot,
                            int8_lanes_fn lanes)
{
    for (int32_t tile = 0; tile < j->n_tiles; tile++) switch (j->width) {
        case 1:
            narrow_chain(j, tile, type, 1, dot);
            break;
        case 2:
            narrow_chain(j, tile, type, 2, dot);
            break;
        case 4:
            narrow_chain(j, tile, type, 4, dot);
            break;
        default:
            wide_chain(j, tile, type, lanes);
        }
}

enum { K_STEP = 2048 };
/* A layout's function, around the folder's dot and lanes, and its place in the folder's table. */
#define INT8_CHAINS(T)                                                                             \
    static void chains_##T(const struct krn_leaf_job *j)                                           \
    {                                                                                              \
        int8_chains(j, DTYPE_##T, dot, lanes);                                                     \
    }
#define INT8_KERNEL(T) [DTYPE_##T] = {.fn = chains_##T, .single_tiles = 1, .k_step = K_STEP},

#endif
