/* heap.h: the smallest key first. What both tokenizers merge by. Private to engine/text. */
#ifndef ENGINE_TEXT_HEAP_H
#define ENGINE_TEXT_HEAP_H

#include "base/base.h"

struct heap_item {
    uint64_t key;  /* priority in the high half, position in the low: ties go to the left */
    uint32_t a, b; /* the owner's: what makes the item stale or still true */
};

struct heap {
    struct heap_item *at;
    size_t n, cap;
}; /* zeroed = empty; Own: free(at) */

static inline void heap_push(struct heap *h, struct heap_item x)
{
    if (h->n == h->cap) {
        h->cap = h->cap ? h->cap * 2 : 64;
        h->at = xrealloc(h->at, sizeof *h->at * h->cap);
    }
    size_t i = h->n++;
    for (; i && h->at[(i - 1) / 2].key > x.key; i = (i - 1) / 2) h->at[i] = h->at[(i - 1) / 2];
    h->at[i] = x;
}

/* n > 0 */
static inline struct heap_item heap_pop(struct heap *h)
{
    struct heap_item top = h->at[0], x = h->at[--h->n];
    size_t i = 0;
    for (size_t c; (c = 2 * i + 1) < h->n; i = c) {
        if (c + 1 < h->n && h->at[c + 1].key < h->at[c].key) c++;
        if (h->at[c].key >= x.key) break;
        h->at[i] = h->at[c];
    }
    if (h->n) h->at[i] = x;
    return top;
}

#endif
