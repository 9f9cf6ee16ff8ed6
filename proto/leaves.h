/* leaves.h: the arithmetic of cutting a model that engine and planner must do alike: leaves, heads,
 * tiles, KV bytes. Pure.
 *
 * Leaves (docs/exactness.md) depend on the tensor's shape alone, never on the cut:
 *   attention output: one query head each; two where head_dim is no multiple of 32;
 *   FFN down: n = clamp(K/256, 16, 128), at most one per unit, over units of 32 values:
 *             leaf i = units [i*U/n, (i+1)*U/n).
 * A rank's heads are whole groups that read one KV head, or a part of a single such group: then
 * other ranks hold that KV head too. */
#ifndef PROTO_LEAVES_H
#define PROTO_LEAVES_H

#include "base/err.h"
#include "base/kv_type.h"
#include "proto/grid.h"
#include "proto/model_info.h"

enum {
    LEAF_UNIT = 32,
    LEAF_TILE = 16
}; /* values of K; rows of a packed tile (the unit of cutting a vocabulary) */

/* The sizes that decide where a model may be cut. */
struct leaf_shape {
    const char *name;
    int32_t n_heads, n_kv_heads, head_dim, d_ffn, n_vocab;
};
struct leaf_shape leaf_shape_of(const struct model_info *m); /* name: borrowed */

int32_t leaf_heads(int32_t head_dim); /* query heads per leaf of attention output */
int32_t leaf_ffn_count(int32_t d_ffn);
/* First column of leaf i of n over a width of at least n units; the width for the one past the last. */
int32_t leaf_col(int32_t width, int32_t n, int32_t leaf);
/* Whole experts lie with FFN leaves, as evenly as they go: the first expert of a leaf (n_experts for the one past the last), and the leaf of
 * an expert. */
int32_t leaf_first_expert(int32_t n_experts, int32_t n_leaf, int32_t leaf);
int32_t leaf_of_expert(int32_t n_experts, int32_t n_leaf, int32_t expert);
int32_t leaf_vocab_tiles(int32_t n_vocab);
/* Bytes of one KV head's keys and values at one position. */
int64_t leaf_kv_row_bytes(const struct kv_layer *g, enum kv_type type);
/* Bytes of KV of a block of LIMIT_BLOCK_TOKENS positions, keys and values, so many planes (proto/kv_groups.h) and KV heads. */
int64_t leaf_kv_block_bytes(const struct kv_layer *g, int32_t n_planes, int32_t n_kv_heads, enum kv_type type);
/* KV heads that query heads [q0,q1) read: [*kv0, *kv1). */
void leaf_kv_range(const struct leaf_shape *s, int32_t q0, int32_t q1, int32_t *kv0, int32_t *kv1);

/* The most tensor ranks a stage may have. */
int32_t leaf_max_width(const struct leaf_shape *s);
/* Deal heads, leaves and tiles to `width` ranks as evenly as they go. Err UNSUPPORTED naming heads,
 * leaves and what the model admits. */
MUST_USE enum err leaf_deal(const struct leaf_shape *s, int32_t width, struct grid_share out[]);
/* Do the shares of one stage's ranks add up and fall where the model may be cut? Err UNSUPPORTED,
 * naming the rank and the number. */
MUST_USE enum err leaf_check(const struct leaf_shape *s, int32_t width,
                             const struct grid_share share[]);

/* A rank's part of layers with experts: of `held` of them these columns, and so many leaves of the sublayer, of which an expert's products are
 * computed in leaves_each. n 0: there are none. */
struct leaf_experts {
    int32_t n, used, held, cols, shared_cols, leaves, leaves_each;
};
enum {
    LEAF_EXPERT_TOKENS = 512,       /* of a step that are grouped by expert at once */
    LEAF_EXPERT_SCRATCH = 1 << 18,  /* floats per thread that hold the leaves of some rows, if so many rows fit */
    LEAF_EXPERT_PAD = 32,           /* lanes between the panels of two experts, so that each is whole and aligned */
    LEAF_EXPERT_GROUP = 16,         /* on a card: to a multiple of so many slots each expert's are rounded up */
    LEAF_EXPERT_ROOM = 1 << 22      /* and floats that hold the leaves of some rows */
};
enum {
    LEAF_SPLIT = 256,         /* positions of a split of attention */
    LEAF_CARD_ITEMS = 2,      /* on a card: items that are split, for each of its multiprocessors */
    LEAF_CARD_LATENT_ITEMS = 8 /* and over a latent, where an item is all heads */
};
int64_t leaf_expert_scratch(const struct leaf_experts *x, int32_t tokens); /* floats, per thread */
/* On a card: floats that hold the leaves of some rows of weights for all rows of products of so many tokens. */
int64_t leaf_expert_card_scratch(const struct leaf_experts *x, int32_t tokens);
/* What a card takes beside the buffers of below. */
int64_t leaf_expert_card_bytes(const struct leaf_experts *x, int32_t d_model, int32_t max_step_tokens);

/* What a rank needs beside weights and KV: buffers of a step, tables, the sampler. */
struct leaf_buffers {
    int32_t d_model, head_dim, rope_dim, n_vocab;
    int32_t heads, kv_heads, ffn_cols, nodes; /* this rank's; the most subtrees it sends at once */
    int32_t vocab_rows;                       /* of its head */
    bool last;                                /* stage */
    int32_t max_step_tokens, context, n_slots, n_tables; /* block tables of a sequence */
    struct leaf_experts experts;
    struct model_latent latent;
};
int64_t leaf_buffer_bytes(const struct leaf_buffers *b);

#endif
