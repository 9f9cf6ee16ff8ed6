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
    .quantize = krn_neon_quantize,
    .interleave = krn_neon_interleave,
    .unpack_rows = krn_unpack_rows,
    .kv_append = krn_neon_kv_append,
    .attention = krn_neon_attention,
    .attention_merge = krn_neon_attention_merge,
    .rmsnorm = krn_neon_rmsnorm,
    .rope = krn_neon_rope,
    .add = krn_neon_add,
    .silu_mul = krn_neon_silu_mul,
    .gate = krn_neon_gate,
    .mul = krn_neon_mul,
    .scale = krn_neon_scale,
    .axpy = krn_neon_axpy,
    .axpy_rows = krn_neon_axpy_rows,
    .softcap = krn_neon_softcap,
    .sum_squares = krn_neon_sum_squares,
    .layernorm = krn_neon_layernorm,
    .argmax = krn_neon_argmax,
    .sum_exp = krn_neon_sum_exp,
    .temper = krn_neon_temper,
    .at_least = krn_neon_at_least,
    .draw = krn_neon_draw,
};
