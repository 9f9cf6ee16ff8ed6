/* coll_hier.h: a group over several hosts, as its parts see it: for coll_hier.c and for what does the host's share elsewhere
 * (coll_hier_cards.c). */
#ifndef TRANSPORT_COLL_HIER_H
#define TRANSPORT_COLL_HIER_H

#include "transport/coll.h"
#include "transport/coll_reduce.h"

struct trn_hier_view {
    struct trn_coll *local, *across;   /* of this host; of the hosts' first ranks. NULL where this rank is in none */
    const int32_t *first;              /* [n_hosts + 1] ranks */
    int32_t n_hosts, host;
};

/* The subtrees of this host's ranks in order, count[i] of its rank i, and those that they make together. */
struct trn_hier_parts {
    int32_t n_parts, n_nodes, count[COLL_MAX_RANKS];
    struct tree_node parts[TREE_MAX_LEAF + TREE_MAX_NODES], nodes[TREE_MAX_NODES];
};

/* c is of trn_coll_hier_open. */
struct trn_hier_view trn_hier_view(struct trn_coll *c);
void trn_hier_parts_of(struct trn_hier_parts *p, const struct trn_hier_view *v, const struct coll_cut *cut);
/* The program of the host's node i over the parts from the one that is returned. */
int32_t trn_hier_node(struct trn_reduce *plan, const struct trn_hier_parts *p, int32_t i);
/* The cut as the hosts' first ranks see it. */
void trn_hier_hosts_cut(struct coll_cut *out, const struct trn_hier_view *v, const struct coll_cut *cut);

#endif
