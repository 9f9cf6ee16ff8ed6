/* shard.h: what one rank holds. Pure.
 *
 * The cut is a `struct grid` (proto/grid.h); the rules of cutting, which the planner shares, are in proto/leaves.h. Here a rank's share becomes
 * heads, rows, columns, and the leaves that its kernels and all-reduces work with. */
#ifndef ENGINE_MODEL_SHARD_H
#define ENGINE_MODEL_SHARD_H

#include "engine/kernels/table.h"
#include "engine/model/spec.h"
#include "proto/leaves.h"
#include "transport/coll.h"

struct eng_shard {
    int32_t rank, n_ranks;
    int32_t stage, n_stages, tp_rank, tp_width, stage_first_rank;
    bool first, last;                   /* stage */
    int32_t layer0, layer1;
    int32_t kv0, kv1, q0, q1;           /* heads; a KV head may be held by several ranks, a query head by one */
    int32_t ffn0, ffn1;                 /* columns of FFN down, rows of gate and up */
    bool whole_experts;                 /* each on one rank; else cut inside */
    int32_t e0, e1;                     /* experts that this rank has a part of, or has whole */
    int32_t expert0, expert1, shared0, shared1; /* as ffn0 and ffn1, of an expert and of the shared one */
    int32_t embd0, embd1;               /* vocabulary rows of the embedding (first stage) and of the head (last) */
    struct krn_leaves attn, ffn;        /* this rank's leaves of attention output and FFN down */
    struct krn_leaves expert, shared;   /* the same leaves as ffn's, with their own columns; of a whole expert one, with all of them */
    struct coll_cut attn_cut, ffn_cut;
    int32_t vocab_bounds[LIMIT_RANKS + 1]; /* of this stage's ranks */
};

/* An even grid: n_stages stages of tp ranks each. Err BAD_CONFIG when layers < stages. */
MUST_USE enum err eng_grid_even(struct grid *out, const struct eng_spec *s, int32_t tp, int32_t n_stages);
/* Err UNSUPPORTED naming heads, leaves and the widths this model admits. */
MUST_USE enum err eng_shard_of(struct eng_shard *out, const struct eng_spec *s, const struct grid *g, int32_t rank);

/* What of each layer's experts this rank has. */
struct leaf_experts eng_shard_experts(const struct eng_shard *h, const struct eng_spec *s);

/* Bytes of KV per block of 16 positions on this rank, all its layers. */
int64_t eng_shard_kv_block_bytes(const struct eng_shard *h, const struct eng_spec *s, enum kv_type type, int32_t context);

#endif
