/* matmul_oracle.c: quantised weights against f32 activations: each unit is dequantised to f32, then
 * chained value by value. */
#include "engine/kernels/avx2/avx2.h"
#include "engine/kernels/avx2/unit.h"

enum { MAX_TOK = 4 };

/* w[k][16 rows] of one unit. */
KRN_INLINE void expand(const struct krn_planes *p, int32_t unit, const enum dtype type,
                       float w[KRN_UNIT * KRN_TILE])
{
    const int offset = krn_pack_offset(type);
    const bool has_min = krn_pack_has_min(type);
    for (int half = 0; half < 2; half++) {
        __m256i code[UNIT_VECTORS];
        unit_codes(p, p->pairs + krn_pack_codes_at(type, unit) + 32 * half, type, code);
        const struct unit_scales sc = unit_scales(p, unit, 8 * half, type);
        KRN_UNROLL for (int j = 0; j < UNIT_VECTORS; j++) KRN_UNROLL for (int b = 0; b < 4; b++)
        {
            __m256i v = _mm256_and_si256(_mm256_srli_epi32(code[j], 8 * b), _mm256_set1_epi32(255));
            __m256 f = _mm256_cvtepi32_ps(_mm256_sub_epi32(v, _mm256_set1_epi32(offset)));
            f = _mm256_mul_ps(sc.d[j / 4], f);
            if (has_min) f = _mm256_sub_ps(f, sc.m[j / 4]);
            _mm256_store_ps(w + (4 * j + b) * KRN_TILE + 8 * half, f);
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
    __m256 acc[2][MAX_TOK];
    KRN_UNROLL for (int t = 0; t < n_tok; t++) KRN_UNROLL for (int half = 0; half < 2; half++)
        acc[half][t] =
            j->more ? _mm256_load_ps(out + t * KRN_TILE + 8 * half) : _mm256_setzero_ps();
    for (int64_t k0 = j->k0; k0 < j->k1; k0 += KRN_UNIT) {
        const float *x = (const float *)j->panel + k0 * width + lane;
        expand_unit(&p, (int32_t)(k0 / KRN_UNIT), j->w->type, w);
        for (int64_t k = 0; k < KRN_UNIT; k++) {
            __m256 low = _mm256_load_ps(w + k * KRN_TILE),
                   high = _mm256_load_ps(w + k * KRN_TILE + 8);
            KRN_UNROLL for (int t = 0; t < n_tok; t++)
            {
                __m256 xt = _mm256_set1_ps(x[k * width + t]);
                acc[0][t] = _mm256_fmadd_ps(low, xt, acc[0][t]);
                acc[1][t] = _mm256_fmadd_ps(high, xt, acc[1][t]);
            }
        }
    }
    KRN_UNROLL for (int t = 0; t < n_tok; t++) KRN_UNROLL for (int half = 0; half < 2; half++)
        _mm256_store_ps(out + t * KRN_TILE + 8 * half, acc[half][t]);
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

const struct krn_leaf_kernel krn_avx2_oracle = {
    .fn = chains, .single_tiles = 1, .k_step = 256, .form = KRN_LEAF_F32};
