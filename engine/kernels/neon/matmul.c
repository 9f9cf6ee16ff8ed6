/* matmul.c: which leaf kernel a matrix gets; the walk around it is leaf_walk.h. */
#include "engine/kernels/neon/neon.h"
#include "engine/kernels/pack.h"

void krn_neon_matmul(const struct krn_matmul *a)
{
    if (!krn_pack_is_quant(a->w->type))
        krn_leaf_walk(a, &krn_neon_float[a->w->type]);
    else
        krn_leaf_walk(a, a->x->q ? &krn_neon_int8[a->w->type] : &krn_neon_oracle);
}

void krn_neon_interleave(const struct krn_act *a, int32_t t0, int32_t t1, int32_t k0, int32_t k1)
{
    krn_interleave_walk(a, t0, t1, k0, k1);
}
