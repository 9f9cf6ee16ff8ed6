/* matmul_oracle.c: quantised weights against f32 activations: each unit is dequantised to f32, then
 * chained value by value. */
#include "engine/kernels/avx512/avx512.h"
#include "engine/kernels/avx512/unit.h"

/* w[k][16 rows] of one unit. */
KRN_INLINE void expand(const struct krn_planes *p, int32_t unit, const enum dtype type,
                       float w[KRN_UNIT * KRN_TILE])
{
    const int offset = krn_pack_offset(type);
    const bool has_min = krn_pack_has_min(type);
    __m512i code[UNIT_VECTORS];
    unit_codes(p, p->pairs + krn_pack_codes_at(type, unit), type, code);
    const struct unit_scales sc = unit_scales(p, unit, type);
    KRN_UNROLL for (int j = 0; j < UNIT_VECTORS; j++) KRN_UNROLL for (int b = 0; b < 4; b++)
    {
        __m512i v =
            _mm512_and_si512(_mm512_srli_epi32(code[j], (unsigned)(8 * b)), _mm512_set1_epi32(255));
        __m512 f = _mm512_cvtepi32_ps(_mm512_sub_epi32(v, _mm512_set1_epi32(offset)));
        f = _mm512_mul_ps(sc.d[j / 4], f);
        if (has_min) f = _mm512_sub_ps(f, sc.m[j / 4]);
        _mm512_store_ps(w + (4 * j + b) * KRN_TILE, f);
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

KRN_INLINE void chain(const struct krn_leaf_job *j, int32_t tile, const enum dtype type, const int width)
{
    const struct krn_planes p =
        krn_pack_planes(type, j->tile + tile * j->w->tile_bytes, j->w->cols);
    _Alignas(64) float w[KRN_UNIT * KRN_TILE];
    float *out = j->acc + tile * width * KRN_TILE;
    __m512 acc[KRN_GROUP];
    KRN_UNROLL for (int t = 0; t < width; t++) acc[t] =
        j->more ? _mm512_load_ps(out + t * KRN_TILE) : _mm512_setzero_ps();
    for (int64_t k0 = j->k0; k0 < j->k1; k0 += KRN_UNIT) {
        const float *x = (const float *)j->panel + k0 * width;
        expand_unit(&p, (int32_t)(k0 / KRN_UNIT), type, w);
        for (int64_t k = 0; k < KRN_UNIT; k++) {
            __m512 row = _mm512_load_ps(w + k * KRN_TILE);
            KRN_UNROLL for (int t = 0; t < width; t++) acc[t] =
                _mm512_fmadd_ps(row, _mm512_set1_ps(x[k * width + t]), acc[t]);
        }
    }
    KRN_UNROLL for (int t = 0; t < width; t++) _mm512_store_ps(out + t * KRN_TILE, acc[t]);
}

static void chains(const struct krn_leaf_job *j) { krn_chain_widths(j, j->w->type, chain); }

const struct krn_leaf_kernel krn_avx512_oracle = {
    .fn = chains, .single_tiles = 1, .k_step = 256, .form = KRN_LEAF_F32};
