/* share.c: see share.h.
 *
 * When may a block be read by others? Steps run in order on every rank, so a later step may read
 * whatever an earlier one wrote: a block is published when the step that computes its last position
 * has been sent, provided that all its token ids are known. Generated tokens are inputs before
 * their ids are known; their block is published when the result names them. A token past a stop is
 * never an input of a step that a rank really computes, so the last token of a finished sequence is
 * left out by its caller.
 *
 * Invariant: the published blocks of a sequence are the first of its table and form a path of the
 * tree; whoever refers to a block refers to all its ancestors. When an equal block was published by
 * somebody else in the meantime, the sequence therefore publishes no more. */
#include "coordinator/sched/share.h"

#include <stdlib.h>

static int32_t find_nodes(struct crd_sched *s, struct crd_seq *q, int32_t most, int32_t ids[])
{
    int32_t n = 0, parent = PREFIX_NONE;
    while (n < most) {
        int32_t tokens[LIMIT_BLOCK_TOKENS];
        crd_seq_block_ids(q, n, tokens);
        parent = crd_prefix_find(&s->prefix, parent, q->group->salt, crd_seq_hash(q, &s->prefix, n),
                                 tokens);
        if (parent == PREFIX_NONE) break;
        ids[n++] = parent;
    }
    return n;
}

int32_t crd_share_find(struct crd_sched *s, struct crd_seq *q, int32_t ids[], int32_t *n_nodes)
{
    const struct crd_group *g = q->group;
    int32_t most = (crd_seq_known(q) - 1) / LIMIT_BLOCK_TOKENS;
    if (g->pool == POOL_MEAN) most = 0; /* what was not computed is not in the sum */
    if (crd_seq_wants_prompt(q)) most = MIN(most, q->rows_sent / LIMIT_BLOCK_TOKENS);
    int32_t n = s->conf.prefix_cache ? find_nodes(s, q, most, ids) : 0;
    *n_nodes = n;
    if (MIN(g->n_shared, most) <= n) return n;
    n = MIN(g->n_shared, most);
    for (int32_t i = 0; i < n; i++) ids[i] = g->shared[i];
    for (*n_nodes = 0; *n_nodes < n && s->blocks.cached[ids[*n_nodes]];) ++*n_nodes;
    return n;
}

void crd_share_publish(struct crd_sched *s, struct crd_seq *q, int32_t n_tokens)
{
    while (!q->unpublished && (q->n_published + 1) * LIMIT_BLOCK_TOKENS <= n_tokens) {
        int32_t i = q->n_published, ids[LIMIT_BLOCK_TOKENS],
                parent = i ? q->blocks[i - 1] : PREFIX_NONE;
        crd_seq_block_ids(q, i, ids);
        if (crd_prefix_insert(&s->prefix, q->blocks[i], parent, q->group->salt,
                              crd_seq_hash(q, &s->prefix, i), ids)) {
            crd_blocks_cache(&s->blocks, q->blocks[i]);
            q->n_published++;
        } else {
            q->unpublished = true;
        }
    }
}

void crd_share_keep(struct crd_sched *s, const struct crd_seq *leader)
{
    struct crd_group *g = leader->group;
    int32_t n = (g->n_prompt - 1) / LIMIT_BLOCK_TOKENS;
    if (!n || !g->n_unstarted || g->n_shared) return;
    g->shared = xmalloc((size_t)n * sizeof *g->shared);
    for (int32_t i = 0; i < n; i++) crd_blocks_hold(&s->blocks, g->shared[i] = leader->blocks[i]);
    g->n_shared = n;
    g->prev_shared = NULL;
    g->next_shared = s->shared;
    if (s->shared) s->shared->prev_shared = g;
    s->shared = g;
}

void crd_share_drop(struct crd_sched *s, struct crd_group *g)
{
    if (!g->n_shared) return;
    crd_blocks_drop(&s->blocks, g->n_shared, g->shared);
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
