/* sampler.h: one row of logits -> one token, a pure function of (logits, sampling, history, position).
 *
 * Order: repetition, then presence and frequency penalties, DRY (dry.c), bias; then what is barred: stop ids before min_tokens, the end of a bad
 * word, all but the allowed ids, all but the grammar's, all but the end of thoughts that have used up their budget. Where nothing is left the
 * grammar alone decides. Temperature 0: argmax, ties to the lowest id. Else z = (logit - largest) / temperature; top_k by (z, id); typical_p; top_p
 * over the survivors' probabilities, largest first; min_p against the best; XTC; then Gumbel-max: the survivor with the largest z + g,
 * g = -log(-log(1 - v)), v uniform and keyed by (seed, choice, position, token id), so the draw needs no sequential state and does not depend
 * on who computes it. v has 32 bits and float's relative precision near 0, where winners of a large vocabulary lie: with 24 bits a hundred
 * thousand equal tokens would tie. Whether XTC strikes is keyed likewise. Logprobs are of the raw logits: x - (max + log(sum exp(x - max))).
 * Source: Gumbel-max trick (Gumbel 1954); nucleus sampling (Holtzman et al. 2020). Thr: its owner. */
#ifndef ENGINE_SAMPLE_SAMPLER_H
#define ENGINE_SAMPLE_SAMPLER_H

#include "engine/kernels/table.h"
#include "proto/sampling.h"
#include "proto/step_result.h"

struct eng_sampler; /* scratch for one vocabulary size */
struct eng_sampler *eng_sampler_open(const struct krn_table *krn, int32_t n_vocab);
void eng_sampler_close(struct eng_sampler *s);

/* The bytes of each token, for DRY's breakers: token i is bytes[off[i], off[i + 1]). Borrowed from now on. */
struct eng_token_texts { const uint8_t *bytes; const uint32_t *off; int32_t n; };
void eng_sampler_texts(struct eng_sampler *s, struct eng_token_texts t);

struct eng_history {
    const int32_t *tokens; /* the sequence so far; NULL unless sampling_needs_history */
    int32_t n, n_prompt;
    int32_t n_generated;
};

/* logits[n_vocab] is overwritten. position: absolute, of the token being chosen. allowed: NULL, or a bit per id ([n_vocab / 64 + 1] words):
 * no other token can be chosen; logprobs are of the raw logits all the same. */
void eng_sampler_pick(struct eng_sampler *s, float *logits, const struct sampling *p, const struct eng_history *h,
                      const uint64_t *allowed, int64_t position, struct result_token *out);

/* How likely token `id` is by a row, and the n_top best (top[n_top], whose address goes into *out). */
void eng_sampler_score(struct eng_sampler *s, const float *logits, int32_t id, int32_t n_top, struct result_logprob *top,
                       struct result_score *out);

/* Is the choice the argmax of the raw logits and nothing else wanted? Then ranks exchange (value, id) pairs only. */
bool eng_sampler_plain_greedy(const struct sampling *p, const struct eng_history *h);

/* Is it a draw over the raw logits at a temperature, with min_p at most? Then each rank draws over its slice, once the largest logit of all is
 * known, and they exchange what they drew: the largest sum wins, of equals the lowest id. */
bool eng_sampler_plain_draw(const struct sampling *p, const struct eng_history *h, int64_t position);
/* Its noise, and what narrows a draw among a few, for whoever draws elsewhere. */
struct krn_noise eng_sampler_noise(const struct sampling *p, int64_t position);
/* Is it a draw among the top_k of the raw logits, KRN_TOP at most, whatever narrows those further? Then each rank finds the best of its slice. */
bool eng_sampler_plain_top(const struct sampling *p, const struct eng_history *h);
/* They: out[p->top_k] of x[n], the logits of ids [id0, id0 + n), which are overwritten; max: the row's largest, > -infinity. {-infinity, -1} where
 * there are fewer. */
void eng_sampler_top(struct eng_sampler *s, float *x, int32_t n, int32_t id0, float max, const struct sampling *p, struct krn_pick out[]);
/* What is drawn among c[n], in any order, all slices' together; -1: none. */
int32_t eng_sampler_among(struct eng_sampler *s, const struct krn_pick c[], int32_t n, const struct sampling *p, int64_t position);
/* The draw over x[n], the logits of ids [id0, id0 + n), which are overwritten; max: the row's largest, > -infinity. z is the sum, id -1: no
 * candidate here. */
struct krn_pick eng_sampler_draw(struct eng_sampler *s, float *x, int32_t n, int32_t id0, float max, const struct sampling *p, int64_t position);

#endif
