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

/* What q is multiplied with in layers without rope, in the form of a rope table (cos the factor, sin 0): row i [head_dim/2][2] for positions with
 * (pos + 1) / temper_length = i, n_pos / temper_length + 1 rows. Source: Scalable-Softmax (Nakanishi 2025), as Llama 4 has it.
 * Own: caller, free(). Err NO_MEMORY. */
MUST_USE enum err eng_temper_table(float **out, const struct eng_spec *s, int32_t n_pos);

/* Own double functions, exact to about 1 ulp in the ranges named; the same bits on every IEEE machine. */
double eng_dexp(double x);                            /* |x| < 700 */
double eng_dlog(double x);                            /* x > 0, normal */
void eng_dsincos(double x, double *sin, double *cos); /* |x| < 2^24 */

#endif
