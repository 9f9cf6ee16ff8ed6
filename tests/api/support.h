/* support.h: an API over the fake service and a byte-level vocabulary: what every test of api/
 * begins with. */
#ifndef TESTS_API_SUPPORT_H
#define TESTS_API_SUPPORT_H

#include "coordinator/api/generation.h"
#include "tests/api/fake_service.h"

enum {
    TEST_ENGINES = 2, TEST_CONTEXT = 300,
    TEST_MAX_N = 8,
    TEST_VOCAB = 259,
    TOKEN_BOS = 256,
    TOKEN_IM_START,
    TOKEN_IM_END
};

struct test_api {
    struct crd_api api;
    struct fake *fake;
    struct eng_tokenizer *tokenizer;
    struct eng_template *chat_template;
    struct eng_tokens said; /* of test_api_say */
};
/* n_threads 0: no text pool, jobs run inside. */
void test_api_open(struct test_api *t, int n_threads);
void test_api_close(struct test_api *t);
/* Another chat template. */
void test_api_template(struct test_api *t, const char *source);
/* The fake answers with this text (and then ends). */
void test_api_say(struct test_api *t, const char *text, size_t n);
void test_api_plan(struct test_api *t,
                   struct fake_plan plan); /* `say` is filled in from the last test_api_say */

/* The text of the last prompt that was submitted. Own: caller. */
char *test_api_prompt(struct test_api *t);

/* Run one request to its end. */
struct outcome {
    int32_t status, retry_after;
    bool streaming;
    struct buf bytes;
};
void test_api_run(struct test_api *t, enum crd_endpoint ep, const char *body, struct outcome *out);
void outcome_free(struct outcome *o);

/* The answer to a body (a format with one %s for more fields) as JSON; asserts its status. Own:
 * caller. */
json_t *test_api_ask(struct test_api *t, enum crd_endpoint ep, const char *format, const char *more,
                     int status);
extern const char test_chat[]; /* such a format: one user message */
/* Parts of an answer, whole or assembled; borrowed. */
json_t *answer_choice(json_t *answer, size_t i);
const char *answer_content(json_t *answer, size_t i);
const char *json_str(const json_t *object, const char *key);
long json_num(const json_t *object, const char *key);

/* What a stream said, put together again: a whole answer whose choices have their text ("content"
 * or "text"), "thoughts", "calls" ([{name, arguments}]), logprobs arrays, token_ids, finish_reason
 * and stop_reason. Own: caller. NULL (after
 * printing why) when an event is out of form. */
json_t *stream_assemble(const char *sse, enum crd_endpoint ep);

#endif
