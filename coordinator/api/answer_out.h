/* answer_out.h: how answers are written: one table of operations per dialect, nothing of which
 * knows another's.
 *
 * A generation drives them; what an answer has so far is in struct crd_answer, what has not left
 * yet in its choices. Whole and streamed answers say the same. Thr: the generation's owner. */
#ifndef COORDINATOR_API_ANSWER_OUT_H
#define COORDINATOR_API_ANSWER_OUT_H

#include "coordinator/api/choice.h"

struct crd_usage {
    int64_t n_prompt, n_completion, n_cached, n_thought;
    int64_t n_foreseen, n_unforeseen; /* tokens guessed ahead: right, wrong */
};
struct crd_timings {
    int64_t prompt_us, predicted_us;
};

/* Streams that open and close blocks (Messages, Responses) note here which is open. */
enum block_kind { BLOCK_NONE, BLOCK_THOUGHTS, BLOCK_TEXT, BLOCK_CALL };
struct crd_blocks {
    enum block_kind open;
    int32_t n, call; /* blocks begun; the call the open one shows */
    int64_t n_events;
    struct buf so_far;   /* of the open block, where its end repeats it */
    struct buf logprobs; /* of its text: entries, where its end repeats them */
    struct buf done;     /* finished blocks, where the stream's end repeats them */
};

struct crd_answer {
    const struct crd_format *format;
    const struct crd_request *request;
    char id[160];
    int64_t created, arrived_us;
    const char *model;
    struct crd_usage usage; /* so far */
    struct crd_timings timings;
    struct crd_blocks blocks;
};

enum delta_kind { DELTA_TEXT, DELTA_FINISH };

struct crd_format {
    const char *id_prefix;
    const char *stream_type; /* content type of a stream */
    /* A stream begins. Optional. */
    void (*begin)(struct crd_answer *a, struct crd_choice choices[], int32_t n, struct buf *out);
    /* What the choice has not sent yet; DELTA_FINISH: it has ended. last: so has the answer, and
     * its timings are known. Required. */
    void (*chunk)(struct crd_answer *a, struct crd_choice *c, enum delta_kind kind, bool last,
                  struct buf *out);
    /* The end of a good stream, and of one that went wrong. Required where there are streams, as
     * is chunk. */
    void (*end)(struct crd_answer *a, struct crd_choice choices[], int32_t n, struct buf *out);
    void (*fail)(struct crd_answer *a, const struct crd_api_error *e, struct buf *out);
    /* The answer as one document. Required. */
    void (*whole)(struct crd_answer *a, struct crd_choice choices[], int32_t n, struct buf *out);
    /* An error as the whole answer. Required. */
    void (*error)(const struct crd_api_error *e, struct buf *out);
};
/* Ollama's way to say what is wrong. */
void crd_ollama_error(const struct crd_api_error *e, struct buf *out);
extern const struct crd_format crd_format_chat, crd_format_completions, crd_format_responses,
    crd_format_messages, crd_format_ollama, crd_format_embeddings, crd_format_ollama_embed,
    crd_format_ollama_embeddings;
const struct crd_format *crd_format_of(enum crd_endpoint ep);
/* The dialect spoken at a path; OpenAI's where there is none of its own. */
const struct crd_format *crd_format_at(const char *path);

#endif
