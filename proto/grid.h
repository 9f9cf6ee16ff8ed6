/* grid.h: the cut of a whole replica, as the planner decides it, the load plan carries it and each
 * rank carries it out.
 *
 * Ranks are numbered stage by stage. A stage holds consecutive layers; its tensor ranks hold
 * consecutive query heads (with the KV heads they read), consecutive FFN leaves and consecutive
 * vocabulary tiles (proto/leaves.h). Not here: whether a model admits a cut (engine/model/shard.h).
 */
#ifndef PROTO_GRID_H
#define PROTO_GRID_H

#include "proto/limits.h"

#include <stdbool.h>
#include <stdint.h>

/* How much of its stage a rank holds. */
struct grid_share {
    int32_t heads, ffn, vocab;
}; /* query heads, FFN leaves, vocabulary tiles */

struct grid {
    int32_t n_stages;
    int32_t layers[LIMIT_RANKS + 1]; /* stage i: layers [layers[i], layers[i+1]) */
    int32_t width[LIMIT_RANKS];      /* tensor ranks of stage i */
    bool shared; /* share[] says who holds what; else every stage is dealt evenly */
    bool whole_experts; /* each lies on one rank, with the FFN leaf that it is added into; else all are cut inside, as the dense ones */
    struct grid_share share[LIMIT_RANKS]; /* of rank r */
};

static inline int32_t grid_ranks(const struct grid *g)
{
    int32_t n = 0;
    for (int32_t i = 0; i < g->n_stages; i++) n += g->width[i];
    return n;
}

/* The first rank of a stage. */
static inline int32_t grid_first(const struct grid *g, int32_t stage)
{
    int32_t n = 0;
    for (int32_t i = 0; i < stage; i++) n += g->width[i];
    return n;
}

static inline int32_t grid_stage_of(const struct grid *g, int32_t rank)
{
    int32_t s = 0;
    while (s < g->n_stages - 1 && rank >= g->width[s]) rank -= g->width[s++];
    return s;
}

#endif
