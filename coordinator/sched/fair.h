/* fair.h: who is owed the next tokens: a virtual token counter per tenant. Private to sched/.
 * Source: Sheng et al., "Fairness in Serving Large Language Models" (OSDI 2024): serve the waiting
 * tenant that has had the fewest tokens per weight; one that starts to wait is lifted to the least
 * of those already waiting, so idling saves up no credit. */
#ifndef COORDINATOR_SCHED_FAIR_H
#define COORDINATOR_SCHED_FAIR_H

#include "coordinator/sched/heap.h"

enum { FAIR_BUCKETS = 1024, FAIR_MAX_IDLE = 4096 };

struct crd_tenant {
    uint64_t id;
    double served; /* tokens computed for it, each divided by the weight of the time */
    double weight;
    int32_t n_live;          /* sequences waiting or running */
    struct crd_heap waiting; /* struct crd_seq, by priority, then arrival */
    int32_t heap_at;         /* in crd_fair.waiting or crd_fair.idle */
    struct crd_tenant *next; /* in its bucket */
};

struct crd_fair {
    struct crd_tenant *buckets[FAIR_BUCKETS];
    struct crd_heap waiting; /* with somebody waiting: fewest tokens, then as their first in line */
    struct crd_heap idle;    /* without sequences, but their counter still matters: least first */
    double floor;            /* the least counter of the waiting, never falling */
    int32_t n_tenants;
};

struct crd_seq;

void crd_fair_open(struct crd_fair *f);
void crd_fair_close(struct crd_fair *f);
/* The tenant with one more live sequence, created when new. */
struct crd_tenant *crd_fair_join(struct crd_fair *f, uint64_t id, float weight);
/* One live sequence less; a tenant nobody needs is forgotten (t is then gone). */
void crd_fair_leave(struct crd_fair *f, struct crd_tenant *t);
/* Sequences of a tenant that wait. */
int32_t crd_fair_n_waiting(const struct crd_fair *f, uint64_t id);
void crd_fair_wait(struct crd_fair *f, struct crd_tenant *t, struct crd_seq *s);
void crd_fair_unwait(struct crd_fair *f, struct crd_tenant *t, struct crd_seq *s);
void crd_fair_charge(struct crd_fair *f, struct crd_tenant *t, int32_t tokens);
/* First in line of the tenant that is owed most, or NULL. */
struct crd_seq *crd_fair_first(const struct crd_fair *f);

#endif
