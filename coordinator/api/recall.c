/* recall.c: a generation and the journal: what is written down when a request is handed over, and how one that another coordinator had begun
 * is begun again here.
 *
 * An answer's bytes are a function of the request's body, its name and time, what was settled (seed, max_tokens), and the events in the order
 * they came. All of that is in the journal, so the events that were numbered then are the same now, and what comes after them is what would
 * have come. A recalled generation walks the same steps; SUBMIT first puts what was said into its inbox, then asks for the rest. */
#include "coordinator/api/generation_impl.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct crd_recall {
    struct record_accept accept; /* body NULL: taken */
    struct buf records;          /* what came after ACCEPT; Own */
};

void crd_generation_journal(struct crd_generation *g, bool resumable)
{
    g->journaling = g->api->journal != NULL;
    g->resumable = resumable;
}

struct crd_generation *crd_generation_recall(struct crd_api *api, struct crd_journaled *q, struct crd_recalled *what, void (*wake)(void *user), void *user)
{
    struct rd r = crd_journaled_records(q);
    struct record_event *e = xmalloc(sizeof *e);
    struct crd_generation *g = NULL;
    size_t bytes;
    if (!record_next(&r, e, &bytes) || e->kind != RECORD_ACCEPT || e->accept.endpoint > ENDPOINT_OLLAMA_EMBEDDINGS) goto out;
    const struct record_accept *a = &e->accept;
    g = crd_generation_open(api, (enum crd_endpoint)a->endpoint, a->body, a->n_body, a->tenant, a->id, wake, user);
    g->answer.created = a->created;
    g->weight = a->weight;
    g->recall = xcalloc(1, sizeof *g->recall);
    g->recall->accept = *a;
    g->recall->accept.body = NULL;
    buf_put(&g->recall->records, r.p, rd_left(&r));
    *what = (struct crd_recalled){.tenant = a->tenant, .resumable = a->resumable};
    snprintf(what->id, sizeof what->id, "%s", a->id);
    while (record_next(&r, e, &bytes)) {
        what->ended |= e->kind == RECORD_END;
        what->n_tokens += e->kind == RECORD_TOKEN;
    }
    if (!what->ended) g->journal = q; /* the rest is written too */
out:
    free(e);
    return g;
}

void crd_recall_free(struct crd_generation *g)
{
    if (!g->recall) return;
    buf_free(&g->recall->records);
    free(g->recall);
    g->recall = NULL;
}

void crd_recall_settle(struct crd_generation *g)
{
    if (!g->recall) return;
    g->request.sampling.seed = g->recall->accept.seed;
    g->request.sampling.max_tokens = g->recall->accept.max_tokens;
}

/* ---- a new one ---- */

static void accept(struct crd_generation *g)
{
    const struct crd_request *r = &g->request;
    const char *prefix = g->answer.format->id_prefix;
    struct record_accept a = {.endpoint = (uint8_t)g->endpoint, .resumable = g->resumable, .tenant = g->tenant, .weight = g->weight,
                              .created = g->answer.created, .seed = r->sampling.seed, .max_tokens = MAX(r->sampling.max_tokens, 1),
                              .body = buf_str(&g->body), .n_body = g->body.len};
    snprintf(a.id, sizeof a.id, "%s", g->answer.id + strlen(prefix));
    struct crd_journaled *q = crd_journal_accept(g->api->journal, &a);
    pthread_mutex_lock(&g->lock);
    g->journal = q;
    pthread_mutex_unlock(&g->lock);
    buf_free(&g->body);
}

/* ---- one that had begun ---- */

static bool known_token(const struct crd_generation *g, int32_t id) { return id >= 0 && id < eng_tokenizer_size(g->api->tokenizer); }

static bool sensible(const struct crd_generation *g, const struct result_token *t)
{
    bool good = known_token(g, t->id);
    for (int32_t i = 0; i < t->n_top; i++) good &= known_token(g, t->top[i].id);
    return good;
}

static bool take_prompt(struct crd_generation *g, struct crd_sub *s, const struct record_event *e)
{
    struct rd r = rd_of(e->prompt, e->prompt_bytes);
    struct record_score t;
    if (s->prompt_known || e->n_prompt >= (int32_t)s->prompt->tokens.n + 1) return false;
    for (int32_t i = 0; i < e->n_prompt; i++) {
        if (!record_prompt_token(&r, &t) || !sensible(g, &t.token)) return false;
        struct result_score one = {t.token.id, t.token.logprob, t.rank, t.token.n_top, t.token.top};
        crd_prompt_logprobs_take(&s->prompt_logprobs, &one, 1);
    }
    s->prompt_known = s->prompt_written = true;
    return true;
}

static bool take_token(struct crd_generation *g, struct crd_sub *s, const struct record_event *e)
{
    struct crd_known *k = &s->known[e->event.choice];
    if (k->over || k->finish != FINISH_NONE || k->n >= g->request.sampling.max_tokens || !sensible(g, &e->token)) return false;
    if (k->n == k->cap) {
        k->cap = MAX(2 * k->cap, 64);
        k->ids = xrealloc(k->ids, (size_t)k->cap * sizeof *k->ids);
    }
    k->ids[k->n++] = e->token.id;
    k->finish = e->event.finish;
    crd_sub_recall(s, &e->event);
    return true;
}

static void end_choice(struct crd_sub *s, int32_t c)
{
    s->n_unfinished -= !s->known[c].over;
    s->known[c].over = true;
}

/* False: it cannot have been so; nothing after it is believed. */
static bool take_record(struct crd_generation *g, const struct record_event *e)
{
    const struct crd_request *r = &g->request;
    if (e->kind == RECORD_END) return true;
    if (e->kind == RECORD_ACCEPT || e->sub >= r->n_prompts || (e->kind != RECORD_PROMPT && e->event.choice >= r->n)) return false;
    struct crd_sub *s = &g->subs[e->sub];
    if (e->kind == RECORD_PROMPT) return take_prompt(g, s, e);
    if (e->kind == RECORD_TOKEN) return take_token(g, s, e);
    if (!s->n_unfinished) return false;
    for (int32_t c = 0; c < r->n; c++)
        if (e->event.choice < 0 || e->event.choice == c) end_choice(s, c);
    crd_sub_recall(s, &e->event);
    return true;
}

/* Their last token said so; the event itself was not written any more. */
static void end_the_finished(struct crd_generation *g)
{
    for (int32_t i = 0; i < g->request.n_prompts; i++)
        for (int32_t c = 0; c < g->request.n; c++) {
            struct crd_sub *s = &g->subs[i];
            struct crd_known *k = &s->known[c];
            if (k->over || k->finish == FINISH_NONE) continue;
            struct token_event e = {.kind = EVENT_FINISH, .choice = c, .finish = k->finish, .n_prompt = (int32_t)s->prompt->tokens.n,
                                    .n_generated = k->n};
            end_choice(s, c);
            crd_sub_recall(s, &e);
        }
}

static void recall(struct crd_generation *g)
{
    struct rd r = rd_of(g->recall->records.data, g->recall->records.len);
    struct record_event *e = xmalloc(sizeof *e);
    size_t bytes, n = 0;
    for (int32_t i = 0; i < g->request.n_prompts; i++) g->subs[i].known = xcalloc((size_t)g->request.n, sizeof(struct crd_known));
    while (record_next(&r, e, &bytes) && take_record(g, e)) n++;
    if (rd_left(&r)) log_warn("journal", "%s: record %zu of it makes no sense; it goes on from there", g->answer.id, n + 1);
    end_the_finished(g);
    free(e);
    crd_recall_free(g);
}

void crd_recall_submit(struct crd_generation *g)
{
    if (g->recall) recall(g);
    else if (g->journaling) accept(g);
    /* vectors are not written down: they are computed again, to the same bits */
    g->through = g->journal != NULL && !g->request.pool;
}
