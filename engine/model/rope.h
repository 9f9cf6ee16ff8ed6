/* rope.h: cos and sin of every position, computed once at load by our own double arithmetic (no libm: its last bits differ between
 * machines). Source: RoFormer (Su et al. 2021); YaRN (Peng et al. 2023); Llama 3 divisors come from the file. */
#ifndef ENGINE_MODEL_ROPE_H
#define ENGINE_MODEL_ROPE_H

#include "engine/model/spec.h"

/* Table [n_pos][rope_dim/2][2] = (cos, sin). freqs: [rope_dim/2] divisors or NULL. Own: caller, free().
 * Err NO_MEMORY. */
MUST_USE enum err eng_rope_table(float **out, const struct eng_spec *s, const float *freqs, int32_t n_pos);

/* Own double functions, exact to about 1 ulp in the ranges named; the same bits on every IEEE machine. */
double eng_dexp(double x);                            /* |x| < 700 */
double eng_dlog(double x);                            /* x > 0, normal */
void eng_dsincos(double x, double *sin, double *cos); /* |x| < 2^24 */

#endif
