/* dot.h: the integer sums of a unit by sdot: signed codes (none is wider than a signed byte) against
 * signed activations, 4 products per row and instruction, the activations a lane of a register. */
#ifndef ENGINE_KERNELS_DOTPROD_DOT_H
#define ENGINE_KERNELS_DOTPROD_DOT_H

#include "engine/kernels/neon/int8_walk.h"

KRN_INLINE int32x4_t dot16(int32x4_t sum, const int8x16_t w[4], const int8_t *q)
{
    int8x16_t x = vld1q_s8(q);
    sum = vdotq_laneq_s32(sum, w[0], x, 0);
    sum = vdotq_laneq_s32(sum, w[1], x, 1);
    sum = vdotq_laneq_s32(sum, w[2], x, 2);
    return vdotq_laneq_s32(sum, w[3], x, 3);
}

KRN_INLINE int32x4_t dot(const int8x16_t *w, const int8_t *q, const int n, const enum dtype type)
{
    (void)type;
    int32x4_t sum = dot16(vdupq_n_s32(0), w, q);
    return n == 4 ? sum : dot16(sum, w + 4, q + 16);
}

#endif
