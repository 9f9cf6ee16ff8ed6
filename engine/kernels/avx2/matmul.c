/* matmul.c: which leaf kernel a matrix gets; the walk around it is leaf_walk.h. */
#include "engine/kernels/avx2/avx2.h"
#include "engine/kernels/pack.h"

void krn_avx2_matmul(const struct krn_matmul *a)
{
    if (!krn_pack_is_quant(a->w->type))
        krn_leaf_walk(a, &krn_avx2_leaf_float);
    else
        krn_leaf_walk(a, a->x->q ? &krn_avx2_leaf_int8 : &krn_avx2_leaf_oracle);
}
