/* amx.h: AVX-512 with AMX-INT8, products of byte matrices held in tiles (Sapphire Rapids and later):
 * batches of AVX-512's table by tdpbssd, everything else its own. Contracts:
 * engine/kernels/table.h. */
#ifndef ENGINE_KERNELS_AMX_AMX_H
#define ENGINE_KERNELS_AMX_AMX_H

#include "engine/kernels/leaf_walk.h"
#include "engine/kernels/table.h"

extern const struct krn_table krn_amx;
extern const struct krn_leaf_kernel krn_amx_int8[DTYPE_COUNT];

#endif
