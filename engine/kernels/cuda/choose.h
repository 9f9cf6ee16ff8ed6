/* choose.h: tokens chosen where the logits lie, for rows that nothing else is wanted of. x [n_rows][n]; device pointers. */
#ifndef ENGINE_KERNELS_CUDA_CHOOSE_H
#define ENGINE_KERNELS_CUDA_CHOOSE_H

#include "engine/kernels/table.h"

enum { KRN_CHOOSE_ROWS = 32 }; /* at once */

/* Each row's largest and its index, counted from id0: argmax of engine/kernels/table.h. n 0: nothing is written. */
void krn_cuda_best(const float *x, int32_t n_rows, int32_t n, int32_t id0, struct krn_pick *best);
/* Of each row with how[row].t > 0 and no how[row].top what `draw` of table.h makes of z = (x - best[row].z) / t, ids counted from id0: value and id; {-infinity, -1}:
 * no candidate. Other rows of drawn are not written. */
void krn_cuda_draw(const float *x, int32_t n_rows, int32_t n, int32_t id0, const struct krn_noise *how, const struct krn_pick *best,
                   struct krn_pick *drawn);

/* Of each row with how[row].t > 0 and how[row].top > 0 that many of z = (x - best[row].z) / t, best first, of equals the lowest index; ids counted
 * from id0: top[row][KRN_TOP], {-infinity, -1} where there are fewer above -infinity. Other rows are not written. scratch:
 * [n_rows][KRN_CHOOSE_PIECES][KRN_TOP]. */
enum { KRN_CHOOSE_PIECES = 32 };
void krn_cuda_top(const float *x, int32_t n_rows, int32_t n, int32_t id0, const struct krn_noise *how, const struct krn_pick *best,
                  struct krn_pick *scratch, struct krn_pick *top);

/* Of each such row what is drawn among top[row], which is best first: drawn[row], id -1: nothing was there. Others are not written. */
void krn_cuda_among(int32_t n_rows, const struct krn_noise *how, const struct krn_pick *top, struct krn_pick *drawn);

/* What `size` ranks found in slices of the vocabulary, which are in the order of ids: rank r's at all + r * each. out[i], i < n: the largest of theirs,
 * of equals the first rank's; id -1 is nothing. Of tops (how as above, a rank's [n][KRN_TOP]): out[i] the best of all of them, best first. */
void krn_cuda_merge_best(int32_t n, int32_t size, int64_t each, const struct krn_pick *all, struct krn_pick *out);
void krn_cuda_merge_top(int32_t n, int32_t size, int64_t each, const struct krn_pick *all, const struct krn_noise *how, struct krn_pick *out);

/* there[i] = host[i] = the token of row i: drawn[i], where how[i].t > 0 and there was a candidate, else best[i]; how NULL: best of all. host: mapped memory
 * of the host. */
void krn_cuda_chosen(int32_t n, const struct krn_noise *how, const struct krn_pick *best, const struct krn_pick *drawn, int32_t *there, int32_t *host);
/* ids[i] = chosen[-1 - ids[i]] where ids[i] < 0; and then the row of a table of rows [id0, id0 + rows): counted from id0, -1: it is not there. */
void krn_cuda_inputs(int32_t n, int32_t *ids, const int32_t *chosen, int32_t id0, int32_t rows);

#endif
