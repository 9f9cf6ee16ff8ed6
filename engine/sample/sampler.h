/* sampler.h: one row of logits -> one token, a pure function of (logits, sampling, history, position).
 *
 * Order: repetition, then presence and frequency penalties, bias, stop ids masked before min_tokens; temperature 0: argmax, ties to the
 * lowest id. Else z = (logit - largest) / temperature; top_k by (z, id); top_p over the survivors' probabilities, largest first; min_p against
 * the best; then Gumbel-max: the survivor with the largest z + g, g = -log(-log(1 - v)), v uniform and keyed by (seed, choice, position, token
 * id), so the draw needs no sequential state and does not depend on who computes it. v has 32 bits and float's relative precision near 0, where
 * winners of a large vocabulary lie: with 24 bits a hundred thousand equal tokens would tie. Logprobs are of the raw logits: x - (max + log(sum exp(x - max))).
 * Source: Gumbel-max trick (Gumbel 1954); nucleus sampling (Holtzman et al. 2020). Thr: its owner. */
#ifndef ENGINE_SAMPLE_SAMPLER_H
#define ENGINE_SAMPLE_SAMPLER_H

#include "engine/kernels/table.h"
#include "proto/sampling.h"
#include "proto/step_result.h"

struct eng_sampler; /* scratch for one vocabulary size */
struct eng_sampler *eng_sampler_open(const struct krn_table *krn, int32_t n_vocab);
void eng_sampler_close(struct eng_sampler *s);

struct eng_history {
    const int32_t *tokens; /* the sequence so far; NULL unless sampling_needs_history */
    int32_t n, n_prompt;
    int32_t n_generated;
};

/* logits[n_vocab] is overwritten. position: absolute, of the token being chosen. allowed: NULL, or a bit per id ([n_vocab / 64 + 1] words):
 * no other token can be chosen; logprobs are of the raw logits all the same. */
void eng_sampler_pick(struct eng_sampler *s, float *logits, const struct sampling *p, const struct eng_history *h,
                      const uint64_t *allowed, int64_t position, struct result_token *out);

/* Is the choice the argmax of the raw logits and nothing else wanted? Then ranks exchange (value, id) pairs only. */
bool eng_sampler_plain_greedy(const struct sampling *p, const struct eng_history *h);

#endif
