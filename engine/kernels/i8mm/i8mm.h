/* i8mm.h: ARM64 with products of byte matrices (FEAT_I8MM, ARMv8.6) as well as dot products: batches
 * by smmla, everything else NEON's. Contracts: engine/kernels/table.h. */
#ifndef ENGINE_KERNELS_I8MM_I8MM_H
#define ENGINE_KERNELS_I8MM_I8MM_H

#include "engine/kernels/leaf_walk.h"
#include "engine/kernels/table.h"

extern const struct krn_table krn_i8mm;
extern const struct krn_leaf_kernel krn_i8mm_int8[DTYPE_COUNT];

#endif
