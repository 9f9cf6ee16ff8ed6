/* kv_groups.h: how layers share the blocks of the KV pool: the arithmetic that engine, planner and
 * scheduler must do alike. Pure. docs/decisions/0010 says why it is so.
 *
 * A block holds LIMIT_BLOCK_TOKENS positions of the layers of one group, and any group may use any
 * block: all groups have equally many layers, or nearly. A sequence has a block table per group. The
 * layers that see everything are one group, the first; those with a window are as many groups as
 * make them about as large. A windowed group's blocks wholly before the window go back to the pool.
 * A model without windows is one group of all its layers. */
#ifndef PROTO_KV_GROUPS_H
#define PROTO_KV_GROUPS_H

#include "proto/model_info.h"

#include <stdbool.h>
#include <stdint.h>

struct kv_groups {
    int32_t n;      /* 1..LIMIT_GROUPS */
    int32_t n_full; /* 1: group 0 sees everything; 0: every group is windowed */
    int32_t window; /* positions that groups [n_full, n) see; 0: there are none */
};

/* Of a model with so many layers of either kind. */
struct kv_groups kv_groups_of(int32_t n_full_layers, int32_t n_windowed_layers, int32_t window);
/* The same: windowed[n_layers] says which layers see `window` positions only; in a context that is no longer they see everything. */
struct kv_groups kv_groups_of_layers(const bool windowed[], int32_t n_layers, int32_t window,
                                     int32_t context);
struct kv_groups kv_groups_of_model(const struct model_info *m, int32_t context);
static inline int32_t kv_groups_windowed(const struct kv_groups *k)
{
    return k->n - k->n_full;
}

/* Where layer l of a stage that holds layers [layer0, layer1) lies: *plane counts the layers of its
 * group there. */
void kv_groups_place(const struct kv_groups *k, const bool windowed[], int32_t layer0,
                     int32_t layer1, int32_t l, int32_t *group, int32_t *plane);
/* Planes of a block on that stage: the layers of its largest group. */
int32_t kv_groups_planes(const struct kv_groups *k, const bool windowed[], int32_t layer0,
                         int32_t layer1);

/* A sequence's positions by blocks: whoever is at position LIMIT_BLOCK_TOKENS * i reads a windowed
 * group from this one on. */
int32_t kv_groups_first(const struct kv_groups *k, int32_t i);
/* The most blocks of a windowed group's table that one position needs. */
int32_t kv_groups_kept(const struct kv_groups *k);
/* Pool blocks that a sequence of n_tok positions needs at once, at least. */
int64_t kv_groups_need(const struct kv_groups *k, int64_t n_tok);
/* The longest sequence that n_blocks are enough for, alone; at most INT32_MAX. */
int64_t kv_groups_longest(const struct kv_groups *k, int64_t n_blocks);

/* Pool blocks for n_tok positions in sequences of up to `context`, with room for the chunk of one
 * step; and how many positions so many blocks hold. */
int64_t kv_groups_hold(const struct kv_groups *k, int64_t n_tok, int32_t context,
                       int32_t max_step_tokens);
int64_t kv_groups_room(const struct kv_groups *k, int64_t n_blocks, int32_t context,
                       int32_t max_step_tokens);

#endif
