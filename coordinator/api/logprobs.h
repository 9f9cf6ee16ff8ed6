/* logprobs.h: log-probabilities as the two endpoints show them, written as they come.
 *
 * Collected as JSON text, so that a streamed answer and a buffered one have the same bytes. */
#ifndef COORDINATOR_API_LOGPROBS_H
#define COORDINATOR_API_LOGPROBS_H

#include "coordinator/api/request.h"
#include "proto/step_result.h"

/* Zeroed = nothing collected. */
struct crd_logprobs {
    struct buf part[4]; /* chat: the entries; completions: offsets, logprobs, tokens, tops */
    int32_t n;
    int64_t n_chars; /* characters of all tokens so far: where the next begins */
    struct buf held; /* entries of tokens of which it is not known yet whether they are text */
    int32_t n_held;
};

/* A log-probability: JSON has no minus infinity. */
void crd_logprobs_put(struct buf *out, float v);
/* What a token is called: its text, or "token_id:N". */
void crd_logprobs_name(const struct crd_request *r, const struct eng_tokenizer *t, int32_t id,
                       struct buf *out);

/* One token more. known: false for a prompt's first, which nothing predicted. */
void crd_logprobs_add(struct crd_logprobs *l, const struct crd_request *r,
                      const struct eng_tokenizer *t, const struct result_token *token, bool known);
/* The same for an answer that shows those of its text alone (Responses): the token waits, */
void crd_logprobs_hold(struct crd_logprobs *l, const struct crd_request *r,
                       const struct eng_tokenizer *t, const struct result_token *token);
/* until those that wait turn out to be text, or not. */
void crd_logprobs_settle(struct crd_logprobs *l, bool text);
/* Append what was collected since the last time as the value of "logprobs": an object, or null when
 * there is none. */
void crd_logprobs_take(struct crd_logprobs *l, const struct crd_request *r, struct buf *out);
/* The same of a whole answer: a list without entries, where there are none, if they were wanted. */
void crd_logprobs_take_all(struct crd_logprobs *l, const struct crd_request *r, struct buf *out);
/* The entries alone, as they stand between the brackets of a list. */
void crd_logprobs_take_entries(struct crd_logprobs *l, struct buf *out);
void crd_logprobs_free(struct crd_logprobs *l);

#endif
