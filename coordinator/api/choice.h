/* choice.h: one choice of an answer: tokens in; text, thoughts, calls, ids and log-probabilities
 * out, until it ends.
 *
 * Collects what has not left yet; whether that leaves with every token or once at the end is the
 * generation's affair, so both say the same. Thr: the generation's owner. */
#ifndef COORDINATOR_API_CHOICE_H
#define COORDINATOR_API_CHOICE_H

#include "coordinator/api/logprobs.h"
#include "coordinator/api/prompt_logprobs.h"
#include "coordinator/api/reply.h"
#include "engine/text/detok.h"

struct crd_choice {
    int32_t index; /* in the answer: prompt * n + choice */
    const struct crd_request *request;
    const struct eng_tokenizer *tokenizer;
    const struct crd_prompt *prompt;
    const struct crd_prompt_logprobs *scores; /* of the prompt, where they were asked for */
    struct eng_detok *detok; /* Own */
    struct crd_reply *reply; /* Own; NULL: text is text */
    bool opened;             /* the echo has been put */
    bool prompt_ids_said;
    /* not sent yet */
    struct crd_said said;
    struct buf ids; /* "1,2,3" */
    struct crd_logprobs logprobs;
    float *vector; /* [n_vector] Own; as it came, until it is written to said.text */
    int32_t n_vector;
    /* counted and decided */
    int32_t n_tokens;    /* in usage */
    int32_t n_thought;   /* of these, in thoughts */
    double sum_logprob;  /* of these, where log-probabilities are known */
    const char *finish;  /* finish_reason; NULL while it goes on */
    int32_t stop_id;     /* stop_reason: one of stop_token_ids, else -1 */
    int32_t stop_string; /* stop_reason: index of a stop string, else -1 */
};

void crd_choice_open(struct crd_choice *c, const struct crd_request *r,
                     const struct eng_tokenizer *t, const struct crd_prompt *prompt, int32_t index);
void crd_choice_close(struct crd_choice *c);
/* Before the first token: the prompt itself, where echo asks for it. p: its log-probabilities, if
 * they were asked. */
void crd_choice_echo(struct crd_choice *c, const struct crd_prompt_logprobs *p);
/* One token. When it completes a stop string the choice has ended: c->finish is set. */
void crd_choice_push(struct crd_choice *c, const struct result_token *token);
/* No more tokens: what was held back leaves; finish_reason by why the sequence ended. */
void crd_choice_end(struct crd_choice *c, enum seq_finish why);
/* embeddings_out.c: its vector, as the request wants it, into said.text. */
void crd_choice_vector(struct crd_choice *c);
/* Is there text, a thought or a part of a call that has not been sent? */
bool crd_choice_has_news(const struct crd_choice *c);

#endif
