/* prefix.c: see prefix.h.
 *
 * A tree over whole blocks, not tokens: the pool shares whole blocks, so a finer match would
 * promise what crd_blocks cannot give.
 *
 * The hash chain is rooted in a random key and the request's
 * salt, so nobody can aim at a collision or probe another salt; and since a hit compares parent,
 * salt and ids as well, a collision would cost a comparison, never a wrong token.
 *
 * Blocks come and go one by one: a windowed group's go early, and may be all that is left of a node
 * whose parent has none. A node without blocks still says what came before its children.
 *
 * I1  a node's parent is no free node.
 * I2  n_uses counts the nodes that name it as parent, its blocks and its users. */
#include "coordinator/sched/prefix.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

void crd_prefix_open(struct crd_prefix *p, int32_t n_nodes, int32_t n_blocks, const uint64_t key[2])
{
    int32_t n_buckets = 16;
    while (n_buckets < n_nodes) n_buckets *= 2;
    *p = (struct crd_prefix){.key = {key[0], key[1]},
                             .n_nodes = n_nodes,
                             .n_buckets = n_buckets,
                             .n_blocks = n_blocks,
                             .n_free = n_nodes,
                             .nodes = xcalloc((size_t)n_nodes, sizeof *p->nodes),
                             .buckets = xmalloc((size_t)n_buckets * sizeof *p->buckets),
                             .owner = xmalloc((size_t)n_blocks * sizeof *p->owner)};
    for (int32_t i = 0; i < n_buckets; i++) p->buckets[i] = PREFIX_NONE;
    for (int32_t i = 0; i < n_blocks; i++) p->owner[i] = PREFIX_NONE;
    for (int32_t i = 0; i < n_nodes; i++) p->nodes[i].next = i + 1 < n_nodes ? i + 1 : PREFIX_NONE;
}

void crd_prefix_close(struct crd_prefix *p)
{
    free(p->nodes);
    free(p->owner);
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

int32_t crd_prefix_enter(struct crd_prefix *p, int32_t parent, uint64_t salt,
                         struct crd_prefix_hash h, const int32_t ids[LIMIT_BLOCK_TOKENS])
{
    int32_t node = crd_prefix_find(p, parent, salt, h, ids);
    if (node != PREFIX_NONE || !p->n_free) return node;
    node = p->first_free;
    struct crd_prefix_node *n = &p->nodes[node];
    ASSERT(!n->n_uses);
    p->first_free = n->next;
    p->n_free--;
    *n = (struct crd_prefix_node){.hash = h, .salt = salt, .parent = parent, .next = *bucket(p, h)};
    memcpy(n->ids, ids, sizeof n->ids);
    for (int32_t g = 0; g < LIMIT_GROUPS; g++) n->blocks[g] = PREFIX_NONE;
    *bucket(p, h) = node;
    crd_prefix_use(p, parent);
    return node;
}

void crd_prefix_use(struct crd_prefix *p, int32_t node)
{
    if (node != PREFIX_NONE) p->nodes[node].n_uses++;
}

static void free_node(struct crd_prefix *p, int32_t node)
{
    struct crd_prefix_node *n = &p->nodes[node];
    int32_t *link = bucket(p, n->hash);
    while (*link != node) link = &p->nodes[*link].next;
    *link = n->next;
    n->next = p->first_free;
    p->first_free = node;
    p->n_free++;
}

void crd_prefix_unuse(struct crd_prefix *p, int32_t node)
{
    while (node != PREFIX_NONE) {
        struct crd_prefix_node *n = &p->nodes[node];
        ASSERT(n->n_uses > 0);
        if (--n->n_uses) return;
        free_node(p, node);
        node = n->parent;
    }
}

void crd_prefix_name(struct crd_prefix *p, int32_t node, int32_t group, int32_t block)
{
    ASSERT(p->nodes[node].blocks[group] == PREFIX_NONE && p->owner[block] == PREFIX_NONE);
    p->nodes[node].blocks[group] = block;
    p->owner[block] = node;
    crd_prefix_use(p, node);
}

void crd_prefix_forget(struct crd_prefix *p, int32_t block)
{
    int32_t node = p->owner[block], g = 0;
    ASSERT(node != PREFIX_NONE);
    while (p->nodes[node].blocks[g] != block) g++;
    p->nodes[node].blocks[g] = PREFIX_NONE;
    p->owner[block] = PREFIX_NONE;
    crd_prefix_unuse(p, node);
}
