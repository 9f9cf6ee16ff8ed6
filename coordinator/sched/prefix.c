/* prefix.c: see prefix.h.
 *
 * A tree over whole blocks, not tokens: the pool shares whole blocks, so a finer match would
 * promise what crd_blocks cannot give.
 *
 * The hash chain is rooted in a random key and the request's
 * salt, so nobody can aim at a collision or probe another salt; and since a hit compares parent,
 * salt and ids as well, a collision would cost a comparison, never a wrong token.
 *
 * I1  a used node's parent is used.
 * I2  n_children counts the used nodes that name it as parent. */
#include "coordinator/sched/prefix.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

void crd_prefix_open(struct crd_prefix *p, int32_t n_blocks, const uint64_t key[2])
{
    int32_t n_buckets = 16;
    while (n_buckets < n_blocks) n_buckets *= 2;
    *p = (struct crd_prefix){.key = {key[0], key[1]},
                             .n_nodes = n_blocks,
                             .n_buckets = n_buckets,
                             .nodes = xcalloc((size_t)n_blocks, sizeof *p->nodes),
                             .buckets = xmalloc((size_t)n_buckets * sizeof *p->buckets)};
    for (int32_t i = 0; i < n_buckets; i++) p->buckets[i] = PREFIX_NONE;
}

void crd_prefix_close(struct crd_prefix *p)
{
    free(p->nodes);
    free(p->buckets);
    *p = (struct crd_prefix){0};
}

static struct crd_prefix_hash hash128(const void *data, size_t n)
{
    XXH128_hash_t h = XXH3_128bits(data, n);
    return (struct crd_prefix_hash){h.low64, h.high64};
}

struct crd_prefix_hash crd_prefix_root(const struct crd_prefix *p, uint64_t salt)
{
    uint64_t root[3] = {p->key[0], p->key[1], salt};
    return hash128(root, sizeof root);
}

struct crd_prefix_hash crd_prefix_chain(struct crd_prefix_hash before,
                                        const int32_t ids[LIMIT_BLOCK_TOKENS])
{
    struct {
        struct crd_prefix_hash before;
        int32_t ids[LIMIT_BLOCK_TOKENS];
    } link = {.before = before};
    memcpy(link.ids, ids, sizeof link.ids);
    return hash128(&link, sizeof link);
}

static int32_t *bucket(const struct crd_prefix *p, struct crd_prefix_hash h)
{
    return &p->buckets[h.lo & (uint64_t)(p->n_buckets - 1)];
}

int32_t crd_prefix_find(const struct crd_prefix *p, int32_t parent, uint64_t salt,
                        struct crd_prefix_hash h, const int32_t ids[LIMIT_BLOCK_TOKENS])
{
    for (int32_t i = *bucket(p, h); i != PREFIX_NONE; i = p->nodes[i].next) {
        const struct crd_prefix_node *n = &p->nodes[i];
        if (n->hash.lo == h.lo && n->hash.hi == h.hi && n->parent == parent && n->salt == salt &&
            !memcmp(n->ids, ids, sizeof n->ids))
            return i;
    }
    return PREFIX_NONE;
}

bool crd_prefix_insert(struct crd_prefix *p, int32_t block, int32_t parent, uint64_t salt,
                       struct crd_prefix_hash h, const int32_t ids[LIMIT_BLOCK_TOKENS])
{
    struct crd_prefix_node *n = &p->nodes[block];
    if (crd_prefix_find(p, parent, salt, h, ids) != PREFIX_NONE) return false;
    ASSERT(!n->used);
    *n = (struct crd_prefix_node){
        .hash = h, .salt = salt, .parent = parent, .next = *bucket(p, h), .used = true};
    memcpy(n->ids, ids, sizeof n->ids);
    *bucket(p, h) = block;
    if (parent == PREFIX_NONE) return true;
    ASSERT(p->nodes[parent].used);
    p->nodes[parent].n_children++;
    return true;
}

void crd_prefix_forget(struct crd_prefix *p, int32_t block)
{
    struct crd_prefix_node *n = &p->nodes[block];
    ASSERT(n->used && !n->n_children);
    int32_t *link = bucket(p, n->hash);
    while (*link != block) link = &p->nodes[*link].next;
    *link = n->next;
    if (n->parent != PREFIX_NONE) p->nodes[n->parent].n_children--;
    n->used = false;
}
