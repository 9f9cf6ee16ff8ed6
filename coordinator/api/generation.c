/* generation.c: spine 1: the life of one request, as a table of steps read from top to bottom.
 * Who may touch what, and when, is in generation_impl.h. */
#include "coordinator/api/generation_impl.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/rng.h"
#include "coordinator/api/best_of.h"
#include "coordinator/api/chat_in.h"
#include "coordinator/api/completions_in.h"
#include "coordinator/api/embeddings_in.h"
#include "coordinator/api/sampling_in.h"
#include "coordinator/api/ledger.h"
#include "coordinator/api/prediction_in.h"
#include "coordinator/api/text_pool.h"
#include "coordinator/api/translate.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

enum progress { NEXT, WAIT, FAILED };

static enum progress step_parse(struct crd_generation *g, struct buf *out);
static enum progress step_template(struct crd_generation *g, struct buf *out);
static enum progress step_tokenize(struct crd_generation *g, struct buf *out);
static enum progress step_submit(struct crd_generation *g, struct buf *out);
static enum progress step_stream(struct crd_generation *g, struct buf *out);
static enum progress step_finish(struct crd_generation *g, struct buf *out);

/* The whole life of a request. A failure anywhere goes to the last step. */
static const struct step {
    const char *name;
    bool on_text_thread;
    enum progress (*run)(struct crd_generation *g, struct buf *out);
} steps[] = {
    {"parse", true, step_parse},       /* bytes -> crd_request */
    {"template", true, step_template}, /* messages -> text */
    {"tokenize", true, step_tokenize}, /* text -> ids; does it fit? */
    {"submit", false, step_submit},    /* ids -> the service */
    {"stream", false, step_stream},    /* events -> choices -> bytes */
    {"finish", false, step_finish},    /* the last bytes, or the error */
};
enum { STEP_FINISH = COUNT_OF(steps) - 1, STEP_OVER };

/* ---- life ---- */

void crd_generation_unref(struct crd_generation *g)
{
    if (atomic_fetch_sub(&g->refs, 1) != 1) return;
    for (int32_t i = 0; g->subs && i < g->request.n_prompts; i++) {
        free(g->subs[i].last_us);
        free(g->subs[i].by_text);
        crd_prompt_logprobs_free(&g->subs[i].prompt_logprobs);
        for (int32_t c = 0; g->subs[i].known && c < g->request.n; c++) free(g->subs[i].known[c].ids);
        free(g->subs[i].known);
    }
    for (int32_t i = 0; i < g->n_choices; i++) crd_choice_close(&g->choices[i]);
    for (size_t i = 0; i < g->inbox.n; i++) free(g->inbox.at[i].text);
    free(g->inbox.at);
    buf_free(&g->answer.blocks.so_far);
    buf_free(&g->answer.blocks.logprobs);
    buf_free(&g->answer.blocks.done);
    free(g->subs);
    free(g->choices);
    crd_request_close(&g->request);
    crd_api_error_clear(&g->error);
    buf_free(&g->body);
    crd_recall_free(g);
    pthread_mutex_destroy(&g->lock);
    atomic_fetch_sub(&g->api->n_live, 1);
    free(g);
}

static void name_answer(struct crd_generation *g, const char *request_id)
{
    uint64_t r[2];
    struct crd_answer *a = &g->answer;
    *a = (struct crd_answer){.format = crd_format_of(g->endpoint),
                             .request = &g->request,
                             .created = time(NULL),
                             .arrived_us = g->arrived_us,
                             .model = g->api->model_names[0]};
    if (request_id && *request_id) {
        snprintf(a->id, sizeof a->id, "%s%.128s", a->format->id_prefix, request_id);
        return;
    }
    ssize_t n = getrandom(r, sizeof r, 0);
    ASSERT(n == sizeof r);
    snprintf(a->id, sizeof a->id, "%s%016" PRIx64 "%016" PRIx64, a->format->id_prefix, r[0], r[1]);
}

struct crd_generation *crd_generation_open(struct crd_api *api, enum crd_endpoint ep,
                                           const char *body, size_t n, uint64_t tenant,
                                           const char *request_id, void (*wake)(void *user),
                                           void *user)
{
    struct crd_generation *g = xcalloc(1, sizeof *g);
    *g = (struct crd_generation){.api = api,
                                 .endpoint = ep,
                                 .tenant = tenant,
                                 .weight = 1,
                                 .wake = wake,
                                 .user = user,
                                 .refs = 1,
                                 .arrived_us = clock_us()};
    pthread_mutex_init(&g->lock, NULL);
    atomic_fetch_add(&api->n_live, 1);
    buf_put(&g->body, body, n);
    name_answer(g, request_id);
    return g;
}

void crd_generation_close(struct crd_generation *g)
{
    if (!g) return;
    pthread_mutex_lock(&g->lock);
    g->closed = true;
    bool mine = !g->job_given || g->job_done;
    /* one that was never begun again is left for the next coordinator */
    if (g->journal && !g->recall) crd_journaled_end(g->journal, g->step == STEP_OVER && g->status == 200);
    g->journal = NULL;
    pthread_mutex_unlock(&g->lock);
    if (mine) /* else nothing has been submitted */
        for (int32_t i = 0; g->subs && i < g->request.n_prompts; i++) crd_sub_cancel(&g->subs[i]);
    crd_generation_unref(g);
}

/* ---- the machine ---- */

/* Run the step at hand; true: go on with the next at once. */
static bool advance(struct crd_generation *g, struct buf *out)
{
    switch (steps[g->step].run(g, out)) {
    case WAIT:
        return false;
    case NEXT:
        g->step++;
        return true;
    case FAILED:
        log_debug("api", "%s failed in step %s", g->answer.id, steps[g->step].name);
        g->step = STEP_FINISH;
        return true;
    }
    return false;
}

static void text_job(void *arg)
{
    struct crd_generation *g = arg;
    for (;;) {
        pthread_mutex_lock(&g->lock);
        if (g->closed || !steps[g->step].on_text_thread) break;
        pthread_mutex_unlock(&g->lock);
        advance(g, NULL);
    }
    g->job_done = true;
    if (!g->closed) g->wake(g->user);
    pthread_mutex_unlock(&g->lock);
    crd_generation_unref(g);
}

/* True when the text thread has given the generation back. */
static bool text_done(struct crd_generation *g)
{
    if (!g->job_given) {
        g->job_given = true;
        atomic_fetch_add(&g->refs, 1);
        crd_text_pool_run(g->api->pool, text_job, g);
    }
    pthread_mutex_lock(&g->lock);
    bool done = g->job_done;
    pthread_mutex_unlock(&g->lock);
    return done;
}

bool crd_generation_run(struct crd_generation *g, struct buf *out, int32_t *status)
{
    if (text_done(g))
        while (g->step < STEP_OVER && advance(g, out)) continue;
    else
        return false;
    *status = g->status;
    return g->step == STEP_OVER;
}

bool crd_generation_streaming(const struct crd_generation *g)
{
    return g->status == 200 && g->request.stream;
}
void crd_generation_weight(struct crd_generation *g, float weight)
{
    g->weight = weight;
}

void crd_generation_used(const struct crd_generation *g, int64_t *n_prompt, int64_t *n_completion)
{
    *n_prompt = g->submitted_us ? g->answer.usage.n_prompt : 0;
    *n_completion = g->answer.usage.n_completion;
}

static const char *path_of(enum crd_endpoint ep)
{
    static const char *const paths[] = {
        [ENDPOINT_CHAT] = "/v1/chat/completions",
        [ENDPOINT_COMPLETIONS] = "/v1/completions",
        [ENDPOINT_RESPONSES] = "/v1/responses",
        [ENDPOINT_MESSAGES] = "/v1/messages",
        [ENDPOINT_OLLAMA_CHAT] = "/api/chat",
        [ENDPOINT_OLLAMA_GENERATE] = "/api/generate",
        [ENDPOINT_EMBEDDINGS] = "/v1/embeddings",
        [ENDPOINT_OLLAMA_EMBED] = "/api/embed",
        [ENDPOINT_OLLAMA_EMBEDDINGS] = "/api/embeddings",
    };
    return paths[ep];
}

void crd_generation_note(struct crd_generation *g, const char *key, const char *request_id)
{
    enum { CLIENT_LEFT = 499 };
    bool over = g->step == STEP_OVER;
    struct crd_usage u = {0};
    const char *adapter = NULL;
    if (over || g->submitted_us) { /* else a text thread may have them */
        u = g->answer.usage;
        if (g->request.adapter) adapter = g->answer.model;
    }
    crd_ledger_add(g->api->ledger, &(struct crd_ledger_entry){.id = request_id,
                                                               .key = key,
                                                               .adapter = adapter,
                                                               .path = path_of(g->endpoint),
                                                               .status = over ? g->status : CLIENT_LEFT,
                                                               .n_prompt = u.n_prompt,
                                                               .n_cached = u.n_cached,
                                                               .n_completion = u.n_completion,
                                                               .n_thought = u.n_thought,
                                                               .us = clock_us() - g->arrived_us,
                                                               .first_us = g->first_us ? g->first_us - g->arrived_us : 0});
}

const char *crd_generation_type(const struct crd_generation *g)
{
    return crd_generation_streaming(g) ? g->answer.format->stream_type : "application/json";
}
int32_t crd_generation_retry_after(const struct crd_generation *g)
{
    return g->error.retry_after_s;
}

/* ---- PARSE, TEMPLATE, TOKENIZE: on a text thread ---- */

static enum progress step_parse(struct crd_generation *g, struct buf *out)
{
    (void)out;
    enum err rc = crd_request_parse(&g->request, g->api, g->endpoint, buf_str(&g->body),
                                    g->body.len, &g->error);
    if (!g->journaling) buf_free(&g->body); /* else it is written down when all is settled */
    if (g->request.adapter) g->answer.model = g->api->adapter_names[g->request.adapter - 1];
    return rc ? FAILED : NEXT;
}

static enum progress step_template(struct crd_generation *g, struct buf *out)
{
    (void)out;
    if (!g->request.chat) return NEXT;
    return crd_chat_render(&g->request, g->api, g->answer.created, &g->error) ? FAILED : NEXT;
}

static enum progress step_tokenize(struct crd_generation *g, struct buf *out)
{
    struct crd_request *r = &g->request;
    int64_t longest = 0;
    (void)out;
    if (crd_prompts_tokenize(r, g->api, &g->error)) return FAILED;
    if (r->pool) return crd_embeddings_fit(r, g->api, &g->error) ? FAILED : NEXT;
    for (int32_t i = 0; i < r->n_prompts; i++)
        longest = MAX(longest, (int64_t)r->prompts[i].tokens.n);
    if (crd_sampling_fit(r, g->api, longest, &g->error)) return FAILED;
    crd_prediction_tokenize(r, g->api);
    crd_recall_settle(g);
    return NEXT;
}

/* ---- SUBMIT ---- */

static void open_sub(struct crd_generation *g, int32_t i)
{
    static _Atomic uint64_t next_id = 1;
    const struct crd_request *r = &g->request;
    struct crd_sub *s = &g->subs[i];
    size_t n = (size_t)r->n;
    *s = (struct crd_sub){.g = g,
                          .id = atomic_fetch_add(&next_id, 1),
                          .prompt = &r->prompts[i],
                          .choices = &g->choices[i * r->n],
                          .n_going = r->n,
                          .n_unfinished = r->n};
    s->last_us = xcalloc(n, sizeof *s->last_us);
    s->by_text = xcalloc(n, sizeof *s->by_text);
    for (int32_t c = 0; c < r->n; c++)
        crd_choice_open(&s->choices[c], r, g->api->tokenizer, s->prompt, i * r->n + c);
    for (int32_t c = 0; c < r->n; c++) s->choices[c].scores = &s->prompt_logprobs;
    g->answer.usage.n_prompt += (int64_t)s->prompt->tokens.n;
}

static enum progress step_submit(struct crd_generation *g, struct buf *out)
{
    struct crd_request *r = &g->request;
    (void)out;
    /* what else is drawn for it is a function of its name and time */
    for (const char *p = g->answer.id; *p; p++) r->reply.id_seed = rng_mix(r->reply.id_seed ^ (uint8_t)*p);
    r->reply.id_seed = rng_mix(r->reply.id_seed ^ (uint64_t)g->answer.created);
    g->n_choices = r->n_prompts * r->n;
    g->choices = xcalloc((size_t)g->n_choices, sizeof *g->choices);
    g->subs = xcalloc((size_t)r->n_prompts, sizeof *g->subs);
    for (int32_t i = 0; i < r->n_prompts; i++) open_sub(g, i);
    g->submitted_us = clock_us();
    crd_recall_submit(g);
    for (int32_t i = 0; i < r->n_prompts; i++)
        if (g->subs[i].n_unfinished) crd_sub_submit(&g->subs[i]);
    return NEXT;
}

/* ---- STREAM, FINISH ---- */

static enum progress step_stream(struct crd_generation *g, struct buf *out)
{
    switch (crd_generation_stream(g, out)) {
    case STREAM_WAITS:
        return WAIT;
    case STREAM_ENDED:
        return NEXT;
    case STREAM_FAILED:
        break;
    }
    return FAILED;
}

static enum progress step_finish(struct crd_generation *g, struct buf *out)
{
    bool begun = g->status != 0;
    if (g->error.status) {
        if (crd_dialect_in_of(g->endpoint))
            crd_translate_error(crd_dialect_in_of(g->endpoint), &g->error);
        if (begun) {
            g->answer.format->fail(&g->answer, &g->error, out);
        } else {
            g->status = g->error.status;
            g->answer.format->error(&g->error, out);
        }
        log_debug("api", "%s: %d %s", g->answer.id, g->error.status, g->error.message);
    } else if (g->request.stream) {
        if (!begun) crd_generation_start_stream(g, out);
        g->answer.format->end(&g->answer, g->choices, g->n_choices, out);
    } else {
        g->status = 200;
        int32_t n = crd_best_of(&g->request, g->choices, g->n_choices);
        g->answer.format->whole(&g->answer, g->choices, n, out);
    }
    return NEXT;
}
