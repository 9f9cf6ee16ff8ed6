/* amx_emu.h: engine/kernels/amx/tile.h in plain C. Included before it (-include), so that a second
 * compilation of engine/kernels/amx/matmul_int8.c runs on any machine with AVX-512. Like a tile, the
 * shape is the calling thread's and must have been set. */
#ifndef ENGINE_KERNELS_AMX_TILE_H
#define ENGINE_KERNELS_AMX_TILE_H

#include "engine/kernels/panel.h"

static _Thread_local int32_t amx_emu_width; /* 0: no shape */

static inline void tiles_shape(int32_t width)
{
    ASSERT(width >= 1 && width <= 16);
    amx_emu_width = width;
}
static inline void tiles_release(void) { amx_emu_width = 0; }

static inline void amx_emu_product(int32_t *sum, const uint8_t *q, const uint8_t *codes, int32_t n)
{
    ASSERT(amx_emu_width > 0);
    for (int32_t t = 0; t < amx_emu_width; t++)
        for (int32_t r = 0; r < KRN_TILE; r++) {
            int32_t s = 0;
            for (int32_t k = 0; k < n; k++)
                s += (int8_t)q[t * KRN_UNIT + k] * (int8_t)codes[k / 4 * 64 + r * 4 + k % 4];
            sum[t * KRN_TILE + r] = s;
        }
}

static inline void tiles_unit(int32_t *sum, const uint8_t *q, const uint8_t *codes)
{
    amx_emu_product(sum, q, codes, KRN_UNIT);
}
static inline void tiles_half(int32_t *sum, const uint8_t *q, const uint8_t *codes)
{
    amx_emu_product(sum, q, codes, KRN_UNIT / 2);
}

#endif
