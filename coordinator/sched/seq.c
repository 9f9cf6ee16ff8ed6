/* seq.c: see seq.h.
 *
 *   from         to           by
 *   NEW          WAITING      admission.c: crd_admission_add (first choice)
 *   NEW          HELD         admission.c: crd_admission_add (the others)
 *   NEW          DRAINING     seq.c: take_known, a choice that ended before it came here
 *   HELD         WAITING      admission.c: crd_admission_release_held
 *   WAITING      PREFILL      admission.c: crd_admission_start
 *   PREFILL      DECODE       batch.c: crd_batch_item, all known tokens are in steps sent
 *   PREFILL,     LAST         batch.c: crd_batch_item, max_tokens or the pooled prompt are asked for;
 *    DECODE                   preempt.c: crd_preempt_room, the pool or the context is full of it
 *   PREFILL,     PREEMPTING   preempt.c
 *    DECODE
 *   PREEMPTING   WAITING      preempt.c: crd_preempt_settle, its steps in flight are known
 *   running      WAITING      scheduler.c: crd_sched_restart
 *   WAITING,     NEW          life.c: crd_life_release, on its way to another scheduler,
 *    HELD                     which makes it WAITING or HELD again: crd_life_adopt
 *   any          DRAINING     life.c: crd_life_finish; gone when its last step has retired */
#include "coordinator/sched/seq.h"

#include <stdlib.h>
#include <string.h>

#define TO(state) (1u << SEQ_##state)

static const unsigned ALLOWED[SEQ_N_STATES] = {
    [SEQ_NEW] = TO(WAITING) | TO(HELD) | TO(DRAINING),
    [SEQ_HELD] = TO(WAITING) | TO(DRAINING) | TO(NEW),
    [SEQ_WAITING] = TO(PREFILL) | TO(DRAINING) | TO(NEW),
    [SEQ_PREFILL] = TO(DECODE) | TO(LAST) | TO(PREEMPTING) | TO(WAITING) | TO(DRAINING),
    [SEQ_DECODE] = TO(LAST) | TO(PREEMPTING) | TO(WAITING) | TO(DRAINING),
    [SEQ_LAST] = TO(WAITING) | TO(DRAINING),
    [SEQ_PREEMPTING] = TO(WAITING) | TO(DRAINING),
    [SEQ_DRAINING] = 0,
};

void crd_seq_move(struct crd_seq *s, enum crd_seq_state to)
{
    ASSERT(ALLOWED[s->state] & (1u << to));
    s->state = to;
}

/* ---- lists ---- */

void crd_list_append(struct crd_list *l, struct crd_seq *s)
{
    ASSERT(!s->list);
    s->list = l;
    s->prev = l->tail;
    s->next = NULL;
    *(l->tail ? &l->tail->next : &l->head) = s;
    l->tail = s;
    l->n++;
}

void crd_list_prepend(struct crd_list *l, struct crd_seq *s)
{
    ASSERT(!s->list);
    s->list = l;
    s->prev = NULL;
    s->next = l->head;
    *(l->head ? &l->head->prev : &l->tail) = s;
    l->head = s;
    l->n++;
}

void crd_list_remove(struct crd_seq *s)
{
    struct crd_list *l = s->list;
    if (!l) return;
    *(s->prev ? &s->prev->next : &l->head) = s->next;
    *(s->next ? &s->next->prev : &l->tail) = s->prev;
    s->prev = s->next = NULL;
    s->list = NULL;
    l->n--;
}

/* ---- a sequence ---- */

bool crd_seq_before(const void *pa, const void *pb)
{
    const struct crd_seq *a = pa, *b = pb;
    if (a->group->priority != b->group->priority) return a->group->priority < b->group->priority;
    return a->id < b->id;
}

/* Room for n elements in a growing array. */
static void *grow(void *p, int32_t *cap, int32_t n, size_t size)
{
    if (n <= *cap) return p;
    *cap = MAX(n, MAX(16, *cap * 2));
    return xrealloc(p, (size_t)*cap * size);
}

void crd_seq_append(struct crd_seq *s, int32_t token)
{
    s->gen = grow(s->gen, &s->cap_gen, s->n_gen + 1, sizeof *s->gen);
    s->gen[s->n_gen++] = token;
}

void crd_seq_add_blocks(struct crd_seq *s, int32_t n, int32_t n_groups, const int32_t ids[])
{
    if (!n) return;
    s->blocks = grow(s->blocks, &s->cap_blocks, (s->n_blocks + n) * n_groups, sizeof *s->blocks);
    memcpy(s->blocks + s->n_blocks * n_groups, ids, (size_t)(n * n_groups) * sizeof *ids);
    s->n_blocks += n;
}

void crd_seq_block_ids(const struct crd_seq *s, int32_t i, int32_t ids[LIMIT_BLOCK_TOKENS])
{
    for (int32_t k = 0; k < LIMIT_BLOCK_TOKENS; k++)
        ids[k] = crd_seq_token(s, i * LIMIT_BLOCK_TOKENS + k);
}

struct crd_prefix_hash crd_seq_hash(struct crd_seq *s, const struct crd_prefix *p, int32_t i)
{
    ASSERT((i + 1) * LIMIT_BLOCK_TOKENS <= crd_seq_known(s));
    s->hashes = grow(s->hashes, &s->cap_hashes, i + 1, sizeof *s->hashes);
    for (; s->n_hashes <= i; s->n_hashes++) {
        int32_t ids[LIMIT_BLOCK_TOKENS];
        crd_seq_block_ids(s, s->n_hashes, ids);
        s->hashes[s->n_hashes] = crd_prefix_chain(
            s->n_hashes ? s->hashes[s->n_hashes - 1] : crd_prefix_root(p, s->group->salt), ids);
    }
    return s->hashes[i];
}

void crd_seq_free(struct crd_seq *s)
{
    free(s->gen);
    free(s->blocks);
    free(s->hashes);
    crd_guess_free(&s->guess);
    s->gen = NULL;
    s->blocks = NULL;
    s->hashes = NULL;
}

/* ---- a request ---- */

static void *copy(const void *p, size_t n)
{
    void *q = xmalloc(MAX(n, (size_t)1));
    return n ? memcpy(q, p, n) : q;
}

static void take_known(struct crd_seq *q, const struct gen_known *k, int64_t now_us)
{
    struct crd_group *g = q->group;
    if (k->over) {
        crd_seq_move(q, SEQ_DRAINING);
        q->gone = true;
        g->n_gone++;
        g->n_open--;
        g->n_unstarted--;
    } else if (k->n) {
        for (int32_t i = 0; i < k->n; i++) crd_seq_append(q, k->ids[i]);
        q->n_sampled = k->n;
        q->n_charged = g->n_prompt + k->n; /* paid for where it began */
        q->started = q->resumed = true;
        q->sched_us = q->first_us = q->last_us = now_us;
        g->n_unstarted--;
    }
}

struct crd_group *crd_group_new(const struct gen_request *r, uint64_t first_id, int64_t now_us)
{
    struct crd_group *g = xcalloc(1, sizeof *g);
    *g = (struct crd_group){.request = r->id,
                            .tenant_id = r->tenant,
                            .weight = r->weight,
                            .priority = r->priority,
                            .prompt_logits = r->prompt_logits,
                            .sample_logits = r->sample_logits,
                            .salt = gen_request_salt(r),
                            .adapter = r->adapter,
                            .pool = r->pool,
                            .prompt = copy(r->prompt, (size_t)r->n_prompt * sizeof *r->prompt),
                            .n_prompt = r->n_prompt,
                            .likely = copy(r->likely, (size_t)r->n_likely * sizeof *r->likely),
                            .n_likely = r->n_likely,
                            .n = r->n,
                            .n_open = r->n,
                            .n_unstarted = r->n};
    g->grammar = r->grammar;
    g->grammar.text = copy(r->grammar.text ? r->grammar.text : "", (size_t)r->grammar.n);
    g->sampling = sampling_copy(&r->sampling);
    g->seqs = xcalloc((size_t)g->n, sizeof *g->seqs);
    for (int32_t i = 0; i < g->n; i++)
        g->seqs[i] = (struct crd_seq){.group = g,
                                      .id = first_id + (uint64_t)i,
                                      .choice = i,
                                      .heap_at = -1,
                                      .slot = -1,
                                      .node = PREFIX_NONE,
                                      .submit_us = now_us};
    for (int32_t i = 0; r->known && i < g->n; i++) take_known(&g->seqs[i], &r->known[i], now_us);
    return g;
}

void crd_group_free(struct crd_group *g)
{
    for (int32_t i = 0; i < g->n; i++) crd_seq_free(&g->seqs[i]);
    free(g->seqs);
    free(g->shared);
    free(g->prompt);
    free(g->likely);
    sampling_free(&g->sampling);
    free((void *)g->grammar.text);
    free(g);
}
