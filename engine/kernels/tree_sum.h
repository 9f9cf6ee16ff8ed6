/* tree_sum.h: the tree of a reduction over parts that lie in one memory, element by element.
 *
 * Devices have it (engine/backend/plugin.h), so that what ranks gathered need not go to the host; there trn_reduce_run does the same additions
 * (transport/coll_reduce.h), and tests compare the two. */
#ifndef ENGINE_KERNELS_TREE_SUM_H
#define ENGINE_KERNELS_TREE_SUM_H

#include <stdint.h>

enum { KRN_TREE_PARTS = 256, KRN_TREE_DEPTH = 12 };

/* out[i] = the program's value over parts[p * stride + i], i < n. ops, postfix: the number of a part, or -1: the sum of the two on top, the
 * lower one on the left; 2 * n_parts - 1 of them, n_parts <= KRN_TREE_PARTS, no more than KRN_TREE_DEPTH values waiting. ops is the host's.
 * out is no part. */
struct krn_tree_sum {
    const int16_t *ops;
    int32_t n_ops;
    const float *parts;
    int64_t stride;
    float *out;
    int64_t n;
};

#endif
