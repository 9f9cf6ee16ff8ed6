/* head.c: see head.h. */
#include "engine/head_rows.h"
#include "engine/pool.h"

#include <stdlib.h>

void eng_head_open(struct eng_head *hd)
{
    size_t v = (size_t)hd->m->spec.n_vocab;
    hd->n_samplers = MIN(eng_team_size(hd->team), HEAD_ROWS);
    hd->samplers = xcalloc((size_t)hd->n_samplers, sizeof(struct eng_sampler *));
    for (int32_t i = 0; i < hd->n_samplers; i++) hd->samplers[i] = eng_sampler_open(hd->m->be->host, hd->m->spec.n_vocab);
    hd->slice = xmalloc(HEAD_ROWS * (size_t)hd->m->weights->head.rows * sizeof(float));
    hd->gathered = hd->m->shard.tp_width > 1 ? xmalloc(HEAD_ROWS * v * sizeof(float)) : NULL;
    hd->rows = xmalloc((size_t)hd->n_samplers * v * sizeof(float));
    hd->chosen = xcalloc((size_t)(1 + hd->m->shard.tp_width) * HEAD_ROWS, sizeof *hd->chosen);
    hd->masks = xmalloc(HEAD_ROWS * (v / 64 + 1) * sizeof *hd->masks);
    if (hd->m->shard.tp_width > 1) hd->tops = xcalloc((size_t)(1 + hd->m->shard.tp_width) * HEAD_ROWS * KRN_TOP, sizeof *hd->tops);
    hd->tokens = xcalloc((size_t)hd->slots->n_slots, sizeof *hd->tokens);
    hd->left = xcalloc((size_t)hd->slots->n_slots, sizeof *hd->left);
    eng_head_forget(hd);
}

void eng_head_close(struct eng_head *hd)
{
    for (int32_t i = 0; i < hd->n_samplers; i++) eng_sampler_close(hd->samplers[i]);
    free(hd->samplers);
    free(hd->slice);
    free(hd->gathered);
    free(hd->rows);
    free(hd->chosen);
    free(hd->masks);
    free(hd->tops);
    free(hd->tokens);
    free(hd->left);
}

/* ---- which rows ---- */

int32_t eng_rows_wanted(const struct step_plan *p, struct arena *a, struct eng_wanted **out)
{
    int32_t n = 0, row = 0;
    struct eng_wanted *w = *out = arena_alloc(a, ((size_t)step_plan_tokens(p) + 1) * sizeof *w);
    for (int32_t i = 0; i < p->n_items; i++) {
        const struct step_item *it = &p->items[i];
        for (int32_t k = 0; k < it->n_in; k++, row++) {
            int32_t first = it->n_in - 1 - it->n_draft; /* that chooses */
            bool sample = (it->out & OUT_SAMPLE) && k >= first, keep = it->out & OUT_LOGITS;
            int32_t score = !(it->out & OUT_PROMPT) ? -1 : k < it->n_in - 1 ? it->in[k + 1].id : it->next;
            int32_t guess = sample && k < it->n_in - 1 ? it->in[k + 1].id : -1;
            if (sample || keep || score >= 0) w[n++] = (struct eng_wanted){row, i, k, score, guess, sample, keep, sample && k > first};
        }
    }
    return n;
}

/* ---- rows side by side ---- */

static void rows_of_thread(void *arg, int32_t thread, int32_t n_threads)
{
    struct eng_rows *r = arg;
    for (int32_t i = thread; i < r->n && thread < r->hd->n_samplers; i += MIN(n_threads, r->hd->n_samplers)) r->fn(r, i, thread);
}

void eng_rows_run(struct eng_rows *r, void (*fn)(struct eng_rows *r, int32_t i, int32_t thread))
{
    r->fn = fn;
    if (r->n > 1) eng_team_run(r->hd->team, rows_of_thread, r);
    else rows_of_thread(r, 0, 1);
}

/* ---- the choice ---- */

enum eng_choice eng_rows_choice(const struct eng_head *hd, const struct eng_slot *s, int64_t position)
{
    return s->stopped ? CHOICE_NONE : eng_rows_way(hd, s, position);
}

enum eng_choice eng_rows_way(const struct eng_head *hd, const struct eng_slot *s, int64_t position)
{
    struct eng_history h = eng_rows_history(s);
    if (s->constraint) return CHOICE_WHOLE;
    if (eng_sampler_plain_greedy(&s->sampling, &h)) return CHOICE_GREEDY;
    if (eng_sampler_plain_draw(&s->sampling, &h, position)) return CHOICE_DRAW;
    bool apart = hd->m->shard.tp_width > 1 || !hd->m->be->on_host; /* else the whole row is here */
    return apart && eng_sampler_plain_top(&s->sampling, &h) ? CHOICE_TOP : CHOICE_WHOLE;
}

/* DRY reads the tokens' texts; the first sequence that wants it has them read. */
static enum err know_texts(struct eng_head *hd)
{
    struct eng_token_texts t = {.n = hd->m->spec.n_vocab};
    enum err rc = OK;
    if (hd->texts_known) return OK;
    TRY(eng_constraints_texts(hd->slots->constraints, &t.bytes, &t.off));
    for (int32_t i = 0; i < hd->n_samplers; i++) eng_sampler_texts(hd->samplers[i], t);
    hd->texts_known = true;
out:
    return rc;
}

/* The token of row i takes its place: in the slot, in the answer, in what the first stage is told. */
static void settle(struct eng_rows *r, int32_t i, const struct result_token *t, struct step_result *res)
{
    struct eng_head *hd = r->hd;
    const struct eng_wanted *w = &r->w[i];
    enum seq_finish f = eng_slots_sampled(eng_rows_slot(r, i), r->p->step, t->id);
    hd->tokens[hd->n_tokens - 1] = t->id;
    if (t->id != w->guess || f != FINISH_NONE) hd->over = w->item;
    if (!res->items) return;
    struct result_item *it = &res->items[w->item];
    it->tokens[it->n_tokens++] = *t;
    it->finish = f;
}

/* Its sequence has stopped, and steps in flight still ask for its tokens. Nobody reads on. */
static void repeat_last(struct eng_rows *r, int32_t i)
{
    struct eng_slot *s = eng_rows_slot(r, i);
    r->hd->tokens[r->hd->n_tokens - 1] = s->last_token;
    s->last_step = r->p->step; /* a later step in flight may name it as its input */
    r->hd->over = r->w[i].item;
}

void eng_rows_settle(struct eng_rows *r, const int32_t ids[], struct step_result *res)
{
    struct eng_head *hd = r->hd;
    for (int32_t i = 0; i < r->n; i++) {
        struct result_token t = {0};
        if (!r->w[i].sample || r->w[i].item == hd->over) continue;
        if (!r->w[i].after) hd->n_tokens++; /* one for each item, its last: the first stage counts on it */
        if (eng_rows_slot(r, i)->stopped) {
            repeat_last(r, i);
            continue;
        }
        if (ids) t.id = ids[i];
        else eng_whole_choose(r, i, &t);
        settle(r, i, &t, res);
    }
}

/* Rows [0,n) of `w` have their logits. */
static enum err choose(struct eng_head *hd, const struct step_plan *p, const struct eng_wanted *w, int32_t n, struct step_result *res)
{
    enum err rc;
    bool whole = false;
    int32_t ids[HEAD_ROWS];
    struct eng_rows r = {.hd = hd, .p = p, .w = w, .n = n};
    for (int32_t i = 0; i < n; i++) {
        r.how[i] = w[i].sample ? eng_rows_choice(hd, eng_rows_slot(&r, i), eng_rows_position(&r, i)) : CHOICE_NONE;
        whole |= w[i].keep || w[i].score >= 0 || r.how[i] == CHOICE_WHOLE;
        if (w[i].sample && sampling_dry(eng_rows_sampling(&r, i))) TRY(know_texts(hd));
    }
    TRY(whole ? eng_whole_begin(&r) : eng_slices_choose(&r, ids));
    if (whole) eng_whole_report(&r, res);
    eng_rows_settle(&r, whole ? NULL : ids, res);
out:
    return rc;
}

/* ---- the step's result ---- */

/* Room for a score of each position, n_scores of them so far. */
static void prepare_scores(const struct eng_head *hd, const struct step_item *item, struct arena *a, struct result_item *it)
{
    size_t n = (size_t)item->n_in, k = (size_t)MAX(hd->slots->slots[item->slot].sampling.n_prompt_logprobs, 0);
    struct result_score *s = arena_alloc(a, n * sizeof *s);
    struct result_logprob *top = arena_alloc(a, (n * k + 1) * sizeof *top);
    for (size_t i = 0; i < n; i++) s[i].top = top + i * k;
    it->scores = s;
}

void eng_rows_prepare(struct eng_head *hd, const struct step_plan *p, struct arena *a, struct step_result *res)
{
    hd->n_tokens = 0;
    hd->over = -1;
    if (!eng_head_answers(hd)) return;
    res->items = arena_alloc(a, (size_t)MAX(p->n_items, 1) * sizeof *res->items);
    res->n_items = p->n_items;
    for (int32_t i = 0; i < p->n_items; i++) {
        struct result_item *it = &res->items[i];
        it->slot = p->items[i].slot;
        if (p->items[i].out & OUT_PROMPT) prepare_scores(hd, &p->items[i], a, it);
        if (!(p->items[i].out & OUT_LOGITS)) continue;
        it->n_logit_rows = p->items[i].n_in;
        it->logits = arena_alloc(a, (size_t)it->n_logit_rows * (size_t)hd->m->spec.n_vocab * sizeof(float));
        res->n_vocab = hd->m->spec.n_vocab;
    }
}

/* Every rank of the stage has all hidden states; the one that answers pools them. */
static enum err pool(struct eng_head *hd, const struct step_plan *p, struct arena *a, struct step_result *res)
{
    enum err rc = OK;
    for (int32_t i = 0, row = 0; i < p->n_items; row += p->items[i++].n_in)
        if (p->items[i].out & OUT_POOL)
            TRY(eng_pool_take(hd->m, &hd->slots->slots[p->items[i].slot], &p->items[i], row, a, &res->items[i]));
out:
    return rc;
}

enum err eng_head_step(struct eng_head *hd, const struct step_plan *p, struct arena *a, struct step_result *res)
{
    enum err rc = OK;
    struct eng_wanted *w;
    int32_t n = eng_rows_wanted(p, a, &w);
    eng_rows_prepare(hd, p, a, res);
    if (eng_head_answers(hd)) TRY(pool(hd, p, a, res));
    for (int32_t i = 0; i < n; i += HEAD_ROWS) {
        int32_t rows[HEAD_ROWS], m = MIN(HEAD_ROWS, n - i);
        for (int32_t j = 0; j < m; j++) rows[j] = w[i + j].row;
        TRY(eng_forward_head(hd->m, rows, m, hd->slice));
        TRY(choose(hd, p, w + i, m, res));
    }
out:
    return rc;
}
