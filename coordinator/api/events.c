/* events.c: a generation and the service: requests out, events in, on whatever thread they come.
 *
 * What happens is measured here, when it happens, so that a client who reads slowly does not
 * distort it. */
#include "coordinator/api/generation_impl.h"
#include "base/clock.h"
#include "coordinator/api/api_metrics.h"

#include <stdlib.h>
#include <string.h>

static void inbox_put(struct crd_inbox *b, struct crd_sub *s, const struct token_event *e)
{
    if (b->n == b->cap) {
        b->cap = MAX(b->cap * 2, 16);
        b->at = xrealloc(b->at, b->cap * sizeof *b->at);
    }
    struct crd_event *v = &b->at[b->n++];
    *v = (struct crd_event){.sub = s, .e = *e, .text = e->text ? xstrdup(e->text) : NULL};
    if (e->token) v->token = *e->token;
}

static void measure_token(struct crd_sub *s, const struct token_event *e, int64_t now_us)
{
    struct crd_api_stats *stats = s->g->api->stats;
    int64_t *last = &s->last_us[e->choice];
    if (!stats) return;
    if (*last)
        crd_api_stats_next_token(stats, e->engine, now_us - *last);
    else
        crd_api_stats_first_token(stats, e->engine, now_us - s->g->arrived_us,
                                  e->choice ? 0 : (int32_t)s->prompt->tokens.n);
    *last = now_us;
}

static void measure_end(struct crd_sub *s, const struct token_event *e, int64_t now_us)
{
    enum crd_ended how = e->finish == FINISH_STOP ? ENDED_STOP : ENDED_LENGTH;
    if (e->err == ERR_CANCELLED)
        how = e->choice >= 0 && s->by_text[e->choice] ? ENDED_STOP : ENDED_ABORT;
    else if (e->err)
        how = ENDED_ERROR;
    if (s->g->api->stats) crd_api_stats_ended(s->g->api->stats, e, how, now_us - s->g->arrived_us);
}

/* Read by the owner after the finish that follows. */
static void take_vector(struct crd_sub *s, const struct token_event *e)
{
    struct crd_choice *c = &s->choices[e->choice];
    size_t bytes = (size_t)e->n_pooled * sizeof *c->vector;
    c->vector = xrealloc(c->vector, bytes);
    memcpy(c->vector, e->pooled, bytes);
    c->n_vector = e->n_pooled;
    if (s->g->api->stats)
        crd_api_stats_pooled(s->g->api->stats, e->engine, (int32_t)s->prompt->tokens.n);
}

/* On the thread it came on, or on the journal's. */
static void deliver(void *user, const struct token_event *e)
{
    struct crd_sub *s = user;
    struct crd_generation *g = s->g;
    int64_t now_us = clock_us();
    bool last = false;
    pthread_mutex_lock(&g->lock);
    if (e->kind == EVENT_TOKEN) measure_token(s, e, now_us);
    if (e->kind == EVENT_POOLED) take_vector(s, e);
    if (e->kind == EVENT_FINISH) {
        measure_end(s, e, now_us);
        s->n_unfinished -= e->choice < 0 ? s->n_unfinished : 1;
        last = !s->n_unfinished;
        if (last && g->api->stats) crd_api_stats_over(g->api->stats, e->engine, &g->request);
    }
    if (!g->closed && e->kind != EVENT_POOLED) {
        inbox_put(&g->inbox, s, e);
        g->wake(g->user);
    }
    pthread_mutex_unlock(&g->lock);
    if (last) crd_generation_unref(g);
}

static bool write_prompt(struct crd_journaled *q, int32_t sub, const struct crd_prompt_logprobs *p)
{
    struct record_score *scores = xmalloc((size_t)p->n * sizeof *scores);
    for (int32_t i = 0; i < p->n; i++)
        scores[i] = (struct record_score){p->at[i].token, p->at[i].rank};
    bool written = crd_journaled_prompt(q, sub, scores, p->n);
    free(scores);
    return written;
}

/* By way of the journal: it is handed on once it is written; all of a request's events go that way,
 * so that they stay in order. */
static void write_down(struct crd_sub *s, const struct token_event *e)
{
    struct crd_generation *g = s->g;
    int32_t sub = (int32_t)(s - g->subs);
    pthread_mutex_lock(&g->lock);
    struct crd_journaled *q = g->journal;
    if (q && s->prompt_logprobs.n && !s->prompt_written && !write_prompt(q, sub, &s->prompt_logprobs)) {
        crd_journaled_end(q, false); /* it is served, and would not survive this coordinator */
        q = g->journal = NULL;
    }
    s->prompt_written = true;
    if (q)
        crd_journaled_event(q, sub, e, deliver, s);
    else
        crd_journal_pass(g->api->journal, e, deliver, s);
    pthread_mutex_unlock(&g->lock);
}

static void on_event(void *user, const struct token_event *e)
{
    struct crd_sub *s = user;
    struct crd_generation *g = s->g;
    if (e->kind == EVENT_SCORES) { /* read by the owner after a token that comes later */
        crd_prompt_logprobs_take(&s->prompt_logprobs, e->scores, e->n_scores);
        return;
    }
    if (g->through)
        write_down(s, e);
    else
        deliver(s, e);
}

void crd_sub_recall(struct crd_sub *s, const struct token_event *e)
{
    struct crd_generation *g = s->g;
    pthread_mutex_lock(&g->lock);
    inbox_put(&g->inbox, s, e);
    pthread_mutex_unlock(&g->lock);
}

void crd_sub_submit(struct crd_sub *s)
{
    struct crd_generation *g = s->g;
    const struct crd_request *r = &g->request;
    struct gen_request q = {
        .id = s->id,
        .tenant = g->tenant,
        .weight = g->weight,
        .priority = r->priority,
        .n_prompt = (int32_t)s->prompt->tokens.n,
        .prompt = s->prompt->tokens.ids,
        .n_likely = (int32_t)r->prediction.tokens.n,
        .likely = r->prediction.tokens.ids,
        .n = r->n,
        .sampling = r->sampling,
        .grammar = r->grammar,
        .cache_salt = r->cache_salt,
        .adapter = r->adapter,
        .pool = r->pool,
    };
    struct gen_known *known = s->known ? xcalloc((size_t)r->n, sizeof *known) : NULL;
    for (int32_t i = 0; known && i < r->n; i++)
        known[i] = (struct gen_known){s->known[i].n, s->known[i].ids, s->known[i].over};
    q.known = known;
    if (s->prompt_known) q.sampling.n_prompt_logprobs = -1; /* the journal has them */
    s->submitted = true;
    atomic_fetch_add(&g->refs, 1);
    g->api->service.ops->submit(g->api->service.self, &q, on_event, s);
    free(known);
}

void crd_sub_cancel(struct crd_sub *s)
{
    struct crd_generation *g = s->g;
    pthread_mutex_lock(&g->lock);
    bool needed = s->submitted && s->n_unfinished && !s->cancelled;
    s->cancelled = true;
    pthread_mutex_unlock(&g->lock);
    if (needed) g->api->service.ops->cancel(g->api->service.self, s->id);
}

struct crd_inbox crd_generation_take(struct crd_generation *g, bool *all_finished)
{
    pthread_mutex_lock(&g->lock);
    struct crd_inbox b = g->inbox;
    g->inbox = (struct crd_inbox){0};
    *all_finished = true;
    for (int32_t i = 0; i < g->request.n_prompts; i++) *all_finished &= !g->subs[i].n_unfinished;
    pthread_mutex_unlock(&g->lock);
    return b;
}

void crd_sub_ended_by_text(struct crd_sub *s, int32_t choice)
{
    pthread_mutex_lock(&s->g->lock);
    s->by_text[choice] = true;
    pthread_mutex_unlock(&s->g->lock);
}
