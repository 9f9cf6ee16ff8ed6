/* neon.h: the twins of ref/ for ARM64 with Advanced SIMD, which every ARM64 processor has: one lane is
 * one row, key or element. Products of bytes by vmlal; dotprod/ and i8mm/ have better ones.
 * Contracts: engine/kernels/table.h. */
#ifndef ENGINE_KERNELS_NEON_NEON_H
#define ENGINE_KERNELS_NEON_NEON_H

#include "engine/kernels/leaf_walk.h"
#include "engine/kernels/table.h"

extern const struct krn_table krn_neon;

void krn_neon_matmul(const struct krn_matmul *a);
void krn_neon_quantize(const struct krn_act *a, int32_t t0, int32_t t1, int32_t u0, int32_t u1);
void krn_neon_interleave(const struct krn_act *a, int32_t t0, int32_t t1, int32_t k0, int32_t k1);
void krn_neon_kv_append(const struct krn_kv_append *a);
void krn_neon_attention(const struct krn_attention *a);
void krn_neon_attention_merge(const struct krn_attention *a);
void krn_neon_rmsnorm(float *y, const float *x, const float *w, int32_t d, float eps, int32_t t0,
                      int32_t t1);
void krn_neon_rope(float *x, int32_t n_head, int32_t head_dim, int32_t rot, bool interleaved,
                   const float *const *cs, int32_t t0, int32_t t1);
void krn_neon_add(float *x, const float *y, int64_t n);
void krn_neon_silu_mul(float *y, const float *g, const float *u, int64_t n);
void krn_neon_gate(enum krn_gate kind, float *y, const float *g, const float *u, int64_t n);
void krn_neon_mul(float *x, const float *y, int64_t n);
void krn_neon_scale(float *x, float a, int64_t n);
void krn_neon_axpy(float *y, float a, const float *x, int64_t n);
void krn_neon_axpy_rows(float *y, int64_t y_stride, const int32_t *at, const float *a, const float *x,
                        int64_t x_stride, int32_t n_rows, int32_t n);
void krn_neon_softcap(float *x, float cap, int64_t n);
float krn_neon_sum_squares(const float *x, int32_t d);
void krn_neon_layernorm(float *y, const float *x, const float *w, const float *b, int32_t d, float eps,
                        int32_t t0, int32_t t1);
int32_t krn_neon_argmax(const float *x, int32_t n);
float krn_neon_sum_exp(const float *x, int32_t n, float m);
void krn_neon_temper(float *x, float m, float t, int64_t n);
int32_t krn_neon_at_least(const float *x, int32_t n, float least, struct krn_pick *out);
struct krn_pick krn_neon_draw(const float *z, int32_t n, float least, uint64_t key, int32_t id0);

/* How matmul continues the chains of one leaf: over elements (F32, F16, BF16), over units in int8,
 * over dequantised units. By type. */
extern const struct krn_leaf_kernel krn_neon_float[DTYPE_COUNT], krn_neon_int8[DTYPE_COUNT],
    krn_neon_oracle;

/* What the tables of this instruction set and of those above it share: all but the product. */
#define KRN_NEON_OPS                                                                               \
    .quantize = krn_neon_quantize,                                                                 \
    .interleave = krn_neon_interleave,                                                             \
    .unpack_rows = krn_unpack_rows,                                                                \
    .kv_append = krn_neon_kv_append,                                                               \
    .attention = krn_neon_attention,                                                               \
    .attention_merge = krn_neon_attention_merge,                                                   \
    .rmsnorm = krn_neon_rmsnorm,                                                                   \
    .rope = krn_neon_rope,                                                                         \
    .add = krn_neon_add,                                                                           \
    .silu_mul = krn_neon_silu_mul,                                                                 \
    .gate = krn_neon_gate,                                                                         \
    .mul = krn_neon_mul,                                                                           \
    .scale = krn_neon_scale,                                                                       \
    .axpy = krn_neon_axpy,                                                                         \
    .axpy_rows = krn_neon_axpy_rows,                                                               \
    .softcap = krn_neon_softcap,                                                                   \
    .sum_squares = krn_neon_sum_squares,                                                           \
    .layernorm = krn_neon_layernorm,                                                               \
    .argmax = krn_neon_argmax,                                                                     \
    .sum_exp = krn_neon_sum_exp,                                                                   \
    .temper = krn_neon_temper,                                                                     \
    .at_least = krn_neon_at_least,                                                                 \
    .draw = krn_neon_draw

#endif
