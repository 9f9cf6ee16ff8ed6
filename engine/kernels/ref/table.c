/* table.c: the reference kernels as a table. */
#include "engine/kernels/ref/ref.h"

const struct krn_table krn_ref = {
    .name = "ref",
    .matmul = krn_ref_matmul,
    .quantize = krn_ref_quantize,
    .interleave = krn_ref_interleave,
    .unpack_rows = krn_unpack_rows,
    .kv_append = krn_ref_kv_append,
    .attention = krn_ref_attention,
    .attention_merge = krn_ref_attention_merge,
    .rmsnorm = krn_ref_rmsnorm,
    .rope = krn_ref_rope,
    .add = krn_ref_add,
    .silu_mul = krn_ref_silu_mul,
    .gate = krn_ref_gate,
    .mul = krn_ref_mul,
    .scale = krn_ref_scale,
    .axpy = krn_ref_axpy,
    .axpy_rows = krn_ref_axpy_rows,
    .softcap = krn_ref_softcap,
    .sum_squares = krn_ref_sum_squares,
    .layernorm = krn_ref_layernorm,
    .argmax = krn_ref_argmax,
    .sum_exp = krn_ref_sum_exp,
};
