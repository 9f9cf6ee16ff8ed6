/* matmul_oracle.c: quantised weights against f32 activations: each unit is dequantised to f32, then
 * chained value by value. */
#include "engine/kernels/neon/neon.h"
#include "engine/kernels/neon/unit.h"

enum { MAX_TOK = 4 };

/* Byte b of each of 4 rows as a float; signed codes. */
KRN_INLINE float32x4_t code_floats(int8x16_t code, const int b)
{
    int32x4_t v = vshlq_s32(vreinterpretq_s32_s8(code), vdupq_n_s32(24 - 8 * b));
    return vcvtq_f32_s32(vshrq_n_s32(v, 24));
}

/* w[k][16 rows] of one unit. */
KRN_INLINE void expand(const struct krn_planes *p, int32_t unit, const enum dtype type,
                       float w[KRN_UNIT * KRN_TILE])
{
    const float offset = unit_is_signed(type) ? 0 : (float)krn_pack_offset(type);
    const bool has_min = krn_pack_has_min(type);
    for (int32_t i = 0; i < QUARTERS; i++) {
        int8x16_t code[UNIT_VECTORS];
        unit_codes(p, p->pairs + krn_pack_codes_at(type, unit) + 16 * i, type, code);
        const struct unit_scales sc = unit_scales(p, unit, LANES * i, type);
        KRN_UNROLL for (int j = 0; j < UNIT_VECTORS; j++) KRN_UNROLL for (int b = 0; b < 4; b++)
        {
            float32x4_t f = vsubq_f32(code_floats(code[j], b), vmath_all(offset)); /* exact */
            f = vmulq_f32(sc.d[j / 4], f);
            if (has_min) f = vsubq_f32(f, sc.m[j / 4]);
            vst1q_f32(w + (4 * j + b) * KRN_TILE + LANES * i, f);
        }
    }
}

static void expand_unit(const struct krn_planes *p, int32_t unit, enum dtype type,
                        float w[KRN_UNIT * KRN_TILE])
{
#define EXPAND(T) case DTYPE_##T: expand(p, unit, DTYPE_##T, w); break;
    switch (type) {
        KRN_QUANT_LAYOUTS(EXPAND)
    default: ASSERT(false);
    }
#undef EXPAND
}

/* n_tok lanes from `lane`. */
KRN_INLINE void chain(const struct krn_leaf_job *j, int32_t tile, int32_t lane, const int n_tok)
{
    const struct krn_planes p =
        krn_pack_planes(j->w->type, j->tile + tile * j->w->tile_bytes, j->w->cols);
    const int64_t width = j->width;
    _Alignas(64) float w[KRN_UNIT * KRN_TILE];
    float *out = j->acc + (tile * width + lane) * KRN_TILE;
    float32x4_t acc[MAX_TOK][QUARTERS];
    KRN_UNROLL for (int t = 0; t < n_tok; t++) KRN_UNROLL for (int i = 0; i < QUARTERS; i++)
        acc[t][i] = j->more ? vld1q_f32(out + t * KRN_TILE + LANES * i) : vmath_zero();
    for (int64_t k0 = j->k0; k0 < j->k1; k0 += KRN_UNIT) {
        const float *x = (const float *)j->panel + k0 * width + lane;
        expand_unit(&p, (int32_t)(k0 / KRN_UNIT), j->w->type, w);
        for (int64_t k = 0; k < KRN_UNIT; k++)
            KRN_UNROLL for (int i = 0; i < QUARTERS; i++)
            {
                float32x4_t row = vld1q_f32(w + k * KRN_TILE + LANES * i);
                KRN_UNROLL for (int t = 0; t < n_tok; t++) acc[t][i] =
                    vfmaq_n_f32(acc[t][i], row, x[k * width + t]);
            }
    }
    KRN_UNROLL for (int t = 0; t < n_tok; t++) KRN_UNROLL for (int i = 0; i < QUARTERS; i++)
        vst1q_f32(out + t * KRN_TILE + LANES * i, acc[t][i]);
}

static void chains(const struct krn_leaf_job *j)
{
    for (int32_t tile = 0; tile < j->n_tiles; tile++) {
        int32_t lane = 0;
        for (; lane + MAX_TOK <= j->width; lane += MAX_TOK) chain(j, tile, lane, MAX_TOK);
        for (; lane + 2 <= j->width; lane += 2) chain(j, tile, lane, 2);
        if (lane < j->width) chain(j, tile, lane, 1);
    }
}

const struct krn_leaf_kernel krn_neon_oracle = {
    .fn = chains, .single_tiles = 1, .k_step = 256, .form = KRN_LEAF_F32};
