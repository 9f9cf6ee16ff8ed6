/* cuda.h: the CUDA kernels of this folder as functions. Contracts: engine/kernels/table.h, with
 * device pointers. */
#ifndef ENGINE_KERNELS_CUDA_CUDA_H
#define ENGINE_KERNELS_CUDA_CUDA_H

#include "base/exchange.h"
#include "base/wire.h"
#include "engine/kernels/fused.h"
#include "engine/kernels/table.h"
#include "engine/kernels/tree_sum.h"

void krn_cuda_matmul(const struct krn_matmul *a);
/* Do the kernels that the entered device has wait for those before them by themselves (cu_begin)? */
int krn_cuda_begins(void);
/* engine/kernels/fused.h */
void krn_cuda_matmuls(const struct krn_matmul a[], int32_t n);
void krn_cuda_merge(const struct krn_attention *a, uint8_t *q);
void krn_cuda_bias(const struct krn_bias *a);
void krn_cuda_enter(const struct krn_enter *a);
void krn_cuda_heads(const struct krn_heads *a);
void krn_cuda_gated(const struct krn_gated *a);
/* n products of the same rows and leaves; tokens from first_tok on, which is a multiple of KRN_GROUP. */
void krn_cuda_matmul_int8(const struct krn_matmul a[], int32_t n, int32_t first_tok);
/* The whole groups of tokens. */
void krn_cuda_matmul_mma(const struct krn_matmul *a);
void krn_cuda_matmul_float(const struct krn_matmul *a);
/* n rows of a packed matrix as f32, rows: device ids; out [n][cols]. Below 0: a row of -0, which added to any other leaves that one's bits. */
void krn_cuda_unpack_rows(const struct krn_mat *w, const int32_t *rows, int32_t n, float *out);
void krn_cuda_quantize(const struct krn_act *a, int32_t t0, int32_t t1, int32_t u0, int32_t u1);
void krn_cuda_kv_append(const struct krn_kv_append *a);
void krn_cuda_attention(const struct krn_attention *a);
/* Of calls of many tokens, those that are a prompt's (attention.cuh). */
void krn_cuda_attention_tiles(const struct krn_attention *a);
void krn_cuda_attention_rounded_tiles(const struct krn_attention *a);
void krn_cuda_attention_merge(const struct krn_attention *a);
void krn_cuda_rmsnorm(float *y, const float *x, const float *w, int32_t d, float eps, int32_t t0,
                      int32_t t1);
void krn_cuda_rope(float *x, int32_t n_head, int32_t head_dim, int32_t rot, bool interleaved,
                   const float *const *cs, int32_t t0, int32_t t1);
void krn_cuda_add(float *x, const float *y, int64_t n);
void krn_cuda_silu_mul(float *y, const float *g, const float *u, int64_t n);
void krn_cuda_mul(float *x, const float *y, int64_t n);
void krn_cuda_scale(float *x, float a, int64_t n);
void krn_cuda_axpy(float *y, float a, const float *x, int64_t n);
void krn_cuda_softcap(float *x, float cap, int64_t n);
void krn_cuda_gate(enum krn_gate kind, float *y, const float *g, const float *u, int64_t n);
float krn_cuda_sum_squares(const float *x, int32_t d);
void krn_cuda_layernorm(float *y, const float *x, const float *w, const float *b, int32_t d, float eps,
                        int32_t t0, int32_t t1);
int32_t krn_cuda_argmax(const float *x, int32_t n);
float krn_cuda_sum_exp(const float *x, int32_t n, float m);
void krn_cuda_tree_sum(const struct krn_tree_sum *a);
/* engine/kernels/rounded.h, the sums of a leaf in the card's own order; from compute capability 8.0 on. */
void krn_cuda_rounded_pairs(const struct krn_act *a, int32_t t0, int32_t t1, int32_t k0, int32_t k1);
void krn_cuda_rounded_matmul(const struct krn_matmul *a);
void krn_cuda_rounded_attention(const struct krn_attention *a);
void krn_cuda_exchange(const struct exchange *x);
void krn_cuda_wire_pack(const struct wire_pack *a);
void krn_cuda_wire_unpack(const struct wire_unpack *a);

extern const struct krn_table krn_cuda;
extern const struct krn_fused krn_cuda_fused;

#endif
