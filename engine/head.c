/* head.c: see head.h. */
#include "engine/head.h"
#include "engine/pool.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { HEAD_ROWS = ENG_HEAD_ROWS };

void eng_head_open(struct eng_head *hd)
{
    size_t v = (size_t)hd->m->spec.n_vocab;
    hd->n_samplers = MIN(eng_team_size(hd->team), HEAD_ROWS);
    hd->samplers = xcalloc((size_t)hd->n_samplers, sizeof(struct eng_sampler *));
    for (int32_t i = 0; i < hd->n_samplers; i++) hd->samplers[i] = eng_sampler_open(hd->m->be->host, hd->m->spec.n_vocab);
    hd->slice = xmalloc(HEAD_ROWS * (size_t)hd->m->weights->head.rows * sizeof(float));
    hd->gathered = hd->m->shard.tp_width > 1 ? xmalloc(HEAD_ROWS * v * sizeof(float)) : NULL;
    hd->rows = xmalloc((size_t)hd->n_samplers * v * sizeof(float));
    hd->chosen = xcalloc(HEAD_ROWS, sizeof *hd->chosen);
    if (hd->m->shard.tp_width > 1) hd->tops = xcalloc((size_t)(1 + hd->m->shard.tp_width) * HEAD_ROWS * KRN_TOP, sizeof *hd->tops);
    hd->tokens = xcalloc((size_t)hd->slots->n_slots, sizeof *hd->tokens);
}

void eng_head_close(struct eng_head *hd)
{
    for (int32_t i = 0; i < hd->n_samplers; i++) eng_sampler_close(hd->samplers[i]);
    free(hd->samplers);
    free(hd->slice);
    free(hd->gathered);
    free(hd->rows);
    free(hd->chosen);
    free(hd->tops);
    free(hd->tokens);
}

/* ---- which rows ---- */

/* A row of logits that somebody wants: which item, and where in it. score: the token to be scored by it, or -1. guess: the input behind it, which counts
 * only if it is what this row chooses, or -1. after: it follows such a guess. */
struct wanted { int32_t row, item, k, score, guess; bool sample, keep, after; };

static int32_t wanted_rows(const struct step_plan *p, struct wanted *w)
{
    int32_t n = 0, row = 0;
    for (int32_t i = 0; i < p->n_items; i++) {
        const struct step_item *it = &p->items[i];
        for (int32_t k = 0; k < it->n_in; k++, row++) {
            int32_t first = it->n_in - 1 - it->n_draft; /* that chooses */
            bool sample = (it->out & OUT_SAMPLE) && k >= first, keep = it->out & OUT_LOGITS;
            int32_t score = !(it->out & OUT_PROMPT) ? -1 : k < it->n_in - 1 ? it->in[k + 1].id : it->next;
            int32_t guess = sample && k < it->n_in - 1 ? it->in[k + 1].id : -1;
            if (sample || keep || score >= 0) w[n++] = (struct wanted){row, i, k, score, guess, sample, keep, sample && k > first};
        }
    }
    return n;
}

/* Where the token that a row chooses will stand: what it is drawn by. */
static int64_t position_of(const struct step_plan *p, const struct wanted *w) { return p->items[w->item].pos + w->k + 1; }

static struct eng_history history_of(const struct eng_slot *s)
{
    return (struct eng_history){.tokens = s->history, .n = s->n_history, .n_prompt = s->n_prompt, .n_generated = s->n_generated};
}

/* How a row's token comes to be. */
enum choice {
    CHOICE_NONE,   /* no token is wanted, or its sequence has stopped */
    CHOICE_GREEDY, /* the largest logit: each rank looks through its slice */
    CHOICE_DRAW,   /* the same after noise */
    CHOICE_TOP,    /* a draw among a few of the largest */
    CHOICE_WHOLE,  /* a rank must see the whole row */
};

static enum choice choice_of(const struct eng_head *hd, const struct step_plan *p, const struct wanted *w)
{
    const struct step_item *it = &p->items[w->item];
    const struct eng_slot *s = &hd->slots->slots[it->slot];
    struct eng_history h = history_of(s);
    if (!w->sample || s->stopped) return CHOICE_NONE;
    if (s->constraint) return CHOICE_WHOLE;
    if (eng_sampler_plain_greedy(&s->sampling, &h)) return CHOICE_GREEDY;
    if (eng_sampler_plain_draw(&s->sampling, &h, position_of(p, w))) return CHOICE_DRAW;
    bool apart = hd->m->shard.tp_width > 1 || !hd->m->be->on_host; /* else the whole row is here */
    return apart && eng_sampler_plain_top(&s->sampling, &h) ? CHOICE_TOP : CHOICE_WHOLE;
}

/* ---- rows side by side ---- */

/* Rows [0,n) shared by the team: fn(job, row, thread). */
struct rows {
    struct eng_head *hd;
    const struct step_plan *p;
    const struct wanted *w;
    int32_t n;
    void (*fn)(struct rows *r, int32_t i, int32_t thread);
    enum choice how[HEAD_ROWS];
    struct krn_pick best[HEAD_ROWS]; /* of this rank's slice, then of all */
    struct krn_pick top[HEAD_ROWS][KRN_TOP]; /* of this rank's slice */
    float max[HEAD_ROWS];
};

static void rows_of_thread(void *arg, int32_t thread, int32_t n_threads)
{
    struct rows *r = arg;
    for (int32_t i = thread; i < r->n && thread < r->hd->n_samplers; i += MIN(n_threads, r->hd->n_samplers)) r->fn(r, i, thread);
}

static void run_rows(struct rows *r, void (*fn)(struct rows *r, int32_t i, int32_t thread))
{
    r->fn = fn;
    if (r->n > 1) eng_team_run(r->hd->team, rows_of_thread, r);
    else rows_of_thread(r, 0, 1);
}

/* ---- what the ranks of the stage tell each other ---- */

static void slice_best(struct rows *r, int32_t i, int32_t thread)
{
    const struct eng_model *m = r->hd->m;
    int32_t v = m->weights->head.rows;
    const float *x = r->hd->slice + (int64_t)i * v;
    int32_t id = v ? m->be->host->argmax(x, v) : -1;
    (void)thread;
    r->best[i] = (struct krn_pick){v ? x[id] : -INFINITY, v ? m->shard.embd0 + id : INT32_MAX};
}

static bool draws(const struct rows *r, int32_t i) { return r->how[i] == CHOICE_DRAW && r->max[i] > -INFINITY; }
static bool among_top(const struct rows *r, int32_t i) { return r->how[i] == CHOICE_TOP && r->max[i] > -INFINITY; }

static const struct sampling *sampling_of(const struct rows *r, int32_t i)
{
    return &r->hd->slots->slots[r->p->items[r->w[i].item].slot].sampling;
}

static void slice_draw(struct rows *r, int32_t i, int32_t thread)
{
    struct eng_head *hd = r->hd;
    int32_t v = hd->m->weights->head.rows, id0 = hd->m->shard.embd0;
    float *x = hd->slice + (int64_t)i * v;
    if (draws(r, i)) r->best[i] = eng_sampler_draw(hd->samplers[thread], x, v, id0, r->max[i], sampling_of(r, i), position_of(r->p, &r->w[i]));
    else if (among_top(r, i)) eng_sampler_top(hd->samplers[thread], x, v, id0, r->max[i], sampling_of(r, i), r->top[i]);
}

/* The same on a device, whose logits do not come over. */
static enum err best_there(struct rows *r)
{
    struct eng_model *m = r->hd->m;
    enum err e = m->weights->head.rows ? eng_forward_best(m, r->n, r->best) : OK;
    for (int32_t i = 0; i < r->n; i++) {
        if (!m->weights->head.rows) r->best[i] = (struct krn_pick){-INFINITY, INT32_MAX};
        else r->best[i].id += m->shard.embd0;
    }
    return e;
}

/* into[i] of rows that are drawn. over NULL: of the largest logit of this rank's slice, which then is r->best too. */
static enum err draw_there(struct rows *r, const struct krn_pick over[], struct krn_pick into[])
{
    struct eng_model *m = r->hd->m;
    struct krn_noise how[HEAD_ROWS] = {{0}};
    struct krn_pick best[HEAD_ROWS], drawn[HEAD_ROWS];
    for (int32_t i = 0; i < r->n; i++) {
        if (r->how[i] == CHOICE_DRAW || r->how[i] == CHOICE_TOP) how[i] = eng_sampler_noise(sampling_of(r, i), position_of(r->p, &r->w[i]));
        if (r->how[i] == CHOICE_TOP) how[i].top = sampling_of(r, i)->top_k;
        for (int32_t k = 0; k < how[i].top && !m->weights->head.rows; k++) r->top[i][k] = (struct krn_pick){-INFINITY, -1};
    }
    enum err e = m->weights->head.rows ? eng_forward_draw(m, r->n, how, over, best, drawn, r->top) : OK;
    for (int32_t i = 0; i < r->n && !e; i++) {
        if (r->how[i] == CHOICE_DRAW) into[i] = m->weights->head.rows ? drawn[i] : (struct krn_pick){-INFINITY, -1};
        if (!over) r->best[i] = (struct krn_pick){best[i].z, best[i].id + m->shard.embd0};
    }
    return e;
}

/* Every rank's best of each row, and of these the best; ties go to the lowest id, and slices are in id order. */
static enum err best_of_all(struct rows *r)
{
    struct krn_pick all[HEAD_ROWS * COLL_MAX_RANKS];
    const struct eng_model *m = r->hd->m;
    int64_t bytes[COLL_MAX_RANKS];
    if (m->shard.tp_width == 1) return OK;
    for (int32_t k = 0; k < m->shard.tp_width; k++) bytes[k] = r->n * (int64_t)sizeof *all;
    enum err e = trn_coll_all_gather(m->tp, r->best, bytes, all, m->timeout_us);
    for (int32_t i = 0; i < r->n && !e; i++) {
        r->best[i] = all[i];
        for (int32_t k = 1; k < m->shard.tp_width; k++)
            if (r->best[i].id < 0 || all[k * r->n + i].z > r->best[i].z) r->best[i] = all[k * r->n + i];
    }
    return e;
}

/* A draw among every rank's best of each such row. */
static enum err choose_among_tops(struct rows *r, int32_t ids[])
{
    enum err rc = OK;
    struct eng_head *hd = r->hd;
    int32_t n = 0, width = hd->m->shard.tp_width;
    int64_t bytes[COLL_MAX_RANKS];
    for (int32_t i = 0; i < r->n; i++) {
        if (!among_top(r, i)) continue;
        if (width > 1) memcpy(hd->tops + n, r->top[i], (size_t)sampling_of(r, i)->top_k * sizeof **r->top);
        n += sampling_of(r, i)->top_k;
    }
    for (int32_t k = 0; k < width; k++) bytes[k] = n * (int64_t)sizeof *hd->tops;
    struct krn_pick *all = hd->tops + HEAD_ROWS * KRN_TOP, one[COLL_MAX_RANKS * KRN_TOP];
    if (n && width > 1) TRY(trn_coll_all_gather(hd->m->tp, hd->tops, bytes, all, hd->m->timeout_us));
    for (int32_t i = 0, at = 0; i < r->n; i++) {
        if (!among_top(r, i)) continue;
        int32_t each = sampling_of(r, i)->top_k;
        for (int32_t k = 0; k < width; k++) memcpy(one + k * each, width > 1 ? all + k * n + at : r->top[i], (size_t)each * sizeof *one);
        int32_t id = eng_sampler_among(hd->samplers[0], one, width * each, sampling_of(r, i), position_of(r->p, &r->w[i]));
        if (id >= 0) ids[i] = id;
        at += each;
    }
out:
    return rc;
}

/* Tokens of rows that no rank must see whole. A rank on a device that is alone need not wait between the two looks. */
static enum err choose_by_slices(struct rows *r, int32_t ids[])
{
    enum err rc = OK;
    const struct eng_model *m = r->hd->m;
    struct krn_pick drawn[HEAD_ROWS];
    bool any = false, there = !m->be->on_host, alone = there && m->shard.tp_width == 1;
    for (int32_t i = 0; i < r->n; i++) any |= r->how[i] == CHOICE_DRAW || r->how[i] == CHOICE_TOP;
    if (alone && any) TRY(draw_there(r, NULL, drawn));
    else if (there) TRY(best_there(r));
    else run_rows(r, slice_best);
    TRY(best_of_all(r));
    for (int32_t i = 0; i < r->n; i++) {
        ids[i] = r->best[i].id;
        r->max[i] = r->best[i].z;
    }
    if (!any) return OK;
    if (!there) run_rows(r, slice_draw);
    else if (!alone) TRY(draw_there(r, r->best, drawn));
    for (int32_t i = 0; i < r->n && there; i++)
        if (draws(r, i)) r->best[i] = drawn[i];
    TRY(best_of_all(r));
    for (int32_t i = 0; i < r->n; i++)
        if (draws(r, i) && r->best[i].id >= 0) ids[i] = r->best[i].id;
    rc = choose_among_tops(r, ids);
out:
    return rc;
}

/* Whole rows on every rank of the stage: gathered[] holds the slices rank after rank. */
static enum err gather_rows(struct eng_head *hd, int32_t n)
{
    const struct eng_shard *h = &hd->m->shard;
    int64_t bytes[COLL_MAX_RANKS];
    if (h->tp_width == 1) return OK;
    for (int32_t r = 0; r < h->tp_width; r++)
        bytes[r] = (int64_t)n * (h->vocab_bounds[r + 1] - h->vocab_bounds[r]) * (int64_t)sizeof(float);
    return trn_coll_all_gather(hd->m->tp, hd->slice, bytes, hd->gathered, hd->m->timeout_us);
}

static void take_row(const struct eng_head *hd, int32_t n, int32_t i, float *row)
{
    const struct eng_shard *h = &hd->m->shard;
    const float *from = h->tp_width == 1 ? hd->slice : hd->gathered;
    for (int32_t r = 0; r < h->tp_width; r++) {
        int32_t v0 = h->vocab_bounds[r], v = h->vocab_bounds[r + 1] - v0;
        memcpy(row + v0, from + (int64_t)n * v0 + (int64_t)i * v, (size_t)v * sizeof(float));
    }
}

/* ---- the choice ---- */

static void sampled(struct eng_head *hd, const struct step_plan *p, const struct wanted *w, struct eng_slot *s,
                    const struct result_token *t, struct step_result *res)
{
    enum seq_finish f = eng_slots_sampled(s, p->step, t->id);
    hd->tokens[hd->n_tokens - 1] = t->id;
    if (t->id != w->guess || f != FINISH_NONE) hd->over = w->item;
    if (!res->items) return;
    struct result_item *it = &res->items[w->item];
    it->tokens[it->n_tokens++] = *t;
    it->finish = f;
}

/* Row i of n into *t, kept to the slot's grammar. Where the tokens left would not suffice to end the text after the first choice, it is made
 * again among those after which they do. */
static void choose_constrained(struct eng_head *hd, struct eng_slot *s, int32_t n, int32_t i, int64_t position, struct result_token *t)
{
    struct eng_history h = history_of(s);
    struct sampling p = s->sampling;
    bool forced;
    int32_t left = p.max_tokens - s->n_generated - 1;
    const uint64_t *mask = eng_constraint_mask(s->constraint, &p, &forced);
    if (forced) p.min_tokens = 0;
    eng_sampler_pick(hd->samplers[0], hd->rows, &p, &h, mask, position, t);
    if (forced || eng_constraint_fits(s->constraint, t->id, left)) return;
    mask = eng_constraint_mask_within(s->constraint, &p, left);
    if (!mask) return;
    take_row(hd, n, i, hd->rows);
    p.min_tokens = 0;
    eng_sampler_pick(hd->samplers[0], hd->rows, &p, &h, mask, position, t);
}

/* A whole row's token by the sampler's rules alone. */
static void pick(struct rows *r, int32_t i, int32_t thread)
{
    struct eng_head *hd = r->hd;
    const struct eng_slot *s = &hd->slots->slots[r->p->items[r->w[i].item].slot];
    struct eng_history h = history_of(s);
    float *row = hd->rows + (int64_t)thread * hd->m->spec.n_vocab;
    take_row(hd, r->n, i, row);
    eng_sampler_pick(hd->samplers[thread], row, &s->sampling, &h, NULL, position_of(r->p, &r->w[i]), &hd->chosen[i]);
}

/* Those that depend on no other row of this step: a grammar's state and what lies behind a guess come after. */
static void pick_free(struct rows *r, int32_t i, int32_t thread)
{
    bool bound = r->w[i].after || r->hd->slots->slots[r->p->items[r->w[i].item].slot].constraint;
    if (r->how[i] != CHOICE_NONE && !bound) pick(r, i, thread);
}

/* How likely a token of the prompt was; rows come in order. */
static void score(struct eng_head *hd, const struct eng_slot *s, const struct wanted *w, struct result_item *it)
{
    struct result_score *to = (struct result_score *)it->scores + it->n_scores++;
    struct result_logprob *top = (struct result_logprob *)to->top;
    eng_sampler_score(hd->samplers[0], hd->rows, w->score, s->sampling.n_prompt_logprobs, top, to);
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

/* What is wanted of a whole row besides a token, while the row is as it came. */
static void report(struct eng_head *hd, const struct step_plan *p, const struct wanted *w, int32_t n, int32_t i, struct step_result *res)
{
    if (!res->items || (!w[i].keep && w[i].score < 0)) return;
    struct result_item *it = &res->items[w[i].item];
    size_t v = (size_t)hd->m->spec.n_vocab;
    take_row(hd, n, i, hd->rows);
    if (w[i].keep) memcpy((float *)it->logits + (size_t)w[i].k * v, hd->rows, v * sizeof(float));
    if (w[i].score >= 0) score(hd, &hd->slots->slots[p->items[w[i].item].slot], &w[i], it);
}

/* Rows [0,n) of `w` have their logits: in hd->slice, on a device there. */
static enum err choose(struct eng_head *hd, const struct step_plan *p, const struct wanted *w, int32_t n, struct step_result *res)
{
    enum err rc;
    bool whole = false;
    int32_t ids[HEAD_ROWS];
    struct rows r = {.hd = hd, .p = p, .w = w, .n = n};
    for (int32_t i = 0; i < n; i++) {
        const struct sampling *s = &hd->slots->slots[p->items[w[i].item].slot].sampling;
        r.how[i] = choice_of(hd, p, &w[i]);
        whole |= w[i].keep || w[i].score >= 0 || r.how[i] == CHOICE_WHOLE;
        if (w[i].sample && sampling_dry(s)) TRY(know_texts(hd));
    }
    if (whole) {
        TRY(eng_forward_logits(hd->m, n, hd->slice));
        TRY(gather_rows(hd, n));
        for (int32_t i = 0; i < n; i++) report(hd, p, w, n, i, res);
        run_rows(&r, pick_free);
    } else {
        TRY(choose_by_slices(&r, ids));
    }
    for (int32_t i = 0; i < n; i++) {
        struct eng_slot *s = &hd->slots->slots[p->items[w[i].item].slot];
        struct result_token t = {0};
        if (!w[i].sample || w[i].item == hd->over) continue;
        if (!w[i].after) hd->n_tokens++; /* one for each item, its last: the first stage counts on it */
        if (s->stopped) {
            hd->tokens[hd->n_tokens - 1] = s->last_token; /* nobody reads on */
            s->last_step = p->step;                   /* a later step in flight may still name it as its input */
            hd->over = w[i].item;
            continue;
        }
        if (s->constraint) {
            take_row(hd, n, i, hd->rows);
            choose_constrained(hd, s, n, i, position_of(p, &w[i]), &t);
        } else if (whole) {
            if (w[i].after) pick(&r, i, 0);
            t = hd->chosen[i];
        } else {
            t.id = ids[i];
        }
        sampled(hd, p, &w[i], s, &t, res);
    }
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

static void prepare_result(struct eng_head *hd, const struct step_plan *p, struct arena *a, struct step_result *res)
{
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
    struct wanted *w = arena_alloc(a, ((size_t)step_plan_tokens(p) + 1) * sizeof *w);
    int32_t n = wanted_rows(p, w);
    if (eng_head_answers(hd)) prepare_result(hd, p, a, res);
    if (eng_head_answers(hd)) TRY(pool(hd, p, a, res));
    hd->n_tokens = 0;
    hd->over = -1;
    for (int32_t i = 0; i < n; i += HEAD_ROWS) {
        int32_t rows[HEAD_ROWS], m = MIN(HEAD_ROWS, n - i);
        for (int32_t j = 0; j < m; j++) rows[j] = w[i + j].row;
        TRY(eng_forward_head(hd->m, rows, m, hd->slice));
        TRY(choose(hd, p, w + i, m, res));
    }
out:
    return rc;
}
