/* blocks.c: see blocks.h.
 *
 * I1  refs > 0, on the free stack, or in the idle list: exactly one of the three.
 *
 * I2  the idle list holds cached blocks only, in the order in which they lost their last reference.
 * Who refers to a block of a group that sees everything also refers to those before it, in order,
 * and drops children first, so a prefix is evicted from its end. */
#include "coordinator/sched/blocks.h"

#include <stdlib.h>

void crd_blocks_open(struct crd_blocks *b, int32_t n, void (*on_evict)(void *user, int32_t id),
                     void *user)
{
    size_t m = (size_t)n;
    *b = (struct crd_blocks){.n = n,
                             .n_free = n,
                             .head = -1,
                             .tail = -1,
                             .on_evict = on_evict,
                             .user = user,
                             .refs = xcalloc(m, sizeof *b->refs),
                             .cached = xcalloc(m, sizeof *b->cached),
                             .free_ids = xcalloc(m, sizeof *b->free_ids),
                             .prev = xcalloc(m, sizeof *b->prev),
                             .next = xcalloc(m, sizeof *b->next)};
    for (int32_t i = 0; i < n; i++) b->free_ids[i] = n - 1 - i;
}

void crd_blocks_close(struct crd_blocks *b)
{
    free(b->refs);
    free(b->cached);
    free(b->free_ids);
    free(b->prev);
    free(b->next);
    *b = (struct crd_blocks){0};
}

static void idle_add(struct crd_blocks *b, int32_t id)
{
    b->prev[id] = b->tail;
    b->next[id] = -1;
    *(b->tail < 0 ? &b->head : &b->next[b->tail]) = id;
    b->tail = id;
    b->n_idle++;
}

static void idle_remove(struct crd_blocks *b, int32_t id)
{
    *(b->prev[id] < 0 ? &b->head : &b->next[b->prev[id]]) = b->next[id];
    *(b->next[id] < 0 ? &b->tail : &b->prev[b->next[id]]) = b->prev[id];
    b->n_idle--;
}

void crd_blocks_evict(struct crd_blocks *b, int32_t id)
{
    ASSERT(!b->refs[id] && b->cached[id]);
    b->on_evict(b->user, id);
    idle_remove(b, id);
    b->cached[id] = false;
    b->free_ids[b->n_free++] = id;
}

bool crd_blocks_evict_oldest(struct crd_blocks *b)
{
    if (!b->n_idle) return false;
    crd_blocks_evict(b, b->head);
    return true;
}

enum err crd_blocks_take(struct crd_blocks *b, int32_t n, int32_t ids[])
{
    if (n > crd_blocks_room(b))
        return err_raise(ERR_NO_BLOCKS, "%d KV blocks needed, %d of %d are free", n,
                         crd_blocks_room(b), b->n);
    while (b->n_free < n) {
        bool evicted = crd_blocks_evict_oldest(b);
        ASSERT(evicted);
    }
    for (int32_t i = 0; i < n; i++) {
        ids[i] = b->free_ids[--b->n_free];
        ASSERT(!b->refs[ids[i]] && !b->cached[ids[i]]);
        b->refs[ids[i]] = 1;
    }
    return OK;
}

void crd_blocks_hold(struct crd_blocks *b, int32_t id)
{
    ASSERT(b->refs[id] || b->cached[id]);
    if (!b->refs[id]++) idle_remove(b, id);
}

void crd_blocks_drop(struct crd_blocks *b, int32_t n, const int32_t ids[])
{
    if (n) b->n_drops++;
    while (n--) {
        int32_t id = ids[n];
        if (id < 0) continue;
        ASSERT(b->refs[id] > 0);
        if (--b->refs[id]) continue;
        if (b->cached[id])
            idle_add(b, id);
        else
            b->free_ids[b->n_free++] = id;
    }
}

void crd_blocks_cache(struct crd_blocks *b, int32_t id)
{
    ASSERT(b->refs[id] > 0 && !b->cached[id]);
    b->cached[id] = true;
}
