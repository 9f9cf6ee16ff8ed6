/* fake_service.h: a cluster of one thread: it answers every request with the tokens it was told to
 * say.
 *
 * Keeps the contract of service.h: events come on its own thread, one EVENT_FINISH per choice,
 * cancel ends all. */
#ifndef TESTS_API_FAKE_SERVICE_H
#define TESTS_API_FAKE_SERVICE_H

#include "coordinator/api/service.h"
#include "engine/text/tokenizer.h"

/* How the next requests are answered; zeroed: with the ids of their prompt, at once. */
struct fake_plan {
    struct eng_tokens
        say;         /* every choice says these; then an end token. Empty: the prompt. Borrowed */
    enum err refuse; /* at submit */
    const char *refusal;
    int32_t
        fail_after; /* tokens of each choice, then every choice fails with UNAVAILABLE; 0: never */
    int64_t token_us; /* between two tokens */
    bool hold;        /* says nothing until released (or cancelled) */
    int32_t n_cached;
    int32_t engine; /* whose events they are */
    uint32_t jitter; /* > 0: seed of random small delays between events */
};

struct fake;
struct fake *fake_open(const struct eng_tokenizer *t);
void fake_close(struct fake *f);
struct crd_service fake_service(struct fake *f);
void fake_set(struct fake *f, const struct fake_plan *plan);
void fake_set_state(struct fake *f, enum service_state state, const char *text);
void fake_release(struct fake *f); /* requests held go on */
int32_t fake_submitted(struct fake *f);
int32_t fake_cancelled(struct fake *f); /* requests that ended by cancel */
int32_t fake_live(struct fake *f);
/* The last request submitted; arrays valid until the next. */
struct gen_request fake_last(struct fake *f);
/* What the fake says about the k-th token of any choice. */
struct result_token fake_token(int32_t id, int32_t k, int32_t n_vocab, int32_t n_logprobs);
/* What it says of a prompt that is pooled. */
enum { FAKE_DIM = 4 };
void fake_vector(enum step_pool pool, const int32_t *prompt, int32_t n, float v[FAKE_DIM]);
/* And about position i of a prompt: element v of its row of logits. */
float fake_logit(int32_t i, int32_t v);

#endif
