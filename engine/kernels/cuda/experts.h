/* experts.h: engine/kernels/experts.h as functions. */
#ifndef ENGINE_KERNELS_CUDA_EXPERTS_H
#define ENGINE_KERNELS_CUDA_EXPERTS_H

#include "engine/kernels/experts.h"

void krn_cuda_route(const struct krn_route *a);
void krn_cuda_matmul_slots(const struct krn_matmul *a, const struct krn_slots *s);
void krn_cuda_matmul_float_slots(const struct krn_matmul *a, const struct krn_slots *s); /* of values by f32 */
void krn_cuda_group(const struct krn_grouping *a);
void krn_cuda_matmul_grouped(const struct krn_matmul *a, const struct krn_grouped *g);
void krn_cuda_matmul_mma_grouped(const struct krn_matmul *a, const struct krn_grouped *g);   /* of codes */
void krn_cuda_matmul_float_grouped(const struct krn_matmul *a, const struct krn_grouped *g); /* of values by f32 */
void krn_cuda_combine(const struct krn_combine *a);
void krn_cuda_slot_bias(const struct krn_slot_bias *a);
void krn_cuda_token_bias(const struct krn_token_bias *a);

#endif
