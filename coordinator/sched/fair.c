/* fair.c: see fair.h.
 *
 * I1  a tenant is in `waiting` exactly while somebody of it waits, in `idle` only while it has no
 * live sequence.
 *
 * I2  a tenant is forgotten once it has no sequence and its counter is not above the floor: on
 * return it would be lifted there anyway. At most FAIR_MAX_IDLE debts are remembered; the smallest
 * is forgiven first. */
#include "coordinator/sched/fair.h"
#include "base/rng.h"
#include "coordinator/sched/seq.h"

#include <stdlib.h>

static bool owed_before(const void *pa, const void *pb)
{
    const struct crd_tenant *a = pa, *b = pb;
    if (a->served != b->served) return a->served < b->served;
    return crd_seq_before(crd_heap_top(&a->waiting), crd_heap_top(&b->waiting));
}

static bool less_served(const void *pa, const void *pb)
{
    const struct crd_tenant *a = pa, *b = pb;
    return a->served < b->served;
}

void crd_fair_open(struct crd_fair *f)
{
    const size_t at = offsetof(struct crd_tenant, heap_at);
    *f = (struct crd_fair){.waiting = {.before = owed_before, .at_offset = at},
                           .idle = {.before = less_served, .at_offset = at}};
}

static struct crd_tenant **find(struct crd_fair *f, uint64_t id)
{
    struct crd_tenant **t = &f->buckets[rng_mix(id) % FAIR_BUCKETS];
    while (*t && (*t)->id != id) t = &(*t)->next;
    return t;
}

static void forget(struct crd_fair *f, struct crd_tenant *t)
{
    *find(f, t->id) = t->next;
    f->n_tenants--;
    crd_heap_free(&t->waiting);
    free(t);
}

static void forget_idle(struct crd_fair *f)
{
    for (struct crd_tenant *t;
         (t = crd_heap_top(&f->idle)) && (t->served <= f->floor || f->idle.n > FAIR_MAX_IDLE);) {
        crd_heap_remove(&f->idle, t);
        forget(f, t);
    }
}

void crd_fair_close(struct crd_fair *f)
{
    for (int32_t i = 0; i < FAIR_BUCKETS; i++)
        while (f->buckets[i]) forget(f, f->buckets[i]);
    crd_heap_free(&f->waiting);
    crd_heap_free(&f->idle);
}

struct crd_tenant *crd_fair_join(struct crd_fair *f, uint64_t id, float weight)
{
    struct crd_tenant **at = find(f, id), *t = *at;
    if (!t) {
        t = *at = xcalloc(1, sizeof *t);
        *t = (struct crd_tenant){
            .id = id,
            .served = f->floor,
            .heap_at = -1,
            .waiting = {.before = crd_seq_before, .at_offset = offsetof(struct crd_seq, heap_at)}};
        f->n_tenants++;
    } else if (!t->n_live) {
        crd_heap_remove(&f->idle, t);
    }
    t->weight = (double)weight;
    t->n_live++;
    return t;
}

void crd_fair_leave(struct crd_fair *f, struct crd_tenant *t)
{
    ASSERT(t->n_live > 0);
    if (--t->n_live) return;
    ASSERT(!t->waiting.n && t->heap_at < 0);
    crd_heap_push(&f->idle, t);
    forget_idle(f);
}

int32_t crd_fair_n_waiting(const struct crd_fair *f, uint64_t id)
{
    const struct crd_tenant *t = f->buckets[rng_mix(id) % FAIR_BUCKETS];
    while (t && t->id != id) t = t->next;
    return t ? t->waiting.n : 0;
}

static void raise_floor(struct crd_fair *f)
{
    struct crd_tenant *least = crd_heap_top(&f->waiting);
    if (!least || least->served <= f->floor) return;
    f->floor = least->served;
    forget_idle(f);
}

void crd_fair_wait(struct crd_fair *f, struct crd_tenant *t, struct crd_seq *s)
{
    struct crd_tenant *least = crd_heap_top(&f->waiting);
    crd_heap_push(&t->waiting, s);
    if (t->heap_at >= 0) {
        crd_heap_moved(&f->waiting, t);
        return;
    }
    t->served = MAX(t->served, least ? least->served : f->floor);
    crd_heap_push(&f->waiting, t);
    raise_floor(f);
}

void crd_fair_unwait(struct crd_fair *f, struct crd_tenant *t, struct crd_seq *s)
{
    /* The order of tenants looks at who is first in line: out of the heap while that changes. */
    crd_heap_remove(&f->waiting, t);
    crd_heap_remove(&t->waiting, s);
    if (t->waiting.n) crd_heap_push(&f->waiting, t);
    raise_floor(f);
}

void crd_fair_charge(struct crd_fair *f, struct crd_tenant *t, int32_t tokens)
{
    t->served += (double)tokens / t->weight;
    if (t->heap_at < 0) return;
    crd_heap_moved(&f->waiting, t);
    raise_floor(f);
}

struct crd_seq *crd_fair_first(const struct crd_fair *f)
{
    struct crd_tenant *t = crd_heap_top(&f->waiting);
    return t ? crd_heap_top(&t->waiting) : NULL;
}
