/* window.c: see window.h.
 *
 * When may a block go? Ranks do steps in order, so a block that is dropped when a step has been sent
 * is written by later ones only, after the last item that reads it. Within a step all rows are
 * appended before any is read: so it is dropped after the whole plan, not after its item.
 *
 * What is kept is counted from the last block boundary, not from the last position: there a sequence
 * that shares this one's prompt goes on. */
#include "coordinator/sched/window.h"

enum { SPARE_PER = 4 }; /* a chunk leaves one row of blocks for so many running sequences, if it can */

int32_t crd_window_reach(const struct crd_sched *s, const struct crd_seq *q)
{
    const int32_t w = kv_groups_windowed(&s->conf.groups), room = crd_blocks_room(&s->blocks);
    if (!s->conf.groups.window) return INT32_MAX;
    int32_t spare = DIV_UP(crd_sched_n_running(s), SPARE_PER) * s->conf.groups.n;
    int64_t rows = q->window_to + MAX((room - spare) / w, MIN(room / w, 1));
    return (int32_t)MIN(rows * LIMIT_BLOCK_TOKENS - q->n_computed, INT32_MAX);
}

void crd_window_take(struct crd_sched *s, struct crd_seq *q, int32_t end)
{
    const struct kv_groups *k = &s->conf.groups;
    int32_t to = DIV_UP(end, LIMIT_BLOCK_TOKENS);
    if (!k->window) return;
    for (; q->window_to < to; q->window_to++) {
        enum err rc = crd_blocks_take(&s->blocks, kv_groups_windowed(k), q->blocks + (int64_t)q->window_to * k->n + k->n_full);
        ASSERT(!rc);
    }
}

void crd_window_slide(struct crd_sched *s, struct crd_seq *q)
{
    const struct kv_groups *k = &s->conf.groups;
    int32_t from = kv_groups_first(k, q->n_computed / LIMIT_BLOCK_TOKENS);
    for (; q->window_from < from; q->window_from++) {
        int32_t *ids = q->blocks + (int64_t)q->window_from * k->n + k->n_full;
        crd_blocks_drop(&s->blocks, kv_groups_windowed(k), ids);
        for (int32_t g = 0; g < kv_groups_windowed(k); g++) ids[g] = -1;
    }
}
