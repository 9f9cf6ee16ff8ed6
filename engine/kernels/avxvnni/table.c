/* table.c: AVX2's table with products of bytes of its own. */
#include "engine/kernels/avxvnni/avxvnni.h"
#include "engine/kernels/avx2/avx2.h"
#include "engine/kernels/pack.h"

static void matmul(const struct krn_matmul *a)
{
    if (krn_pack_is_quant(a->w->type) && a->x->q)
        krn_leaf_walk(a, &krn_avxvnni_int8[a->w->type]);
    else
        krn_avx2_matmul(a);
}

const struct krn_table krn_avxvnni = {
    .name = "avxvnni",
    .matmul = matmul,
    KRN_AVX2_OPS,
};
