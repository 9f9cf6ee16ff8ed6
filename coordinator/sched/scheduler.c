/* scheduler.c: see scheduler.h: the life of one step (spine 2) and of what it answers.
 *
 *   crd_sched_step       ends due -> decodes (room, preemption) -> prefills and admissions -> plan;
 *                        what the step computes is published to the prefix cache and siblings
 *   crd_sched_on_result  check whole -> tokens, logits, finishes -> retire: whoever waited for
 *                        this step leaves (result.c)
 *
 * A step counts as sent when crd_sched_step returns it. Invariants: check.c states them all. */
#include "coordinator/sched/scheduler.h"
#include "coordinator/sched/admission.h"
#include "coordinator/sched/batch.h"
#include "coordinator/sched/preempt.h"
#include "coordinator/sched/life.h"
#include "coordinator/sched/result.h"
#include "coordinator/sched/share.h"
#include "coordinator/sched/window.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- open, close ---- */

static void forget_block(void *user, int32_t id)
{
    crd_prefix_forget(user, id);
}

/* Nodes of the prefix tree: one a block and one a running sequence; where nothing but windows is kept, also those that only say
 * what came before a window. */
static int32_t n_nodes(const struct sched_conf *conf)
{
    const struct kv_groups *k = &conf->groups;
    int32_t each = k->n_full ? 1 : DIV_UP(DIV_UP(conf->context, LIMIT_BLOCK_TOKENS), kv_groups_kept(k));
    return conf->n_blocks * MIN(each, 8) + conf->n_slots;
}

/* What depends on the replica. Lifetime: of one epoch. */
static void open_replica(struct crd_sched *s, const struct sched_conf *conf)
{
    const size_t n_slots = (size_t)conf->n_slots;
    ASSERT(conf->n_blocks > 0 && conf->n_slots > 0 && conf->n_stages > 0 && conf->depth > 0 &&
           conf->max_step_tokens > 0 && conf->context > 0 && conf->max_waiting >= 0);
    s->conf = *conf;
    if (!conf->groups.n) s->conf.groups = kv_groups_of(1, 0, 0);
    conf = &s->conf;
    s->longest = (int32_t)MIN(kv_groups_longest(&conf->groups, conf->n_blocks), (int64_t)conf->context);
    crd_prefix_open(&s->prefix, n_nodes(conf), conf->n_blocks, conf->prefix_key);
    crd_blocks_open(&s->blocks, conf->n_blocks, forget_block, &s->prefix);
    crd_batch_open(&s->batch, conf);
    s->slots = xcalloc(n_slots, sizeof *s->slots);
    s->free_slots = xcalloc(n_slots, sizeof *s->free_slots);
    s->ends = xcalloc(n_slots, sizeof *s->ends);
    for (int32_t i = 0; i < conf->n_slots; i++) s->free_slots[i] = conf->n_slots - 1 - i;
    s->n_free_slots = conf->n_slots;
    s->n_ends = 0;
    s->recs = xcalloc((size_t)conf->depth, sizeof *s->recs);
    for (int32_t i = 0; i < conf->depth; i++)
        s->recs[i].items = xcalloc((size_t)s->batch.max_items, sizeof *s->recs[i].items);
    s->first_rec = s->n_in_flight = 0;
    s->step = s->retired = 0;
    const size_t most = ((size_t)DIV_UP(conf->context, LIMIT_BLOCK_TOKENS) + 1) * (size_t)conf->groups.n;
    s->scratch_ids = xcalloc(most, sizeof *s->scratch_ids);
    s->scratch_new = xcalloc(most, sizeof *s->scratch_new);
    s->stalled = NULL;
}

static void close_replica(struct crd_sched *s)
{
    crd_prefix_close(&s->prefix);
    crd_blocks_close(&s->blocks);
    crd_batch_close(&s->batch);
    for (int32_t i = 0; i < s->conf.depth; i++) free(s->recs[i].items);
    free(s->recs);
    free(s->slots);
    free(s->free_slots);
    free(s->ends);
    free(s->scratch_ids);
    free(s->scratch_new);
}

struct crd_sched *crd_sched_open(const struct sched_conf *conf, token_event_fn on_event, void *user)
{
    struct crd_sched *s = xcalloc(1, sizeof *s);
    s->on_event = on_event;
    s->user = user;
    s->next_id = 1;
    s->resumed =
        (struct crd_heap){.before = crd_seq_before, .at_offset = offsetof(struct crd_seq, heap_at)};
    crd_fair_open(&s->fair);
    for (s->n_buckets = 64; s->n_buckets < conf->max_waiting && s->n_buckets < 1 << 16;)
        s->n_buckets *= 2;
    s->by_request = xcalloc((size_t)s->n_buckets, sizeof(struct crd_group *));
    open_replica(s, conf);
    return s;
}

void crd_sched_close(struct crd_sched *s)
{
    if (!s) return;
    for (struct crd_group *g = s->groups, *next; g; g = next) {
        next = g->next;
        crd_group_free(g);
    }
    close_replica(s);
    crd_heap_free(&s->resumed);
    crd_fair_close(&s->fair);
    free(s->by_request);
    free(s);
}

/* ---- requests and results ---- */

enum err crd_sched_submit(struct crd_sched *s, const struct gen_request *r, int64_t now_us)
{
    s->now_us = now_us;
    return crd_life_submit(s, r);
}

void crd_sched_cancel(struct crd_sched *s, uint64_t request, int64_t now_us)
{
    s->now_us = now_us;
    crd_life_cancel(s, request);
}

void crd_sched_fail_all(struct crd_sched *s, enum err err, const char *text, int64_t now_us)
{
    s->now_us = now_us;
    crd_life_fail_all(s, err, text);
}

enum err crd_sched_on_result(struct crd_sched *s, const struct step_result *r, int64_t now_us)
{
    s->now_us = now_us;
    return crd_result_take(s, r);
}

/* ---- the step ---- */

/* Is its next input known to the scheduler, or far enough ahead in the pipeline? */
static bool ready_to_decode(const struct crd_sched *s, const struct crd_seq *q)
{
    return q->last_step <= s->retired || (!q->guess.on && q->last_step + (uint64_t)s->conf.n_stages <= s->batch.step);
}

/* Returns whether somebody found no block. */
static bool fill_decodes(struct crd_sched *s)
{
    struct crd_list later = {0};
    bool starved = false;
    const int32_t per_step = DIV_UP(s->decodes.n, s->conf.n_stages); /* equal micro-batches */
    for (struct crd_seq *q; (q = s->decodes.head) && (q->guess.on || ready_to_decode(s, q)) && !crd_batch_full(&s->batch);) {
        if (s->batch.n_items == per_step) break;
        crd_list_remove(q);
        if (!ready_to_decode(s, q)) {
            crd_list_append(&later, q);
            continue;
        }
        enum crd_room room = crd_preempt_room(s, q);
        if (room == ROOM_LATER) starved = true;
        if (room == ROOM_LATER || (room == ROOM_OK && !crd_batch_item(s, q)))
            crd_list_append(&later, q);
    }
    for (struct crd_seq *q; (q = later.tail);) {
        crd_list_remove(q);
        crd_list_prepend(&s->decodes, q);
    }
    return starved;
}

static bool prefill_before(const struct crd_seq *a, const struct crd_seq *b)
{
    const struct crd_tenant *ta = a->group->tenant, *tb = b->group->tenant;
    if (a->resumed != b->resumed) return a->resumed;
    if (ta->served != tb->served) return ta->served < tb->served;
    return crd_seq_before(a, b);
}

/* Who prefills next of those that have begun. The list is short: one stays in it only when a step's
 * budget has cut its prompt. */
static struct crd_seq *next_prefill(const struct crd_sched *s)
{
    struct crd_seq *best = NULL;
    for (struct crd_seq *q = s->prefills.head; q; q = q->next)
        if (q->last_step < s->batch.step && (!best || prefill_before(q, best))) best = q;
    return best;
}

static void fill_prefills(struct crd_sched *s, bool may_start)
{
    while (!crd_batch_full(&s->batch)) {
        struct crd_seq *q = next_prefill(s), *w = may_start ? crd_admission_first(s) : NULL;
        if (w && s->batch.rows_left && (!q || prefill_before(w, q))) {
            may_start = crd_admission_start(s, w);
            if (!may_start) continue;
            q = w;
        }
        if (!q) break;
        const enum crd_room room = crd_preempt_chunk(s, q);
        if (room == ROOM_LEFT) may_start = false;
        if (room == ROOM_LEFT) continue;
        if (room == ROOM_LATER || !crd_batch_item(s, q)) break;
    }
}

/* The step is as good as sent: what it computes can be read by later ones. */
static void publish_step(struct crd_sched *s, const struct crd_step_rec *rec)
{
    for (int32_t i = 0; i < rec->n; i++) {
        struct crd_seq *q = rec->items[i].seq;
        crd_share_publish(s, q, MIN(crd_seq_known(q), q->n_computed));
        if (q->group->leader == q && q->n_computed >= q->group->n_prompt) {
            crd_share_keep(s, q);
            crd_admission_release_held(s, q->group);
        }
        crd_window_slide(s, q);
    }
}

bool crd_sched_step(struct crd_sched *s, int64_t now_us, struct arena *a, struct step_plan *out)
{
    s->now_us = now_us;
    if (s->n_in_flight == s->conf.depth) return false;
    crd_batch_begin(s, a);
    fill_prefills(s, !fill_decodes(s));
    if (!s->batch.n_items) {
        crd_batch_abandon(s);
        return false;
    }
    s->stats.n_steps++;
    s->stats.last_step_tokens =
        MIN(s->conf.max_step_tokens, (int32_t)LIMIT_STEP_TOKENS) - s->batch.tokens_left;
    struct crd_step_rec *rec = s->batch.rec;
    crd_batch_finish(s, out);
    publish_step(s, rec);
    return true;
}

/* ---- a new replica ---- */

/* A loss that finds it no further than the one before may be of its doing. */
static void count_loss(struct crd_seq *q)
{
    int32_t n_prompt = q->group->n_prompt, at = q->n_gen ? n_prompt + q->n_gen : MIN(q->n_computed, n_prompt);
    q->n_lost = at > q->reached ? 1 : q->n_lost + 1;
    q->reached = MAX(q->reached, at);
}

/* It loses what the old replica held for it. Its group may be gone after. */
static void lose_replica(struct crd_sched *s, struct crd_seq *q)
{
    if (crd_seq_running(q)) count_loss(q);
    q->n_blocks = 0;
    q->node = PREFIX_NONE;
    q->slot = -1;
    q->last_step = q->sample_step = 0;
    q->n_hashes = 0;
    if (q->state == SEQ_DRAINING)
        crd_life_gone(s, q);
    else if (crd_seq_running(q))
        crd_preempt_requeue(s, q);
}

static void end_if_too_long(struct crd_sched *s, struct crd_seq *q)
{
    if (q->state == SEQ_DRAINING || crd_seq_known(q) <= s->longest) return;
    char *text = xasprintf("the sequence has %" PRId32
                           " tokens; after the loss of a worker the cluster has room for %" PRId32,
                           crd_seq_known(q), s->longest);
    crd_life_finish(s, q, FINISH_NONE, ERR_NO_BLOCKS, text);
    free(text);
}

/* What brings its workers down would do so for ever, and take everybody's answers along. */
static void end_if_hopeless(struct crd_sched *s, struct crd_seq *q)
{
    if (q->state == SEQ_DRAINING || !s->conf.max_losses || q->n_lost < s->conf.max_losses) return;
    char *text = xasprintf("the workers were lost %" PRId32 " times, one after the other, while they worked on this request: it is not tried again", q->n_lost);
    crd_life_finish(s, q, FINISH_NONE, ERR_UNAVAILABLE, text);
    free(text);
}

/* Call f on every sequence not yet gone; f may make it, and its group, go. */
static void for_each_seq(struct crd_sched *s, void (*f)(struct crd_sched *s, struct crd_seq *q))
{
    for (struct crd_group *g = s->groups, *next; g; g = next) {
        next = g->next;
        for (int32_t i = 0, left = g->n - g->n_gone; left; i++) {
            struct crd_seq *q = &g->seqs[i];
            if (q->gone) continue;
            left--;
            f(s, q);
        }
    }
}

void crd_sched_restart(struct crd_sched *s, const struct sched_conf *conf, int64_t now_us)
{
    s->now_us = now_us;
    while (crd_share_reclaim(s)) {
    }
    close_replica(s);
    open_replica(s, conf);
    for_each_seq(s, lose_replica);
    for_each_seq(s, end_if_too_long);
    for_each_seq(s, end_if_hopeless);
}

void crd_sched_hand_over(struct crd_sched *s, int64_t now_us,
                         void (*take)(void *user, struct crd_group *g), void *user)
{
    const struct sched_conf same = s->conf;
    crd_sched_restart(s, &same, now_us);
    while (s->groups) {
        struct crd_group *g = s->groups;
        crd_life_release(s, g);
        take(user, g);
    }
}

void crd_sched_adopt(struct crd_sched *s, struct crd_group *g, int64_t now_us)
{
    s->now_us = now_us;
    crd_life_adopt(s, g);
    for (int32_t i = 0, n = g->n, n_gone = g->n_gone; i < n && n_gone < n; i++) {
        struct crd_seq *q = &g->seqs[i];
        if (q->gone) continue;
        n_gone += crd_seq_known(q) > s->longest; /* with the last of them the group is gone */
        end_if_too_long(s, q);
    }
}

uint64_t crd_sched_handed_id(const struct crd_group *g)
{
    return g->request;
}

const int32_t *crd_sched_handed_prompt(const struct crd_group *g, int32_t *n, uint64_t *salt)
{
    *n = g->n_prompt;
    *salt = g->salt;
    return g->prompt;
}

void crd_sched_discard(struct crd_group *g)
{
    if (g) crd_group_free(g);
}

/* ---- what it looks like ---- */

static uint32_t adapter_bit(int32_t adapter) { return adapter ? UINT32_C(1) << (adapter - 1) : 0; }

static void adapter_stats(const struct crd_sched *s, struct sched_stats *out)
{
    const struct crd_list *const running[] = {&s->prefills, &s->decodes};
    out->adapters_running = out->adapters_waiting = 0;
    for (int32_t i = 1; i <= LIMIT_ADAPTERS; i++)
        if (s->of_adapter[i]) out->adapters_waiting |= adapter_bit(i);
    if (!out->adapters_waiting) return;
    for (size_t k = 0; k < COUNT_OF(running); k++)
        for (const struct crd_seq *q = running[k]->head; q; q = q->next) out->adapters_running |= adapter_bit(q->group->adapter);
    out->adapters_waiting &= ~out->adapters_running;
}

void crd_sched_stats(const struct crd_sched *s, struct sched_stats *out)
{
    *out = s->stats;
    out->n_running = crd_sched_n_running(s);
    out->n_waiting = s->n_new + s->resumed.n;
    out->n_waiting_blocks = s->stalled ? out->n_waiting : 0;
    out->n_in_flight = s->n_in_flight;
    adapter_stats(s, out);
    out->n_behind = s->resumed.n;
    for (const struct crd_seq *q = s->prefills.head; q; q = q->next) out->n_behind += q->resumed;
    out->n_blocks = s->conf.n_blocks;
    out->n_blocks_cached = s->blocks.n_idle;
    out->n_blocks_used = s->conf.n_blocks - s->blocks.n_free - s->blocks.n_idle;
}

bool crd_sched_idle(const struct crd_sched *s)
{
    return !s->n_in_flight && !s->n_new && !s->resumed.n && !crd_sched_n_running(s);
}
