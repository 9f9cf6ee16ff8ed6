/* cost_impl.h: what the files of the cost model share: cost_memory.c (bytes, shares), cost_rank.c (one rank that computes), cost_wire.c (between
 * ranks), cost.c (stages and the whole). */
#ifndef CLUSTER_COST_IMPL_H
#define CLUSTER_COST_IMPL_H

#include "cluster/cost.h"

/* What rank `rank` of the grid holds, also when the grid is dealt evenly. *q0, *leaf0: its first head and feed-forward leaf. */
struct grid_share clu_cost_share(const struct clu_work *w, const struct grid *g, int32_t rank, int32_t *q0, int32_t *leaf0);
/* Subtrees that leaves [lo, lo + n) of n_leaf make. */
int32_t clu_cost_parts(int32_t n_leaf, int32_t lo, int32_t n);

/* Of layers with experts a rank has, in columns: those of its experts, and of the shared one. */
struct clu_cost_experts {
    int32_t held, cols, shared_cols;
};
/* Of a rank that has leaves [leaf0, leaf0 + n). whole: experts are not cut inside. */
struct clu_cost_experts clu_cost_experts(const struct model_info *m, bool whole, int32_t leaf0, int32_t n);

struct clu_cost_speed {
    double read_bytes_s, ops_s;
    bool cpu;
};
/* Of the device while as many of its crowd compute as do. */
struct clu_cost_speed clu_cost_speed(const struct clu_work *w, const struct clu_device *d);
/* A product of `rows` rows with so many weights that take so many bytes. */
double clu_cost_matrix(const struct clu_work *w, const struct clu_cost_speed *d, double bytes, double weights, int32_t rows);

bool clu_cost_same_host(const struct clu_topo *t, int32_t a, int32_t b);
/* device[n] each give the rows of their shares of a vocabulary of `tiles` tiles to all; row_bytes: of a whole row. */
double clu_cost_gather_rows(const struct clu_work *w, const struct clu_topo *t, const int32_t device[], int32_t n, const struct grid_share share[],
                            double row_bytes, int32_t rows, int32_t tiles);

#endif
