/* table.c: the AVX2 kernels as a table. */
#include "engine/kernels/avx2/avx2.h"

const struct krn_table krn_avx2 = {
    .name = "avx2",
    .matmul = krn_avx2_matmul,
    KRN_AVX2_OPS,
};
