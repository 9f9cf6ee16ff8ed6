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
    .temper = krn_avx2_temper,
    .at_least = krn_avx2_at_least,
    .draw = krn_avx2_draw,
};
