/* experts.h: feed-forward by experts where the router's values lie: nothing of the choice comes to the host. Device kernels only; pointers are the
 * device's unless said otherwise.
 *
 * A slot is a token's kth choice: slot = token * used + k, its experts ascending. Products of few tokens are computed slot by slot, each reading
 * the weights of the expert that its slot names; those of many by experts, whose weights are read for all that chose them. What the choice and the
 * sums are, docs/exactness.md says ("Experts").
 *
 * A product is of the experts whose matrices are of one type, which one kernel computes: the others are NULL among its addresses, as are experts
 * that lie on another rank, and nothing is computed of them. */
#ifndef ENGINE_KERNELS_EXPERTS_H
#define ENGINE_KERNELS_EXPERTS_H

#include "engine/kernels/panel.h"
#include "engine/kernels/table.h"
#include "engine/kernels/tree_sum.h"

enum krn_gating { KRN_GATING_SOFTMAX, KRN_GATING_SIGMOID, KRN_GATING_SOFTMAX_CHOSEN, KRN_GATING_SIGMOID_CHOSEN };

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
    const uint8_t *const *data; /* [n] packed matrices of one type and shape; NULL: nothing is written of slots that name it */
    const int32_t *ids;
    int32_t n_slots, per;
};

/* Slots by expert. Each expert's slots get rows of their own, from a multiple of KRN_GROUP on, so that panels of activations are whole; which of
 * them comes first shows nowhere. A part is up to KRN_PART rows of one expert. How many rows and parts there are is known there alone: the host
 * knows how many there may be. */
enum { KRN_PART = 64 };
struct krn_part {
    int32_t expert, row0, n_rows; /* expert -1: there is no such part */
};
static inline int32_t krn_grouping_rows(int32_t n_slots, int32_t n) { return ROUND_UP(n_slots + MIN(n, n_slots) * (KRN_GROUP - 1), KRN_GROUP); }
static inline int32_t krn_grouping_parts(int32_t n_slots, int32_t n) { return n_slots / KRN_PART + MIN(n, n_slots); }
struct krn_grouping {
    const int32_t *ids;   /* [n_slots], of n experts */
    const float *weights; /* [n_slots]; NULL: no scale is wanted */
    int32_t n_slots, per, n;
    int32_t e0, e1;       /* slots of other experts get no row; rows and parts are those of e1 - e0 experts */
    int32_t *at;          /* [n_slots] its row, or -1 */
    int32_t *token, *expert; /* [krn_grouping_rows] slot / per and ids[slot]; of rows that are no slot's: -1 */
    float *scale;         /* [krn_grouping_rows] weights[slot]; of rows that are no slot's: 0 */
    struct krn_part *parts; /* [krn_grouping_parts] */
};

/* y of row r = W of its part's expert times row r of a->x, for the rows of every part; the rest as with slots. a->x has krn_grouping_rows tokens.
 * Rows of y that are no slot's hold nothing. */
struct krn_grouped {
    const uint8_t *const *data;
    const struct krn_part *parts;
    int32_t n_parts;
};

/* to[t * to_stride + c] = the program's value (krn_tree_sum: `ops` is the host's) over leaves, leaf i of token t being the chain over k of
 * fma(weights[slot], y[(i * y_rows + r) * rows + c], .) from +0, where r is slot, or at[slot] (at not NULL); then of the shared expert's,
 * shared[(i * n_tok + t) * rows + c], where there is one (shared not NULL). c < rows. Of whole experts (leaf not NULL) the chain of leaf i is over
 * the slots with leaf[ids[slot]] == i, and y has one leaf. */
struct krn_combine {
    const int16_t *ops;
    int32_t n_ops;
    const float *y, *weights, *shared, *shared_weights;
    const int32_t *at;
    const int32_t *ids, *leaf; /* leaf: [n] of each expert, ascending; ids are not looked at without */
    int32_t n_tok, used, rows, y_rows;
    float *to;
    int64_t to_stride;
};

/* y of row slot, n values, += bias[ids[slot]]; of rows by expert likewise. ids[slot] -1, bias NULL: nothing. */
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
