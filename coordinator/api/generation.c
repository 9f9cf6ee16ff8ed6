/* generation.c: spine 1: the life of one request, as a table of steps read from top to bottom.
 *
 * Three threads meet here. The owner (net) runs the steps and owns everything that is not marked otherwise. A text
 * thread borrows the whole generation from the moment the job is given until it says so under the lock. Scheduler
 * threads deliver events into the inbox under the lock, and touch what is marked [sched].
 * I1  `wake` is called under the lock and only before `closed`; it must not call back.
 * I2  the generation lives until its owner closed it, its job ended and every request it submitted has finished.
 * I3  a byte that was appended is never taken back: errors after the first byte become events of the stream. */
#include "coordinator/api/generation.h"
#include "base/clock.h"
#include "base/log.h"
#include "coordinator/api/answer_out.h"
#include "coordinator/api/api_metrics.h"
#include "coordinator/api/chat_in.h"
#include "coordinator/api/completions_in.h"
#include "coordinator/api/prompt_logprobs.h"
#include "coordinator/api/request.h"
#include "coordinator/api/sampling_in.h"
#include "coordinator/api/text_pool.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

enum { SILENCE_US = 1000000 }; /* a stream that is not refused by then begins, so that it can be kept alive */

/* An event, owned: what it pointed to is beside it. */
struct event {
    struct crd_sub *sub;
    struct token_event e;
    struct result_token token;
    char *text; /* Own */
};
struct inbox { struct event *at; size_t n, cap; };

/* One prompt: one request to the service. */
struct crd_sub {
    struct crd_generation *g;
    uint64_t id;
    const struct crd_prompt *prompt;
    struct crd_choice *choices;     /* [n] of the generation's */
    int32_t n_going;                /* choices whose text goes on */
    int32_t n_cached;
    bool submitted;
    /* [sched] and the lock */
    int32_t n_unfinished;           /* EVENT_FINISH still to come */
    bool cancelled;
    int64_t *last_us;               /* [n] when a choice's last token came; 0: none yet */
    bool *by_text;                  /* [n] ended by a stop string: no abort, though it was cancelled */
    struct crd_prompt_logprobs prompt_logprobs;
};

struct crd_generation {
    /* [init] */
    struct crd_api *api;
    enum crd_endpoint endpoint;
    uint64_t tenant;
    void (*wake)(void *user);
    void *user;
    int64_t arrived_us;
    /* the owner; lent to the text thread while a job is out */
    size_t step;
    struct buf body;
    struct crd_request request;
    struct crd_answer answer;
    struct crd_api_error error;
    struct crd_sub *subs;           /* [request.n_prompts] */
    struct crd_choice *choices;     /* [n_choices] */
    int32_t n_choices;
    bool job_given;
    int32_t status;                 /* HTTP; set once */
    int64_t submitted_us, first_us, last_us;
    /* under the lock */
    pthread_mutex_t lock;
    bool closed, job_done;
    struct inbox inbox;
    /* [any] */
    _Atomic int refs;
};

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
    {"parse",    true,  step_parse},    /* bytes -> crd_request */
    {"template", true,  step_template}, /* messages -> text */
    {"tokenize", true,  step_tokenize}, /* text -> ids; does it fit? */
    {"submit",   false, step_submit},   /* ids -> the service */
    {"stream",   false, step_stream},   /* events -> choices -> bytes */
    {"finish",   false, step_finish},   /* the last bytes, or the error */
};
enum { STEP_FINISH = COUNT_OF(steps) - 1, STEP_OVER };

/* ---- life ---- */

static void unref(struct crd_generation *g)
{
    if (atomic_fetch_sub(&g->refs, 1) != 1) return;
    for (int32_t i = 0; g->subs && i < g->request.n_prompts; i++) {
        free(g->subs[i].last_us);
        free(g->subs[i].by_text);
        free(g->subs[i].prompt_logprobs.tokens);
    }
    for (int32_t i = 0; i < g->n_choices; i++) crd_choice_close(&g->choices[i]);
    for (size_t i = 0; i < g->inbox.n; i++) free(g->inbox.at[i].text);
    free(g->inbox.at);
    free(g->subs);
    free(g->choices);
    crd_request_close(&g->request);
    crd_api_error_clear(&g->error);
    buf_free(&g->body);
    pthread_mutex_destroy(&g->lock);
    free(g);
}

static void name_answer(struct crd_generation *g, const char *request_id)
{
    uint64_t r[2];
    struct crd_answer *a = &g->answer;
    *a = (struct crd_answer){.format = crd_format_of(g->endpoint), .request = &g->request, .created = time(NULL),
                             .model = g->api->model_names[0]};
    if (request_id && *request_id) {
        snprintf(a->id, sizeof a->id, "%s%.128s", a->format->id_prefix, request_id);
        return;
    }
    ssize_t n = getrandom(r, sizeof r, 0);
    ASSERT(n == sizeof r);
    snprintf(a->id, sizeof a->id, "%s%016" PRIx64 "%016" PRIx64, a->format->id_prefix, r[0], r[1]);
}

struct crd_generation *crd_generation_open(struct crd_api *api, enum crd_endpoint ep, const char *body, size_t n,
                                           uint64_t tenant, const char *request_id, void (*wake)(void *user), void *user)
{
    struct crd_generation *g = xcalloc(1, sizeof *g);
    *g = (struct crd_generation){.api = api, .endpoint = ep, .tenant = tenant, .wake = wake, .user = user, .refs = 1,
                                 .arrived_us = clock_us()};
    pthread_mutex_init(&g->lock, NULL);
    buf_put(&g->body, body, n);
    name_answer(g, request_id);
    return g;
}

/* Ask the service to stop what is still running of a sub-request. */
static void cancel(struct crd_sub *s)
{
    struct crd_generation *g = s->g;
    pthread_mutex_lock(&g->lock);
    bool needed = s->submitted && s->n_unfinished && !s->cancelled;
    s->cancelled = true;
    pthread_mutex_unlock(&g->lock);
    if (needed) g->api->service.ops->cancel(g->api->service.self, s->id);
}

void crd_generation_close(struct crd_generation *g)
{
    if (!g) return;
    pthread_mutex_lock(&g->lock);
    g->closed = true;
    bool mine = !g->job_given || g->job_done;
    pthread_mutex_unlock(&g->lock);
    if (mine) /* else nothing has been submitted */
        for (int32_t i = 0; g->subs && i < g->request.n_prompts; i++) cancel(&g->subs[i]);
    unref(g);
}

/* ---- the machine ---- */

/* Run the step at hand; true: go on with the next at once. */
static bool advance(struct crd_generation *g, struct buf *out)
{
    switch (steps[g->step].run(g, out)) {
    case WAIT: return false;
    case NEXT: g->step++; return true;
    case FAILED: g->step = STEP_FINISH; return true;
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
    unref(g);
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

bool crd_generation_streaming(const struct crd_generation *g) { return g->status == 200 && g->request.stream; }
int32_t crd_generation_retry_after(const struct crd_generation *g) { return g->error.retry_after_s; }

/* ---- PARSE, TEMPLATE, TOKENIZE: on a text thread ---- */

static enum progress step_parse(struct crd_generation *g, struct buf *out)
{
    (void)out;
    enum err rc = crd_request_parse(&g->request, g->api, g->endpoint, buf_str(&g->body), g->body.len, &g->error);
    buf_free(&g->body);
    return rc ? FAILED : NEXT;
}

static enum progress step_template(struct crd_generation *g, struct buf *out)
{
    (void)out;
    if (g->endpoint != ENDPOINT_CHAT) return NEXT;
    return crd_chat_render(&g->request, g->api, g->answer.created, &g->error) ? FAILED : NEXT;
}

static enum progress step_tokenize(struct crd_generation *g, struct buf *out)
{
    struct crd_request *r = &g->request;
    int64_t longest = 0;
    (void)out;
    if (crd_prompts_tokenize(r, g->api, &g->error)) return FAILED;
    for (int32_t i = 0; i < r->n_prompts; i++) longest = MAX(longest, (int64_t)r->prompts[i].tokens.n);
    return crd_sampling_fit(r, g->api, longest, &g->error) ? FAILED : NEXT;
}

/* ---- events: on scheduler threads ---- */

static void inbox_put(struct inbox *b, struct crd_sub *s, const struct token_event *e)
{
    if (b->n == b->cap) {
        b->cap = MAX(b->cap * 2, 16);
        b->at = xrealloc(b->at, b->cap * sizeof *b->at);
    }
    struct event *v = &b->at[b->n++];
    *v = (struct event){.sub = s, .e = *e, .text = e->text ? xstrdup(e->text) : NULL};
    if (e->token) v->token = *e->token;
}

static void measure_token(struct crd_sub *s, int32_t choice, int64_t now_us)
{
    struct crd_api_stats *stats = s->g->api->stats;
    int64_t *last = &s->last_us[choice];
    if (!stats) return;
    if (*last) crd_api_stats_next_token(stats, now_us - *last);
    else crd_api_stats_first_token(stats, now_us - s->g->arrived_us, choice ? 0 : (int32_t)s->prompt->tokens.n);
    *last = now_us;
}

static void measure_end(struct crd_sub *s, const struct token_event *e, int64_t now_us)
{
    enum crd_ended how = e->finish == FINISH_STOP ? ENDED_STOP : ENDED_LENGTH;
    if (e->err == ERR_CANCELLED) how = e->choice >= 0 && s->by_text[e->choice] ? ENDED_STOP : ENDED_ABORT;
    else if (e->err) how = ENDED_ERROR;
    if (s->g->api->stats) crd_api_stats_ended(s->g->api->stats, e, how, now_us - s->g->arrived_us);
}

static bool wants_prompt_logprobs(const struct crd_request *r) { return r->echo && r->logprobs; }

static void on_event(void *user, const struct token_event *e)
{
    struct crd_sub *s = user;
    struct crd_generation *g = s->g;
    int64_t now_us = clock_us();
    if (e->kind == EVENT_LOGITS) { /* read by the owner after a token that comes later */
        if (wants_prompt_logprobs(&g->request) && e->choice == 0)
            crd_prompt_logprobs_take(&s->prompt_logprobs, e->logits, e->n_rows, eng_tokenizer_size(g->api->tokenizer),
                                     s->prompt->tokens.ids, (int32_t)s->prompt->tokens.n, g->request.sampling.n_logprobs);
        return;
    }
    bool last = false;
    pthread_mutex_lock(&g->lock);
    if (e->kind == EVENT_TOKEN) measure_token(s, e->choice, now_us);
    if (e->kind == EVENT_FINISH) {
        measure_end(s, e, now_us);
        s->n_unfinished -= e->choice < 0 ? s->n_unfinished : 1;
        last = !s->n_unfinished;
    }
    if (!g->closed) {
        inbox_put(&g->inbox, s, e);
        g->wake(g->user);
    }
    pthread_mutex_unlock(&g->lock);
    if (last) unref(g);
}

/* ---- SUBMIT ---- */

static void open_sub(struct crd_generation *g, int32_t i)
{
    static _Atomic uint64_t next_id = 1;
    const struct crd_request *r = &g->request;
    struct crd_sub *s = &g->subs[i];
    size_t n = (size_t)r->n;
    *s = (struct crd_sub){.g = g, .id = atomic_fetch_add(&next_id, 1), .prompt = &r->prompts[i],
                          .choices = &g->choices[i * r->n], .n_going = r->n, .n_unfinished = r->n};
    s->last_us = xcalloc(n, sizeof *s->last_us);
    s->by_text = xcalloc(n, sizeof *s->by_text);
    for (int32_t c = 0; c < r->n; c++)
        crd_choice_open(&s->choices[c], r, g->api->tokenizer, s->prompt, i * r->n + c);
    g->answer.usage.n_prompt += (int64_t)s->prompt->tokens.n;
}

static void submit(struct crd_sub *s)
{
    struct crd_generation *g = s->g;
    const struct crd_request *r = &g->request;
    struct gen_request q = {
        .id = s->id, .tenant = g->tenant, .weight = 1, .priority = r->priority,
        .n_prompt = (int32_t)s->prompt->tokens.n, .prompt = s->prompt->tokens.ids,
        .n = r->n, .sampling = r->sampling, .cache_salt = r->cache_salt,
        .prompt_logits = wants_prompt_logprobs(r),
    };
    s->submitted = true;
    atomic_fetch_add(&g->refs, 1);
    if (g->api->stats) crd_api_stats_submitted(g->api->stats, &q);
    g->api->service.ops->submit(g->api->service.self, &q, on_event, s);
}

static enum progress step_submit(struct crd_generation *g, struct buf *out)
{
    const struct crd_request *r = &g->request;
    (void)out;
    g->n_choices = r->n_prompts * r->n;
    g->choices = xcalloc((size_t)g->n_choices, sizeof *g->choices);
    g->subs = xcalloc((size_t)r->n_prompts, sizeof *g->subs);
    for (int32_t i = 0; i < r->n_prompts; i++) open_sub(g, i);
    g->submitted_us = clock_us();
    for (int32_t i = 0; i < r->n_prompts; i++) submit(&g->subs[i]);
    return NEXT;
}

/* ---- STREAM ---- */

/* The first bytes of a stream: it is now too late for an HTTP error. */
static void start_stream(struct crd_generation *g, struct buf *out)
{
    g->status = 200;
    if (!g->answer.format->opens) return;
    for (int32_t i = 0; i < g->n_choices; i++) crd_answer_chunk(&g->answer, &g->choices[i], DELTA_OPEN, false, out);
}

/* Is every choice's text settled? Then what is said next is the last. */
static bool all_settled(const struct crd_generation *g)
{
    for (int32_t i = 0; i < g->request.n_prompts; i++)
        if (g->subs[i].n_going) return false;
    return true;
}

static void speak(struct crd_generation *g, struct crd_choice *c, struct buf *out)
{
    if (!g->request.stream) return;
    if (!g->status) start_stream(g, out);
    if (c->text.len) crd_answer_chunk(&g->answer, c, DELTA_TEXT, false, out);
    if (c->finish) crd_answer_chunk(&g->answer, c, DELTA_FINISH, all_settled(g), out);
}

static void settle(struct crd_sub *s, bool by_text, int32_t choice)
{
    pthread_mutex_lock(&s->g->lock);
    s->by_text[choice] = by_text;
    pthread_mutex_unlock(&s->g->lock);
    s->n_going--;
}

static void set_timings(struct crd_generation *g, const struct token_event *e)
{
    struct crd_timings *t = &g->answer.timings;
    bool known = e && (e->prefill_us || e->decode_us);
    if (!known && !g->first_us) return;
    t->prompt_us = known ? e->prefill_us : g->first_us - g->submitted_us;
    t->predicted_us = known ? e->decode_us : g->last_us - g->first_us;
}

static void on_token(struct crd_generation *g, struct event *v, struct buf *out)
{
    struct crd_sub *s = v->sub;
    struct crd_choice *c = &s->choices[v->e.choice];
    int32_t before = c->n_tokens;
    if (c->finish) return; /* past its stop string, while other choices go on */
    g->last_us = clock_us();
    if (!g->first_us) g->first_us = g->last_us;
    if (!c->opened) crd_choice_echo(c, &s->prompt_logprobs);
    crd_choice_push(c, &v->token);
    g->answer.usage.n_completion += c->n_tokens - before;
    if (c->finish) {
        settle(s, true, v->e.choice);
        set_timings(g, NULL);
    }
    speak(g, c, out);
    if (!s->n_going) cancel(s);
}

static void on_choice_end(struct crd_generation *g, struct event *v, struct buf *out)
{
    struct crd_sub *s = v->sub;
    struct crd_choice *c = &s->choices[v->e.choice];
    if (v->e.choice == 0) {
        s->n_cached = v->e.n_cached;
        g->answer.usage.n_cached += s->n_cached;
        set_timings(g, &v->e);
    }
    if (c->finish) return; /* its stop string ended it */
    if (!c->opened) crd_choice_echo(c, &s->prompt_logprobs);
    crd_choice_end(c, v->e.finish);
    settle(s, false, v->e.choice);
    speak(g, c, out);
    if (!s->n_going) cancel(s);
}

/* False: the generation failed. */
static bool on_finish(struct crd_generation *g, struct event *v, struct buf *out)
{
    bool ours = v->e.err == ERR_CANCELLED && !v->sub->n_going;
    if (v->e.err && !ours) {
        crd_api_error_of(&g->error, v->e.err, v->text);
        return false;
    }
    if (v->e.choice >= 0) on_choice_end(g, v, out);
    return true;
}

static struct inbox take_events(struct crd_generation *g, bool *all_finished)
{
    pthread_mutex_lock(&g->lock);
    struct inbox b = g->inbox;
    g->inbox = (struct inbox){0};
    *all_finished = true;
    for (int32_t i = 0; i < g->request.n_prompts; i++) *all_finished &= !g->subs[i].n_unfinished;
    pthread_mutex_unlock(&g->lock);
    return b;
}

static enum progress step_stream(struct crd_generation *g, struct buf *out)
{
    bool all_finished, good = true;
    struct inbox b = take_events(g, &all_finished);
    for (size_t i = 0; i < b.n; i++) {
        struct event *v = &b.at[i];
        if (good && v->e.kind == EVENT_TOKEN) on_token(g, v, out);
        if (good && v->e.kind == EVENT_FINISH) good = on_finish(g, v, out);
        free(v->text);
    }
    free(b.at);
    if (!good) return FAILED;
    if (all_finished) return NEXT;
    if (g->request.stream && !g->status && clock_us() - g->submitted_us > SILENCE_US) start_stream(g, out);
    return WAIT;
}

/* ---- FINISH ---- */

static enum progress step_finish(struct crd_generation *g, struct buf *out)
{
    bool begun = g->status != 0;
    if (g->error.status) {
        if (begun) {
            crd_answer_fail(&g->error, out);
        } else {
            g->status = g->error.status;
            crd_api_error_json(&g->error, out);
        }
        log_debug("api", "%s: %d %s", g->answer.id, g->error.status, g->error.message);
    } else if (g->request.stream) {
        if (!begun) start_stream(g, out);
        crd_answer_end(&g->answer, out);
    } else {
        g->status = 200;
        crd_answer_whole(&g->answer, g->choices, g->n_choices, out);
    }
    return NEXT;
}
