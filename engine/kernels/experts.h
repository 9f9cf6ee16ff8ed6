/* experts.h: feed-forward by experts where the router's values lie, for few tokens: nothing of the choice comes to the host. Device kernels only;
 * pointers are the device's unless said otherwise.
 *
 * A slot is a token's kth choice: slot = token * used + k, its experts ascending. Products are computed slot by slot, each reading the weights of
 * the expert that its slot names; what the choice and the sums are, docs/exactness.md says ("Experts"). */
#ifndef ENGINE_KERNELS_EXPERTS_H
#define ENGINE_KERNELS_EXPERTS_H

#include "engine/kernels/table.h"
#include "engine/kernels/tree_sum.h"

enum { KRN_ROUTE_GROUPS = 64 }; /* of a router's at most */
enum krn_gating { KRN_GATING_SOFTMAX, KRN_GATING_SIGMOID, KRN_GATING_SOFTMAX_CHOSEN };

/* The choice: ids and weights [n_tok][used] of logits [n_tok][n] (overwritten) by the rules of engine/model/route.h; shared[n_tok]: what the
 * shared expert's weight is: the sigmoid of what is there (shared_gated), else 1. shift: [n] added to choose by, or NULL. */
struct krn_route {
    float *logits;
    const float *shift;
    float *shared;
    int32_t *ids;
    float *weights;
    int32_t n_tok, n, used, n_groups, groups_used;
    enum krn_gating gating;
    bool renorm, shared_gated;
    float scale;
};

/* y of row slot = W of expert ids[slot] times token slot / per of a->x, as krn_matmul's but with each leaf of this rank a node; a->w: any
 * expert's, its data from data[expert] instead. y_stride is a slot's. */
struct krn_slots {
    const uint8_t *const *data; /* [n] packed matrices of one type and shape */
    const int32_t *ids;
    int32_t n_slots, per;
};

/* to[t * to_stride + c] = the program's value (krn_tree_sum: `ops` is the host's) over leaves, leaf i of token t being the chain over k of
 * fma(weights[slot], y[(i * n_tok * used + slot) * rows + c], .) from +0, then of the shared expert's, shared[(i * n_tok + t) * rows + c], where
 * there is one (shared not NULL). c < rows. */
struct krn_combine {
    const int16_t *ops;
    int32_t n_ops;
    const float *y, *weights, *shared, *shared_weights;
    int32_t n_tok, used, rows;
    float *to;
    int64_t to_stride;
};

/* y of row slot, n values, += bias[ids[slot]]. */
struct krn_slot_bias {
    float *y;
    const float *const *bias;
    const int32_t *ids;
    int32_t n_slots, n;
};

/* sum of token t, n values: fma(weights[slot], bias[ids[slot]], .) over its slots in order; then fma(shared_weights[t], shared, .) if there is one.
 * bias NULL: only that. */
struct krn_token_bias {
    float *sum;
    const float *const *bias;
    const float *weights, *shared, *shared_weights;
    const int32_t *ids;
    int32_t n_tok, used, n;
};

#endif
