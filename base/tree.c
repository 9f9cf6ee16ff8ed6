/* tree.c: see tree.h. */
#include "base/tree.h"

#include "base/base.h"

static void collect(int32_t a, int32_t b, int32_t lo, int32_t hi, struct tree_node *nodes, int32_t *n)
{
    if (b <= lo || hi <= a) return;
    if (lo <= a && b <= hi) {
        ASSERT(*n < TREE_MAX_NODES);
        nodes[(*n)++] = (struct tree_node){a, b};
        return;
    }
    int32_t m = tree_split(a, b);
    collect(a, m, lo, hi, nodes, n);
    collect(m, b, lo, hi, nodes, n);
}

int32_t tree_maximal(int32_t n_leaf, int32_t lo, int32_t hi, struct tree_node nodes[])
{
    int32_t n = 0;
    ASSERT(n_leaf >= 1 && n_leaf <= TREE_MAX_LEAF && lo >= 0 && hi <= n_leaf);
    if (lo < hi) collect(0, n_leaf, lo, hi, nodes, &n);
    return n;
}
