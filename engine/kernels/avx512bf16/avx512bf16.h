/* avx512bf16.h: AVX-512 with dot products of bf16 (Zen 4, Cooper Lake and later): products that round. Contract: engine/kernels/rounded.h. */
#ifndef ENGINE_KERNELS_AVX512BF16_AVX512BF16_H
#define ENGINE_KERNELS_AVX512BF16_AVX512BF16_H

#include "engine/kernels/rounded.h"

extern const struct krn_rounded krn_avx512bf16;

#endif
