/* matmul_float.c: the chain over elements: F32, F16 and BF16 weights, widened to f32 in registers.
 *
 * Per k: four vectors of 4 rows, one fused multiply-add per vector and token; 4 tokens keep 16
 * chains in flight and fit the 32 registers. */
#include "engine/kernels/neon/neon.h"
#include "engine/kernels/neon/unit.h"

enum { MAX_TOK = 4, AHEAD = 1024 /* bytes fetched ahead */ };

KRN_INLINE float32x4_t load_quarter(const uint8_t *p, const enum dtype type)
{
    if (type == DTYPE_F32) return vld1q_f32((const float *)p);
    uint16x4_t h = vld1_u16((const uint16_t *)p);
    return type == DTYPE_F16 ? vmath_from_f16(h) : vmath_from_bf16(h);
}

/* n_tok lanes from `lane`. */
KRN_INLINE void chain(const struct krn_leaf_job *j, int32_t tile, int32_t lane,
                      const enum dtype type, const int n_tok)
{
    const int quarter_bytes = type == DTYPE_F32 ? 16 : 8;
    const int64_t width = j->width;
    const float *x = (const float *)j->panel + lane;
    const uint8_t *rows = j->tile + tile * j->w->tile_bytes;
    float *out = j->acc + (tile * width + lane) * KRN_TILE;
    float32x4_t acc[MAX_TOK][QUARTERS];
    KRN_UNROLL for (int t = 0; t < n_tok; t++) KRN_UNROLL for (int i = 0; i < QUARTERS; i++)
        acc[t][i] = j->more ? vld1q_f32(out + t * KRN_TILE + LANES * i) : vmath_zero();

    for (int64_t k = j->k0; k < j->k1; k++) {
        const uint8_t *p = rows + k * QUARTERS * quarter_bytes;
        __builtin_prefetch(p + AHEAD);
        float32x4_t w[QUARTERS];
        KRN_UNROLL for (int i = 0; i < QUARTERS; i++) w[i] =
            load_quarter(p + i * quarter_bytes, type);
        KRN_UNROLL for (int t = 0; t < n_tok; t++) KRN_UNROLL for (int i = 0; i < QUARTERS; i++)
            acc[t][i] = vfmaq_n_f32(acc[t][i], w[i], x[k * width + t]);
    }
    KRN_UNROLL for (int t = 0; t < n_tok; t++) KRN_UNROLL for (int i = 0; i < QUARTERS; i++)
        vst1q_f32(out + t * KRN_TILE + LANES * i, acc[t][i]);
}

KRN_INLINE void chains(const struct krn_leaf_job *j, const enum dtype type)
{
    for (int32_t tile = 0; tile < j->n_tiles; tile++) {
        int32_t lane = 0;
        for (; lane + MAX_TOK <= j->width; lane += MAX_TOK) chain(j, tile, lane, type, MAX_TOK);
        for (; lane + 2 <= j->width; lane += 2) chain(j, tile, lane, type, 2);
        if (lane < j->width) chain(j, tile, lane, type, 1);
    }
}

static void f32(const struct krn_leaf_job *j) { chains(j, DTYPE_F32); }
static void f16(const struct krn_leaf_job *j) { chains(j, DTYPE_F16); }
static void bf16(const struct krn_leaf_job *j) { chains(j, DTYPE_BF16); }

#define KERNEL(f)                                                                                  \
    {                                                                                              \
        .fn = f, .single_tiles = 1, .k_step = 256, .form = KRN_LEAF_F32                                     \
    }
const struct krn_leaf_kernel krn_neon_float[DTYPE_COUNT] = {
    [DTYPE_F32] = KERNEL(f32), [DTYPE_F16] = KERNEL(f16), [DTYPE_BF16] = KERNEL(bf16)};
