/* engine.c: see engine.h: the life of one step on one rank.
 *
 *   apply records -> inputs -> [receive hidden] -> layers -> [send hidden | head, sample, answer, send tokens to the first stage]
 *
 * With several stages the first one computes later steps while the last is still busy: it learns sampled tokens by messages that it reads,
 * in step order, no sooner than a reference needs them. */
#include "engine/engine.h"

#include "base/clock.h"
#include "engine/file/fingerprint.h"
#include "engine/model/forward.h"
#include "engine/sample/sampler.h"
#include "engine/slots.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    HEAD_ROWS = 32,      /* logits rows computed at once */
    INBOX_EAGER = 64,    /* unread token messages kept before the oldest is read anyway */
};

/* Steps whose sampled tokens the first stage has not read yet. */
struct token_note { uint64_t step; int32_t n; int32_t *slots; };

struct eng_engine {
    struct eng_engine_conf conf;
    struct eng_model_file *file;
    struct grid grid;
    struct eng_model m;
    struct eng_slots slots;
    struct eng_sampler *sampler;        /* last stage */
    struct eng_constraints *constraints;/* last stage */
    struct eng_batch batch;
    struct eng_engine_info info;
    float *slice;                       /* [HEAD_ROWS][rows of this rank's head] */
    float *gathered;                    /* [HEAD_ROWS][n_vocab], rank after rank */
    float *row;                         /* [n_vocab] */
    struct token_note *inbox;           /* first stage of several */
    int32_t n_inbox, cap_inbox;
    int32_t *tokens;                    /* [n_slots] sampled in this step, in item order */
    int32_t n_tokens;
};

/* ---- open, close ---- */

static int64_t mat_bytes(const struct krn_mat *w) { return w->tile_bytes * DIV_UP(w->rows, KRN_TILE); }

/* What a step reads and multiplies: the embedding gives single rows only. */
static void count_work(struct eng_engine *e)
{
    const struct eng_weights *w = e->m.weights;
    struct eng_engine_info *o = &e->info;
    for (int32_t l = 0; l < w->n_layers; l++) {
        const struct eng_layer *y = &w->layers[l];
        const struct krn_mat *all[] = {&y->q, &y->k, &y->v, &y->o, &y->gate, &y->up, &y->down};
        for (size_t i = 0; i < COUNT_OF(all); i++) {
            o->step_bytes += mat_bytes(all[i]);
            o->layer_weights += (int64_t)all[i]->rows * all[i]->cols;
        }
    }
    if (!e->m.shard.last) return;
    o->step_bytes += mat_bytes(&w->head);
    o->head_weights = (int64_t)w->head.rows * w->head.cols;
}

static enum err check_same(const struct eng_model_file *f, uint64_t want)
{
    uint64_t is = want;
    enum err e = want ? eng_fingerprint(f, &is) : OK;
    if (!e && is != want)
        e = err_raise(ERR_BAD_FILE, "%s is not the model that the coordinator started with (fingerprint %016llx, needed %016llx): give every host the "
                      "same file, and do not replace it while it is served", eng_model_file_path(f), (unsigned long long)is, (unsigned long long)want);
    return e;
}

enum err eng_engine_open(struct eng_engine **out, const struct eng_engine_conf *conf)
{
    enum err rc;
    int64_t t0 = clock_us();
    struct eng_engine *e = xcalloc(1, sizeof *e);
    struct eng_model *m = &e->m;
    e->conf = *conf;
    e->grid = conf->grid;
    m->tp = conf->tp;
    m->timeout_us = conf->timeout_us;
    m->oracle = conf->oracle;
    m->max_tok = conf->max_step_tokens;
    TRY(eng_model_file_open(&e->file, conf->model_path));
    TRY(check_same(e->file, conf->fingerprint));
    TRY(eng_spec_read(&m->spec, e->file));
    TRY(eng_shard_of(&m->shard, &m->spec, &e->grid, conf->rank));
    TRY(krn_table_pick(conf->isa, &m->krn));
    TRY(eng_team_open(&m->team, conf->n_threads, conf->cpus));
    TRY(eng_weights_open(&m->weights, e->file, &m->spec, &m->shard, m->team, conf->progress, conf->user));
    TRY(eng_kv_pool_open(&m->kv, m->shard.layer1 - m->shard.layer0, conf->n_blocks, m->shard.kv1 - m->shard.kv0,
                         m->spec.head_dim, conf->kv_f16));
    TRY(eng_forward_open(m, conf->context));
    eng_slots_open(&e->slots, conf->n_slots, conf->context);
    e->batch.ids = xcalloc((size_t)m->max_tok, sizeof *e->batch.ids);
    e->batch.pos = xcalloc((size_t)m->max_tok, sizeof *e->batch.pos);
    e->batch.table = xcalloc((size_t)m->max_tok, sizeof *e->batch.table);
    e->tokens = xcalloc((size_t)conf->n_slots, sizeof *e->tokens);
    if (m->shard.last) {
        size_t v = (size_t)m->spec.n_vocab;
        e->sampler = eng_sampler_open(m->krn, m->spec.n_vocab);
        e->constraints = e->slots.constraints = eng_constraints_open(e->file, m->spec.n_vocab);
        e->slice = xmalloc(HEAD_ROWS * (size_t)m->weights->head.rows * sizeof(float));
        e->gathered = xmalloc(HEAD_ROWS * v * sizeof(float));
        e->row = xmalloc(v * sizeof(float));
    }
    e->info = (struct eng_engine_info){.weight_bytes = m->weights->bytes, .kv_bytes = m->kv->bytes, .n_blocks = conf->n_blocks,
                                       .isa = m->krn->name, .load_seconds = (double)(clock_us() - t0) / 1e6};
    count_work(e);
    *out = e, e = NULL;
out:
    eng_engine_close(e);
    return rc;
}

void eng_engine_close(struct eng_engine *e)
{
    if (!e) return;
    eng_sampler_close(e->sampler);
    eng_slots_close(&e->slots);
    eng_constraints_close(e->constraints);
    eng_forward_close(&e->m);
    eng_kv_pool_close(e->m.kv);
    eng_weights_close(e->m.weights);
    eng_team_close(e->m.team);
    eng_model_file_close(e->file);
    for (int32_t i = 0; i < e->n_inbox; i++) free(e->inbox[i].slots);
    free(e->inbox);
    free(e->batch.ids);
    free(e->batch.pos);
    free((void *)e->batch.table);
    free(e->tokens);
    free(e->slice);
    free(e->gathered);
    free(e->row);
    free(e);
}

void eng_engine_info(const struct eng_engine *e, struct eng_engine_info *out) { *out = e->info; }
void eng_engine_measure(struct eng_engine *e, struct eng_times *t) { e->m.times = t; }
int32_t eng_engine_layer(const struct eng_engine *e) { return atomic_load_explicit(&e->m.layer, memory_order_relaxed); }
bool eng_engine_answers(const struct eng_engine *e) { return e->m.shard.last && e->m.shard.tp_rank == 0; }

struct step_bounds eng_engine_bounds(const struct eng_engine *e)
{
    return (struct step_bounds){.n_slots = e->conf.n_slots, .n_groups = 1, .n_blocks = e->conf.n_blocks,
                                .n_vocab = e->m.spec.n_vocab, .context = e->conf.context};
}

/* ---- inputs ---- */

/* First stage: read the tokens of the oldest unread step. */
static enum err read_note(struct eng_engine *e)
{
    enum err rc;
    struct token_note n = e->inbox[0];
    int32_t from = grid_ranks(&e->grid) - e->grid.width[e->grid.n_stages - 1];
    TRY(trn_coll_recv(e->conf.world, from, e->tokens, n.n * (int64_t)sizeof *e->tokens, e->conf.timeout_us));
    for (int32_t i = 0; i < n.n; i++) {
        e->slots.slots[n.slots[i]].last_token = e->tokens[i];
        e->slots.slots[n.slots[i]].last_step = n.step;
    }
    free(n.slots);
    memmove(e->inbox, e->inbox + 1, (size_t)--e->n_inbox * sizeof *e->inbox);
out:
    return rc;
}

static enum err resolve(struct eng_engine *e, const struct step_in *in, int32_t *id)
{
    enum err rc = OK;
    struct eng_slot *s = &e->slots.slots[in->ref_slot];
    while (e->n_inbox && e->inbox[0].step <= in->ref_step) TRY(read_note(e));
    if (s->last_step != in->ref_step || s->last_token < 0)
        rc = err_raise(ERR_LINK_PROTOCOL, "slot %d: an input refers to the token of step %llu; the last known is of step %llu",
                       in->ref_slot, (unsigned long long)in->ref_step, (unsigned long long)s->last_step);
    else *id = s->last_token;
out:
    return rc;
}

static enum err fill_batch(struct eng_engine *e, const struct step_plan *p)
{
    enum err rc = OK;
    struct eng_batch *b = &e->batch;
    struct eng_slot *s;
    b->n_tok = 0;
    if (step_plan_tokens(p) > e->m.max_tok)
        return err_raise(ERR_LINK_PROTOCOL, "step %llu has %d tokens, this rank was opened for %d", (unsigned long long)p->step,
                         step_plan_tokens(p), e->m.max_tok);
    for (int32_t i = 0; i < p->n_items; i++) {
        const struct step_item *it = &p->items[i];
        TRY(eng_slots_of_item(&e->slots, it, &s));
        for (int32_t k = 0; k < it->n_in; k++) {
            int32_t t = b->n_tok++;
            b->pos[t] = it->pos + k;
            b->table[t] = s->table;
            b->ids[t] = it->in[k].id;
            if (it->in[k].id < 0 && e->m.shard.first) TRY(resolve(e, &it->in[k], &b->ids[t]));
        }
    }
out:
    return rc;
}

/* ---- between stages ---- */

static int32_t stage_first_rank(const struct grid *g, int32_t stage)
{
    int32_t r = 0;
    for (int32_t i = 0; i < stage; i++) r += g->width[i];
    return r;
}

/* Hidden states are the same on every rank of a stage: rank j of a stage receives from rank j % width of the one before. */
static enum err receive_hidden(struct eng_engine *e)
{
    const struct eng_shard *h = &e->m.shard;
    int32_t prev = h->stage - 1, from = stage_first_rank(&e->grid, prev) + h->tp_rank % e->grid.width[prev];
    int64_t bytes = (int64_t)e->batch.n_tok * e->m.spec.d_model * (int64_t)sizeof(float);
    return trn_coll_recv(e->conf.world, from, e->m.x, bytes, e->conf.timeout_us);
}

static enum err send_hidden(struct eng_engine *e)
{
    enum err rc = OK;
    const struct eng_shard *h = &e->m.shard;
    int32_t next = stage_first_rank(&e->grid, h->stage + 1);
    int64_t bytes = (int64_t)e->batch.n_tok * e->m.spec.d_model * (int64_t)sizeof(float);
    for (int32_t j = h->tp_rank; j < e->grid.width[h->stage + 1]; j += h->tp_width)
        TRY(trn_coll_send(e->conf.world, next + j, e->m.x, bytes, e->conf.timeout_us));
out:
    return rc;
}

/* The first stage remembers which slots of this step will have a token. */
static enum err note_tokens(struct eng_engine *e, const struct step_plan *p)
{
    enum err rc = OK;
    struct token_note n = {.step = p->step, .slots = xmalloc(((size_t)p->n_items + 1) * sizeof *n.slots)};
    for (int32_t i = 0; i < p->n_items; i++)
        if (p->items[i].out & OUT_SAMPLE) n.slots[n.n++] = p->items[i].slot;
    if (!n.n) {
        free(n.slots);
        return OK;
    }
    if (e->n_inbox == e->cap_inbox) {
        e->cap_inbox = MAX(16, 2 * e->cap_inbox);
        e->inbox = xrealloc(e->inbox, (size_t)e->cap_inbox * sizeof *e->inbox);
    }
    e->inbox[e->n_inbox++] = n;
    while (e->n_inbox > INBOX_EAGER) TRY(read_note(e));
out:
    return rc;
}

static enum err send_tokens(struct eng_engine *e)
{
    enum err rc = OK;
    for (int32_t r = 0; r < e->grid.width[0] && e->n_tokens; r++)
        TRY(trn_coll_send(e->conf.world, r, e->tokens, e->n_tokens * (int64_t)sizeof *e->tokens, e->conf.timeout_us));
out:
    return rc;
}

/* ---- head and sampling (last stage) ---- */

/* A row of logits that somebody wants: which item, and where in it. */
struct wanted { int32_t row, item, k; bool sample, keep; };

static int32_t wanted_rows(const struct step_plan *p, struct wanted *w)
{
    int32_t n = 0, row = 0;
    for (int32_t i = 0; i < p->n_items; i++) {
        const struct step_item *it = &p->items[i];
        for (int32_t k = 0; k < it->n_in; k++, row++) {
            bool sample = (it->out & OUT_SAMPLE) && k == it->n_in - 1, keep = it->out & OUT_LOGITS;
            if (sample || keep) w[n++] = (struct wanted){row, i, k, sample, keep};
        }
    }
    return n;
}

static struct eng_history history_of(const struct eng_slot *s)
{
    return (struct eng_history){.tokens = s->history, .n = s->n_history, .n_prompt = s->n_prompt, .n_generated = s->n_generated};
}

/* Every rank's best (value, id) of each row; ties go to the lowest id, and slices are in id order. */
static enum err greedy_ids(struct eng_engine *e, int32_t n, int32_t ids[])
{
    struct best { float v; int32_t id; } mine[HEAD_ROWS], all[HEAD_ROWS * COLL_MAX_RANKS];
    const struct eng_shard *h = &e->m.shard;
    int32_t v = e->m.weights->head.rows;
    int64_t bytes[COLL_MAX_RANKS];
    for (int32_t i = 0; i < n; i++) {
        int32_t id = v ? e->m.krn->argmax(e->slice + (int64_t)i * v, v) : -1;
        mine[i] = (struct best){v ? e->slice[(int64_t)i * v + id] : -INFINITY, h->embd0 + id};
    }
    for (int32_t r = 0; r < h->tp_width; r++) bytes[r] = n * (int64_t)sizeof *mine;
    if (h->tp_width > 1) {
        enum err err = trn_coll_all_gather(e->m.tp, mine, bytes, all, e->conf.timeout_us);
        if (err) return err;
    } else {
        memcpy(all, mine, (size_t)bytes[0]);
    }
    for (int32_t i = 0; i < n; i++) {
        struct best b = all[i];
        for (int32_t r = 1; r < h->tp_width; r++)
            if (all[r * n + i].v > b.v) b = all[r * n + i];
        ids[i] = b.id;
    }
    return OK;
}

/* Whole rows on every rank of the stage: gathered[] holds the slices rank after rank. */
static enum err gather_rows(struct eng_engine *e, int32_t n)
{
    const struct eng_shard *h = &e->m.shard;
    int64_t bytes[COLL_MAX_RANKS];
    for (int32_t r = 0; r < h->tp_width; r++)
        bytes[r] = (int64_t)n * (h->vocab_bounds[r + 1] - h->vocab_bounds[r]) * (int64_t)sizeof(float);
    if (h->tp_width == 1) {
        memcpy(e->gathered, e->slice, (size_t)bytes[0]);
        return OK;
    }
    return trn_coll_all_gather(e->m.tp, e->slice, bytes, e->gathered, e->conf.timeout_us);
}

static void take_row(const struct eng_engine *e, int32_t n, int32_t i, float *row)
{
    const struct eng_shard *h = &e->m.shard;
    for (int32_t r = 0; r < h->tp_width; r++) {
        int32_t v0 = h->vocab_bounds[r], v = h->vocab_bounds[r + 1] - v0;
        memcpy(row + v0, e->gathered + (int64_t)n * v0 + (int64_t)i * v, (size_t)v * sizeof(float));
    }
}

static void sampled(struct eng_engine *e, const struct step_plan *p, const struct wanted *w, struct eng_slot *s,
                    const struct result_token *t, struct step_result *res)
{
    enum seq_finish f = eng_slots_sampled(s, p->step, t->id);
    e->tokens[e->n_tokens++] = t->id;
    if (!res->items) return;
    struct result_item *it = &res->items[w->item];
    it->tokens[0] = *t;
    it->n_tokens = 1;
    it->finish = f;
}

/* Row i of n into *t, kept to the slot's grammar. Where the tokens left would not suffice to end the text after the first choice, it is made
 * again among those after which they do. */
static void choose_constrained(struct eng_engine *e, struct eng_slot *s, int32_t n, int32_t i, int64_t position, struct result_token *t)
{
    struct eng_history h = history_of(s);
    struct sampling p = s->sampling;
    bool forced;
    int32_t left = p.max_tokens - s->n_generated - 1;
    const uint64_t *mask = eng_constraint_mask(s->constraint, &p, &forced);
    if (forced) p.min_tokens = 0;
    eng_sampler_pick(e->sampler, e->row, &p, &h, mask, position, t);
    if (forced || eng_constraint_fits(s->constraint, t->id, left)) return;
    mask = eng_constraint_mask_within(s->constraint, &p, left);
    if (!mask) return;
    take_row(e, n, i, e->row);
    p.min_tokens = 0;
    eng_sampler_pick(e->sampler, e->row, &p, &h, mask, position, t);
}

/* Rows [0,n) of `w` are in e->slice. */
static enum err choose(struct eng_engine *e, const struct step_plan *p, const struct wanted *w, int32_t n, struct step_result *res)
{
    enum err rc;
    bool whole = false;
    int32_t ids[HEAD_ROWS];
    for (int32_t i = 0; i < n; i++) {
        const struct eng_slot *s = &e->slots.slots[p->items[w[i].item].slot];
        struct eng_history h = history_of(s);
        whole |= w[i].keep || (w[i].sample && !s->stopped && (s->constraint || !eng_sampler_plain_greedy(&s->sampling, &h)));
    }
    if (whole) TRY(gather_rows(e, n));
    else TRY(greedy_ids(e, n, ids));
    for (int32_t i = 0; i < n; i++) {
        const struct step_item *it = &p->items[w[i].item];
        struct eng_slot *s = &e->slots.slots[it->slot];
        struct result_token t = {0};
        if (whole) take_row(e, n, i, e->row);
        if (w[i].keep && res->items) {
            struct result_item *r = &res->items[w[i].item];
            memcpy((float *)r->logits + (int64_t)w[i].k * e->m.spec.n_vocab, e->row, (size_t)e->m.spec.n_vocab * sizeof(float));
        }
        if (!w[i].sample) continue;
        if (s->stopped) {
            e->tokens[e->n_tokens++] = s->last_token; /* keeps the message's length; nobody reads on */
            s->last_step = p->step;                   /* a later step in flight may still name it as its input */
            continue;
        }
        struct eng_history h = history_of(s);
        if (s->constraint) choose_constrained(e, s, n, i, it->pos + it->n_in, &t);
        else if (whole) eng_sampler_pick(e->sampler, e->row, &s->sampling, &h, NULL, it->pos + it->n_in, &t);
        else t.id = ids[i];
        sampled(e, p, &w[i], s, &t, res);
    }
out:
    return rc;
}

static void prepare_result(struct eng_engine *e, const struct step_plan *p, struct arena *a, struct step_result *res)
{
    res->items = arena_alloc(a, (size_t)MAX(p->n_items, 1) * sizeof *res->items);
    res->n_items = p->n_items;
    for (int32_t i = 0; i < p->n_items; i++) {
        struct result_item *it = &res->items[i];
        it->slot = p->items[i].slot;
        if (!(p->items[i].out & OUT_LOGITS)) continue;
        it->n_logit_rows = p->items[i].n_in;
        it->logits = arena_alloc(a, (size_t)it->n_logit_rows * (size_t)e->m.spec.n_vocab * sizeof(float));
        res->n_vocab = e->m.spec.n_vocab;
    }
}

static enum err finish_step(struct eng_engine *e, const struct step_plan *p, struct arena *a, struct step_result *res)
{
    enum err rc = OK;
    struct wanted *w = arena_alloc(a, ((size_t)e->batch.n_tok + 1) * sizeof *w);
    int32_t n = wanted_rows(p, w);
    if (eng_engine_answers(e)) prepare_result(e, p, a, res);
    e->n_tokens = 0;
    for (int32_t i = 0; i < n; i += HEAD_ROWS) {
        int32_t rows[HEAD_ROWS], m = MIN(HEAD_ROWS, n - i);
        for (int32_t j = 0; j < m; j++) rows[j] = w[i + j].row;
        eng_forward_head(&e->m, rows, m, e->slice);
        TRY(choose(e, p, w + i, m, res));
    }
    if (e->grid.n_stages > 1 && e->m.shard.tp_rank == 0) TRY(send_tokens(e));
out:
    return rc;
}

/* ---- the step ---- */

enum err eng_engine_step(struct eng_engine *e, const struct step_plan *p, struct arena *a, struct step_result *result)
{
    enum err rc;
    int64_t t0 = clock_us();
    struct coll_stats before = e->conf.tp->stats;
    const struct eng_shard *h = &e->m.shard;
    *result = (struct step_result){.epoch = p->epoch, .step = p->step};
    if (e->m.times) e->m.times->last_ns = eng_times_now();
    TRY(eng_slots_apply(&e->slots, p));
    for (int32_t i = 0; i < p->n_copies; i++) eng_kv_pool_copy(e->m.kv, p->copies[i].src, p->copies[i].dst);
    TRY(fill_batch(e, p));
    if (e->batch.n_tok) {
        if (h->first) TRY(eng_forward_embed(&e->m, &e->batch));
        else TRY(receive_hidden(e));
        TRY(eng_forward_run(&e->m, &e->batch));
        if (!h->last) TRY(send_hidden(e));
    }
    if (h->last) TRY(finish_step(e, p, a, result));
    else if (h->first) TRY(note_tokens(e, p));
    eng_times_lap(e->m.times, ENG_OP_OTHER);
    result->comm_us = (uint32_t)(e->conf.tp->stats.wait_us - before.wait_us);
    result->comm_bytes = e->conf.tp->stats.bytes_sent - before.bytes_sent;
    result->compute_us = (uint32_t)(clock_us() - t0);
out:
    return rc;
}

/* ---- before loading ---- */

static enum err open_header(const char *path, struct eng_model_file **f, struct eng_spec *s)
{
    enum err e = eng_model_file_open(f, path);
    return e ? e : eng_spec_read(s, *f);
}

enum err eng_engine_fingerprint(const char *path, uint64_t *out)
{
    struct eng_model_file *f = NULL;
    enum err e = eng_model_file_open(&f, path);
    if (!e) e = eng_fingerprint(f, out);
    eng_model_file_close(f);
    return e;
}

enum err eng_engine_model_info(const char *path, struct model_info *out)
{
    struct eng_model_file *f = NULL;
    struct eng_spec s;
    enum err e = open_header(path, &f, &s);
    if (!e) eng_spec_info(&s, f, out);
    eng_model_file_close(f);
    return e;
}

enum err eng_engine_grid(const char *path, int32_t tp, int32_t pp, struct grid *out)
{
    enum err rc;
    struct eng_model_file *f = NULL;
    struct eng_spec s;
    struct eng_shard h;
    struct grid g;
    TRY(open_header(path, &f, &s));
    TRY(eng_grid_even(&g, &s, tp, pp));
    for (int32_t r = 0; r < grid_ranks(&g); r++) TRY(eng_shard_of(&h, &s, &g, r));
    *out = g;
out:
    eng_model_file_close(f);
    return rc;
}

enum err eng_engine_need(const char *path, const struct grid *g, int32_t rank, bool kv_f16, int32_t max_step_tokens,
                         int32_t context, struct eng_engine_need *out)
{
    enum err rc;
    struct eng_model_file *f = NULL;
    struct eng_spec s;
    struct eng_shard h;
    TRY(open_header(path, &f, &s));
    TRY(eng_shard_of(&h, &s, g, rank));
    TRY(eng_weights_file_bytes(f, &s, &h, &out->weight_bytes));
    out->block_bytes = eng_shard_kv_block_bytes(&h, &s, kv_f16);
    out->buffer_bytes = leaf_buffer_bytes(&(struct leaf_buffers){
        .d_model = s.d_model, .head_dim = s.head_dim, .rope_dim = s.rope_dim, .n_vocab = s.n_vocab, .heads = h.q1 - h.q0,
        .kv_heads = h.kv1 - h.kv0, .ffn_cols = h.ffn1 - h.ffn0, .nodes = MAX(h.attn.n_nodes, h.ffn.n_nodes), .vocab_rows = h.embd1 - h.embd0,
        .last = h.last, .max_step_tokens = max_step_tokens, .context = context, .n_slots = 64});
out:
    eng_model_file_close(f);
    return rc;
}

/* ---- for the planner ---- */

static void add_part(struct model_part *p, const struct eng_model_file *f, const char *fmt, int32_t layer, int64_t bytes_of[])
{
    char name[96];
    snprintf(name, sizeof name, fmt, layer);
    const struct model_tensor *t = eng_model_file_tensor_find(f, name);
    if (!t) return;
    if (t->type >= DTYPE_COUNT || t->dims[1] == 1) { /* vectors lie in memory as f32 */
        p->mem += t->dims[1] == 1 ? t->dims[0] * 4 : t->bytes;
    } else {
        p->mem += krn_pack_tile_bytes(t->type, (int32_t)t->dims[0]) * DIV_UP(t->dims[1], KRN_TILE);
        bytes_of[t->type] += t->bytes;
    }
    p->file += t->bytes;
}

enum err eng_engine_weights(const char *path, struct model_weights *out)
{
    static const char *const q[] = {"blk.%d.attn_q.weight", "blk.%d.attn_q.bias", "blk.%d.attn_output.weight"};
    static const char *const kv[] = {"blk.%d.attn_k.weight", "blk.%d.attn_v.weight", "blk.%d.attn_k.bias", "blk.%d.attn_v.bias"};
    static const char *const ffn[] = {"blk.%d.ffn_gate.weight", "blk.%d.ffn_up.weight", "blk.%d.ffn_down.weight"};
    static const char *const rest[] = {"blk.%d.attn_norm.weight", "blk.%d.ffn_norm.weight", "blk.%d.attn_q_norm.weight", "blk.%d.attn_k_norm.weight"};
    enum err rc;
    struct eng_model_file *f = NULL;
    struct eng_spec s;
    int64_t bytes_of[DTYPE_COUNT] = {0};
    TRY(open_header(path, &f, &s));
    *out = (struct model_weights){.n_layers = s.n_layers, .tied = s.tied, .rope_dim = s.rope_dim};
    for (int32_t l = 0; l < s.n_layers; l++) {
        struct model_layer *y = &out->layers[l];
        for (size_t i = 0; i < COUNT_OF(q); i++) add_part(&y->q, f, q[i], l, bytes_of);
        for (size_t i = 0; i < COUNT_OF(kv); i++) add_part(&y->kv, f, kv[i], l, bytes_of);
        for (size_t i = 0; i < COUNT_OF(ffn); i++) add_part(&y->ffn, f, ffn[i], l, bytes_of);
        for (size_t i = 0; i < COUNT_OF(rest); i++) add_part(&y->rest, f, rest[i], l, bytes_of);
    }
    add_part(&out->embd, f, "token_embd.weight", 0, bytes_of);
    add_part(&out->head, f, s.tied ? "token_embd.weight" : "output.weight", 0, bytes_of);
    add_part(&out->ends, f, "output_norm.weight", 0, bytes_of);
    int32_t most = 0;
    for (int32_t t = 1; t < DTYPE_COUNT; t++)
        if (bytes_of[t] > bytes_of[most]) most = t;
    snprintf(out->type, sizeof out->type, "%s", dtype_name((enum dtype)most));
out:
    eng_model_file_close(f);
    return rc;
}
