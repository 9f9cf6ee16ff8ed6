/* preempt.c: see preempt.h.
 *
 * Preemption is by recomputation: the victim's blocks go back, its known tokens are prefilled again
 * later (what the prefix cache still has of them for nothing). Its steps in flight are awaited
 * first, so no token is sampled twice.
 *
 * The victim is the last by priority and arrival, possibly the
 * one that asks. So the first by that order is never preempted, and always gets on: everybody
 * finishes in the end. While anybody is on the way out nobody else is chosen: what comes back may
 * suffice. */
#include "coordinator/sched/preempt.h"
#include "base/log.h"
#include "coordinator/sched/admission.h"
#include "coordinator/sched/batch.h"
#include "coordinator/sched/life.h"
#include "coordinator/sched/share.h"
#include "coordinator/sched/window.h"

#include <inttypes.h>

static struct crd_seq *last_running(const struct crd_sched *s)
{
    struct crd_seq *last = NULL;
    for (int32_t i = 0; i < s->conf.n_slots; i++) {
        struct crd_seq *q = s->slots[i];
        if (!q || (q->state != SEQ_PREFILL && q->state != SEQ_DECODE)) continue;
        if (!last || crd_seq_before(last, q)) last = q;
    }
    return last;
}

/* Into the leaving ones; settled at once when no step names it. */
static void leave(struct crd_sched *s, struct crd_seq *q, enum crd_seq_state to)
{
    crd_list_remove(q);
    crd_seq_move(q, to);
    crd_list_append(&s->leaving, q);
    if (!crd_sched_in_flight(s, q)) crd_preempt_settle(s, q);
}

static void preempt(struct crd_sched *s, struct crd_seq *q)
{
    s->stats.n_preemptions++;
    q->n_preempted++;
    log_debug("sched",
              "preempted sequence %" PRIu64 ": it held blocks of %" PRId32 " x 16 tokens, %" PRId32 " of %" PRId32
              " are free",
              q->id, q->n_blocks, crd_blocks_room(&s->blocks), s->conf.n_blocks);
    crd_life_end_slot(s, q);
    leave(s, q, SEQ_PREEMPTING);
}

/* Room for n blocks more of q. */
static enum crd_room make_room(struct crd_sched *s, const struct crd_seq *q, int32_t n)
{
    while (crd_blocks_room(&s->blocks) < n) {
        if (crd_share_reclaim(s)) continue;
        if (s->leaving.n) return ROOM_LATER;
        struct crd_seq *victim = last_running(s);
        preempt(s, victim);
        if (victim == q) return ROOM_LEFT;
    }
    return ROOM_OK;
}

/* One row more of its tables; the pool has it. */
static void add_row(struct crd_sched *s, struct crd_seq *q)
{
    int32_t ids[LIMIT_GROUPS], n = s->conf.groups.n;
    enum err rc = crd_blocks_take(&s->blocks, n, ids);
    ASSERT(!rc);
    crd_seq_add_blocks(q, 1, n, ids);
    q->window_to = q->n_blocks;
    crd_batch_extend(&s->batch, q, 1);
}

bool crd_preempt_spare(struct crd_sched *s, struct crd_seq *q, int32_t end)
{
    if (end <= q->n_blocks * LIMIT_BLOCK_TOKENS) return true;
    if (crd_blocks_room(&s->blocks) < (crd_sched_n_running(s) + 1) * s->conf.groups.n) return false;
    add_row(s, q);
    return true;
}

enum crd_room crd_preempt_room(struct crd_sched *s, struct crd_seq *q)
{
    int32_t n = s->conf.groups.n;
    const bool needs_block = q->n_computed == q->n_blocks * LIMIT_BLOCK_TOKENS;
    if (q->n_computed >= s->conf.context || (needs_block && q->n_computed >= s->longest)) {
        leave(s, q, SEQ_LAST);
        return ROOM_LEFT;
    }
    if (!needs_block) return ROOM_OK;
    const enum crd_room room = make_room(s, q, n);
    if (room != ROOM_OK) return room;
    add_row(s, q);
    return ROOM_OK;
}

enum crd_room crd_preempt_chunk(struct crd_sched *s, struct crd_seq *q)
{
    if (crd_window_reach(s, q) > 0) return ROOM_OK;
    return make_room(s, q, kv_groups_windowed(&s->conf.groups));
}

void crd_preempt_requeue(struct crd_sched *s, struct crd_seq *q)
{
    ASSERT(!q->n_blocks && q->slot < 0);
    crd_list_remove(q);
    q->n_sampled = q->n_gen;
    q->n_computed = q->n_published = 0;
    q->resumed = true;
    crd_admission_wait(s, q);
}

void crd_preempt_settle(struct crd_sched *s, struct crd_seq *q)
{
    if (q->state == SEQ_LAST || crd_seq_known(q) > s->longest) {
        crd_life_finish(s, q, FINISH_LENGTH, OK, "");
        return;
    }
    crd_life_drop_blocks(s, q);
    crd_preempt_requeue(s, q);
}
