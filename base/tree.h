/* tree.h: the one binary tree in which partial sums are added (docs/exactness.md).
 *
 * Leaves are numbered 0..n_leaf-1; a node is a range [a,b); a range of more than one leaf splits at
 * a + ceil((b-a)/2). The shape depends on n_leaf alone, so the order of additions does not depend on
 * who holds which leaves: a rank holding [lo,hi) computes the *maximal subtrees* inside it, and the
 * all-reduce adds the rest of the tree. Absent (empty) operands are skipped, never added as zero. */
#ifndef BASE_TREE_H
#define BASE_TREE_H

#include <stdint.h>

enum { TREE_MAX_LEAF = 1024, TREE_MAX_NODES = 2 * 11 };

struct tree_node { int32_t a, b; };

static inline int32_t tree_split(int32_t a, int32_t b) { return a + (b - a + 1) / 2; }

/* The maximal subtrees of tree(n_leaf) inside [lo,hi), left to right.
 * Out nodes[TREE_MAX_NODES]; returns their number (0 when lo >= hi, 1 for an aligned range). */
int32_t tree_maximal(int32_t n_leaf, int32_t lo, int32_t hi, struct tree_node nodes[]);

#endif
