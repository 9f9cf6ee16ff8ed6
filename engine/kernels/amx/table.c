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
    .quantize = krn_avx512_quantize,
    .interleave = krn_avx512_interleave,
    .unpack_rows = krn_unpack_rows,
    .kv_append = krn_avx512_kv_append,
    .attention = krn_avx512_attention,
    .attention_merge = krn_avx512_attention_merge,
    .rmsnorm = krn_avx512_rmsnorm,
    .rope = krn_avx512_rope,
    .add = krn_avx512_add,
    .silu_mul = krn_avx512_silu_mul,
    .gate = krn_avx512_gate,
    .mul = krn_avx512_mul,
    .scale = krn_avx512_scale,
    .axpy = krn_avx512_axpy,
    .axpy_rows = krn_avx512_axpy_rows,
    .softcap = krn_avx512_softcap,
    .sum_squares = krn_avx512_sum_squares,
    .layernorm = krn_avx512_layernorm,
    .argmax = krn_avx512_argmax,
    .sum_exp = krn_avx512_sum_exp,
    .temper = krn_avx512_temper,
    .at_least = krn_avx512_at_least,
    .draw = krn_avx512_draw,
};
