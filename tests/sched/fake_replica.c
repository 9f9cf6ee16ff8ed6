/* fake_replica.c: see fake_replica.h. A block remembers per position the token and the state of the
 * model after it, so what a sequence reads through its table can be compared with what its own
 * tokens would have written. */
#include "tests/sched/fake_replica.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { T = LIMIT_BLOCK_TOKENS, GARBAGE = -7 };

struct block {
    int32_t token[T];
    uint64_t state[T];
    uint64_t seq, step;
    int32_t group;
};

struct slot {
    bool used, stopped;
    uint64_t seq, last_item, sample_step;
    struct sampling sampling;
    int32_t n_prompt, n_generated, last_token;
    int32_t *table[LIMIT_GROUPS], n_table[LIMIT_GROUPS], *history, n_history;
    enum step_pool pool;
    int32_t n_pooled;
    uint64_t pool_sum;
};

struct reply {
    struct step_result r;
    struct arena a;
    struct reply *next;
};

struct fake_replica {
    struct sched_conf conf;
    struct block *blocks;
    struct slot *slots;
    int32_t max_table;
    uint64_t step, delivered;
    struct reply *first, **last, *given;
    int32_t n_in_flight;
};

struct fake_replica *fake_replica_open(const struct sched_conf *conf)
{
    struct fake_replica *f = xcalloc(1, sizeof *f);
    f->conf = *conf;
    if (!conf->groups.n) f->conf.groups = kv_groups_of(1, 0, 0);
    f->blocks = xcalloc((size_t)conf->n_blocks, sizeof *f->blocks);
    f->slots = xcalloc((size_t)conf->n_slots, sizeof *f->slots);
    f->max_table = DIV_UP(conf->context, T);
    for (int32_t i = 0; i < conf->n_slots; i++) {
        for (int32_t g = 0; g < f->conf.groups.n; g++) f->slots[i].table[g] = xcalloc((size_t)f->max_table, sizeof(int32_t));
        f->slots[i].history = xcalloc((size_t)conf->context + 1, sizeof(int32_t));
    }
    f->last = &f->first;
    return f;
}

static void free_reply(struct reply *r)
{
    if (!r) return;
    arena_free(&r->a);
    free(r);
}

void fake_replica_close(struct fake_replica *f)
{
    if (!f) return;
    for (struct reply *r = f->first, *next; r; r = next) {
        next = r->next;
        free_reply(r);
    }
    free_reply(f->given);
    for (int32_t i = 0; i < f->conf.n_slots; i++) {
        for (int32_t g = 0; g < LIMIT_GROUPS; g++) free(f->slots[i].table[g]);
        free(f->slots[i].history);
        sampling_free(&f->slots[i].sampling);
    }
    free(f->slots);
    free(f->blocks);
    free(f);
}

/* ---- records ---- */

static void clear(struct slot *s)
{
    struct slot keep = {.history = s->history};
    memcpy(keep.table, s->table, sizeof keep.table);
    sampling_free(&s->sampling);
    *s = keep;
}

static void start(struct fake_replica *f, const struct step_start *r)
{
    struct slot *s = &f->slots[r->slot];
    assert_false(s->used);
    s->used = true;
    s->seq = r->seq_id;
    s->n_prompt = r->n_prompt;
    s->pool = r->pool;
    s->n_generated = r->n_generated;
    s->n_history = r->n_history;
    s->sampling = sampling_copy(&r->sampling);
    if (sampling_needs_history(&r->sampling))
        assert_int_equal(r->n_history, r->n_prompt + r->n_generated);
    else
        assert_int_equal(r->n_history, 0);
    if (r->n_history) memcpy(s->history, r->history, (size_t)r->n_history * sizeof *r->history);
}

static void extend(struct fake_replica *f, const struct step_table *r)
{
    struct slot *s = &f->slots[r->slot];
    assert_true(s->used);
    if (r->group < f->conf.groups.n_full || s->n_table[r->group])
        assert_int_equal(r->first, s->n_table[r->group]);
    assert_true(r->n && r->first + r->n <= f->max_table);
    memcpy(s->table[r->group] + r->first, r->ids, (size_t)r->n * sizeof *r->ids);
    s->n_table[r->group] = r->first + r->n;
}

static void apply(struct fake_replica *f, const struct step_plan *p)
{
    for (int32_t i = 0; i < p->n_ends; i++) {
        struct slot *s = &f->slots[p->ends[i].slot];
        assert_true(s->used);
        assert_true(s->last_item < p->step);
        clear(s);
    }
    for (int32_t i = 0; i < p->n_starts; i++) start(f, &p->starts[i]);
    for (int32_t i = 0; i < p->n_tables; i++) extend(f, &p->tables[i]);
    assert_int_equal(p->n_forks, 0);
    assert_int_equal(p->n_copies, 0);
}

/* ---- items ---- */

/* A token only known to the ranks: allowed if far enough back in the pipeline and not yet known to
 * the scheduler. */
static int32_t resolve(const struct fake_replica *f, const struct step_plan *p,
                       const struct slot *s, int32_t slot, const struct step_in *in)
{
    if (in->id >= 0) return in->id;
    assert_int_equal(in->ref_slot, slot);
    assert_true(in->ref_step > f->delivered);
    assert_true(in->ref_step + (uint64_t)f->conf.n_stages <= p->step);
    if (s->stopped) return GARBAGE;
    assert_int_equal(in->ref_step, s->sample_step);
    return s->last_token;
}

static int32_t first_key(const struct fake_replica *f, int32_t group, int32_t pos)
{
    return group < f->conf.groups.n_full ? 0 : MAX(pos - f->conf.groups.window + 1, 0);
}

/* What `pos` sees of a group before it, read through the table: a chain of states without a break. */
static uint64_t read_group(const struct fake_replica *f, const struct slot *s, int32_t group, int32_t pos)
{
    uint64_t state = 0;
    for (int32_t first = first_key(f, group, pos), i = first; i < pos; i++) {
        const struct block *b = &f->blocks[s->table[group][i / T]];
        state = i == first && i ? b->state[i % T] : fake_state(state, b->token[i % T]);
        if (!s->stopped) assert_true(state == b->state[i % T]);
    }
    return state;
}

/* The same in all groups. */
static uint64_t read_kv(const struct fake_replica *f, const struct slot *s, int32_t pos)
{
    const uint64_t state = read_group(f, s, 0, pos);
    for (int32_t g = 1; g < f->conf.groups.n; g++)
        assert_true(s->stopped || first_key(f, g, pos) == pos || read_group(f, s, g, pos) == state);
    return state;
}

/* Nobody else's step names a block that is written: none in flight, or for windowed groups, this one. */
static void name_blocks(struct fake_replica *f, const struct step_plan *p, const struct slot *s,
                        int32_t group, int32_t from, int32_t end)
{
    for (int32_t i = from / T; i <= (end - 1) / T; i++) {
        struct block *b = &f->blocks[s->table[group][i]];
        if (b->seq != s->seq || b->group != group)
            assert_true(f->conf.groups.window ? b->step < p->step : b->step <= f->delivered);
    }
    for (int32_t i = first_key(f, group, from) / T; i <= (end - 1) / T; i++) {
        struct block *b = &f->blocks[s->table[group][i]];
        b->seq = s->seq;
        b->group = group;
        b->step = p->step;
    }
}

static int32_t sample(struct slot *s, const struct step_plan *p, uint64_t state, struct result_item *r)
{
    int32_t token = fake_next(state, &s->sampling, s->n_generated, s->history, s->n_history);
    r->tokens[r->n_tokens++] = (struct result_token){.id = token};
    s->last_token = token;
    s->sample_step = p->step;
    s->n_generated++;
    if (sampling_needs_history(&s->sampling)) s->history[s->n_history++] = token;
    if (fake_stops(&s->sampling, token))
        r->finish = FINISH_STOP;
    else if (s->n_generated >= s->sampling.max_tokens)
        r->finish = FINISH_LENGTH;
    s->stopped = r->finish != FINISH_NONE;
    return token;
}

/* Positions [pos, pos + n) of the prompt have been computed, the last to `state`, all to `sum`. */
static void pool(struct slot *s, const struct step_item *it, uint64_t state, uint64_t sum,
                 struct arena *a, struct result_item *r)
{
    assert_true(s->pool && it->pos + it->n_in <= s->n_prompt);
    if (s->pool == POOL_MEAN) assert_int_equal(it->pos, s->n_pooled);
    s->n_pooled = it->pos + it->n_in;
    s->pool_sum = s->pool == POOL_MEAN ? s->pool_sum + sum : state;
    if (s->n_pooled < s->n_prompt) return;
    float *v = arena_alloc(a, FAKE_POOLED * sizeof *v);
    fake_pooled(s->pool_sum, v);
    r->pooled = v;
    r->n_pooled = FAKE_POOLED;
}

/* A score says the token, and its position as a rank. */
static void score(const struct slot *s, const struct step_item *it, struct arena *a,
                  struct result_item *r)
{
    struct result_score *to = arena_alloc(a, (size_t)it->n_in * sizeof *to);
    assert_true(s->sampling.n_prompt_logprobs >= 0 && it->pos < s->n_prompt);
    for (int32_t k = 0; k < it->n_in; k++) {
        int32_t id = k < it->n_in - 1 ? it->in[k + 1].id : it->next;
        if (id >= 0) to[r->n_scores++] = (struct result_score){.id = id, .rank = it->pos + k + 1};
    }
    r->scores = to;
}

static void compute(struct fake_replica *f, const struct step_plan *p, const struct step_item *it,
                    struct arena *a, struct result_item *r)
{
    struct slot *s = &f->slots[it->slot];
    const bool rows = it->out & OUT_LOGITS;
    assert_true(s->used && it->n_in > 0 && s->last_item < p->step);
    assert_true(it->pos + it->n_in <= f->conf.context);
    for (int32_t g = 0; g < f->conf.groups.n; g++) {
        assert_true(it->pos + it->n_in <= s->n_table[g] * T);
        name_blocks(f, p, s, g, it->pos, it->pos + it->n_in);
    }
    s->last_item = p->step;
    uint64_t *states = arena_alloc(a, (size_t)it->n_in * sizeof *states);
    float *logits = rows ? arena_alloc(a, (size_t)it->n_in * FAKE_ROW * sizeof *logits) : NULL;
    uint64_t state = read_kv(f, s, it->pos), sum = 0;
    for (int32_t i = 0; i < it->n_in; i++) {
        int32_t pos = it->pos + i, token = resolve(f, p, s, it->slot, &it->in[i]);
        state = fake_state(state, token);
        sum += states[i] = state;
        for (int32_t g = 0; g < f->conf.groups.n; g++) {
            struct block *b = &f->blocks[s->table[g][pos / T]];
            b->token[pos % T] = token;
            b->state[pos % T] = s->stopped ? ~state : state;
        }
        if (rows) fake_row(state, pos, logits + i * FAKE_ROW);
    }
    *r = (struct result_item){
        .slot = it->slot, .n_logit_rows = rows ? it->n_in : 0, .logits = logits};
    if (it->out & OUT_PROMPT) score(s, it, a, r);
    assert_false(s->pool && it->out & OUT_SAMPLE);
    if (it->out & OUT_POOL) pool(s, it, state, sum, a, r);
    if (!(it->out & OUT_SAMPLE)) return;
    assert_true(!it->n_draft || it->n_draft <= f->conf.max_guesses);
    for (int32_t i = it->n_in - 1 - it->n_draft; i < it->n_in && !s->stopped; i++)
        if (sample(s, p, states[i], r) != (i < it->n_in - 1 ? it->in[i + 1].id : -1)) break;
}

static void over_the_wire(const struct fake_replica *f, const struct step_plan *in,
                          struct step_plan *out, struct arena *a)
{
    const struct step_bounds bounds = {.n_slots = f->conf.n_slots,
                                       .n_groups = f->conf.groups.n,
                                       .n_blocks = f->conf.n_blocks,
                                       .n_vocab = FAKE_VOCAB,
                                       .n_adapters = 2,
                                       .context = f->conf.context};
    struct buf b = {0};
    step_plan_pack(in, &b);
    enum err e = step_plan_unpack(out, b.data, b.len, &bounds, a);
    if (e) fail_msg("%s", err_text());
    buf_free(&b);
}

void fake_replica_send(struct fake_replica *f, const struct step_plan *plan)
{
    struct reply *reply = xcalloc(1, sizeof *reply);
    struct step_plan p;
    over_the_wire(f, plan, &p, &reply->a);
    assert_int_equal(p.epoch, f->conf.epoch);
    assert_int_equal(p.step, ++f->step);
    assert_true(step_plan_tokens(&p) <= f->conf.max_step_tokens && p.n_items > 0);
    apply(f, &p);
    reply->r = (struct step_result){
        .epoch = p.epoch, .step = p.step, .n_vocab = FAKE_ROW, .n_items = p.n_items};
    reply->r.items = arena_alloc(&reply->a, (size_t)p.n_items * sizeof *reply->r.items);
    int32_t n_rows = 0;
    for (int32_t i = 0; i < p.n_items; i++) {
        compute(f, &p, &p.items[i], &reply->a, &reply->r.items[i]);
        n_rows += reply->r.items[i].n_logit_rows + (reply->r.items[i].n_pooled > 0);
    }
    if (f->conf.max_logit_rows) assert_true(n_rows <= f->conf.max_logit_rows);
    *f->last = reply;
    f->last = &reply->next;
    assert_true(++f->n_in_flight <= f->conf.depth);
}

const struct step_result *fake_replica_deliver(struct fake_replica *f)
{
    free_reply(f->given);
    f->given = f->first;
    if (!f->first) return NULL;
    f->first = f->first->next;
    if (!f->first) f->last = &f->first;
    f->n_in_flight--;
    f->delivered = f->given->r.step;
    return &f->given->r;
}

int32_t fake_replica_in_flight(const struct fake_replica *f)
{
    return f->n_in_flight;
}
