/* batch.c: see batch.h.
 *
 * I1  a sequence has at most one item, one start and one record of each table in a plan.
 * I2  an input whose id is not known is its sequence's newest token, the output of sample_step. */
#include "coordinator/sched/batch.h"
#include "coordinator/sched/preempt.h"
#include "coordinator/sched/window.h"
#include "proto/sampling_wire.h"

#include <stdlib.h>
#include <string.h>

enum {
    START_BYTES =
        64 + SAMPLING_WIRE_BYTES + 4 * LIMIT_STOP_IDS + 8 * LIMIT_THINK_IDS, /* of a start record without arrays */
    STARTS_BYTES = LIMIT_STEP_BYTES / 2,    /* for all of a plan; other records have the rest */
};

void crd_batch_open(struct crd_batch *b, const struct sched_conf *conf)
{
    size_t n = (size_t)conf->n_slots;
    *b = (struct crd_batch){
        .groups = conf->groups,
        .max_items = MIN(MIN(conf->n_slots, conf->max_step_tokens), (int32_t)LIMIT_STEP_ITEMS),
        .ends = xcalloc(n, sizeof *b->ends),
        .starts = xcalloc(n, sizeof *b->starts),
        .tables = xcalloc(n * (size_t)conf->groups.n, sizeof *b->tables),
        .items = xcalloc(n, sizeof *b->items)};
}

void crd_batch_close(struct crd_batch *b)
{
    free(b->ends);
    free(b->starts);
    free(b->tables);
    free(b->items);
    *b = (struct crd_batch){0};
}

void crd_batch_begin(struct crd_sched *s, struct arena *a)
{
    struct crd_batch *b = &s->batch;
    b->a = a;
    b->step = s->step + 1;
    b->tokens_left = MIN(s->conf.max_step_tokens, (int32_t)LIMIT_STEP_TOKENS);
    b->rows_left = s->conf.max_logit_rows > 0 ? s->conf.max_logit_rows : INT32_MAX;
    b->guesses_left = MAX(0, s->conf.guess_rows - s->decodes.n);
    b->start_bytes = 0;
    b->n_starts = b->n_tables = b->n_items = 0;
    b->rec = &s->recs[(s->first_rec + s->n_in_flight) % s->conf.depth];
    b->rec->step = b->step;
    b->rec->n = 0;
    b->n_ends = s->n_ends;
    for (int32_t i = 0; i < s->n_ends; i++) {
        b->ends[i].slot = s->ends[i];
        s->free_slots[s->n_free_slots++] = s->ends[i];
    }
    s->n_ends = 0;
}

void crd_batch_abandon(struct crd_sched *s)
{
    struct crd_batch *b = &s->batch;
    ASSERT(!b->n_starts && !b->n_tables && !b->n_items);
    s->n_free_slots -= b->n_ends; /* nothing has started, so they are still on top */
    for (int32_t i = 0; i < b->n_ends; i++) s->ends[s->n_ends++] = b->ends[i].slot;
}

static void *keep(struct arena *a, const void *p, int32_t n, size_t size)
{
    return n ? memcpy(arena_alloc(a, (size_t)n * size), p, (size_t)n * size) : NULL;
}

void crd_batch_finish(struct crd_sched *s, struct step_plan *out)
{
    struct crd_batch *b = &s->batch;
    *out = (struct step_plan){.epoch = s->conf.epoch,
                              .step = b->step,
                              .n_ends = b->n_ends,
                              .n_starts = b->n_starts,
                              .n_tables = b->n_tables,
                              .n_items = b->n_items,
                              .ends = keep(b->a, b->ends, b->n_ends, sizeof *b->ends),
                              .starts = keep(b->a, b->starts, b->n_starts, sizeof *b->starts),
                              .tables = keep(b->a, b->tables, b->n_tables, sizeof *b->tables),
                              .items = keep(b->a, b->items, b->n_items, sizeof *b->items)};
    s->step = b->step;
    s->n_in_flight++;
}

bool crd_batch_full(const struct crd_batch *b)
{
    return !b->tokens_left || b->n_items == b->max_items;
}

/* ---- records ---- */

static int32_t history_length(const struct crd_seq *q)
{
    if (sampling_needs_history(&q->group->sampling)) return crd_seq_known(q);
    return q->group->grammar.kind ? q->n_gen : 0; /* what its state is made of again */
}

static int64_t start_bytes(const struct kv_groups *k, const struct crd_seq *q)
{
    return START_BYTES + 4LL * history_length(q) +
           4LL * (kv_groups_need(k, crd_seq_known(q)) + 4LL * k->n) + q->group->grammar.n +
           sampling_array_bytes(&q->group->sampling);
}

bool crd_batch_has_room_to_start(const struct crd_batch *b, const struct crd_seq *q)
{
    return !b->n_starts || b->start_bytes + start_bytes(&b->groups, q) <= STARTS_BYTES;
}

static const int32_t *history(struct arena *a, const struct crd_seq *q)
{
    int32_t n = history_length(q);
    if (!n) return NULL;
    int32_t *h = arena_alloc(a, (size_t)n * sizeof *h);
    for (int32_t i = 0; i < n; i++) h[i] = crd_seq_token(q, crd_seq_known(q) - n + i);
    return h;
}

void crd_batch_start(struct crd_batch *b, const struct crd_seq *q)
{
    const struct crd_group *g = q->group;
    struct step_start *r = &b->starts[b->n_starts++];
    *r = (struct step_start){.slot = q->slot,
                             .seq_id = q->id,
                             .sampling = sampling_keep(&g->sampling, b->a),
                             .n_generated = q->n_gen,
                             .n_prompt = g->n_prompt,
                             .pool = g->pool,
                             .adapter = g->adapter,
                             .n_history = history_length(q),
                             .history = history(b->a, q)};
    r->sampling.choice += q->choice;
    r->grammar = g->grammar;
    r->grammar.text = keep(b->a, g->grammar.text, g->grammar.n, 1);
    b->start_bytes += start_bytes(&b->groups, q);
    crd_batch_extend(b, q, q->n_blocks);
}

/* Rows [first, first + n) of a group's table. */
static void tell_table(struct crd_batch *b, const struct crd_seq *q, int32_t group, int32_t first, int32_t n)
{
    int32_t *ids = arena_alloc(b->a, (size_t)n * sizeof *ids);
    for (int32_t i = 0; i < n; i++) ids[i] = q->blocks[(first + i) * b->groups.n + group];
    b->tables[b->n_tables++] = (struct step_table){.slot = q->slot, .group = group, .first = first, .n = n, .ids = ids};
}

void crd_batch_extend(struct crd_batch *b, const struct crd_seq *q, int32_t n)
{
    if (b->groups.n_full) tell_table(b, q, 0, q->n_blocks - n, n);
}

/* The windowed blocks that the ranks do not know. */
static void tell_window(struct crd_batch *b, struct crd_seq *q)
{
    if (!b->groups.window || q->window_told == q->window_to) return;
    for (int32_t g = b->groups.n_full; g < b->groups.n; g++)
        tell_table(b, q, g, q->window_told, q->window_to - q->window_told);
    q->window_told = q->window_to;
}

/* ---- items ---- */

/* The same of a prompt that is pooled: nothing is sampled, and a vector takes the place of a row. */
static int32_t next_pooled(const struct crd_batch *b, const struct crd_seq *q, int32_t most, uint32_t *out)
{
    int32_t left = crd_seq_total(q) - q->n_computed, n = MIN(left, most);
    bool last = n == left;
    *out = last || q->group->pool == POOL_MEAN ? OUT_POOL : OUT_NONE;
    return last && !b->rows_left ? 0 : n;
}

/* How many positions from n_computed on, `most` at most, and what is wanted of them. */
static int32_t next_chunk(const struct crd_batch *b, const struct crd_seq *q, int32_t most, uint32_t *out)
{
    const struct crd_group *g = q->group;
    if (g->pool) return next_pooled(b, q, most, out);
    int32_t left = crd_seq_total(q) - q->n_computed, n = MIN(left, most),
            pos = q->n_computed;
    bool of_prompt = crd_seq_wants_prompt(q) && pos < g->n_prompt && pos + n > q->rows_sent;
    bool prompt_rows = of_prompt && g->prompt_logits;
    if (prompt_rows)
        n = MIN(n, b->rows_left);
    else if (g->sample_logits && n == left && n > 1)
        n--; /* the sampling position by itself, so that only its row comes back */
    bool last = n == left, rows = prompt_rows || (g->sample_logits && last);
    if (rows) n = MIN(n, b->rows_left);
    *out = (last ? OUT_SAMPLE : OUT_NONE) | (rows ? OUT_LOGITS : OUT_NONE) |
           (of_prompt && crd_seq_scored(q) ? OUT_PROMPT : OUT_NONE);
    return n;
}

static const struct step_in *inputs(struct arena *a, const struct crd_seq *q, int32_t n, int32_t n_draft, const int32_t draft[])
{
    struct step_in *in = arena_alloc(a, (size_t)(n + n_draft) * sizeof *in);
    for (int32_t i = 0; i < n; i++) {
        int32_t pos = q->n_computed + i;
        if (pos < crd_seq_known(q))
            in[i].id = crd_seq_token(q, pos);
        else
            in[i] = (struct step_in){.id = -1, .ref_step = q->sample_step, .ref_slot = q->slot};
    }
    for (int32_t i = 0; i < n_draft; i++) in[n + i].id = draft[i];
    return in;
}

void crd_batch_charge(struct crd_sched *s, struct crd_seq *q, int32_t end)
{
    int32_t from = MAX(q->n_computed, q->n_charged);
    if (end <= from) return;
    crd_fair_charge(&s->fair, q->group->tenant, end - from);
    q->n_charged = end;
}

/* Guesses behind the one position of a decode, as far as there is room without taking it from anybody: in the step, in its last block or, where the
 * pool has plenty, in one block more. */
static int32_t guesses(struct crd_sched *s, struct crd_seq *q, int32_t out[GUESS_MOST])
{
    const struct crd_batch *b = &s->batch;
    const int32_t end = q->n_computed + 1;
    int32_t n = MIN(MIN(s->conf.max_guesses, b->guesses_left), b->tokens_left - 1);
    n = MIN(MIN(n, q->group->sampling.max_tokens - q->n_sampled - 1), s->longest - end);
    if (!q->guess.on || end != crd_seq_known(q) || n <= 0) return 0;
    n = crd_guess_make(q, n, out);
    if (n && !crd_preempt_spare(s, q, end + n)) n = MIN(n, q->n_blocks * LIMIT_BLOCK_TOKENS - end);
    return n;
}

static void move_on(struct crd_sched *s, struct crd_seq *q, bool sampled)
{
    const struct crd_group *g = q->group;
    const bool pooled = g->pool && q->n_computed == g->n_prompt;
    crd_list_remove(q);
    if (!sampled && !pooled) {
        crd_list_append(&s->prefills, q);
    } else if (pooled || q->n_sampled == g->sampling.max_tokens) {
        crd_seq_move(q, SEQ_LAST);
        crd_list_append(&s->leaving, q);
    } else {
        if (q->state != SEQ_DECODE) crd_seq_move(q, SEQ_DECODE);
        crd_list_append(&s->decodes, q);
    }
}

bool crd_batch_item(struct crd_sched *s, struct crd_seq *q)
{
    struct crd_batch *b = &s->batch;
    uint32_t out;
    int32_t n = next_chunk(b, q, MIN(b->tokens_left, crd_window_reach(s, q)), &out);
    if (!n) return false;
    int32_t draft[GUESS_MOST], n_draft = q->state == SEQ_DECODE && out == OUT_SAMPLE ? guesses(s, q, draft) : 0;
    if (n_draft) out |= OUT_DRAFT;
    int32_t end = q->n_computed + n;
    crd_window_take(s, q, end + n_draft);
    tell_window(b, q);
    ASSERT(q->last_step < b->step && end + n_draft <= q->n_blocks * LIMIT_BLOCK_TOKENS);
    b->items[b->n_items++] =
        (struct step_item){.slot = q->slot,
                           .pos = q->n_computed,
                           .n_in = n + n_draft,
                           .out = out,
                           .next = end < q->group->n_prompt ? q->group->prompt[end] : -1,
                           .n_draft = n_draft,
                           .in = inputs(b->a, q, n, n_draft, draft)};
    b->rec->items[b->rec->n++] = (struct crd_step_item){
        .seq = q, .slot = q->slot, .pos = q->n_computed, .n_in = n + n_draft, .n_draft = n_draft, .out = out};
    b->tokens_left -= n + n_draft;
    b->guesses_left -= n_draft;
    q->guess.n_sent = q->guess.on ? n_draft : GUESS_NOT_ASKED;
    if (out & OUT_LOGITS) b->rows_left -= n;
    if (out & OUT_POOL && q->n_computed + n == q->group->n_prompt) b->rows_left--;
    crd_batch_charge(s, q, end);
    q->n_computed += n;
    q->last_step = b->step;
    if (out & OUT_SAMPLE) {
        q->n_sampled++;
        q->sample_step = b->step;
    }
    move_on(s, q, out & OUT_SAMPLE);
    return true;
}
