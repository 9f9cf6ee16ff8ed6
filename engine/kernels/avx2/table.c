/* table.c: the AVX2 kernels as a table. */
#include "engine/kernels/avx2/avx2.h"

const struct krn_table krn_avx2 = {
    .name = "avx2",
    .matmul = krn_avx2_matmul,
    .quantize = krn_avx2_quantize,
    .interleave = krn_avx2_interleave,
    .unpack_rows = krn_unpack_rows,
    .kv_append = krn_avx2_kv_append,
    .attention = krn_avx2_attention,
    .attention_merge = krn_avx2_attention_merge,
    .rmsnorm = krn_avx2_rmsnorm,
    .rope = krn_avx2_rope,
    .add = krn_avx2_add,
    .silu_mul = krn_avx2_silu_mul,
    .gate = krn_avx2_gate,
    .mul = krn_avx2_mul,
    .scale = krn_avx2_scale,
    .axpy = krn_avx2_axpy,
    .axpy_rows = krn_avx2_axpy_rows,
    .softcap = krn_avx2_softcap,
    .sum_squares = krn_avx2_sum_squares,
    .layernorm = krn_avx2_layernorm,
    .argmax = krn_avx2_argmax,
    .sum_exp = krn_avx2_sum_exp,
};
