/* heap.c: see heap.h. */
#include "coordinator/sched/heap.h"

#include <stdlib.h>

static int32_t *at(const struct crd_heap *h, void *e)
{
    return (int32_t *)((char *)e + h->at_offset);
}

static void put(struct crd_heap *h, int32_t i, void *e)
{
    h->v[i] = e;
    *at(h, e) = i;
}

static void up(struct crd_heap *h, int32_t i)
{
    void *e = h->v[i];
    for (int32_t parent; i && h->before(e, h->v[parent = (i - 1) / 2]); i = parent)
        put(h, i, h->v[parent]);
    put(h, i, e);
}

static void down(struct crd_heap *h, int32_t i)
{
    void *e = h->v[i];
    for (int32_t child; (child = 2 * i + 1) < h->n; i = child) {
        if (child + 1 < h->n && h->before(h->v[child + 1], h->v[child])) child++;
        if (!h->before(h->v[child], e)) break;
        put(h, i, h->v[child]);
    }
    put(h, i, e);
}

static void resize(struct crd_heap *h, int32_t cap)
{
    h->cap = cap;
    h->v = xrealloc(h->v, (size_t)cap * sizeof *h->v);
}

void crd_heap_free(struct crd_heap *h)
{
    free(h->v);
    h->v = NULL;
    h->n = h->cap = 0;
}

void crd_heap_push(struct crd_heap *h, void *e)
{
    if (h->n == h->cap) resize(h, MAX(16, 2 * h->cap));
    h->v[h->n++] = e;
    up(h, h->n - 1);
}

void crd_heap_remove(struct crd_heap *h, void *e)
{
    int32_t i = *at(h, e);
    ASSERT(i >= 0 && i < h->n && h->v[i] == e);
    void *last = h->v[--h->n];
    *at(h, e) = -1;
    if (last != e) {
        put(h, i, last);
        crd_heap_moved(h, last);
    }
    if (h->cap > 16 && h->n < h->cap / 4) resize(h, h->cap / 2);
}

void crd_heap_moved(struct crd_heap *h, void *e)
{
    up(h, *at(h, e));
    down(h, *at(h, e));
}
