/* requests.c: a chained hash table. */
#include "coordinator/replica/requests.h"

#include "base/rng.h"

#include <stdlib.h>

struct entry {
    struct entry *next;
    uint64_t id;
    int32_t left;
    token_event_fn fn;
    void *user;
};

enum { BUCKETS = 4096 };

struct crd_requests { struct entry *buckets[BUCKETS]; };

static struct entry **find(struct crd_requests *q, uint64_t id)
{
    struct entry **at = &q->buckets[rng_mix(id) % BUCKETS];
    while (*at && (*at)->id != id) at = &(*at)->next;
    return at;
}

struct crd_requests *crd_requests_open(void) { return xcalloc(1, sizeof(struct crd_requests)); }

void crd_requests_close(struct crd_requests *q)
{
    for (int i = 0; q && i < BUCKETS; i++)
        for (struct entry *e = q->buckets[i], *next; e; e = next) {
            next = e->next;
            free(e);
        }
    free(q);
}

void crd_requests_add(struct crd_requests *q, uint64_t id, int32_t n_choices, token_event_fn fn, void *user)
{
    struct entry **at = find(q, id);
    ASSERT(!*at);
    *at = xmalloc(sizeof **at);
    **at = (struct entry){.id = id, .left = n_choices, .fn = fn, .user = user};
}

void crd_requests_drop(struct crd_requests *q, uint64_t id)
{
    struct entry **at = find(q, id), *e = *at;
    if (!e) return;
    *at = e->next;
    free(e);
}

bool crd_requests_take(struct crd_requests *q, uint64_t id, int32_t *n_left, token_event_fn *fn, void **user)
{
    struct entry *e = *find(q, id);
    if (!e) return false;
    *n_left = e->left;
    *fn = e->fn;
    *user = e->user;
    crd_requests_drop(q, id);
    return true;
}

void crd_requests_event(struct crd_requests *q, const struct token_event *ev)
{
    struct entry *e = *find(q, ev->request);
    if (!e) return;
    token_event_fn fn = e->fn;
    void *user = e->user;
    if (ev->kind == EVENT_FINISH && --e->left == 0) crd_requests_drop(q, ev->request);
    fn(user, ev);
}
