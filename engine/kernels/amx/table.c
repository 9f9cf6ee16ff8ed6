/* table.c: AVX-512's table with products of bytes by tiles. */
#include "engine/kernels/amx/amx.h"
#include "engine/kernels/avx512/avx512.h"
#include "engine/kernels/pack.h"

static void matmul(const struct krn_matmul *a)
{
    if (krn_pack_is_quant(a->w->type) && a->x->q)
        krn_leaf_walk(a, &krn_amx_int8[a->w->type]);
    else
        krn_avx512_matmul(a);
}

const struct krn_table krn_amx = {
    .name = "amx",
    .matmul = matmul,
    KRN_AVX512_OPS,
};
