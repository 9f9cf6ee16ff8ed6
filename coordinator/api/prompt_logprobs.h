/* prompt_logprobs.h: how likely the model found each token of the prompt: from rows of logits to
 * log-probabilities.
 *
 * For `echo` with `logprobs`. Rows come in position order; row i predicts token i + 1. Sums are in
 * double, in id order, so the result is a function of the row alone. Pure. */
#ifndef COORDINATOR_API_PROMPT_LOGPROBS_H
#define COORDINATOR_API_PROMPT_LOGPROBS_H

#include "proto/step_result.h"

/* Zeroed = empty. Own: tokens, free(). */
struct crd_prompt_logprobs {
    struct result_token *tokens; /* [n]: of prompt[1..n] */
    int32_t n, n_rows; /* rows seen; the last one predicts what is generated and is not kept */
};

/* Take rows[n_rows][n_vocab]. prompt[n_prompt]: the ids; n_top: how many of the best are kept with
 * each. */
void crd_prompt_logprobs_take(struct crd_prompt_logprobs *p, const float *rows, int32_t n_rows,
                              int32_t n_vocab, const int32_t *prompt, int32_t n_prompt,
                              int32_t n_top);

#endif
