/* matmul.c: which leaf kernel a matrix gets; the walk around it is leaf_walk.h. */
#include "engine/kernels/avx512/avx512.h"
#include "engine/kernels/pack.h"

void krn_avx512_matmul(const struct krn_matmul *a)
{
    if (!krn_pack_is_quant(a->w->type))
        krn_leaf_walk(a, &krn_avx512_leaf_float);
    else
        krn_leaf_walk(a, a->x->q ? &krn_avx512_leaf_int8 : &krn_avx512_leaf_oracle);
}
