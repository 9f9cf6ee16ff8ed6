/* request.h: the body of a chat or completions request, understood: every field checked, nothing
 * tokenized yet.
 *
 * A pure parser: bytes and a few facts of the model in, a value or an error object out. */
#ifndef COORDINATOR_API_REQUEST_H
#define COORDINATOR_API_REQUEST_H

#include "coordinator/api/api_error.h"
#include "coordinator/api/generation.h"
#include "coordinator/api/reply.h"
#include "proto/grammar.h"
#include "proto/sampling.h"

enum {
    REQUEST_MAX_STOPS = 16,
    REQUEST_MAX_PROMPTS = 256,
    EMBEDDINGS_MAX_INPUTS = 2048,
    REQUEST_MAX_DEPTH = 100, /* of the JSON */
    REQUEST_MAX_SALT = 128,
    REQUEST_NO_TRUNCATION = -2,
};

/* One prompt: text to be tokenized, or ids as given. Becomes one request to the scheduler. */
struct crd_prompt {
    char *text; /* Own; NULL when ids were given */
    size_t n_text;
    struct eng_tokens tokens; /* Own; filled by TOKENIZE */
    bool add_special;         /* BOS and the like, as the model says */
};

/* How a vector is shown. */
struct crd_vector_conf {
    int32_t dimensions; /* the first so many values; 0: all */
    bool normalize;     /* to length 1 */
    bool base64;
    bool cut_end; /* an input that is too long loses its end, instead of being refused */
};

struct crd_request {
    enum crd_endpoint endpoint;
    bool chat;     /* messages through the template; else prompts as they are */
    json_t *body;  /* Own; the parsed object, into which the pointers below lead */
    json_t *given; /* Own; in another dialect's form, as it came; NULL: body is that */
    struct sampling
        sampling;  /* Own: bias. max_tokens is settled after tokenizing; n_stop_ids: ends first */
    struct grammar_source grammar; /* what the answer keeps to; Own: text */
    int32_t n_eog; /* of the stop ids: the model's own ends */
    int32_t n;       /* choices that are generated */
    int32_t n_shown; /* of these, the best by mean log-probability; n, or 0: all */
    int32_t best_of, prompt_logprobs; /* as asked; -1: not */
    int32_t max_tokens; /* as asked; -1: not */
    bool score_only;    /* max_tokens 0 with echo: nothing is generated for the client */
    bool stream, include_usage, continuous_usage;
    bool echo; /* completions */
    bool return_ids, ids_as_names, include_stop, skip_special, add_special;
    int32_t truncate_prompt; /* keep the last so many tokens; -1: as many as fit */
    int32_t priority;
    uint64_t cache_salt; /* 0: none */
    int32_t adapter;     /* of the model that it names; 0: none */
    enum step_pool pool; /* not NONE: embeddings are wanted, nothing is generated */
    struct crd_vector_conf vector;
    const char *stops[REQUEST_MAX_STOPS];
    int32_t n_stops;
    bool logprobs;      /* wanted in the answer */
    bool logprob_entries; /* as a list of entries; else in the four lists of completions */
    bool text_logprobs; /* of its text alone, not of thoughts and calls */
    /* chat */
    bool add_generation_prompt, continue_final;
    struct crd_reply_conf reply; /* how the answer is taken apart; zeroed: it is text */
    bool hide_thoughts;
    json_t *tools;              /* borrowed of body; NULL: none to be called */
    bool forced;                /* one of them must be called */
    const char *forced_name;    /* this one; NULL: any */
    json_t *messages;           /* Own: normalized: content is a string */
    bool predicted;             /* the client said what it expects */
    struct crd_prompt prediction; /* that, as text and, after TOKENIZE, ids */
    struct crd_prompt *prompts; /* Own; one for chat, empty until the template is rendered */
    int32_t n_prompts;
};

/* Parse body[n]. On error *e says what the client is told (the field by our name for it), and *out
 * is still to be closed. Err BAD_REQUEST, NOT_FOUND (model). */
MUST_USE enum err crd_request_parse(struct crd_request *out, const struct crd_api *api,
                                    enum crd_endpoint ep, const char *body, size_t n,
                                    struct crd_api_error *e);
/* The same steps for other endpoints: body[n] as an object (Own: caller), its "model" known. */
MUST_USE enum err crd_request_object(json_t **out, const char *body, size_t n,
                                     struct crd_api_error *e);
/* Is this one of the names by which it may be asked for? */
bool crd_request_is_model(const struct crd_api *api, const char *name);
/* The number of the LoRA adapter of this name; 0: it is none's. */
int32_t crd_request_adapter(const struct crd_api *api, const char *name);
MUST_USE enum err crd_request_model(const struct crd_api *api, const json_t *body,
                                    struct crd_api_error *e);
/* A field of r->body; NULL when absent or null. */
const json_t *crd_request_get(const struct crd_request *r, const char *name);
void crd_request_close(struct crd_request *r);
/* Positions a sequence may have now: the service's word, which may change with its cut, within the
 * model's. */
int32_t crd_request_context(const struct crd_api *api);

#endif
