/* generation.h: the whole life of one request as one readable machine (spine 1):
 * PARSE -> TEMPLATE -> TOKENIZE -> SUBMIT -> STREAM -> FINISH.
 *
 * It knows no HTTP library: its owner (a connection of the gateway, or `tessera generate`) gives it
 * a body and is woken when there is output. Bytes come out ready to send: SSE frames for a stream,
 * one JSON document otherwise. Thr: crd_generation_run and close by the owner's thread only; wake
 * is called from any thread. */
#ifndef COORDINATOR_API_GENERATION_H
#define COORDINATOR_API_GENERATION_H

#include "base/buf.h"
#include "coordinator/api/service.h"
#include "coordinator/api/style.h"
#include "engine/text/template.h"
#include "engine/text/tokenizer.h"

#include <stdatomic.h>

struct crd_keys;
struct crd_admin_door;
struct crd_replay;
struct crd_ledger;
struct crd_journal;
struct crd_journaled;
struct crd_grammar_vocab;
struct crd_text_pool; /* threads that render and tokenize: jobs in, wake out */

/* Everything a generation needs; shared, read-only after start. */
struct crd_api {
    struct crd_service service;
    const struct eng_tokenizer *tokenizer;
    const struct eng_template *chat_template; /* NULL: chat is refused with a sentence */
    const char *template_source;              /* its text; NULL: not known */
    struct crd_style style;                   /* crd_style_of(template_source) */
    struct crd_grammar_vocab *grammar_vocab;  /* calls_grammar.h; NULL: budgets are not checked */
    struct model_info model;
    const char *const *model_names; /* NULL-terminated; [0] is shown */
    const char *const *adapter_names; /* of LoRA adapters, NULL-terminated: the model with number i + 1; NULL: there are none */
    const char *const *unlisted_names; /* by which it may be asked for too, in any case; NULL-terminated; or NULL */
    int32_t max_context;
    int32_t max_n; /* choices per request */
    const struct sampling *defaults; /* of requests that do not say; NULL: sampling_default() */
    const char *defaults_text;       /* the same, as a JSON object; NULL: it is not shown */
    enum step_pool pooling; /* of embeddings whose request does not say; NONE: it must */
    struct crd_text_pool *pool;
    struct crd_api_stats *stats; /* request counters and histograms; see api_metrics.h */
    int64_t created_unix;
    struct crd_ledger *ledger; /* every request is noted there; NULL: in the log only */
    _Atomic int32_t n_live; /* [any] generations that have not been freed: they use all of the above */
    struct crd_replay *replay; /* [net] answers kept for their readers; NULL: none are */
    struct crd_journal *journal; /* NULL: none is kept */
    struct crd_keys *keys; /* [net] who may ask; NULL: everybody */
    struct crd_admin_door *admin; /* what an admin key opens; NULL: nothing does */
};

enum crd_endpoint {
    ENDPOINT_CHAT,
    ENDPOINT_COMPLETIONS, /* OpenAI */
    ENDPOINT_RESPONSES,   /* OpenAI's other one */
    ENDPOINT_MESSAGES,    /* Anthropic */
    ENDPOINT_OLLAMA_CHAT,
    ENDPOINT_OLLAMA_GENERATE,
    ENDPOINT_EMBEDDINGS, /* OpenAI */
    ENDPOINT_OLLAMA_EMBED,
    ENDPOINT_OLLAMA_EMBEDDINGS, /* Ollama's older one: one text */
};

struct crd_generation;
/* body[n] is copied. wake(user) is called (from any thread, also before this returns) whenever
 * crd_generation_run has something to do; it must not call back into the generation. The first run
 * is the caller's to make. tenant: whose share it counts against. request_id NULL: one is drawn.
 * Own: crd_generation_close. */
struct crd_generation *crd_generation_open(struct crd_api *api, enum crd_endpoint ep,
                                           const char *body, size_t n, uint64_t tenant,
                                           const char *request_id, void (*wake)(void *user),
                                           void *user);
/* Advance as far as possible now; append bytes to send to *out. Returns true when finished (all
 * bytes have been appended). *status is 0 until known, then the HTTP status (errors before the
 * first byte: 4xx/5xx with OpenAI's error body; later ones are one SSE error event). */
bool crd_generation_run(struct crd_generation *g, struct buf *out, int32_t *status);
bool crd_generation_streaming(
    const struct crd_generation *g); /* valid once *status is known: events or one document */
const char *crd_generation_type(const struct crd_generation *g); /* its content type */
int32_t
crd_generation_retry_after(const struct crd_generation *g); /* seconds for 429/503, else 0 */
/* Before the first run: it is to survive this coordinator, where the API has a journal. resumable is
 * only written down. */
void crd_generation_journal(struct crd_generation *g, bool resumable);
/* As crd_generation_open, of a request that the journal has: it begins with what was said and goes on
 * behind it. Before crd_journal_run. NULL: it says nothing sensible. */
struct crd_recalled {
    char id[160]; /* the request's */
    uint64_t tenant;
    bool resumable, ended;
    int64_t n_tokens; /* generated, and charged, before */
};
struct crd_generation *crd_generation_recall(struct crd_api *api, struct crd_journaled *q,
                                             struct crd_recalled *what, void (*wake)(void *user),
                                             void *user);
/* Before the first run: the share of its tenant; 1 unless set. */
void crd_generation_weight(struct crd_generation *g, float weight);
/* Tokens used so far, for the account of whoever asked. */
void crd_generation_used(const struct crd_generation *g, int64_t *n_prompt, int64_t *n_completion);
/* Note in the ledger what it used, once: at its end, or when its client has left. */
void crd_generation_note(struct crd_generation *g, const char *key, const char *request_id);
/* At any time: cancels what is running; late events are absorbed. */
void crd_generation_close(struct crd_generation *g);

#endif
