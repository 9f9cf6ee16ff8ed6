/* heap.h: a binary heap of things that know their place in it, so that any of them can leave or
 * move. Private to sched/. It does not own what it holds; its memory shrinks again when it empties.
 */
#ifndef COORDINATOR_SCHED_HEAP_H
#define COORDINATOR_SCHED_HEAP_H

#include "base/base.h"

#include <stdbool.h>

struct crd_heap {
    bool (*before)(const void *a, const void *b); /* a strict order */
    size_t at_offset; /* of an int32_t in each element: its index, -1 outside */
    void **v;
    int32_t n, cap;
};

void crd_heap_free(struct crd_heap *h);
void crd_heap_push(struct crd_heap *h, void *e); /* e is in no place that at_offset describes */
void crd_heap_remove(struct crd_heap *h, void *e);
void crd_heap_moved(struct crd_heap *h, void *e); /* e's rank has changed */
static inline void *crd_heap_top(const struct crd_heap *h)
{
    return h->n ? h->v[0] : NULL;
}

#endif
