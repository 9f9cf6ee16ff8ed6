/* coll_reduce.h: the tree of all_reduce above the ranks' parts, as a short program run block by
 * block.
 *
 * A part is a maximal subtree of one rank; parts are numbered in leaf order. For implementations of
 * coll.h only. */
#ifndef TRANSPORT_COLL_REDUCE_H
#define TRANSPORT_COLL_REDUCE_H

#include "transport/coll.h"

struct trn_reduce {
    int32_t n_parts;
    int32_t first[COLL_MAX_RANKS + 1]; /* rank r holds parts [first[r], first[r+1]) */
    int32_t n_ops;
    int16_t ops[2 * TREE_MAX_LEAF]; /* postfix: part number, or -1: add the two on top */
};

/* The program of a checked cut over `size` ranks. */
void trn_reduce_plan(struct trn_reduce *p, const struct coll_cut *cut, int32_t size);

/* The same for one node [a,b) of the tree: parts[n] cover it, left to right. `first` and ranks have no meaning then. */
void trn_reduce_plan_node(struct trn_reduce *p, const struct tree_node parts[], int32_t n, int32_t a, int32_t b);

/* How many parts one rank holds. */
static inline int32_t trn_reduce_count(const struct trn_reduce *p, int32_t rank)
{
    return p->first[rank + 1] - p->first[rank];
}

/* out[n] = the tree over part[i][n]. out may be one of the parts; otherwise they do not overlap. */
void trn_reduce_run(const struct trn_reduce *p, const float *const part[], float *out, int64_t n);

#endif
