/* rope.h: cos and sin of every position, computed once at load by our own double arithmetic (no libm: its last bits differ between
 * machines). Source: RoFormer (Su et al. 2021); YaRN (Peng et al. 2023); Llama 3 divisors come from the file. */
#ifndef ENGINE_MODEL_ROPE_H
#define ENGINE_MODEL_ROPE_H

#include "engine/model/spec.h"

struct eng_weights;

/* Table [n_pos][rope_dim/2][2] = (cos, sin), for a model served with n_pos positions: with dynamic scaling and LongRoPE that decides the
 * frequencies, once for all positions. local: of layers with a window. Divisors that came with the weights are taken from there.
 * Own: caller, free(). Err NO_MEMORY. */
MUST_USE enum err eng_rope_table(float **out, const struct eng_spec *s, const struct eng_weights *w, int32_t n_pos, bool local);

/* Own double functions, exact to about 1 ulp in the ranges named; the same bits on every IEEE machine. */
double eng_dexp(double x);                            /* |x| < 700 */
double eng_dlog(double x);                            /* x > 0, normal */
void eng_dsincos(double x, double *sin, double *cos); /* |x| < 2^24 */

#endif
