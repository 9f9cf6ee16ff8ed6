/* openai_out.h: the envelope that OpenAI's two endpoints share: documents, SSE chunks, usage,
 * timings. What stands inside "choices" is the endpoint's. Private to openai_out.c, chat_out.c and
 * completions_out.c. */
#ifndef COORDINATOR_API_OPENAI_OUT_H
#define COORDINATOR_API_OPENAI_OUT_H

#include "coordinator/api/answer_out.h"

enum openai_part { PART_OPEN, PART_DELTA, PART_FINISH, PART_WHOLE };

struct crd_openai_kind {
    const char *object, *chunk_object;
    bool opens;       /* a stream's choices begin with a chunk of their own */
    bool ids_outside; /* prompt_token_ids stand beside "choices", not inside */
    /* Append one element of "choices". */
    void (*put)(struct crd_choice *c, enum openai_part part, struct buf *out);
};
extern const struct crd_openai_kind crd_openai_chat, crd_openai_completions;

/* The operations of both formats. */
void crd_openai_begin(struct crd_answer *a, struct crd_choice choices[], int32_t n,
                      struct buf *out);
void crd_openai_chunk(struct crd_answer *a, struct crd_choice *c, enum delta_kind kind, bool last,
                      struct buf *out);
void crd_openai_end(struct crd_answer *a, struct crd_choice choices[], int32_t n, struct buf *out);
void crd_openai_fail(struct crd_answer *a, const struct crd_api_error *e, struct buf *out);
void crd_openai_whole(struct crd_answer *a, struct crd_choice choices[], int32_t n,
                      struct buf *out);

/* `,"finish_reason":...,"stop_reason":...`, and `,"token_ids":[...]` where asked. */
void crd_openai_put_finish(const struct crd_choice *c, bool finished, struct buf *out);
void crd_openai_put_ids(struct crd_choice *c, struct buf *out);
/* What prompt_logprobs asked for. */
void crd_openai_put_scores(const struct crd_choice *c, struct buf *out);
void crd_openai_put_prompt_ids(const struct crd_choice *c, struct buf *out);

#endif
