/* blocks.h: the logical KV pool of one replica: which block is free, which is held by how many,
 * which is kept for its contents. Private to sched/. It knows ids and counts, not what the blocks
 * hold (prefix.c) nor who holds them (seq.c). A block is free, or referenced, or cached and
 * unreferenced (idle); a referenced one may be cached too. */
#ifndef COORDINATOR_SCHED_BLOCKS_H
#define COORDINATOR_SCHED_BLOCKS_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct crd_blocks {
    int32_t n, n_free, n_idle;
    int32_t *refs;        /* [n] */
    bool *cached;         /* [n] kept for its contents when nobody refers to it */
    int32_t *free_ids;    /* [n_free] a stack */
    int32_t *prev, *next; /* [n] idle blocks, least recently dropped first */
    int32_t head, tail;
    uint64_t
        n_drops; /* how often references were dropped: while it stands still, no room appears */
    void (*on_evict)(void *user,
                     int32_t id); /* an idle block is about to be given away: forget its contents */
    void *user;
};

void crd_blocks_open(struct crd_blocks *b, int32_t n, void (*on_evict)(void *user, int32_t id),
                     void *user);
void crd_blocks_close(struct crd_blocks *b);

/* How many can be taken now: free and idle ones. */
static inline int32_t crd_blocks_room(const struct crd_blocks *b)
{
    return b->n_free + b->n_idle;
}

/* Take n blocks, evicting idle ones when the free ones do not suffice.
 * Out   ids[n], one reference each, written only on success
 * Err   NO_BLOCKS: nothing was taken */
MUST_USE enum err crd_blocks_take(struct crd_blocks *b, int32_t n, int32_t ids[]);
/* One more reference on a block that is referenced or cached. */
void crd_blocks_hold(struct crd_blocks *b, int32_t id);
/* One reference less on each, last of the array first: so a child becomes idle, and is evicted,
 * before its parent. Ids below 0 are no blocks. */
void crd_blocks_drop(struct crd_blocks *b, int32_t n, const int32_t ids[]);
/* Keep a referenced block for its contents. */
void crd_blocks_cache(struct crd_blocks *b, int32_t id);
/* Evict an idle block, or the one that has been idle longest; false: none is. */
void crd_blocks_evict(struct crd_blocks *b, int32_t id);
bool crd_blocks_evict_oldest(struct crd_blocks *b);

#endif
