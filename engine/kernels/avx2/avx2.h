/* avx2.h: the twins of ref/ for AVX2, FMA and F16C: one lane is one row, key or element.
 * Contracts: engine/kernels/table.h. */
#ifndef ENGINE_KERNELS_AVX2_AVX2_H
#define ENGINE_KERNELS_AVX2_AVX2_H

#include "engine/kernels/leaf_walk.h"
#include "engine/kernels/table.h"

extern const struct krn_table krn_avx2;

void krn_avx2_matmul(const struct krn_matmul *a);
void krn_avx2_quantize(const struct krn_act *a, int32_t t0, int32_t t1, int32_t u0, int32_t u1);
void krn_avx2_interleave(const struct krn_act *a, int32_t t0, int32_t t1, int32_t k0, int32_t k1);
void krn_avx2_kv_append(const struct krn_kv_append *a);
void krn_avx2_attention(const struct krn_attention *a);
void krn_avx2_attention_merge(const struct krn_attention *a);
void krn_avx2_rmsnorm(float *y, const float *x, const float *w, int32_t d, float eps, int32_t t0,
                      int32_t t1);
void krn_avx2_rope(float *x, int32_t n_head, int32_t head_dim, int32_t rot, bool interleaved,
                   const float *const *cs, int32_t t0, int32_t t1);
void krn_avx2_add(float *x, const float *y, int64_t n);
void krn_avx2_silu_mul(float *y, const float *g, const float *u, int64_t n);
void krn_avx2_gate(enum krn_gate kind, float *y, const float *g, const float *u, int64_t n);
void krn_avx2_mul(float *x, const float *y, int64_t n);
void krn_avx2_scale(float *x, float a, int64_t n);
void krn_avx2_axpy(float *y, float a, const float *x, int64_t n);
void krn_avx2_axpy_rows(float *y, int64_t y_stride, const int32_t *at, const float *a, const float *x,
                        int64_t x_stride, int32_t n_rows, int32_t n);
void krn_avx2_softcap(float *x, float cap, int64_t n);
float krn_avx2_sum_squares(const float *x, int32_t d);
void krn_avx2_layernorm(float *y, const float *x, const float *w, const float *b, int32_t d, float eps,
                        int32_t t0, int32_t t1);
int32_t krn_avx2_argmax(const float *x, int32_t n);
float krn_avx2_sum_exp(const float *x, int32_t n, float m);
void krn_avx2_temper(float *x, float m, float t, int64_t n);
int32_t krn_avx2_at_least(const float *x, int32_t n, float least, struct krn_pick *out);
struct krn_pick krn_avx2_draw(const float *z, int32_t n, float least, uint64_t key, int32_t id0);

/* How matmul continues the chains of one leaf: over elements (F32, F16, BF16), over units in int8,
 * over dequantised units. By type. */
extern const struct krn_leaf_kernel krn_avx2_float[DTYPE_COUNT], krn_avx2_int8[DTYPE_COUNT],
    krn_avx2_oracle;

/* What the tables of this instruction set and of those above it share: all but the product. */
#define KRN_AVX2_OPS                                                                               \
    .quantize = krn_avx2_quantize,                                                                 \
    .interleave = krn_avx2_interleave,                                                             \
    .unpack_rows = krn_unpack_rows,                                                                \
    .kv_append = krn_avx2_kv_append,                                                               \
    .attention = krn_avx2_attention,                                                               \
    .attention_merge = krn_avx2_attention_merge,                                                   \
    .rmsnorm = krn_avx2_rmsnorm,                                                                   \
    .rope = krn_avx2_rope,                                                                         \
    .add = krn_avx2_add,                                                                           \
    .silu_mul = krn_avx2_silu_mul,                                                                 \
    .gate = krn_avx2_gate,                                                                         \
    .mul = krn_avx2_mul,                                                                           \
    .scale = krn_avx2_scale,                                                                       \
    .axpy = krn_avx2_axpy,                                                                         \
    .axpy_rows = krn_avx2_axpy_rows,                                                               \
    .softcap = krn_avx2_softcap,                                                                   \
    .sum_squares = krn_avx2_sum_squares,                                                           \
    .layernorm = krn_avx2_layernorm,                                                               \
    .argmax = krn_avx2_argmax,                                                                     \
    .sum_exp = krn_avx2_sum_exp,                                                                   \
    .temper = krn_avx2_temper,                                                                     \
    .at_least = krn_avx2_at_least,                                                                 \
    .draw = krn_avx2_draw

#endif
