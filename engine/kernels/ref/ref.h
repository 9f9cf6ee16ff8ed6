/* ref.h: the plain-C kernels: the specification of every operation, written to be read, one fmaf
 * per step. Contracts: engine/kernels/table.h. */
#ifndef ENGINE_KERNELS_REF_REF_H
#define ENGINE_KERNELS_REF_REF_H

#include "engine/kernels/table.h"

void krn_ref_matmul(const struct krn_matmul *a);
void krn_ref_quantize(const struct krn_act *a, int32_t t0, int32_t t1, int32_t u0, int32_t u1);
void krn_ref_interleave(const struct krn_act *a, int32_t t0, int32_t t1, int32_t k0, int32_t k1);
void krn_ref_kv_append(const struct krn_kv_append *a);
void krn_ref_attention(const struct krn_attention *a);
void krn_ref_attention_merge(const struct krn_attention *a);
void krn_ref_rmsnorm(float *y, const float *x, const float *w, int32_t d, float eps, int32_t t0,
                     int32_t t1);
void krn_ref_rope(float *x, int32_t n_head, int32_t head_dim, int32_t rot, bool interleaved,
                  const float *const *cs, int32_t t0, int32_t t1);
void krn_ref_add(float *x, const float *y, int64_t n);
void krn_ref_silu_mul(float *y, const float *g, const float *u, int64_t n);
void krn_ref_gate(enum krn_gate kind, float *y, const float *g, const float *u, int64_t n);
void krn_ref_mul(float *x, const float *y, int64_t n);
void krn_ref_scale(float *x, float a, int64_t n);
void krn_ref_axpy(float *y, float a, const float *x, int64_t n);
void krn_ref_axpy_rows(float *y, int64_t y_stride, const int32_t *at, const float *a, const float *x,
                        int64_t x_stride, int32_t n_rows, int32_t n);
void krn_ref_softcap(float *x, float cap, int64_t n);
float krn_ref_sum_squares(const float *x, int32_t d);
void krn_ref_layernorm(float *y, const float *x, const float *w, const float *b, int32_t d, float eps,
                        int32_t t0, int32_t t1);
int32_t krn_ref_argmax(const float *x, int32_t n);
float krn_ref_sum_exp(const float *x, int32_t n, float m);
void krn_ref_temper(float *x, float m, float t, int64_t n);
int32_t krn_ref_at_least(const float *x, int32_t n, float least, struct krn_pick *out);
struct krn_pick krn_ref_draw(const float *z, int32_t n, float least, uint64_t key, int32_t id0);

#endif
