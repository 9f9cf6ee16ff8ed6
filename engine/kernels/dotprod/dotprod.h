/* dotprod.h: ARM64 with dot products of bytes (FEAT_DotProd, ARMv8.2): the products of NEON's table
 * by sdot, everything else its own. Contracts: engine/kernels/table.h. */
#ifndef ENGINE_KERNELS_DOTPROD_DOTPROD_H
#define ENGINE_KERNELS_DOTPROD_DOTPROD_H

#include "engine/kernels/leaf_walk.h"
#include "engine/kernels/table.h"

extern const struct krn_table krn_dotprod;
extern const struct krn_leaf_kernel krn_dotprod_int8[DTYPE_COUNT];

#endif
