/* shard.c: see shard.h. */
#include "engine/model/shard.h"

#include <string.h>

enum err eng_grid_even(struct eng_grid *out, const struct eng_spec *s, int32_t tp, int32_t n_stages)
{
    struct eng_grid g = {.n_stages = n_stages};
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

int32_t eng_grid_ranks(const struct eng_grid *g)
{
    int32_t n = 0;
    for (int32_t i = 0; i < g->n_stages; i++) n += g->width[i];
    return n;
}

static int32_t heads_per_leaf(const struct eng_spec *s) { return s->head_dim % KRN_UNIT ? 2 : 1; }

static int32_t ffn_leaves(const struct eng_spec *s)
{
    int32_t units = DIV_UP(s->d_ffn, KRN_UNIT);
    return MIN(CLAMP(s->d_ffn / 256, 16, 128), units);
}

static int32_t ffn_leaf_col(const struct eng_spec *s, int32_t leaf)
{
    int32_t units = DIV_UP(s->d_ffn, KRN_UNIT), n = ffn_leaves(s);
    return MIN((int32_t)((int64_t)leaf * units / n) * KRN_UNIT, s->d_ffn);
}

static void set_leaves(struct krn_leaves *l, const struct coll_cut *cut, int32_t r)
{
    l->n_leaf = cut->n_leaf;
    l->lo = cut->bounds[r];
    l->hi = cut->bounds[r + 1];
    l->n_nodes = tree_maximal(l->n_leaf, l->lo, l->hi, l->nodes);
}

static enum err cut_attention(struct eng_shard *h, const struct eng_spec *s)
{
    int32_t w = h->tp_width, per_kv = s->n_heads / s->n_kv_heads, hpl = heads_per_leaf(s);
    if (s->n_kv_heads < w)
        return err_raise(ERR_UNSUPPORTED,
                         "%d tensor ranks are more than the %d KV heads of %s: use --tp %d or fewer, and --pp for the rest",
                         w, s->n_kv_heads, s->name, s->n_kv_heads);
    h->attn_cut.n_leaf = DIV_UP(s->n_heads, hpl);
    if (h->attn_cut.n_leaf > TREE_MAX_LEAF)
        return err_raise(ERR_UNSUPPORTED, "%d query heads are more than %d leaves", s->n_heads, TREE_MAX_LEAF);
    for (int32_t r = 0; r <= w; r++) {
        int32_t kv = (int32_t)((int64_t)s->n_kv_heads * r / w), q = kv * per_kv;
        if (q % hpl && q != s->n_heads)
            return err_raise(ERR_UNSUPPORTED,
                             "--tp %d would part two heads of %d values that are summed together (a cut is made every %d "
                             "values): use a width whose ranks hold an even number of query heads",
                             w, s->head_dim, KRN_UNIT);
        h->attn_cut.bounds[r] = DIV_UP(q, hpl);
        if (r == h->tp_rank) h->kv0 = kv;
        if (r == h->tp_rank + 1) h->kv1 = kv;
    }
    h->q0 = h->kv0 * per_kv;
    h->q1 = h->kv1 * per_kv;
    set_leaves(&h->attn, &h->attn_cut, h->tp_rank);
    for (int32_t i = h->attn.lo; i <= h->attn.hi; i++)
        h->attn.cols[i - h->attn.lo] = (MIN(i * hpl, h->q1) - h->q0) * s->head_dim;
    return OK;
}

static enum err cut_ffn(struct eng_shard *h, const struct eng_spec *s)
{
    int32_t w = h->tp_width, n = ffn_leaves(s);
    if (n < w)
        return err_raise(ERR_UNSUPPORTED, "--tp %d is more than the %d parts a feed-forward width of %d can be cut into",
                         w, n, s->d_ffn);
    h->ffn_cut.n_leaf = n;
    for (int32_t r = 0; r <= w; r++) h->ffn_cut.bounds[r] = (int32_t)((int64_t)n * r / w);
    set_leaves(&h->ffn, &h->ffn_cut, h->tp_rank);
    h->ffn0 = ffn_leaf_col(s, h->ffn.lo);
    h->ffn1 = ffn_leaf_col(s, h->ffn.hi);
    for (int32_t i = h->ffn.lo; i <= h->ffn.hi; i++) h->ffn.cols[i - h->ffn.lo] = ffn_leaf_col(s, i) - h->ffn0;
    return OK;
}

enum err eng_shard_of(struct eng_shard *out, const struct eng_spec *s, const struct eng_grid *g, int32_t rank)
{
    enum err rc;
    struct eng_shard h = {.rank = rank, .n_ranks = eng_grid_ranks(g), .n_stages = g->n_stages};
    int32_t first = 0;
    ASSERT(rank >= 0 && rank < h.n_ranks);
    while (rank >= first + g->width[h.stage]) first += g->width[h.stage++];
    h.stage_first_rank = first;
    h.tp_rank = rank - first;
    h.tp_width = g->width[h.stage];
    h.first = h.stage == 0;
    h.last = h.stage == g->n_stages - 1;
    h.layer0 = g->layers[h.stage];
    h.layer1 = g->layers[h.stage + 1];
    TRY(cut_attention(&h, s));
    TRY(cut_ffn(&h, s));
    for (int32_t r = 0; r <= h.tp_width; r++)
        /* whole tiles, so that every rank but the last has full ones */
        h.vocab_bounds[r] =
            r == h.tp_width ? s->n_vocab
                            : (int32_t)((int64_t)DIV_UP(s->n_vocab, KRN_TILE) * r / h.tp_width) * KRN_TILE;
    h.embd0 = h.vocab_bounds[h.tp_rank];
    h.embd1 = h.vocab_bounds[h.tp_rank + 1];
    *out = h;
out:
    return rc;
}

int64_t eng_shard_kv_block_bytes(const struct eng_shard *h, const struct eng_spec *s, bool f16)
{
    int64_t per_layer = (int64_t)(h->kv1 - h->kv0) * s->head_dim * KRN_KV_BLOCK * (f16 ? 2 : 4) * 2;
    return per_layer * (h->layer1 - h->layer0);
}
