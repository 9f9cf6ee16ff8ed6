/* table.c: the CUDA kernels as a table. */
#include "engine/kernels/cuda/cuda.h"

const struct krn_table krn_cuda = {
    .name = "cuda",
    .matmul = krn_cuda_matmul,
    .quantize = krn_cuda_quantize,
    .interleave = NULL, /* its products read the rows as they are */
    .unpack_rows = krn_cuda_unpack_rows,
    .kv_append = krn_cuda_kv_append,
    .attention = krn_cuda_attention,
    .attention_merge = krn_cuda_attention_merge,
    .rmsnorm = krn_cuda_rmsnorm,
    .rope = krn_cuda_rope,
    .add = krn_cuda_add,
    .silu_mul = krn_cuda_silu_mul,
    .gate = krn_cuda_gate,
    .mul = krn_cuda_mul,
    .scale = krn_cuda_scale,
    .axpy = krn_cuda_axpy,
    .axpy_rows = NULL, /* experts are added by rows.h, many leaves at once */
    .softcap = krn_cuda_softcap,
    .sum_squares = krn_cuda_sum_squares,
    .layernorm = krn_cuda_layernorm,
    .argmax = krn_cuda_argmax,
    .sum_exp = krn_cuda_sum_exp,
    /* the host chooses tokens */
    .temper = NULL,
    .at_least = NULL,
    .draw = NULL,
};

const struct krn_fused krn_cuda_fused = {
    .bias = krn_cuda_bias,
    .enter = krn_cuda_enter,
    .heads = krn_cuda_heads,
    .gated = krn_cuda_gated,
    .merge = krn_cuda_merge,
    .matmuls = krn_cuda_matmuls,
};
