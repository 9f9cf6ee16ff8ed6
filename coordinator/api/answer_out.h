/* answer_out.h: the envelope of an answer, the same for both endpoints: whole documents, SSE
 * chunks, usage, timings.
 *
 * What stands inside "choices" is the endpoint's (struct crd_format: chat_out.c,
 * completions_out.c). */
#ifndef COORDINATOR_API_ANSWER_OUT_H
#define COORDINATOR_API_ANSWER_OUT_H

#include "coordinator/api/choice.h"

enum delta_kind { DELTA_OPEN, DELTA_TEXT, DELTA_FINISH };

struct crd_format {
    const char *id_prefix, *object, *chunk_object;
    bool opens;       /* a stream's choices begin with a chunk of their own */
    bool ids_outside; /* prompt_token_ids stand beside "choices", not inside */
    /* Append one element of "choices" of a chunk: what the choice has not sent yet. Required. */
    void (*delta)(struct crd_choice *c, enum delta_kind kind, struct buf *out);
    /* Append one element of "choices" of a whole answer. Required. */
    void (*whole)(struct crd_choice *c, struct buf *out);
};
extern const struct crd_format crd_format_chat, crd_format_completions;
const struct crd_format *crd_format_of(enum crd_endpoint ep);

struct crd_usage {
    int64_t n_prompt, n_completion, n_cached;
};
struct crd_timings {
    int64_t prompt_us, predicted_us;
};

struct crd_answer {
    const struct crd_format *format;
    const struct crd_request *request;
    char id[160];
    int64_t created;
    const char *model;
    struct crd_usage usage; /* so far */
    struct crd_timings timings;
};

/* One SSE event about one choice; last: the timings are known and go with it. */
void crd_answer_chunk(const struct crd_answer *a, struct crd_choice *c, enum delta_kind kind,
                      bool last, struct buf *out);
/* The end of a good stream: the usage chunk if asked for, and [DONE]. */
void crd_answer_end(const struct crd_answer *a, struct buf *out);
/* The end of a stream that went wrong. */
void crd_answer_fail(const struct crd_api_error *e, struct buf *out);
/* The whole answer as one document. */
void crd_answer_whole(const struct crd_answer *a, struct crd_choice *choices, int32_t n,
                      struct buf *out);

/* Shared by the formats: `,"finish_reason":...,"stop_reason":...` and `,"token_ids":[...]` where
 * asked. */
void crd_answer_put_finish(const struct crd_choice *c, bool finished, struct buf *out);
void crd_answer_put_ids(struct crd_choice *c, struct buf *out);
void crd_answer_put_prompt_ids(const struct crd_choice *c, struct buf *out);

#endif
