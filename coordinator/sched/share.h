/* share.h: blocks that a sequence need not compute: found in the prefix cache, or kept by its
 * request for the choices that have not started; and what it computes itself, given to the prefix
 * cache. Private to sched/. */
#ifndef COORDINATOR_SCHED_SHARE_H
#define COORDINATOR_SCHED_SHARE_H

#include "coordinator/sched/state.h"

struct crd_found {
    int32_t n;       /* rows */
    int32_t n_nodes; /* how many of them are nodes of the prefix tree */
    int32_t node;    /* the last of these, or PREFIX_NONE */
};
/* The longest run of full blocks for the sequence's known tokens, at least one position of which is
 * left to compute; of windowed groups those that the next position reads, -1 before.
 * Out ids[][groups.n], no reference taken. */
struct crd_found crd_share_find(struct crd_sched *s, struct crd_seq *q, int32_t ids[]);
/* The first n_tokens of a sequence are known and in steps sent: their full blocks may be found by
 * others from the next step on. */
void crd_share_publish(struct crd_sched *s, struct crd_seq *q, int32_t n_tokens);
/* Keep the prompt's full blocks of a choice that has just computed them for its siblings. */
void crd_share_keep(struct crd_sched *s, const struct crd_seq *leader);
void crd_share_drop(struct crd_sched *s, struct crd_group *g);
/* Give back what some request keeps for later choices (they will compute it again). False: nobody
 * keeps anything. */
bool crd_share_reclaim(struct crd_sched *s);

#endif
