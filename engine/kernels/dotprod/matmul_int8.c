/* matmul_int8.c: the chain over units by sdot: 8 instructions for 32 products of 4 rows. The walk:
 * engine/kernels/neon/int8_walk.h. */
#include "engine/kernels/dotprod/dot.h"
#include "engine/kernels/dotprod/dotprod.h"

KRN_INLINE void lanes(float *acc, const int8x16_t w[UNIT_VECTORS], const struct unit_scales *sc,
                      const uint8_t *x, int32_t width, const enum dtype type)
{
    for (int32_t t = 0; t < width; t++)
        vst1q_f32(acc + t * KRN_TILE,
                  add_unit(vld1q_f32(acc + t * KRN_TILE), w, sc, x, width, t, type, dot));
}

static void q8_0(const struct krn_leaf_job *j) { int8_chains(j, DTYPE_Q8_0, dot, lanes); }
static void q4_0(const struct krn_leaf_job *j) { int8_chains(j, DTYPE_Q4_0, dot, lanes); }
static void q4_k(const struct krn_leaf_job *j) { int8_chains(j, DTYPE_Q4_K, dot, lanes); }
static void q5_k(const struct krn_leaf_job *j) { int8_chains(j, DTYPE_Q5_K, dot, lanes); }
static void q6_k(const struct krn_leaf_job *j) { int8_chains(j, DTYPE_Q6_K, dot, lanes); }
static void q4_1(const struct krn_leaf_job *j) { int8_chains(j, DTYPE_Q4_1, dot, lanes); }
static void q5_0(const struct krn_leaf_job *j) { int8_chains(j, DTYPE_Q5_0, dot, lanes); }
static void q5_1(const struct krn_leaf_job *j) { int8_chains(j, DTYPE_Q5_1, dot, lanes); }
static void q2_k(const struct krn_leaf_job *j) { int8_chains(j, DTYPE_Q2_K, dot, lanes); }
static void q3_k(const struct krn_leaf_job *j) { int8_chains(j, DTYPE_Q3_K, dot, lanes); }
static void iq4_nl(const struct krn_leaf_job *j) { int8_chains(j, DTYPE_IQ4_NL, dot, lanes); }
static void iq4_xs(const struct krn_leaf_job *j) { int8_chains(j, DTYPE_IQ4_XS, dot, lanes); }
static void iq2_s(const struct krn_leaf_job *j) { int8_chains(j, DTYPE_IQ2_S, dot, lanes); }
static void tq2_0(const struct krn_leaf_job *j) { int8_chains(j, DTYPE_TQ2_0, dot, lanes); }
static void mxfp4(const struct krn_leaf_job *j) { int8_chains(j, DTYPE_MXFP4, dot, lanes); }

const struct krn_leaf_kernel krn_dotprod_int8[DTYPE_COUNT] = {
    [DTYPE_Q8_0] = INT8_KERNEL(q8_0), [DTYPE_Q4_0] = INT8_KERNEL(q4_0),
    [DTYPE_Q4_K] = INT8_KERNEL(q4_k), [DTYPE_Q5_K] = INT8_KERNEL(q5_k),
    [DTYPE_Q6_K] = INT8_KERNEL(q6_k), [DTYPE_Q4_1] = INT8_KERNEL(q4_1),
    [DTYPE_Q5_0] = INT8_KERNEL(q5_0), [DTYPE_Q5_1] = INT8_KERNEL(q5_1),
    [DTYPE_Q2_K] = INT8_KERNEL(q2_k), [DTYPE_Q3_K] = INT8_KERNEL(q3_k),
    [DTYPE_IQ4_NL] = INT8_KERNEL(iq4_nl), [DTYPE_IQ4_XS] = INT8_KERNEL(iq4_xs),
    [DTYPE_IQ2_S] = INT8_KERNEL(iq2_s), [DTYPE_TQ2_0] = INT8_KERNEL(tq2_0),
    [DTYPE_MXFP4] = INT8_KERNEL(mxfp4),
};
