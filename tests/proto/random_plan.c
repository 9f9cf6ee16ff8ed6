/* random_plan.c: see random_plan.h. */
#include "tests/proto/random_plan.h"

#include "base/rng.h"

#include <string.h>

uint64_t dice_u64(struct dice *d) { return rng_at(d->seed, d->n++, 0, 0); }

int32_t dice_in(struct dice *d, int32_t lo, int32_t hi)
{
    return lo + (int32_t)(dice_u64(d) % (uint64_t)((int64_t)hi - lo + 1));
}

static float dice_f32(struct dice *d, float lo, float hi)
{
    return lo + (hi - lo) * rng_unit(dice_u64(d));
}

static int32_t *random_ids(struct dice *d, int32_t n, int32_t limit, struct arena *a)
{
    int32_t *ids = n ? arena_alloc(a, (size_t)n * sizeof *ids) : NULL;
    for (int32_t i = 0; i < n; i++) ids[i] = dice_in(d, 0, limit - 1);
    return ids;
}

static struct sampling random_sampling(struct dice *d, int32_t n_vocab, struct arena *a)
{
    struct sampling s = sampling_default();
    s.temperature = dice_in(d, 0, 1) ? dice_f32(d, 0, 2) : 0;
    s.top_p = dice_f32(d, 0.01f, 1);
    s.min_p = dice_f32(d, 0, 1);
    s.top_k = dice_in(d, 0, 100);
    s.presence_penalty = dice_f32(d, -2, 2);
    s.frequency_penalty = dice_f32(d, -2, 2);
    s.repetition_penalty = dice_f32(d, 0.5f, 2);
    s.seed = dice_u64(d);
    s.choice = dice_in(d, 0, 7);
    s.n_logprobs = dice_in(d, -1, LIMIT_LOGPROBS);
    s.max_tokens = dice_in(d, 1, 4096);
    s.min_tokens = dice_in(d, 0, 16);
    s.ignore_eos = dice_in(d, 0, 1);
    s.n_stop_ids = dice_in(d, 0, 5);
    for (int32_t i = 0; i < s.n_stop_ids; i++) s.stop_ids[i] = dice_in(d, 0, n_vocab - 1);
    s.n_bias = dice_in(d, 0, 3);
    if (s.n_bias) s.bias = arena_alloc(a, (size_t)s.n_bias * sizeof *s.bias);
    for (int32_t i = 0; i < s.n_bias; i++)
        s.bias[i] = (struct logit_bias){dice_in(d, 0, n_vocab - 1), dice_f32(d, -100, 100)};
    s.typical_p = dice_f32(d, 0.01f, 1);
    s.penalty_last_n = dice_in(d, -1, 99);
    s.dry_multiplier = dice_f32(d, 0, 2);
    s.dry_base = dice_f32(d, 1, 3);
    s.dry_allowed_length = dice_in(d, 0, 9);
    s.dry_last_n = dice_in(d, -1, 99);
    s.xtc_probability = dice_f32(d, 0, 1);
    s.xtc_threshold = dice_f32(d, 0, 1);
    s.n_prompt_logprobs = dice_in(d, -1, LIMIT_LOGPROBS);
    s.think_budget = dice_in(d, -1, 99);
    s.thinking = dice_in(d, 0, 1);
    s.n_think_open = dice_in(d, 0, 2);
    s.n_think_close = dice_in(d, 0, 2);
    for (int32_t i = 0; i < 2; i++)
        s.think_open[i] = dice_in(d, 0, n_vocab - 1), s.think_close[i] = dice_in(d, 0, n_vocab - 1);
    s.n_allowed = dice_in(d, 0, 3);
    s.allowed = random_ids(d, s.n_allowed, n_vocab, a);
    s.n_bad = dice_in(d, 0, 1) ? 5 : 0; /* two words, of one and of two ids */
    s.bad = random_ids(d, s.n_bad, n_vocab, a);
    if (s.n_bad) s.bad[0] = 1, s.bad[2] = 2;
    s.n_breakers = dice_in(d, 0, 1) ? 5 : 0;
    if (s.n_breakers) s.breakers = memcpy(arena_alloc(a, 5), "\1\n\2: ", 5);
    return s;
}

static struct grammar_source random_grammar(struct dice *d, struct arena *a)
{
    struct grammar_source g = {.kind = (enum grammar_kind)dice_in(d, GRAMMAR_NONE, GRAMMAR_LAST)};
    if (g.kind == GRAMMAR_NONE) return g;
    g.n = dice_in(d, 0, 40);
    char *text = arena_alloc(a, 41);
    for (int32_t i = 0; i < g.n; i++) text[i] = (char)dice_in(d, 0, 255);
    g.flags = (uint32_t)dice_in(d, 0, GRAMMAR_FLAGS);
    g.text = text;
    g.hash = grammar_hash(&g);
    return g;
}

/* All of them, shuffled: two items are never of one slot. */
static int32_t *random_slots(struct dice *d, int32_t n, struct arena *a)
{
    int32_t *slots = arena_alloc(a, (size_t)n * sizeof *slots);
    for (int32_t i = 0; i < n; i++) slots[i] = i;
    for (int32_t i = n - 1; i > 0; i--) {
        int32_t j = dice_in(d, 0, i), slot = slots[i];
        slots[i] = slots[j];
        slots[j] = slot;
    }
    return slots;
}

static void random_item(struct dice *d, const struct step_bounds *b, uint64_t step,
                        struct step_item *it, struct arena *a)
{
    it->pos = dice_in(d, 0, b->context - 16);
    it->n_in = dice_in(d, 1, 15);
    it->next = -1;
    it->out = (uint32_t)dice_in(d, 0, 3) | (dice_in(d, 0, 1) ? OUT_POOL : 0);
    bool scored = dice_in(d, 0, 1);
    if (scored) it->out |= OUT_PROMPT, it->next = dice_in(d, -1, b->n_vocab - 1);
    bool guessed = !scored && it->n_in > 1 && dice_in(d, 0, 1);
    if (guessed) it->out = OUT_SAMPLE | OUT_DRAFT, it->n_draft = dice_in(d, 1, MIN(it->n_in, (int32_t)LIMIT_RESULT_TOKENS) - 1);
    struct step_in *in = arena_alloc(a, (size_t)it->n_in * sizeof *in);
    for (int32_t j = 0; j < it->n_in; j++) {
        in[j].id = step > 1 && !scored && !guessed ? dice_in(d, -1, b->n_vocab - 1) : dice_in(d, 0, b->n_vocab - 1);
        if (in[j].id >= 0) continue;
        in[j].ref_step = 1 + dice_u64(d) % (step - 1);
        in[j].ref_slot = dice_in(d, 0, b->n_slots - 1);
    }
    it->in = in;
}

#define NEW(a, n) ((n) ? arena_alloc(a, (size_t)(n) * 1024) : NULL) /* 1024: more than any record */

struct step_plan random_plan(struct dice *d, const struct step_bounds *b, int32_t most,
                             struct arena *a)
{
    struct step_plan p = {.epoch = (uint32_t)dice_u64(d), .replica = (uint16_t)dice_u64(d),
                          .model = (uint16_t)dice_u64(d), .step = 1 + dice_u64(d) % 1000,
                          .flags = (uint32_t)dice_in(d, 0, 3)};
    p.n_ends = dice_in(d, 0, most);
    p.ends = NEW(a, p.n_ends);
    for (int32_t i = 0; i < p.n_ends; i++) p.ends[i].slot = dice_in(d, 0, b->n_slots - 1);
    p.n_starts = dice_in(d, 0, most);
    p.starts = NEW(a, p.n_starts);
    for (int32_t i = 0; i < p.n_starts; i++) {
        int32_t n = dice_in(d, 0, 1) ? dice_in(d, 0, 40) : 0;
        p.starts[i] = (struct step_start){.grammar = random_grammar(d, a),
                                          .slot = dice_in(d, 0, b->n_slots - 1),
                                          .seq_id = dice_u64(d),
                                          .sampling = random_sampling(d, b->n_vocab, a),
                                          .n_generated = dice_in(d, 0, 9),
                                          .n_prompt = dice_in(d, 1, 40),
                                          .pool = (enum step_pool)dice_in(d, POOL_NONE, POOL_MEAN),
                                          .adapter = dice_in(d, 0, b->n_adapters),
                                          .n_history = n,
                                          .history = random_ids(d, n, b->n_vocab, a)};
    }
    p.n_forks = dice_in(d, 0, most);
    p.forks = NEW(a, p.n_forks);
    for (int32_t i = 0; i < p.n_forks; i++) {
        int32_t src = dice_in(d, 0, b->n_slots - 2);
        p.forks[i] = (struct step_fork){src, dice_in(d, src + 1, b->n_slots - 1), dice_u64(d),
                                        dice_in(d, 0, 7)};
    }
    p.n_tables = dice_in(d, 0, most);
    p.tables = NEW(a, p.n_tables);
    for (int32_t i = 0; i < p.n_tables; i++) {
        int32_t n = dice_in(d, 0, 5);
        p.tables[i] =
            (struct step_table){dice_in(d, 0, b->n_slots - 1), dice_in(d, 0, b->n_groups - 1),
                                dice_in(d, 0, b->context / LIMIT_BLOCK_TOKENS - 5), n,
                                random_ids(d, n, b->n_blocks, a)};
    }
    p.n_copies = dice_in(d, 0, most);
    p.copies = NEW(a, p.n_copies);
    for (int32_t i = 0; i < p.n_copies; i++)
        p.copies[i] =
            (struct step_copy){dice_in(d, 0, b->n_groups - 1), dice_in(d, 0, b->n_blocks - 1),
                               dice_in(d, 0, b->n_blocks - 1)};
    p.n_items = dice_in(d, 0, MIN(most, b->n_slots));
    p.items = NEW(a, p.n_items);
    int32_t *slots = random_slots(d, b->n_slots, a);
    for (int32_t i = 0; i < p.n_items; i++) {
        p.items[i].slot = slots[i];
        random_item(d, b, p.step, &p.items[i], a);
    }
    return p;
}

struct step_result random_result(struct dice *d, int32_t most, struct arena *a)
{
    struct step_result r = {.epoch = (uint32_t)dice_u64(d),
                            .step = 1 + dice_u64(d) % 1000,
                            .compute_us = (uint32_t)dice_u64(d),
                            .comm_us = (uint32_t)dice_u64(d),
                            .comm_bytes = dice_u64(d),
                            .n_vocab = dice_in(d, 0, 1) ? dice_in(d, 1, 50) : 0};
    r.n_items = dice_in(d, 0, most);
    if (r.n_items) r.items = arena_alloc(a, (size_t)r.n_items * sizeof *r.items);
    for (int32_t i = 0; i < r.n_items; i++) {
        struct result_item *it = &r.items[i];
        it->slot = dice_in(d, 0, LIMIT_SLOTS - 1);
        it->finish = (enum seq_finish)dice_in(d, FINISH_NONE, FINISH_LENGTH);
        it->n_tokens = dice_in(d, 0, 3);
        for (int32_t j = 0; j < it->n_tokens; j++) {
            struct result_token *t = &it->tokens[j];
            *t = (struct result_token){.id = dice_in(d, 0, 1 << 20), .logprob = dice_f32(d, -20, 0),
                                       .n_top = dice_in(d, 0, 4)};
            for (int32_t k = 0; k < t->n_top; k++)
                t->top[k] = (struct result_logprob){dice_in(d, 0, 1 << 20), dice_f32(d, -20, 0)};
        }
        it->n_logit_rows = r.n_vocab ? dice_in(d, 0, 2) : 0;
        int32_t n = it->n_logit_rows * r.n_vocab;
        float *rows = n ? arena_alloc(a, (size_t)n * sizeof *rows) : NULL;
        for (int32_t j = 0; j < n; j++) rows[j] = dice_f32(d, -30, 30);
        it->logits = rows;
        it->n_scores = dice_in(d, 0, 2);
        struct result_score *sc = it->n_scores ? arena_alloc(a, 2 * sizeof *sc) : NULL;
        for (int32_t j = 0; j < it->n_scores; j++) {
            struct result_logprob *top = arena_alloc(a, 3 * sizeof *top);
            sc[j] = (struct result_score){dice_in(d, 0, 1 << 20), dice_f32(d, -20, 0), dice_in(d, 1, 99), dice_in(d, 0, 3), top};
            for (int32_t k = 0; k < sc[j].n_top; k++) top[k] = (struct result_logprob){dice_in(d, 0, 1 << 20), dice_f32(d, -20, 0)};
        }
        it->scores = sc;
        it->n_pooled = dice_in(d, 0, 1) ? dice_in(d, 1, 50) : 0;
        float *v = it->n_pooled ? arena_alloc(a, (size_t)it->n_pooled * sizeof *v) : NULL;
        for (int32_t j = 0; j < it->n_pooled; j++) v[j] = dice_f32(d, -3, 3);
        it->pooled = v;
    }
    return r;
}

/* ---- comparison: field by field, because structs have padding ---- */

static bool ints_equal(const int32_t *x, const int32_t *y, int32_t n)
{
    return !n || !memcmp(x, y, (size_t)n * sizeof *x);
}

static bool sampling_equal(const struct sampling *x, const struct sampling *y)
{
    bool same = x->temperature == y->temperature && x->top_p == y->top_p && x->min_p == y->min_p &&
                x->top_k == y->top_k && x->presence_penalty == y->presence_penalty &&
                x->frequency_penalty == y->frequency_penalty &&
                x->repetition_penalty == y->repetition_penalty && x->seed == y->seed &&
                x->choice == y->choice && x->n_logprobs == y->n_logprobs &&
                x->max_tokens == y->max_tokens && x->min_tokens == y->min_tokens &&
                x->ignore_eos == y->ignore_eos && x->n_stop_ids == y->n_stop_ids &&
                x->n_bias == y->n_bias && ints_equal(x->stop_ids, y->stop_ids, x->n_stop_ids);
    same = same && x->typical_p == y->typical_p && x->penalty_last_n == y->penalty_last_n &&
           x->dry_multiplier == y->dry_multiplier && x->dry_base == y->dry_base &&
           x->dry_allowed_length == y->dry_allowed_length && x->dry_last_n == y->dry_last_n &&
           x->xtc_probability == y->xtc_probability && x->xtc_threshold == y->xtc_threshold &&
           x->n_prompt_logprobs == y->n_prompt_logprobs && x->think_budget == y->think_budget &&
           x->thinking == y->thinking && x->n_think_open == y->n_think_open &&
           x->n_think_close == y->n_think_close && x->n_allowed == y->n_allowed &&
           x->n_bad == y->n_bad && x->n_breakers == y->n_breakers &&
           ints_equal(x->think_open, y->think_open, x->n_think_open) &&
           ints_equal(x->think_close, y->think_close, x->n_think_close) &&
           ints_equal(x->allowed, y->allowed, x->n_allowed) && ints_equal(x->bad, y->bad, x->n_bad) &&
           (!x->n_breakers || !memcmp(x->breakers, y->breakers, (size_t)x->n_breakers));
    for (int32_t i = 0; same && i < x->n_bias; i++)
        same = x->bias[i].id == y->bias[i].id && x->bias[i].bias == y->bias[i].bias;
    return same;
}

static bool start_equal(const struct step_start *x, const struct step_start *y)
{
    return x->slot == y->slot && x->seq_id == y->seq_id && x->n_generated == y->n_generated &&
           x->n_prompt == y->n_prompt && x->pool == y->pool && x->adapter == y->adapter && x->n_history == y->n_history &&
           sampling_equal(&x->sampling, &y->sampling) && x->grammar.kind == y->grammar.kind &&
           x->grammar.flags == y->grammar.flags && x->grammar.hash == y->grammar.hash &&
           x->grammar.n == y->grammar.n &&
           (!x->grammar.n || !memcmp(x->grammar.text, y->grammar.text, (size_t)x->grammar.n)) &&
           ints_equal(x->history, y->history, x->n_history);
}

static bool item_equal(const struct step_item *x, const struct step_item *y)
{
    bool same = x->slot == y->slot && x->pos == y->pos && x->n_in == y->n_in && x->out == y->out &&
                x->next == y->next && x->n_draft == y->n_draft;
    for (int32_t j = 0; same && j < x->n_in; j++)
        same = x->in[j].id == y->in[j].id && x->in[j].ref_step == y->in[j].ref_step &&
               x->in[j].ref_slot == y->in[j].ref_slot;
    return same;
}

bool plan_equal(const struct step_plan *x, const struct step_plan *y)
{
    bool same = x->epoch == y->epoch && x->replica == y->replica && x->model == y->model &&
                x->step == y->step && x->flags == y->flags && x->n_ends == y->n_ends &&
                x->n_starts == y->n_starts && x->n_forks == y->n_forks &&
                x->n_tables == y->n_tables && x->n_copies == y->n_copies &&
                x->n_items == y->n_items;
    for (int32_t i = 0; same && i < x->n_ends; i++) same = x->ends[i].slot == y->ends[i].slot;
    for (int32_t i = 0; same && i < x->n_starts; i++)
        same = start_equal(&x->starts[i], &y->starts[i]);
    for (int32_t i = 0; same && i < x->n_forks; i++) {
        const struct step_fork *f = &x->forks[i], *g = &y->forks[i];
        same = f->src == g->src && f->dst == g->dst && f->seq_id == g->seq_id &&
               f->choice == g->choice;
    }
    for (int32_t i = 0; same && i < x->n_tables; i++) {
        const struct step_table *t = &x->tables[i], *u = &y->tables[i];
        same = t->slot == u->slot && t->group == u->group && t->first == u->first && t->n == u->n &&
               ints_equal(t->ids, u->ids, t->n);
    }
    for (int32_t i = 0; same && i < x->n_copies; i++)
        same = !memcmp(&x->copies[i], &y->copies[i], sizeof *x->copies);
    for (int32_t i = 0; same && i < x->n_items; i++) same = item_equal(&x->items[i], &y->items[i]);
    return same;
}

static bool token_equal(const struct result_token *x, const struct result_token *y)
{
    bool same = x->id == y->id && x->logprob == y->logprob && x->n_top == y->n_top;
    for (int32_t k = 0; same && k < x->n_top; k++)
        same = x->top[k].id == y->top[k].id && x->top[k].logprob == y->top[k].logprob;
    return same;
}

static bool score_equal(const struct result_score *x, const struct result_score *y)
{
    bool same = x->id == y->id && x->logprob == y->logprob && x->rank == y->rank && x->n_top == y->n_top;
    for (int32_t k = 0; same && k < x->n_top; k++)
        same = x->top[k].id == y->top[k].id && x->top[k].logprob == y->top[k].logprob;
    return same;
}

bool result_equal(const struct step_result *x, const struct step_result *y)
{
    bool same = x->epoch == y->epoch && x->step == y->step && x->compute_us == y->compute_us &&
                x->comm_us == y->comm_us && x->comm_bytes == y->comm_bytes &&
                x->n_vocab == y->n_vocab && x->n_items == y->n_items;
    for (int32_t i = 0; same && i < x->n_items; i++) {
        const struct result_item *p = &x->items[i], *q = &y->items[i];
        same = p->slot == q->slot && p->finish == q->finish && p->n_tokens == q->n_tokens &&
               p->n_logit_rows == q->n_logit_rows && p->n_pooled == q->n_pooled && p->n_scores == q->n_scores;
        for (int32_t j = 0; same && j < p->n_scores; j++)
            same = score_equal(&p->scores[j], &q->scores[j]);
        for (int32_t j = 0; same && j < p->n_tokens; j++)
            same = token_equal(&p->tokens[j], &q->tokens[j]);
        size_t bytes = (size_t)p->n_logit_rows * (size_t)x->n_vocab * sizeof(float);
        same = same && (!bytes || !memcmp(p->logits, q->logits, bytes));
        bytes = (size_t)p->n_pooled * sizeof(float);
        same = same && (!bytes || !memcmp(p->pooled, q->pooled, bytes));
    }
    return same;
}
