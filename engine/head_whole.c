/* head_whole.c: see head_rows.h. */
#include "engine/head_rows.h"

#include <string.h>

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

/* Row i by the sampler's rules, and the grammar's. */
static void pick(struct eng_rows *r, int32_t i, int32_t thread)
{
    struct eng_head *hd = r->hd;
    const struct eng_slot *s = eng_rows_slot(r, i);
    struct eng_history h = eng_rows_history(s);
    struct sampling p = s->sampling;
    float *row = hd->rows + (int64_t)thread * hd->m->spec.n_vocab;
    if (r->forced[i]) p.min_tokens = 0;
    take_row(hd, r->n, i, row);
    eng_sampler_pick(hd->samplers[thread], row, &p, &h, r->mask[i], eng_rows_position(r, i), &hd->chosen[i]);
}

/* What lies behind a guess waits for the token before it. */
static bool is_free(const struct eng_rows *r, int32_t i) { return r->how[i] != CHOICE_NONE && !r->w[i].after; }

/* Which rank of the stage chooses it: each a part of those that are free. One alone is chosen by all, who else would wait. */
static int32_t chooser(const struct eng_rows *r, int32_t i)
{
    int32_t before = 0, n = 0;
    for (int32_t k = 0; k < r->n; k++) {
        before += k < i && is_free(r, k);
        n += is_free(r, k);
    }
    return n > 1 ? before % r->hd->m->shard.tp_width : r->hd->m->shard.tp_rank;
}

static void pick_free(struct eng_rows *r, int32_t i, int32_t thread)
{
    if (is_free(r, i) && chooser(r, i) == r->hd->m->shard.tp_rank) pick(r, i, thread);
}

/* What the others have chosen. */
static enum err hear(struct eng_rows *r)
{
    const struct eng_shard *h = &r->hd->m->shard;
    struct result_token *all = r->hd->chosen + HEAD_ROWS;
    int64_t bytes[COLL_MAX_RANKS];
    int32_t n = 0;
    for (int32_t i = 0; i < r->n; i++) n += is_free(r, i);
    if (n < 2 || h->tp_width == 1) return OK;
    for (int32_t k = 0; k < h->tp_width; k++) bytes[k] = r->n * (int64_t)sizeof *all;
    enum err e = trn_coll_all_gather(r->hd->m->tp, r->hd->chosen, bytes, all, r->hd->m->timeout_us);
    for (int32_t i = 0; i < r->n && !e; i++)
        if (is_free(r, i)) r->hd->chosen[i] = all[chooser(r, i) * r->n + i];
    return e;
}

/* Grammars share what they have learned, so masks are looked up by one thread. */
static void look_up(struct eng_rows *r, int32_t i)
{
    struct eng_slot *s = eng_rows_slot(r, i);
    const size_t words = (size_t)r->hd->m->spec.n_vocab / 64 + 1;
    if (!s->constraint) return;
    uint64_t *to = r->hd->masks + (size_t)i * words;
    r->mask[i] = memcpy(to, eng_constraint_mask(s->constraint, &s->sampling, &r->forced[i]), words * sizeof *to);
}

enum err eng_whole_begin(struct eng_rows *r)
{
    enum err rc;
    TRY(eng_forward_logits(r->hd->m, r->n, r->hd->slice));
    TRY(gather_rows(r->hd, r->n));
    for (int32_t i = 0; i < r->n; i++)
        if (is_free(r, i)) look_up(r, i);
    eng_rows_run(r, pick_free);
    TRY(hear(r));
out:
    return rc;
}

/* Where the tokens left would not suffice to end the text after the first choice, it is made again among those after which they do. */
static void end_in_time(struct eng_rows *r, int32_t i)
{
    struct eng_slot *s = eng_rows_slot(r, i);
    struct sampling p = s->sampling;
    int32_t left = p.max_tokens - s->n_generated - 1;
    if (r->forced[i] || eng_constraint_fits(s->constraint, r->hd->chosen[i].id, left)) return;
    const uint64_t *mask = eng_constraint_mask_within(s->constraint, &p, left);
    if (!mask) return;
    r->mask[i] = mask;
    r->forced[i] = true; /* min_tokens or not */
    pick(r, i, 0);
}

void eng_whole_choose(struct eng_rows *r, int32_t i, struct result_token *t)
{
    if (r->w[i].after) {
        look_up(r, i);
        pick(r, i, 0);
    }
    if (eng_rows_slot(r, i)->constraint) end_in_time(r, i);
    *t = r->hd->chosen[i];
}

/* How likely a token of the prompt was; rows come in order. */
static void score(struct eng_head *hd, const struct eng_slot *s, const struct eng_wanted *w, struct result_item *it)
{
    struct result_score *to = (struct result_score *)it->scores + it->n_scores++;
    struct result_logprob *top = (struct result_logprob *)to->top;
    eng_sampler_score(hd->samplers[0], hd->rows, w->score, s->sampling.n_prompt_logprobs, top, to);
}

void eng_whole_report(struct eng_rows *r, struct step_result *res)
{
    struct eng_head *hd = r->hd;
    size_t v = (size_t)hd->m->spec.n_vocab;
    for (int32_t i = 0; i < r->n && res->items; i++) {
        const struct eng_wanted *w = &r->w[i];
        struct result_item *it = &res->items[w->item];
        if (!w->keep && w->score < 0) continue;
        take_row(hd, r->n, i, hd->rows);
        if (w->keep) memcpy((float *)it->logits + (size_t)w->k * v, hd->rows, v * sizeof(float));
        if (w->score >= 0) score(hd, eng_rows_slot(r, i), w, it);
    }
}
