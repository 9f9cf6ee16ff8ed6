/* tile.h: all that is asked of AMX: the integer sums of one unit, or half a unit, of 16 rows against
 * the lanes of a panel. tests/kernels/amx_emu.h has the same in plain C, so that the kernel around
 * is checked on machines without tiles.
 *
 * A packed vector of codes, 16 rows x 4 values of k, is a row of the second operand as it lies; a
 * panel's q[width][32] is the first operand as it lies. */
#ifndef ENGINE_KERNELS_AMX_TILE_H
#define ENGINE_KERNELS_AMX_TILE_H

#include "engine/kernels/panel.h"

#include <immintrin.h>

/* Shape the tiles for `width` lanes (1..16): tile 0 the sums, 1 and 2 the operands of a unit, 3 and
 * 4 those of half a unit. Thr: the calling thread's own tiles, until tiles_release. */
static inline void tiles_shape(int32_t width)
{
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } c = {.palette = 1,
           .row_bytes = {64, 32, 64, 16, 64},
           .rows = {(uint8_t)width, (uint8_t)width, 8, (uint8_t)width, 4}};
    _tile_loadconfig(&c);
}

static inline void tiles_release(void) { _tile_release(); }

/* sum[t][r] = codes of row r . q of lane t, over 32 values. q: [width][32]; codes: signed, 8 lines
 * of [16 rows][4]. */
static inline void tiles_unit(int32_t *sum, const uint8_t *q, const uint8_t *codes)
{
    _tile_zero(0);
    _tile_loadd(1, q, KRN_UNIT);
    _tile_loadd(2, codes, 64);
    _tile_dpbssd(0, 1, 2);
    _tile_stored(0, sum, 64);
}

/* The same over 16 values: 4 lines of codes. */
static inline void tiles_half(int32_t *sum, const uint8_t *q, const uint8_t *codes)
{
    _tile_zero(0);
    _tile_loadd(3, q, KRN_UNIT);
    _tile_loadd(4, codes, 64);
    _tile_dpbssd(0, 3, 4);
    _tile_stored(0, sum, 64);
}

#endif
