/* admission.c: see admission.h.
 *
 * Strictly in order: when the first in line finds no room, nobody else starts, so a large request
 * cannot be starved by small ones. A sequence gets the blocks of all its known tokens at once, so a
 * prefill never waits for blocks and two half-filled ones cannot block each other; a few blocks are
 * left to the running ones, who would otherwise preempt it right away. */
#include "coordinator/sched/admission.h"
#include "coordinator/sched/batch.h"
#include "coordinator/sched/share.h"

#include <inttypes.h>
#include <math.h>

enum { SHARE = 8 };
enum { HEADROOM_PER = 4 }; /* one block is left free for so many running sequences */

static enum err check_values(const struct gen_request *r)
{
    if (r->n_prompt < 1)
        return err_raise(ERR_BAD_REQUEST, "the prompt is empty; at least one token is needed");
    if (r->n < 1) return err_raise(ERR_BAD_REQUEST, "n is %" PRId32 ", at least 1 is needed", r->n);
    if (r->sampling.max_tokens < 1)
        return err_raise(ERR_BAD_REQUEST, "max_tokens is %" PRId32 ", at least 1 is needed",
                         r->sampling.max_tokens);
    for (int32_t i = 0; r->known && i < r->n; i++)
        if (!r->known[i].over && (r->known[i].n < 0 || r->known[i].n >= r->sampling.max_tokens))
            return err_raise(ERR_BAD_REQUEST,
                             "%" PRId32 " tokens are known of choice %" PRId32
                             ", which is to go on; max_tokens is %" PRId32,
                             r->known[i].n, i, r->sampling.max_tokens);
    if (!gen_request_open(r))
        return err_raise(ERR_BAD_REQUEST, "every choice is over; at least one to go on is needed");
    if (r->pool && (r->n != 1 || r->prompt_logits || r->sample_logits || r->grammar.kind))
        return err_raise(ERR_BAD_REQUEST,
                         "a pooled prompt generates nothing: n is %" PRId32
                         ", 1 is needed, without logits and grammar",
                         r->n);
    if (!(r->weight > 0) || !isfinite(r->weight))
        return err_raise(ERR_BAD_REQUEST, "the tenant's weight is %g, a positive number is needed",
                         (double)r->weight);
    return OK;
}

/* The queue is bounded, and no key may fill it: a key may have SHARE times the room that is left (so one alone gets 8 of 9 places, two 8 of
 * 17 each, ...), and there is always some for a key that asks for little. Source: Choudhury and Hahne, "Dynamic queue length thresholds for
 * shared-memory packet switches" (1998). */
static enum err check_queue(const struct crd_sched *s, const struct gen_request *r)
{
    const int64_t room = s->conf.max_waiting - (int64_t)s->n_new,
                  has = r->tenant ? crd_fair_n_waiting(&s->fair, r->tenant) : 0;
    if (r->n > room)
        return err_raise(ERR_QUEUE_FULL,
                         "%" PRId32 " sequences wait and %" PRId32 " more came; at most %" PRId32
                         " may wait: try again later",
                         s->n_new, r->n, s->conf.max_waiting);
    if (r->tenant && has + r->n > SHARE * room)
        return err_raise(ERR_SHARE_FULL,
                         "%" PRId64 " sequences of this key wait and %" PRId32
                         " more came; of the %" PRId64 " places left it may have %d for each: the "
                         "rest is for other keys; try again later",
                         has, r->n, room, SHARE);
    return OK;
}

enum err crd_admission_check(const struct crd_sched *s, const struct gen_request *r)
{
    enum err rc = OK;
    TRY(check_values(r));
    const int32_t n_out = r->pool ? 0 : r->sampling.max_tokens;
    const int64_t need = (int64_t)r->n_prompt + n_out;
    const int64_t pool = kv_groups_longest(&s->conf.groups, s->conf.n_blocks);
    if (need > s->conf.context)
        TRY(err_raise(ERR_TOO_LONG,
                      "%" PRId32 " prompt tokens and max_tokens %" PRId32 " make %" PRId64
                      "; the context is %" PRId32 " tokens: shorten the prompt or lower max_tokens",
                      r->n_prompt, n_out, need, s->conf.context));
    if (need > pool)
        TRY(err_raise(
            ERR_TOO_LONG,
            "%" PRId32 " prompt tokens and max_tokens %" PRId32 " make %" PRId64
            "; the whole KV pool holds %" PRId64
            " tokens: shorten the prompt, lower max_tokens, or give the cluster more KV memory",
            r->n_prompt, n_out, need, pool));
    /* what was accepted elsewhere is not turned away here */
    if (!r->known) TRY(check_queue(s, r));
out:
    return rc;
}

/* ---- the line ---- */

void crd_admission_wait(struct crd_sched *s, struct crd_seq *q)
{
    crd_seq_move(q, SEQ_WAITING);
    if (q->resumed)
        crd_heap_push(&s->resumed, q);
    else
        crd_fair_wait(&s->fair, q->group->tenant, q);
}

void crd_admission_unwait(struct crd_sched *s, struct crd_seq *q)
{
    if (q->resumed)
        crd_heap_remove(&s->resumed, q);
    else
        crd_fair_unwait(&s->fair, q->group->tenant, q);
    if (s->stalled == q) s->stalled = NULL;
}

struct crd_seq *crd_admission_first(const struct crd_sched *s)
{
    struct crd_seq *q = crd_heap_top(&s->resumed);
    return q ? q : crd_fair_first(&s->fair);
}

void crd_admission_add(struct crd_sched *s, struct crd_group *g)
{
    struct crd_seq *first = NULL;
    s->n_new += g->n_unstarted;
    for (int32_t i = 0; i < g->n; i++) {
        struct crd_seq *q = &g->seqs[i];
        if (q->gone) continue;
        if (q->started) {
            crd_admission_wait(s, q);
        } else if (!first) {
            first = q;
            if (g->n_unstarted > 1) g->leader = q;
            crd_admission_wait(s, q);
        } else {
            crd_seq_move(q, SEQ_HELD);
        }
    }
}

void crd_admission_release_held(struct crd_sched *s, struct crd_group *g)
{
    g->leader = NULL;
    for (int32_t i = 0; i < g->n; i++)
        if (g->seqs[i].state == SEQ_HELD) crd_admission_wait(s, &g->seqs[i]);
}

/* ---- start ---- */

/* Rows [n, total) of a table: of groups that see everything all blocks, of windowed ones the first. */
static int32_t fresh_blocks(const struct kv_groups *k, int32_t n, int32_t total)
{
    return (total - n) * k->n_full + kv_groups_windowed(k);
}

static void lay_rows(const struct kv_groups *k, int32_t n, int32_t total, const int32_t *fresh, int32_t ids[])
{
    for (int32_t i = n; i < total; i++)
        for (int32_t g = 0; g < k->n; g++) ids[i * k->n + g] = g < k->n_full || i == n ? *fresh++ : -1;
}

/* References on what can be shared and on fresh blocks for the rest, or nothing at all: false. Beside others it starts only if there
 * is room for its whole window, which it takes chunk by chunk. */
static bool take_blocks(struct crd_sched *s, struct crd_seq *q, struct crd_found *found)
{
    const struct kv_groups *k = &s->conf.groups;
    int32_t *ids = s->scratch_ids, total = DIV_UP(crd_seq_known(q), LIMIT_BLOCK_TOKENS),
            n_running = crd_sched_n_running(s);
    *found = crd_share_find(s, q, ids);
    const int32_t n = found->n, fresh = fresh_blocks(k, n, total);
    int64_t room = fresh + (int64_t)DIV_UP(n_running, HEADROOM_PER) * k->n;
    if (n_running) room += (int64_t)(MIN(total - n, kv_groups_kept(k)) - 1) * kv_groups_windowed(k);
    for (int32_t i = 0; i < n * k->n; i++)
        if (ids[i] >= 0) crd_blocks_hold(&s->blocks, ids[i]);
    do {
        if (room > crd_blocks_room(&s->blocks)) continue;
        if (crd_blocks_take(&s->blocks, fresh, s->scratch_new)) continue;
        lay_rows(k, n, total, s->scratch_new, ids);
        crd_seq_add_blocks(q, total, k->n, ids);
        return true;
    } while (!n_running && !s->leaving.n && crd_share_reclaim(s));
    crd_blocks_drop(&s->blocks, n * k->n, ids);
    ASSERT(n_running || s->leaving.n);
    return false;
}

static void count_first_start(struct crd_sched *s, struct crd_seq *q, int32_t n_found)
{
    struct crd_group *g = q->group;
    s->n_new--;
    if (g->n_unstarted == g->n) {
        g->n_cached = n_found * LIMIT_BLOCK_TOKENS;
        s->stats.prompt_tokens += (uint64_t)g->n_prompt;
        if (s->conf.prefix_cache) {
            s->stats.prefix_queries += (uint64_t)g->n_prompt;
            s->stats.prefix_hits += (uint64_t)g->n_cached;
        }
    }
    q->started = true;
    if (!--g->n_unstarted) crd_share_drop(s, g);
}

bool crd_admission_start(struct crd_sched *s, struct crd_seq *q)
{
    struct crd_found found;
    if (!s->n_free_slots || !crd_batch_has_room_to_start(&s->batch, q)) return false;
    if (s->stalled == q && s->stalled_at == s->blocks.n_drops) return false;
    if (!take_blocks(s, q, &found)) {
        s->stalled = q;
        s->stalled_at = s->blocks.n_drops;
        return false;
    }
    crd_admission_unwait(s, q);
    q->n_computed = found.n * LIMIT_BLOCK_TOKENS;
    q->n_published = found.n_nodes;
    q->node = found.node;
    crd_prefix_use(&s->prefix, q->node);
    q->unpublished = !s->conf.prefix_cache || found.n_nodes < found.n;
    q->window_from = q->window_told = kv_groups_first(&s->conf.groups, found.n);
    q->window_to = found.n + 1;
    q->slot = s->free_slots[--s->n_free_slots];
    s->slots[q->slot] = q;
    if (!q->started)
        count_first_start(s, q, found.n);
    else
        s->stats.prompt_recomputed += (uint64_t)MAX(q->group->n_prompt - q->n_computed, 0);
    if (!q->n_gen) q->sched_us = s->now_us;
    crd_seq_move(q, SEQ_PREFILL);
    crd_list_append(&s->prefills, q);
    crd_batch_start(&s->batch, q);
    return true;
}
