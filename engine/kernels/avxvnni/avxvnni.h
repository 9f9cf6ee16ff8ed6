/* avxvnni.h: AVX2 with AVX-VNNI, dot products of bytes in 256 bits (processors without AVX-512:
 * Alder Lake and later): the products of AVX2's table by vpdpbusd, everything else its own.
 * Contracts: engine/kernels/table.h. */
#ifndef ENGINE_KERNELS_AVXVNNI_AVXVNNI_H
#define ENGINE_KERNELS_AVXVNNI_AVXVNNI_H

#include "engine/kernels/leaf_walk.h"
#include "engine/kernels/table.h"

extern const struct krn_table krn_avxvnni;
extern const struct krn_leaf_kernel krn_avxvnni_int8[DTYPE_COUNT];

#endif
