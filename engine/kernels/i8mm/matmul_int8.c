/* matmul_int8.c: the chain over units by smmla: 2 rows x 8 values times 8 values x 2 tokens per
 * instruction, twice what sdot does. Two neighbouring vectors of codes hold 8 values of 4 rows: a zip
 * makes two operands of them, once per unit for all tokens. Few tokens go by sdot: memory bounds
 * them. The walk: engine/kernels/neon/int8_walk.h. */
#include "engine/kernels/dotprod/dot.h"
#include "engine/kernels/i8mm/i8mm.h"

enum { EIGHTS = KRN_UNIT / 8 };

/* [row pair][eight values of k]: 2 rows x 8 codes. */
struct pairs {
    int8x16_t w[2][EIGHTS];
};

KRN_INLINE struct pairs pairs_of(const int8x16_t w[UNIT_VECTORS])
{
    struct pairs p;
    KRN_UNROLL for (int i = 0; i < EIGHTS; i++)
    {
        int32x4_t a = vreinterpretq_s32_s8(w[2 * i]), b = vreinterpretq_s32_s8(w[2 * i + 1]);
        p.w[0][i] = vreinterpretq_s8_s32(vzip1q_s32(a, b));
        p.w[1][i] = vreinterpretq_s8_s32(vzip2q_s32(a, b));
    }
    return p;
}

/* Eights [i0, i1) of two tokens' activations; sums[t] of 4 rows. */
KRN_INLINE void dot_pair(const struct pairs *p, const int8x16_t x[EIGHTS], const int i0,
                         const int i1, int32x4_t sums[2])
{
    int32x4_t a = vdupq_n_s32(0), b = vdupq_n_s32(0);
    KRN_UNROLL for (int i = i0; i < i1; i++)
    {
        a = vmmlaq_s32(a, p->w[0][i], x[i]); /* row 0: t0, t1; row 1: t0, t1 */
        b = vmmlaq_s32(b, p->w[1][i], x[i]);
    }
    sums[0] = vuzp1q_s32(a, b);
    sums[1] = vuzp2q_s32(a, b);
}

/* Lanes t and t + 1 of an even panel. */
KRN_INLINE void lane_pair(float *acc, const struct pairs *p, const struct unit_scales *sc,
                          const uint8_t *x, int32_t width, int32_t t, const enum dtype type)
{
    const int8_t *q = (const int8_t *)x + t * KRN_UNIT;
    int8x16_t both[EIGHTS];
    KRN_UNROLL for (int i = 0; i < EIGHTS; i++) both[i] =
        vcombine_s8(vld1_s8(q + 8 * i), vld1_s8(q + KRN_UNIT + 8 * i));
    int32x4_t sums[2][2]; /* [half unit][lane] */
    const bool halves = krn_pack_halves(type);
    dot_pair(p, both, 0, halves ? EIGHTS / 2 : EIGHTS, sums[0]);
    if (halves) dot_pair(p, both, EIGHTS / 2, EIGHTS, sums[1]);
    KRN_UNROLL for (int i = 0; i < 2; i++)
    {
        const int32x4_t isum[2] = {sums[0][i], halves ? sums[1][i] : sums[0][i]};
        float *a = acc + i * KRN_TILE;
        vst1q_f32(a, add_sums(vld1q_f32(a), isum, sc, x + 4 * (t + i), width, type));
    }
}

KRN_INLINE void lanes(float *acc, const int8x16_t w[UNIT_VECTORS], const struct unit_scales *sc,
                      const uint8_t *x, int32_t width, const enum dtype type)
{
    const struct pairs p = pairs_of(w);
    for (int32_t t = 0; t < width; t += 2) lane_pair(acc + t * KRN_TILE, &p, sc, x, width, t, type);
}

KRN_QUANT_LAYOUTS(INT8_CHAINS)
const struct krn_leaf_kernel krn_i8mm_int8[DTYPE_COUNT] = {KRN_QUANT_LAYOUTS(INT8_KERNEL)};
