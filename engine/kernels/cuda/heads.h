/* heads.h: see engine/kernels/heads.h; on the device that was entered. */
#ifndef ENGINE_KERNELS_CUDA_HEADS_H
#define ENGINE_KERNELS_CUDA_HEADS_H

#include "engine/kernels/heads.h"

void krn_cuda_head_squares(const struct krn_head_squares *a);
void krn_cuda_head_norm(const struct krn_head_norm *a);

#endif
