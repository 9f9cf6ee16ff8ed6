/* share.c: see share.h.
 *
 * When may a block be read by others? Steps run in order on every rank, so a later step may read
 * whatever an earlier one wrote: a block is published when the step that computes its last position
 * has been sent, provided that all its token ids are known. Generated tokens are inputs before
 * their ids are known; their block is published when the result names them. A token past a stop is
 * never an input of a step that a rank really computes, so the last token of a finished sequence is
 * left out by its caller.
 *
 * Invariant: the published rows of a sequence are the first of its tables and form a path of the
 * tree. Where an equal row was published by somebody else in the meantime, the sequence gives the
 * node what it lacks, and its own block for one that nobody refers to: so what was evicted comes
 * back. It publishes no more where the node has everything already: its blocks after would outlive
 * those before, which are somebody else's. */
#include "coordinator/sched/share.h"

#include <stdlib.h>
#include <string.h>

/* A hit may end after row n only if the windowed blocks that the next position reads are all there. */
static int32_t find_nodes(struct crd_sched *s, struct crd_seq *q, int32_t most, int32_t ids[],
                          int32_t *node)
{
    const struct kv_groups *k = &s->conf.groups;
    int32_t n = 0, at = PREFIX_NONE, hit = 0, whole = 0; /* whole: rows at the end with every block */
    *node = PREFIX_NONE;
    while (n < most) {
        int32_t tokens[LIMIT_BLOCK_TOKENS];
        crd_seq_block_ids(q, n, tokens);
        at = crd_prefix_find(&s->prefix, at, q->group->salt, crd_seq_hash(q, &s->prefix, n), tokens);
        if (at == PREFIX_NONE) break;
        const int32_t *blocks = s->prefix.nodes[at].blocks;
        if (k->n_full && blocks[0] == PREFIX_NONE) break;
        memcpy(ids + n++ * k->n, blocks, (size_t)k->n * sizeof *ids);
        whole++;
        for (int32_t g = k->n_full; g < k->n; g++)
            if (blocks[g] == PREFIX_NONE) whole = 0;
        if (n - whole <= kv_groups_first(k, n)) hit = n, *node = at;
    }
    return hit;
}

/* Rows before the window of the n-th: their windowed blocks are of no use. */
static void cut_window(const struct kv_groups *k, int32_t n, int32_t ids[])
{
    for (int32_t i = 0; i < kv_groups_first(k, n); i++)
        for (int32_t g = k->n_full; g < k->n; g++) ids[i * k->n + g] = -1;
}

struct crd_found crd_share_find(struct crd_sched *s, struct crd_seq *q, int32_t ids[])
{
    const struct crd_group *g = q->group;
    const struct kv_groups *k = &s->conf.groups;
    struct crd_found f = {.node = PREFIX_NONE};
    int32_t most = (crd_seq_known(q) - 1) / LIMIT_BLOCK_TOKENS;
    if (g->pool == POOL_MEAN) most = 0; /* what was not computed is not in the sum */
    if (crd_seq_wants_prompt(q)) most = MIN(most, q->rows_sent / LIMIT_BLOCK_TOKENS);
    if (s->conf.prefix_cache) f.n = f.n_nodes = find_nodes(s, q, most, ids, &f.node);
    int32_t n = MIN(g->n_shared, most);
    if (k->window && n < g->n_shared) n = 0; /* its window is kept for its end only */
    if (n > f.n) {
        f = (struct crd_found){n, g->n_shared_nodes, g->shared_node};
        for (; f.n_nodes > n; f.n_nodes--) f.node = s->prefix.nodes[f.node].parent;
        memcpy(ids, g->shared, (size_t)(n * k->n) * sizeof *ids);
    }
    cut_window(k, f.n, ids);
    return f;
}

/* Row i to its node, which is in use. False: it has these blocks already, and all are somebody's. */
static bool give(struct crd_sched *s, const struct crd_seq *q, int32_t i, int32_t node)
{
    const int32_t n = s->conf.groups.n, *ids = q->blocks + i * n;
    bool any = false, given = false;
    for (int32_t g = 0; g < n; g++) {
        int32_t there = s->prefix.nodes[node].blocks[g];
        if (ids[g] < 0) continue;
        any = true;
        if (there != PREFIX_NONE && s->blocks.refs[there]) continue;
        if (there != PREFIX_NONE) crd_blocks_evict(&s->blocks, there);
        crd_prefix_name(&s->prefix, node, g, ids[g]);
        crd_blocks_cache(&s->blocks, ids[g]);
        given = true;
    }
    return given || !any;
}

/* The node of row i, and a use of it; PREFIX_NONE: there is no room for one more. */
static int32_t enter(struct crd_sched *s, struct crd_seq *q, int32_t i)
{
    int32_t tokens[LIMIT_BLOCK_TOKENS], node;
    crd_seq_block_ids(q, i, tokens);
    const struct crd_prefix_hash h = crd_seq_hash(q, &s->prefix, i);
    do node = crd_prefix_enter(&s->prefix, q->node, q->group->salt, h, tokens);
    while (node == PREFIX_NONE && crd_blocks_evict_oldest(&s->blocks));
    crd_prefix_use(&s->prefix, node);
    return node;
}

void crd_share_publish(struct crd_sched *s, struct crd_seq *q, int32_t n_tokens)
{
    while (!q->unpublished && (q->n_published + 1) * LIMIT_BLOCK_TOKENS <= n_tokens) {
        int32_t node = enter(s, q, q->n_published);
        if (node == PREFIX_NONE || !give(s, q, q->n_published, node)) {
            crd_prefix_unuse(&s->prefix, node);
            q->unpublished = true;
            return;
        }
        crd_prefix_unuse(&s->prefix, q->node);
        q->node = node;
        q->n_published++;
    }
}

void crd_share_keep(struct crd_sched *s, const struct crd_seq *leader)
{
    struct crd_group *g = leader->group;
    int32_t n = (g->n_prompt - 1) / LIMIT_BLOCK_TOKENS;
    if (!n || !g->n_unstarted || g->n_shared) return;
    const struct kv_groups *k = &s->conf.groups;
    size_t bytes = (size_t)(n * k->n) * sizeof *g->shared;
    g->shared = memcpy(xmalloc(bytes), leader->blocks, bytes);
    cut_window(k, n, g->shared);
    for (int32_t i = 0; i < n * k->n; i++)
        if (g->shared[i] >= 0) crd_blocks_hold(&s->blocks, g->shared[i]);
    g->n_shared = n;
    g->n_shared_nodes = MIN(n, leader->n_published);
    g->shared_node = leader->node;
    for (int32_t i = leader->n_published; i > n; i--) g->shared_node = s->prefix.nodes[g->shared_node].parent;
    crd_prefix_use(&s->prefix, g->shared_node);
    g->prev_shared = NULL;
    g->next_shared = s->shared;
    if (s->shared) s->shared->prev_shared = g;
    s->shared = g;
}

void crd_share_drop(struct crd_sched *s, struct crd_group *g)
{
    if (!g->n_shared) return;
    crd_blocks_drop(&s->blocks, g->n_shared * s->conf.groups.n, g->shared);
    crd_prefix_unuse(&s->prefix, g->shared_node);
    free(g->shared);
    g->shared = NULL;
    g->n_shared = 0;
    *(g->prev_shared ? &g->prev_shared->next_shared : &s->shared) = g->next_shared;
    if (g->next_shared) g->next_shared->prev_shared = g->prev_shared;
}

bool crd_share_reclaim(struct crd_sched *s)
{
    if (!s->shared) return false;
    crd_share_drop(s, s->shared);
    return true;
}
