/* fused.h: what stands between the products of a layer, as few calls: for devices, where a call on few tokens costs more than its work. Bits are
 * those of table.h's operations one after another, in the order given here. Device kernels only; pointers are the device's, but for krn_act's
 * own. All tokens [0,n_tok) of a step.
 * A layer of a dense model is ten launches with them (eleven where the types of q, k and v differ), twenty-one without. */
#ifndef ENGINE_KERNELS_FUSED_H
#define ENGINE_KERNELS_FUSED_H

#include "engine/kernels/table.h"

/* y += bias in every row. */
struct krn_bias {
    float *y;           /* [n_tok][cols] */
    const float *bias;
    int32_t n_tok, cols;
};

/* From a sublayer's sum to what the next one's products read:
 *   sum = rmsnorm(sum) * post, where there is a post; sum *= scale unless it is 1; x += sum; h = rmsnorm(x) * w, without w h = x; h to codes. */
struct krn_enter {
    float *x;           /* [n_tok][d]: the residual */
    const float *sum;   /* NULL: x stays as it is */
    const float *post;
    float scale;
    const float *w;
    float eps;
    float *h;
    uint8_t *q;         /* krn_act's; NULL: no codes */
    int32_t n_tok, d;
};

/* From the products of q, k and v to what attention reads: biases; norms of q and k, each head its own; rope; k and v to their places in the cache.
 * q is rewritten; k and v may be. */
struct krn_heads {
    float *q;
    struct krn_kv_append to;             /* all tokens: its t0 and t1 are not looked at */
    const float *bq, *bk, *bv;           /* NULL: none */
    const float *q_norm, *k_norm;        /* NULL: none. [head_dim], a head's weights `norm_stride` after those of the one before */
    int32_t norm_stride;
    float eps;
    bool norm_last;                      /* after rope */
    int32_t n_tok, n_q, rot;             /* rot 0: no rope */
    bool interleaved;
    const float *const *cs;              /* as rope's */
};

/* y = act(g) * u as `silu_mul`, or as `gate` of this kind (u NULL: there is none); y to codes. y may be g. */
struct krn_gated {
    bool silu;
    enum krn_gate kind;
    const float *g, *u;
    float *y;           /* [n_tok][cols] */
    uint8_t *q;         /* as krn_enter's */
    int32_t n_tok, cols;
};

struct krn_fused {
    void (*bias)(const struct krn_bias *a);
    void (*enter)(const struct krn_enter *a);
    void (*heads)(const struct krn_heads *a);
    void (*gated)(const struct krn_gated *a);
    /* attention_merge of all items, and the codes of its output: q as krn_enter's, of n_head * values columns, where values are whole units. */
    void (*merge)(const struct krn_attention *a, uint8_t *q);
    /* matmul for each: products of the same rows, with K whole. */
    void (*matmuls)(const struct krn_matmul a[], int32_t n);
};

#endif
