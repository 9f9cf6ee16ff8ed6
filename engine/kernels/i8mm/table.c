/* table.c: NEON's table with products of bytes of its own. */
#include "engine/kernels/i8mm/i8mm.h"
#include "engine/kernels/neon/neon.h"
#include "engine/kernels/pack.h"

static void matmul(const struct krn_matmul *a)
{
    if (krn_pack_is_quant(a->w->type) && a->x->q)
        krn_leaf_walk(a, &krn_i8mm_int8[a->w->type]);
    else
        krn_neon_matmul(a);
}

const struct krn_table krn_i8mm = {
    .name = "i8mm",
    .matmul = matmul,
    KRN_NEON_OPS,
};
