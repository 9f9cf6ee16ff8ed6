/* prompt_logprobs.h: how likely the model found each token of the prompt: collected as it comes, and
 * shown.
 *
 * For `prompt_logprobs`, and `echo` with `logprobs`. Scores come in order; the first token has
 * none. */
#ifndef COORDINATOR_API_PROMPT_LOGPROBS_H
#define COORDINATOR_API_PROMPT_LOGPROBS_H

#include "coordinator/api/request.h"
#include "proto/step_result.h"

struct crd_prompt_score {
    struct result_token token;
    int32_t rank;
};

/* Zeroed = empty. */
struct crd_prompt_logprobs {
    struct crd_prompt_score *at; /* [n]: of prompt[1..n] */
    int32_t n, cap;
};

void crd_prompt_logprobs_take(struct crd_prompt_logprobs *p, const struct result_score *scores,
                              int32_t n);
void crd_prompt_logprobs_free(struct crd_prompt_logprobs *p);

/* As a list with null for the first token and for each other
 * {"ID":{"logprob":...,"rank":...,"decoded_token":...}, ...}: the token itself, then the best. */
void crd_prompt_logprobs_put(const struct crd_prompt_logprobs *p, const struct crd_request *r,
                             const struct eng_tokenizer *t, struct buf *out);

#endif
