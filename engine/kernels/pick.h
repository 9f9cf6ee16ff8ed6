/* pick.h: what the vector forms of `draw` share: the exact sum of one candidate that noise may let win. Internal to kernels. */
#ifndef ENGINE_KERNELS_PICK_H
#define ENGINE_KERNELS_PICK_H

#include "base/rng.h"
#include "engine/kernels/math.h"
#include "engine/kernels/table.h"

/* Candidate z of this id and its random bits against the best so far; candidates come by rising id. */
static inline void krn_pick_try(struct krn_pick *best, float z, int32_t id, uint64_t bits)
{
    float v = z + krn_math_gumbel(bits);
    if (best->id < 0 || v > best->z) *best = (struct krn_pick){v, id};
}

#endif
