/* shard.c: see shard.h. */
#include "engine/model/shard.h"

#include <string.h>

enum err eng_grid_even(struct grid *out, const struct eng_spec *s, int32_t tp, int32_t n_stages)
{
    struct grid g = {.n_stages = n_stages};
    if (tp < 1 || n_stages < 1 || (int64_t)tp * n_stages > LIMIT_RANKS)
        return err_raise(ERR_BAD_CONFIG, "a grid of %d tensor ranks x %d stages is outside 1..%d ranks", tp, n_stages,
                         LIMIT_RANKS);
    if (n_stages > s->n_layers)
        return err_raise(ERR_BAD_CONFIG, "%d pipeline stages need as many layers; %s has %d: use --pp %d or fewer",
                         n_stages, s->name, s->n_layers, s->n_layers);
    for (int32_t i = 0; i <= n_stages; i++) g.layers[i] = (int32_t)((int64_t)s->n_layers * i / n_stages);
    for (int32_t i = 0; i < n_stages; i++) g.width[i] = tp;
    *out = g;
    return OK;
}

static void set_leaves(struct krn_leaves *l, const struct coll_cut *cut, int32_t r)
{
    l->n_leaf = cut->n_leaf;
    l->lo = cut->bounds[r];
    l->hi = cut->bounds[r + 1];
    l->n_nodes = tree_maximal(l->n_leaf, l->lo, l->hi, l->nodes);
}

static void cut_attention(struct eng_shard *h, const struct leaf_shape *s, const struct grid_share share[])
{
    int32_t hpl = leaf_heads(s->head_dim), q = 0;
    h->attn_cut.n_leaf = DIV_UP(s->n_heads, hpl);
    for (int32_t r = 0; r < h->tp_width; q += share[r++].heads) {
        h->attn_cut.bounds[r] = DIV_UP(q, hpl);
        if (r == h->tp_rank) h->q0 = q, h->q1 = q + share[r].heads;
    }
    h->attn_cut.bounds[h->tp_width] = h->attn_cut.n_leaf;
    leaf_kv_range(s, h->q0, h->q1, &h->kv0, &h->kv1);
    set_leaves(&h->attn, &h->attn_cut, h->tp_rank);
    for (int32_t i = h->attn.lo; i <= h->attn.hi; i++)
        h->attn.cols[i - h->attn.lo] = (MIN(i * hpl, h->q1) - h->q0) * s->head_dim;
}

/* The leaves of one feed-forward width: as many as the narrowest has, whatever the width. */
static void cut_width(struct eng_shard *h, int32_t width, struct krn_leaves *l, int32_t *c0, int32_t *c1)
{
    int32_t n = h->ffn_cut.n_leaf;
    set_leaves(l, &h->ffn_cut, h->tp_rank);
    *c0 = leaf_col(width, n, l->lo);
    *c1 = leaf_col(width, n, l->hi);
    for (int32_t i = l->lo; i <= l->hi; i++) l->cols[i - l->lo] = leaf_col(width, n, i) - *c0;
}

/* Experts go with the leaves of the feed-forward that they are added into. */
static void deal_experts(struct eng_shard *h, const struct eng_experts *x)
{
    int32_t n = h->ffn_cut.n_leaf;
    h->e0 = leaf_first_expert(x->n, n, h->ffn.lo);
    h->e1 = leaf_first_expert(x->n, n, h->ffn.hi);
    h->expert1 = x->d_ffn;
    h->expert = (struct krn_leaves){.n_leaf = 1, .lo = 0, .hi = 1, .cols = {0, x->d_ffn}, .n_nodes = 1, .nodes = {{0, 1}}};
}

static void cut_ffn(struct eng_shard *h, const struct leaf_shape *shape, const struct eng_spec *s, const struct grid_share share[])
{
    int32_t leaf = 0;
    h->ffn_cut.n_leaf = leaf_ffn_count(shape->d_ffn);
    for (int32_t r = 0; r < h->tp_width; leaf += share[r++].ffn) h->ffn_cut.bounds[r] = leaf;
    h->ffn_cut.bounds[h->tp_width] = leaf;
    cut_width(h, MAX(s->d_ffn, shape->d_ffn), &h->ffn, &h->ffn0, &h->ffn1);
    h->e1 = s->experts.n;
    if (h->whole_experts) deal_experts(h, &s->experts);
    else if (s->experts.n) cut_width(h, s->experts.d_ffn, &h->expert, &h->expert0, &h->expert1);
    if (s->experts.d_shared) cut_width(h, s->experts.d_shared, &h->shared, &h->shared0, &h->shared1);
}

/* Whole tiles, so that every rank but the last has full ones. */
static void cut_vocab(struct eng_shard *h, const struct leaf_shape *s, const struct grid_share share[])
{
    int32_t tile = 0;
    for (int32_t r = 0; r < h->tp_width; tile += share[r++].vocab) h->vocab_bounds[r] = MIN(tile * LEAF_TILE, s->n_vocab);
    h->vocab_bounds[h->tp_width] = s->n_vocab;
    h->embd0 = h->vocab_bounds[h->tp_rank];
    h->embd1 = h->vocab_bounds[h->tp_rank + 1];
}

enum err eng_shard_of(struct eng_shard *out, const struct eng_spec *s, const struct grid *g, int32_t rank)
{
    enum err rc;
    struct grid_share even[LIMIT_RANKS];
    const struct leaf_shape shape = {s->name, s->n_heads, s->n_kv_heads, s->head_dim, eng_spec_cut_ffn(s), s->n_vocab};
    struct eng_shard h = {.rank = rank, .n_ranks = grid_ranks(g), .n_stages = g->n_stages};
    ASSERT(rank >= 0 && rank < h.n_ranks);
    h.stage = grid_stage_of(g, rank);
    h.stage_first_rank = grid_first(g, h.stage);
    h.tp_rank = rank - h.stage_first_rank;
    h.tp_width = g->width[h.stage];
    h.whole_experts = g->whole_experts && s->experts.n;
    h.first = h.stage == 0;
    h.last = h.stage == g->n_stages - 1;
    h.layer0 = g->layers[h.stage];
    h.layer1 = g->layers[h.stage + 1];
    const struct grid_share *share = g->shared ? g->share + h.stage_first_rank : even;
    if (g->shared) TRY(leaf_check(&shape, h.tp_width, share));
    else TRY(leaf_deal(&shape, h.tp_width, even));
    cut_attention(&h, &shape, share);
    cut_ffn(&h, &shape, s, share);
    cut_vocab(&h, &shape, share);
    *out = h;
out:
    return rc;
}

int64_t eng_shard_kv_block_bytes(const struct eng_shard *h, const struct eng_spec *s, enum kv_type type, int32_t context)
{
    struct kv_groups k = eng_spec_groups(s, context);
    const struct kv_layer g = {.kind = s->mla.kv_rank ? KV_LATENT : KV_FULL, .head_dim = s->mla.kv_rank ? eng_latent_cached(&s->mla) : s->head_dim};
    return leaf_kv_block_bytes(&g, kv_groups_planes(&k, s->local, h->layer0, h->layer1), h->kv1 - h->kv0, type);
}

struct leaf_experts eng_shard_experts(const struct eng_shard *h, const struct eng_spec *s)
{
    return (struct leaf_experts){s->experts.n, s->experts.used, h->e1 - h->e0, h->expert1 - h->expert0, h->shared1 - h->shared0, h->ffn.hi - h->ffn.lo,
                                 h->expert.hi - h->expert.lo};
}
