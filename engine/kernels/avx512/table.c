/* table.c: the AVX-512 kernels as a table. */
#include "engine/kernels/avx512/avx512.h"

const struct krn_table krn_avx512 = {
    .name = "avx512",
    .matmul = krn_avx512_matmul,
    KRN_AVX512_OPS,
};
