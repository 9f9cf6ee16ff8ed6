/* check.c: every invariant of the scheduler in one place, asserted by tests after each call.
 * Recomputes everything from the sequences. */
#include "coordinator/sched/share.h"
#include "coordinator/sched/state.h"

#include <stdlib.h>

struct tally {
    int32_t *refs; /* [n_blocks] as the holders have it */
    int32_t *uses; /* [n_nodes] the same */
    int32_t n_new, n_resumed, n_slots, n_prefills, n_decodes, n_leaving;
};

static void count_blocks(struct tally *t, int32_t n, const int32_t ids[])
{
    for (int32_t i = 0; i < n; i++)
        if (ids[i] >= 0) t->refs[ids[i]]++;
}

static int32_t depth(const struct crd_prefix *p, int32_t node)
{
    int32_t n = 0;
    for (; node != PREFIX_NONE; node = p->nodes[node].parent) n++;
    return n;
}

/* It has every block that it should have and no other. */
static void check_rows(const struct crd_sched *s, const struct crd_seq *q)
{
    const struct kv_groups *k = &s->conf.groups;
    for (int32_t i = 0; i < q->n_blocks; i++)
        for (int32_t g = 0; g < k->n; g++)
            ASSERT((q->blocks[i * k->n + g] >= 0) ==
                   (g < k->n_full || (i >= q->window_from && i < q->window_to)));
    if (!k->window) return;
    int32_t first = kv_groups_first(k, q->n_computed / LIMIT_BLOCK_TOKENS);
    ASSERT(q->window_from <= first && q->window_to <= q->n_blocks && q->window_told <= q->window_to);
    ASSERT(q->n_computed <= q->window_to * LIMIT_BLOCK_TOKENS);
    if (q->last_step) ASSERT(q->window_from == first); /* slid when that step was sent */
}

static void check_running(const struct crd_sched *s, const struct crd_seq *q)
{
    const int32_t known = crd_seq_known(q), total = crd_seq_total(q);
    ASSERT(q->n_sampled >= q->n_gen && q->n_sampled <= q->group->sampling.max_tokens);
    ASSERT(q->n_computed <= total && q->n_computed <= q->n_blocks * LIMIT_BLOCK_TOKENS);
    ASSERT(q->n_published <= q->n_blocks && depth(&s->prefix, q->node) == q->n_published);
    check_rows(s, q);
    if (q->state == SEQ_PREFILL)
        ASSERT(q->list == &s->prefills && q->n_computed < known && known == total);
    if (q->state == SEQ_DECODE) ASSERT(q->list == &s->decodes && q->n_computed == total - 1);
    if (q->state == SEQ_LAST) ASSERT(q->list == &s->leaving && crd_sched_in_flight(s, q));
    if (q->state == SEQ_PREEMPTING)
        ASSERT(q->list == &s->leaving && crd_sched_in_flight(s, q) && q->slot < 0);
    else
        ASSERT(q->slot >= 0 && s->slots[q->slot] == q);
    if (known < total) ASSERT(crd_sched_in_flight(s, q));
}

static void check_seq(const struct crd_sched *s, const struct crd_seq *q, struct tally *t)
{
    count_blocks(t, q->n_blocks * s->conf.groups.n, q->blocks);
    if (q->node != PREFIX_NONE) t->uses[q->node]++;
    t->n_prefills += q->state == SEQ_PREFILL;
    t->n_decodes += q->state == SEQ_DECODE;
    t->n_leaving += q->state == SEQ_LAST || q->state == SEQ_PREEMPTING ||
                    (q->state == SEQ_DRAINING && !q->gone);
    t->n_slots += q->slot >= 0;
    ASSERT(q->gone == (!q->list && q->state == SEQ_DRAINING));
    if (crd_seq_running(q)) check_running(s, q);
    if (q->gone) ASSERT(!q->n_blocks && !q->gen && q->slot < 0);
    if (q->state == SEQ_DRAINING && !q->gone)
        ASSERT(q->list == &s->leaving && crd_sched_in_flight(s, q) && q->slot < 0);
    if (q->state == SEQ_WAITING || q->state == SEQ_HELD) {
        ASSERT(!q->n_blocks && q->slot < 0 && !q->list && q->n_sampled == q->n_gen &&
               q->resumed == q->started);
        ASSERT((q->heap_at >= 0) == (q->state == SEQ_WAITING) &&
               (q->state != SEQ_HELD || (q->group->leader && !q->started)));
        t->n_new += !q->resumed;
        t->n_resumed += q->resumed;
    }
}

static void check_group(const struct crd_sched *s, const struct crd_group *g, struct tally *t)
{
    int32_t n_open = 0, n_gone = 0, n_unstarted = 0;
    for (int32_t i = 0; i < g->n; i++) {
        const struct crd_seq *q = &g->seqs[i];
        check_seq(s, q, t);
        n_open += q->state != SEQ_DRAINING;
        n_gone += q->gone;
        n_unstarted += q->state != SEQ_DRAINING && !q->started;
    }
    ASSERT(n_open == g->n_open && n_gone == g->n_gone && n_gone < g->n &&
           n_unstarted == g->n_unstarted);
    ASSERT(!g->n_shared || g->n_unstarted);
    count_blocks(t, g->n_shared * s->conf.groups.n, g->shared);
    if (g->n_shared && g->shared_node != PREFIX_NONE) t->uses[g->shared_node]++;
}

static void check_blocks(const struct crd_sched *s, const struct tally *t)
{
    const struct crd_blocks *b = &s->blocks;
    int32_t n_held = 0, n_idle = 0;
    for (int32_t i = 0; i < b->n; i++) {
        ASSERT(b->refs[i] == t->refs[i]);
        ASSERT(b->cached[i] == (s->prefix.owner[i] != PREFIX_NONE));
        n_held += b->refs[i] > 0;
        n_idle += !b->refs[i] && b->cached[i];
    }
    ASSERT(n_idle == b->n_idle && n_held + n_idle + b->n_free == b->n);
    for (int32_t i = 0; i < b->n_free; i++)
        ASSERT(!b->refs[b->free_ids[i]] && !b->cached[b->free_ids[i]]);
    for (int32_t i = b->head; i >= 0; i = b->next[i], n_idle--) ASSERT(!b->refs[i] && b->cached[i]);
    ASSERT(!n_idle);
}

static void check_prefix(const struct crd_sched *s, struct tally *t)
{
    const struct crd_prefix *p = &s->prefix;
    const struct kv_groups *k = &s->conf.groups;
    int32_t n_free = 0;
    for (int32_t i = 0; i < p->n_nodes; i++) {
        const struct crd_prefix_node *n = &p->nodes[i];
        n_free += !n->n_uses;
        if (!n->n_uses) continue;
        ASSERT(crd_prefix_find(p, n->parent, n->salt, n->hash, n->ids) == i);
        for (int32_t g = 0; g < LIMIT_GROUPS; g++) {
            ASSERT(n->blocks[g] == PREFIX_NONE || (g < k->n && p->owner[n->blocks[g]] == i));
            t->uses[i] += n->blocks[g] != PREFIX_NONE;
        }
        if (n->parent == PREFIX_NONE) continue;
        t->uses[n->parent]++;
        const int32_t above = p->nodes[n->parent].blocks[0];
        if (!k->window)
            ASSERT(above != PREFIX_NONE && n->blocks[0] != PREFIX_NONE &&
                   s->blocks.refs[above] >= (s->blocks.refs[n->blocks[0]] > 0));
    }
    ASSERT(n_free == p->n_free);
    for (int32_t i = 0; i < p->n_nodes; i++) ASSERT(p->nodes[i].n_uses == t->uses[i]);
}

static void check_decode_order(const struct crd_sched *s)
{
    for (const struct crd_seq *q = s->decodes.head; q && q->next; q = q->next)
        ASSERT(q->last_step <= q->next->last_step);
}

void crd_sched_check(const struct crd_sched *s)
{
    struct tally t = {.refs = xcalloc((size_t)s->conf.n_blocks, sizeof *t.refs),
                      .uses = xcalloc((size_t)s->prefix.n_nodes, sizeof *t.uses)};
    for (const struct crd_group *g = s->groups; g; g = g->next) check_group(s, g, &t);
    ASSERT(t.n_new == s->n_new && t.n_resumed == s->resumed.n &&
           t.n_slots == crd_sched_n_running(s));
    ASSERT(t.n_prefills == s->prefills.n && t.n_decodes == s->decodes.n &&
           t.n_leaving == s->leaving.n);
    ASSERT(s->step - s->retired == (uint64_t)s->n_in_flight && s->n_in_flight <= s->conf.depth);
    check_blocks(s, &t);
    check_prefix(s, &t);
    check_decode_order(s);
    free(t.refs);
    free(t.uses);
}
