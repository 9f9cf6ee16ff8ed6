/* matmul_int8.c: the chain over units of 32: int8 dot products on the stored codes.
 *
 * A unit's codes become 8 vectors of unsigned bytes (16 rows x 4 values of k), made once and used
 * for up to 16 tokens; vpdpbusd against 4 activation bytes, broadcast from memory by the
 * instruction itself, adds into one 32-bit lane per row. Codes are stored with an offset (128, 32,
 * 16, 8, 4, 1): the integer sum starts at minus offset x (sum of the activations), which the panel holds, so
 * isum is exact and costs nothing. Per unit and token: 8 dot products, a conversion, the product of
 * the scales, one fused multiply-add. */
#include "engine/kernels/avx512/avx512.h"
#include "engine/kernels/avx512/unit.h"

enum { AHEAD = 6144 /* bytes of weights fetched ahead */ };

/* Weights come straight from memory when tokens are few: one run of lines, on into the next tile. */
KRN_INLINE void fetch_ahead(const uint8_t *codes, const int quant_bytes)
{
    KRN_UNROLL for (int i = 0; i <= quant_bytes; i += 64)
        _mm_prefetch((const char *)codes + AHEAD + i, _MM_HINT_T0);
}

/* sum += w . (4 bytes at q, in every lane) */
KRN_INLINE __m512i dot(__m512i sum, __m512i w, const uint8_t *q)
{
    __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(w), "m"(*(const uint8_t(*)[4])q));
    return sum;
}
KRN_INLINE __m512i dot4(__m512i sum, const __m512i w[4], const uint8_t *q)
{
    KRN_UNROLL for (int j = 0; j < 4; j++) sum = dot(sum, w[j], q + 4 * j);
    return sum;
}

/* Where the integer sum of half h (of 0, or of a whole unit) begins: minus the offset times the sum of x. */
KRN_INLINE __m512i start(const uint8_t *f, const int width, const int h, const enum dtype type)
{
    const int offset = krn_pack_offset(type);
    if (!offset) return _mm512_setzero_si512();
    if (krn_pack_halves(type)) {
        const __m512i z = all_i32(f + (KRN_UNIT_Z32 + 4 * h) * width);
        return offset == 32 ? z : offset > 32 ? _mm512_slli_epi32(z, 2) : _mm512_srai_epi32(z, 3);
    }
    if (offset == 128) return all_i32(f + KRN_UNIT_Z128 * width);
    const __m512i z = all_i32(f + KRN_UNIT_Z8 * width);
    return offset == 8 ? z : offset > 8 ? _mm512_slli_epi32(z, 1) : _mm512_srai_epi32(z, 3);
}

/* One unit of lane t of a panel `width` lanes wide onto its accumulator. */
KRN_INLINE __m512 add_unit(__m512 acc, const __m512i w[UNIT_VECTORS], const struct unit_scales *sc,
                           const uint8_t *x, const int width, const int t, const enum dtype type)
{
    const uint8_t *q = x + t * KRN_UNIT, *f = x + 4 * t;
    const __m512 dx = all_f32(f + KRN_UNIT_D * width);
    if (krn_pack_halves(type)) {
        KRN_UNROLL for (int h = 0; h < 2; h++)
        {
            __m512i isum = dot4(start(f, width, h, type), w + 4 * h, q + 16 * h);
            acc = _mm512_fmadd_ps(_mm512_mul_ps(sc->d[h], dx), _mm512_cvtepi32_ps(isum), acc);
            if (krn_pack_has_min(type)) { /* the panel has -32 s */
                const __m512 z = _mm512_cvtepi32_ps(all_i32(f + (KRN_UNIT_Z32 + 4 * h) * width));
                acc = _mm512_fnmadd_ps(_mm512_mul_ps(sc->m[h], dx),
                                       _mm512_mul_ps(z, _mm512_set1_ps(-0x1p-5f)), acc);
            }
        }
        return acc;
    }
    const __m512i isum = dot4(dot4(start(f, width, 0, type), w, q), w + 4, q + 16);
    acc = _mm512_fmadd_ps(_mm512_mul_ps(sc->d[0], dx), _mm512_cvtepi32_ps(isum), acc);
    if (krn_pack_has_min(type))
        acc = _mm512_fnmadd_ps(_mm512_mul_ps(sc->m[0], dx), all_f32(f + KRN_UNIT_S * width), acc);
    return acc;
}

KRN_INLINE void chain(const struct krn_leaf_job *j, int32_t tile, const enum dtype type,
                      const int width)
{
    const int quant_bytes = krn_pack_quant_bytes(type);
    const struct krn_planes p =
        krn_pack_planes(type, j->tile + tile * j->w->tile_bytes, j->w->cols);
    float *out = j->acc + tile * width * KRN_TILE;
    __m512 acc[KRN_GROUP];
    KRN_UNROLL for (int t = 0; t < width; t++) acc[t] =
        j->more ? _mm512_load_ps(out + t * KRN_TILE) : _mm512_setzero_ps();

    if (krn_pack_is_super(type) && j->k0 == 0) krn_pack_fetch_front(&p, AHEAD);
    for (int32_t u = j->k0 / KRN_UNIT; u < j->k1 / KRN_UNIT; u++) {
        const uint8_t *x = (const uint8_t *)j->panel + (int64_t)u * width * KRN_UNIT_BYTES;
        const uint8_t *codes = p.pairs + krn_pack_codes_at(type, u);
        fetch_ahead(codes, quant_bytes);
        __m512i w[UNIT_VECTORS];
        unit_codes(&p, codes, type, w);
        const struct unit_scales sc = unit_scales(&p, u, type);
        KRN_UNROLL for (int t = 0; t < width; t++) acc[t] =
            add_unit(acc[t], w, &sc, x, width, t, type);
    }
    KRN_UNROLL for (int t = 0; t < width; t++) _mm512_store_ps(out + t * KRN_TILE, acc[t]);
}

#define CHAINS(T)                                                                                  \
    static void chains_##T(const struct krn_leaf_job *j)                                           \
    {                                                                                              \
        krn_chain_widths(j, DTYPE_##T, chain);                                                     \
    }
KRN_QUANT_LAYOUTS(CHAINS)

enum { K_STEP = 2048 };
#define KERNEL(T) [DTYPE_##T] = {.fn = chains_##T, .single_tiles = 1, .k_step = K_STEP},
const struct krn_leaf_kernel krn_avx512_int8[DTYPE_COUNT] = {KRN_QUANT_LAYOUTS(KERNEL)};
