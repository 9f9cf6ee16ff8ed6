/* life.c: see life.h.
 *
 *   submit -> ... -> finishing event -> (its last step retires) -> gone
 *
 * A request goes with the last of its choices. */
#include "coordinator/sched/life.h"
#include "base/rng.h"
#include "coordinator/sched/admission.h"
#include "coordinator/sched/share.h"

#include <inttypes.h>

static struct crd_group **find_request(struct crd_sched *s, uint64_t request)
{
    struct crd_group **g = &s->by_request[rng_mix(request) & (uint64_t)(s->n_buckets - 1)];
    while (*g && (*g)->request != request) g = &(*g)->next_bucket;
    return g;
}

/* Into the table and the list of all. */
static void enlist(struct crd_sched *s, struct crd_group *g)
{
    struct crd_group **at = find_request(s, g->request);
    ASSERT(!*at);
    *at = g;
    g->next_bucket = NULL;
    g->prev = NULL;
    g->next = s->groups;
    if (s->groups) s->groups->prev = g;
    s->groups = g;
    s->of_adapter[g->adapter]++;
}

static void delist(struct crd_sched *s, struct crd_group *g)
{
    *(g->prev ? &g->prev->next : &s->groups) = g->next;
    if (g->next) g->next->prev = g->prev;
    s->of_adapter[g->adapter]--;
}

enum err crd_life_submit(struct crd_sched *s, const struct gen_request *r)
{
    enum err rc;
    TRY(crd_admission_check(s, r));
    if (*find_request(s, r->id))
        TRY(err_raise(ERR_BAD_REQUEST, "request %" PRIu64 " is already running; ids are unique",
                      r->id));
    struct crd_group *g = crd_group_new(r, s->next_id, s->now_us);
    s->next_id += (uint64_t)g->n;
    for (int32_t i = 0; i < g->n_open; i++)
        g->tenant = crd_fair_join(&s->fair, r->tenant, r->weight);
    enlist(s, g);
    crd_admission_add(s, g);
out:
    return rc;
}

static void free_group(struct crd_sched *s, struct crd_group *g)
{
    delist(s, g);
    crd_group_free(g);
}

void crd_life_gone(struct crd_sched *s, struct crd_seq *q)
{
    crd_list_remove(q);
    crd_seq_free(q);
    q->gone = true;
    if (++q->group->n_gone == q->group->n) free_group(s, q->group);
}

static void send_finish(struct crd_sched *s, const struct crd_seq *q, enum seq_finish finish,
                        enum err err, const char *text)
{
    const struct crd_group *g = q->group;
    struct token_event e = {.kind = EVENT_FINISH,
                            .request = g->request,
                            .choice = q->choice,
                            .finish = finish,
                            .err = err,
                            .text = text,
                            .n_prompt = g->n_prompt,
                            .n_generated = q->n_gen,
                            .n_cached = g->n_cached,
                            .n_preempted = q->n_preempted,
                            .n_right = q->n_right,
                            .n_wrong = q->n_wrong};
    e.queued_us = (q->started ? q->sched_us : s->now_us) - q->submit_us;
    if (q->started) e.prefill_us = (q->n_gen ? q->first_us : s->now_us) - q->sched_us;
    if (q->n_gen) e.decode_us = q->last_us - q->first_us;
    s->on_event(s->user, &e);
}

/* Out of the lines, lists and counts of the living. */
static void retire_from_lines(struct crd_sched *s, struct crd_seq *q)
{
    struct crd_group *g = q->group;
    if (q->state == SEQ_WAITING) crd_admission_unwait(s, q);
    if (!q->started) {
        s->n_new--;
        g->n_unstarted--;
    }
    crd_list_remove(q);
    if (q->slot >= 0) crd_life_end_slot(s, q);
    crd_seq_move(q, SEQ_DRAINING);
    if (g->leader == q) crd_admission_release_held(s, g);
    if (!g->n_unstarted) crd_share_drop(s, g);
    if (!--g->n_open) *find_request(s, g->request) = g->next_bucket;
}

void crd_life_finish(struct crd_sched *s, struct crd_seq *q, enum seq_finish finish,
                        enum err err, const char *text)
{
    crd_share_publish(s, q, MIN(crd_seq_known(q) - 1, q->n_computed));
    retire_from_lines(s, q);
    crd_fair_leave(&s->fair, q->group->tenant);
    send_finish(s, q, finish, err, text);
    if (crd_sched_in_flight(s, q)) {
        crd_list_append(&s->leaving, q);
    } else {
        crd_life_drop_blocks(s, q);
        crd_life_gone(s, q);
    }
}

void crd_life_end_slot(struct crd_sched *s, struct crd_seq *q)
{
    ASSERT(s->slots[q->slot] == q);
    s->slots[q->slot] = NULL;
    s->ends[s->n_ends++] = q->slot;
    q->slot = -1;
}

void crd_life_drop_blocks(struct crd_sched *s, struct crd_seq *q)
{
    crd_blocks_drop(&s->blocks, q->n_blocks * s->conf.groups.n, q->blocks);
    q->n_blocks = 0;
    crd_prefix_unuse(&s->prefix, q->node);
    q->node = PREFIX_NONE;
}

/* End every choice of a request; the group may be gone after. */
static void finish_group(struct crd_sched *s, struct crd_group *g, enum err err, const char *text)
{
    for (int32_t i = g->n - 1, n_open = g->n_open; n_open; i--) {
        if (g->seqs[i].state == SEQ_DRAINING) continue;
        n_open--;
        crd_life_finish(s, &g->seqs[i], FINISH_NONE, err, text);
    }
}

void crd_life_cancel(struct crd_sched *s, uint64_t request)
{
    struct crd_group *g = *find_request(s, request);
    if (g) finish_group(s, g, ERR_CANCELLED, err_short(ERR_CANCELLED));
}

void crd_life_fail_all(struct crd_sched *s, enum err err, const char *text)
{
    for (struct crd_group *g = s->groups, *next; g; g = next) {
        next = g->next;
        if (g->n_open) finish_group(s, g, err, text);
    }
}

/* ---- from one scheduler to another ---- */

void crd_life_release(struct crd_sched *s, struct crd_group *g)
{
    for (int32_t i = 0; i < g->n; i++) {
        struct crd_seq *q = &g->seqs[i];
        if (q->gone) continue;
        ASSERT(!q->n_blocks && q->slot < 0 && !q->n_hashes);
        if (q->state == SEQ_WAITING) crd_admission_unwait(s, q);
        crd_seq_move(q, SEQ_NEW);
        crd_fair_leave(&s->fair, g->tenant);
    }
    s->n_new -= g->n_unstarted;
    *find_request(s, g->request) = g->next_bucket;
    delist(s, g);
    g->tenant = NULL;
}

void crd_life_adopt(struct crd_sched *s, struct crd_group *g)
{
    enlist(s, g);
    for (int32_t i = 0; i < g->n; i++) g->seqs[i].id = s->next_id++; /* it has come now */
    for (int32_t i = 0; i < g->n_open; i++)
        g->tenant = crd_fair_join(&s->fair, g->tenant_id, g->weight);
    g->leader = NULL;
    crd_admission_add(s, g);
}
