/* step.c: see engine.h: the life of one step on one rank.
 *
 *   apply records -> inputs -> [receive hidden] -> layers -> [send hidden | head, sample, answer, send tokens to the first stage]
 *
 * What stages say to each other is in stages.c, the end of a step on the last stage in head.c. A rank on a device, alone with the model or beside others that
 * have theirs, need not wait for a step's tokens before it tells the device the next step: they stay there (head_left.c), where that step's inputs are taken
 * from. Everything of both lies in one order on the device, so they share all that is there; of the host's, each has its own side for what comes over, and
 * what goes over is copied before the call returns. */
#include "engine/engine_impl.h"

#include "base/clock.h"
#include "engine/model/graphs.h"
#include "engine/model/left.h"
#include "engine/model/staging.h"

/* Inputs that are on the device are taken from there, known here or not: every rank of the stage shall tell its device the same. */
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
            b->adapter[t] = s->adapter;
            for (int32_t g = 0; g < e->m.groups.n; g++) b->table[g][t] = s->table[g];
            b->ids[t] = it->in[k].id;
            if (it->in[k].id >= 0 || !e->m.shard.first) continue;
            if (e->m.left.there) b->ids[t] = eng_head_left(&e->head, &it->in[k]);
            if (!e->m.left.there || b->ids[t] == 0) TRY(eng_stages_token(&e->stages, &it->in[k], &b->ids[t]));
        }
    }
out:
    return rc;
}

static enum err run_layers(struct eng_engine *e)
{
    enum err rc;
    const float *x;
    int64_t n = (int64_t)e->batch.n_tok * e->m.spec.d_model;
    if (e->m.shard.first) TRY(eng_forward_embed(&e->m, &e->batch));
    else {
        TRY(eng_stages_receive(&e->stages, eng_staging_room(&e->m, e->m.x), n));
        TRY(eng_staging_put(&e->m, e->m.x, n));
    }
    TRY(eng_forward_run(&e->m, &e->batch));
    if (!e->m.shard.last) {
        TRY(eng_staging_get(&e->m, e->m.x, n, &x));
        TRY(eng_stages_send(&e->stages, x, n));
    }
out:
    return rc;
}

static enum err finish(struct eng_engine *e, const struct step_plan *p, struct arena *a, struct step_result *res)
{
    enum err rc;
    TRY(eng_head_step(&e->head, p, a, res));
    if (e->grid.n_stages > 1 && e->m.shard.tp_rank == 0) TRY(eng_stages_send_tokens(&e->stages, e->head.tokens, e->head.n_tokens));
out:
    return rc;
}

/* Masks of the sequences that will choose at the end of this step, from here on beside the pass. */
static void look_ahead(struct eng_engine *e, const struct step_plan *p)
{
    for (int32_t i = 0; i < p->n_items; i++) {
        const struct eng_slot *s = &e->slots.slots[p->items[i].slot];
        if ((p->items[i].out & OUT_SAMPLE) && !s->stopped) eng_mask_ahead_add(e->masks, s->constraint);
    }
    eng_mask_ahead_start(e->masks);
}

/* ---- one step before the other has ended ---- */

static struct eng_flight *oldest(struct eng_engine *e) { return e->n_begun > e->n_ended ? &e->flights[e->n_ended % 2] : NULL; }

bool eng_engine_overlaps(struct eng_engine *e)
{
    const struct eng_flight *f = oldest(e);
    return f && f->left && e->n_begun - e->n_ended == 1;
}

/* Are an item's inputs known, or on the device? */
static bool inputs_there(const struct eng_head *hd, const struct step_item *it)
{
    bool all = true;
    for (int32_t k = 0; k < it->n_in && all; k++) all = it->in[k].id >= 0 || eng_head_left(hd, &it->in[k]) < 0;
    return all;
}

bool eng_engine_may_begin(struct eng_engine *e, const struct step_plan *p)
{
    if (!eng_engine_overlaps(e) || p->flags || p->n_ends || p->n_starts || p->n_forks || p->n_copies) return false;
    bool may = p->n_items && eng_graphs_cover(&e->m, step_plan_tokens(p)) && eng_head_leaves(&e->head, p);
    for (int32_t i = 0; i < p->n_items && may; i++)
        may = e->slots.slots[p->items[i].slot].used && inputs_there(&e->head, &p->items[i]);
    return may;
}

enum err eng_engine_came(struct eng_engine *e, bool *done)
{
    const struct eng_flight *f = oldest(e);
    *done = true;
    return f && f->left ? eng_left_came(&e->m, (int32_t)(e->n_ended % 2), done) : OK;
}

/* ---- the step ---- */

/* What was said to other ranks since *since counts as this step's. */
static void count_comm(const struct eng_engine *e, struct eng_flight *f, const struct coll_stats *since)
{
    struct coll_stats now;
    eng_engine_comm(e, &now);
    f->comm.wait_us += now.wait_us - since->wait_us;
    f->comm.bytes_sent += now.bytes_sent - since->bytes_sent;
}

enum err eng_engine_begin(struct eng_engine *e, const struct step_plan *p, struct arena *a, struct step_result *result)
{
    enum err rc;
    const struct eng_shard *h = &e->m.shard;
    const int32_t side = (int32_t)(e->n_begun % 2);
    const bool ahead = e->n_begun > e->n_ended;
    struct eng_flight *f = &e->flights[side];
    struct coll_stats since;
    ASSERT(!ahead || eng_engine_may_begin(e, p));
    *f = (struct eng_flight){.p = p, .a = a, .result = result, .begun_us = clock_us()};
    eng_engine_comm(e, &since);
    *result = (struct step_result){.epoch = p->epoch, .step = p->step};
    if (e->m.times) e->m.times->last_ns = eng_times_now();
    eng_backend_enter(e->m.be);
    TRY(eng_slots_apply(&e->slots, p));
    for (int32_t i = 0; i < p->n_copies; i++) TRY(eng_kv_pool_copy(e->m.kv, p->copies[i].src, p->copies[i].dst));
    TRY(fill_batch(e, p));
    if (h->last) look_ahead(e, p);
    if (e->batch.n_tok) TRY(run_layers(e));
    if (h->last) eng_mask_ahead_settle(e->masks);
    f->left = h->last && eng_head_leaves(&e->head, p);
    if (f->left) TRY(eng_head_leave(&e->head, p, a, side));
    else if (h->last) TRY(finish(e, p, a, result));
    else if (h->first) TRY(eng_stages_expect_tokens(&e->stages, p));
    count_comm(e, f, &since);
    e->n_begun++;
    e->n_ahead += ahead;
out:
    if (rc && h->last) eng_mask_ahead_settle(e->masks);
    return rc;
}

enum err eng_engine_end(struct eng_engine *e)
{
    enum err rc = OK;
    struct eng_flight *f = oldest(e);
    struct coll_stats since;
    ASSERT(f);
    eng_engine_comm(e, &since);
    if (f->left) TRY(eng_head_take(&e->head, f->p, f->a, (int32_t)(e->n_ended % 2), f->result));
    e->n_ended++;
    eng_times_lap(e->m.times, ENG_OP_OTHER);
    count_comm(e, f, &since);
    int64_t from = MAX(f->begun_us, e->ended_us); /* what it waited for the step before is that one's */
    e->ended_us = clock_us();
    f->result->comm_us = (uint32_t)f->comm.wait_us;
    f->result->comm_bytes = f->comm.bytes_sent;
    f->result->compute_us = (uint32_t)(e->ended_us - from);
out:
    return rc;
}

enum err eng_engine_step(struct eng_engine *e, const struct step_plan *p, struct arena *a, struct step_result *result)
{
    enum err rc = eng_engine_begin(e, p, a, result);
    return rc ? rc : eng_engine_end(e);
}
