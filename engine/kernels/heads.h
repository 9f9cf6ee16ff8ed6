/* heads.h: one norm over all heads of q and one over those of k, of which a rank has some: sums of squares of its own heads, and, with everybody's,
 * the norms. Device kernels only; pointers are the device's. The CPU's way, with the same bits, is in engine/model/heads.c. */
#ifndef ENGINE_KERNELS_HEADS_H
#define ENGINE_KERNELS_HEADS_H

#include <stdint.h>

/* out[t][h] = the sum of squares (krn_table.sum_squares) of head h of token t: nq of q, then nkv of k. */
struct krn_head_squares {
    const float *q, *k; /* [n_tok][nq or nkv][head_dim] */
    int32_t n_tok, nq, nkv, head_dim;
    float *out;
};

/* Where a head's sum of token t lies: sums[before * n_tok + t * width + at]. */
struct krn_head_at { int32_t before, width, at; };

/* Each token's q and k times 1 / sqrt(s / n + eps), then times w: s being the sums of all heads added one by one, n their values. */
struct krn_head_norm {
    float *q, *k;           /* this rank's heads */
    const float *wq, *wk;
    int32_t n_tok, nq, nkv, head_dim;
    const float *sums;
    const struct krn_head_at *at; /* [all_q + all_kv], in the order of adding */
    int32_t all_q, all_kv;
    float eps;
};

#endif
