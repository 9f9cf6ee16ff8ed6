/* choose.h: tokens chosen where the logits lie, for rows that nothing else is wanted of. x [n_rows][n]; device pointers. */
#ifndef ENGINE_KERNELS_CUDA_CHOOSE_H
#define ENGINE_KERNELS_CUDA_CHOOSE_H

#include "engine/kernels/table.h"

enum { KRN_CHOOSE_ROWS = 32 }; /* at once */

/* Each row's largest and its index: argmax of engine/kernels/table.h. */
void krn_cuda_best(const float *x, int32_t n_rows, int32_t n, struct krn_pick *best);
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

/* there[i] = host[i] = the token of row i: drawn[i], where how[i].t > 0 and there was a candidate, else best[i]; how NULL: best of all. host: mapped memory
 * of the host. */
void krn_cuda_chosen(int32_t n, const struct krn_noise *how, const struct krn_pick *best, const struct krn_pick *drawn, int32_t *there, int32_t *host);
/* ids[i] = chosen[-1 - ids[i]] where ids[i] < 0. */
void krn_cuda_inputs(int32_t n, int32_t *ids, const int32_t *chosen);

#endif
