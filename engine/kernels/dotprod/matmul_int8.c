/* matmul_int8.c: the chain over units by sdot: 8 instructions for 32 products of 4 rows. The walk:
 * engine/kernels/neon/int8_walk.h. */
#include "engine/kernels/dotprod/dot.h"
#include "engine/kernels/dotprod/dotprod.h"

KRN_INLINE void lanes(float *acc, const int8x16_t w[UNIT_VECTORS], const struct unit_scales *sc,
                      const uint8_t *x, int32_t width, const enum dtype type)
{
    for (int32_t t = 0; t < width; t++)
        vst1q_f32(acc + t * KRN_TILE,
                  add_unit(vld1q_f32(acc + t * KRN_TILE), w, sc, x, width, t, type, dot));
}

KRN_QUANT_LAYOUTS(INT8_CHAINS)
const struct krn_leaf_kernel krn_dotprod_int8[DTYPE_COUNT] = {KRN_QUANT_LAYOUTS(INT8_KERNEL)};
