/* table.c: the NEON kernels as a table. */
#include "engine/kernels/neon/neon.h"

const struct krn_table krn_neon = {
    .name = "neon",
    .matmul = krn_neon_matmul,
    KRN_NEON_OPS,
};
