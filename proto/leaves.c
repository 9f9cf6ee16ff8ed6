/* leaves.c: see leaves.h. */
#include "proto/leaves.h"

#include "base/tree.h"
#include "proto/limits.h"

struct leaf_shape leaf_shape_of(const struct model_info *m)
{
    return (struct leaf_shape){m->name,     m->n_heads, m->n_kv_heads,
                               m->head_dim, m->d_ffn,   m->n_vocab};
}

int32_t leaf_heads(int32_t head_dim)
{
    return head_dim % LEAF_UNIT ? 2 : 1;
}

int32_t leaf_ffn_count(int32_t d_ffn)
{
    int32_t units = DIV_UP(d_ffn, LEAF_UNIT);
    return MIN(CLAMP(d_ffn / 256, 16, LIMIT_FFN_LEAVES), units);
}

int32_t leaf_col(int32_t width, int32_t n, int32_t leaf)
{
    int32_t units = DIV_UP(width, LEAF_UNIT);
    return MIN((int32_t)((int64_t)leaf * units / n) * LEAF_UNIT, width);
}

int32_t leaf_first_expert(int32_t n_experts, int32_t n_leaf, int32_t leaf)
{
    return (int32_t)((int64_t)n_experts * leaf / n_leaf);
}

int32_t leaf_of_expert(int32_t n_experts, int32_t n_leaf, int32_t expert)
{
    return (int32_t)DIV_UP((int64_t)(expert + 1) * n_leaf, n_experts) - 1;
}

int32_t leaf_vocab_tiles(int32_t n_vocab)
{
    return DIV_UP(n_vocab, LEAF_TILE);
}

int64_t leaf_kv_row_bytes(const struct kv_layer *g, enum kv_type type)
{
    return (g->kind == KV_LATENT ? 1 : 2) * kv_row_bytes(type, g->head_dim);
}

int64_t leaf_kv_block_bytes(const struct kv_layer *g, int32_t n_planes, int32_t n_kv_heads, enum kv_type type)
{
    return (int64_t)n_planes * n_kv_heads * LIMIT_BLOCK_TOKENS * leaf_kv_row_bytes(g, type);
}

void leaf_kv_range(const struct leaf_shape *s, int32_t q0, int32_t q1, int32_t *kv0, int32_t *kv1)
{
    int32_t group = s->n_heads / s->n_kv_heads;
    *kv0 = q0 / group;
    *kv1 = DIV_UP(q1, group);
}

/* Leaves lie on one rank whole. So the heads of one KV head may be dealt to several ranks only when
 * they are whole leaves; when two KV heads share a leaf they are dealt together. */
static int32_t pieces_per_group(const struct leaf_shape *s)
{
    int32_t group = s->n_heads / s->n_kv_heads, hpl = leaf_heads(s->head_dim);
    return group % hpl ? 1 : group / hpl;
}

static int32_t kv_unit(const struct leaf_shape *s)
{
    return s->n_heads / s->n_kv_heads % leaf_heads(s->head_dim) ? 2 : 1;
}

int32_t leaf_max_width(const struct leaf_shape *s)
{
    int32_t heads = DIV_UP(s->n_kv_heads, kv_unit(s)) * pieces_per_group(s);
    return MIN(MIN(heads, leaf_ffn_count(s->d_ffn)), LIMIT_RANKS);
}

static enum err too_wide(const struct leaf_shape *s, int32_t width)
{
    if (width > leaf_ffn_count(s->d_ffn))
        return err_raise(
            ERR_UNSUPPORTED,
            "--tp %d is more than the %d parts a feed-forward width of %d can be cut into", width,
            leaf_ffn_count(s->d_ffn), s->d_ffn);
    return err_raise(ERR_UNSUPPORTED,
                     "%d tensor ranks are more than the %d parts into which the %d query heads (%d "
                     "KV heads) of %s can be dealt: use --tp %d or "
                     "fewer, and --pp for the rest",
                     width, leaf_max_width(s), s->n_heads, s->n_kv_heads, s->name,
                     leaf_max_width(s));
}

/* Query head at which rank r of `width` begins. */
static int32_t even_head(const struct leaf_shape *s, int32_t width, int32_t r)
{
    int32_t n_kv = s->n_kv_heads, group = s->n_heads / n_kv, pieces = pieces_per_group(s),
            unit = kv_unit(s), n_units = DIV_UP(n_kv, unit);
    if (r >= width) return s->n_heads;
    if (width <= n_units) return (int32_t)((int64_t)n_units * r / width) * unit * group;
    /* ranks are dealt to KV heads, then the heads of each to its ranks */
    int32_t kv = 0;
    while ((int64_t)width * (kv + 1) / n_kv <= r) kv++;
    int32_t first = (int32_t)((int64_t)width * kv / n_kv),
            ranks = (int32_t)((int64_t)width * (kv + 1) / n_kv) - first;
    return kv * group + pieces * (r - first) / ranks * (group / pieces);
}

enum err leaf_deal(const struct leaf_shape *s, int32_t width, struct grid_share out[])
{
    int32_t n = leaf_ffn_count(s->d_ffn), tiles = leaf_vocab_tiles(s->n_vocab);
    if (width > leaf_max_width(s)) return too_wide(s, width);
    struct grid_share g[LIMIT_RANKS] = {{0}};
    for (int32_t r = 0; r < width; r++)
        g[r] = (struct grid_share){.heads = even_head(s, width, r + 1) - even_head(s, width, r),
                                   .ffn = (int32_t)((int64_t)n * (r + 1) / width) -
                                          (int32_t)((int64_t)n * r / width),
                                   .vocab = (int32_t)((int64_t)tiles * (r + 1) / width) -
                                            (int32_t)((int64_t)tiles * r / width)};
    enum err e = leaf_check(s, width, g);
    for (int32_t r = 0; r < width && !e; r++) out[r] = g[r];
    return e;
}

static enum err check_heads(const struct leaf_shape *s, int32_t r, int32_t q0, int32_t q1)
{
    int32_t group = s->n_heads / s->n_kv_heads, hpl = leaf_heads(s->head_dim), kv0, kv1;
    leaf_kv_range(s, q0, q1, &kv0, &kv1);
    if (q0 == q1)
        return err_raise(ERR_UNSUPPORTED, "tensor rank %d has no query head: use a smaller --tp",
                         r);
    if ((q0 % hpl && q0 != s->n_heads) || (q1 % hpl && q1 != s->n_heads))
        return err_raise(ERR_UNSUPPORTED,
                         "tensor rank %d would part two heads of %d values that are summed "
                         "together (a cut is made every %d values): use a "
                         "width whose ranks hold an even number of query heads",
                         r, s->head_dim, LEAF_UNIT);
    if (kv1 - kv0 > 1 && (q0 % group || q1 % group))
        return err_raise(ERR_UNSUPPORTED,
                         "tensor rank %d would hold query heads %d..%d: a rank has whole groups of "
                         "%d (one KV head each) or a part of one",
                         r, q0, q1, group);
    return OK;
}

enum err leaf_check(const struct leaf_shape *s, int32_t width, const struct grid_share share[])
{
    enum err rc = OK;
    int64_t heads = 0, ffn = 0, vocab = 0;
    if (DIV_UP(s->n_heads, leaf_heads(s->head_dim)) > TREE_MAX_LEAF)
        return err_raise(ERR_UNSUPPORTED, "%d query heads are more than %d leaves", s->n_heads,
                         TREE_MAX_LEAF);
    for (int32_t r = 0; r < width; r++) {
        const struct grid_share *g = &share[r];
        if (g->heads < 0 || g->ffn < 1 || g->vocab < 0)
            return err_raise(ERR_UNSUPPORTED,
                             "tensor rank %d has %d query heads, %d FFN leaves and %d vocabulary "
                             "tiles: at least 1, 1 and 0 are needed",
                             r, g->heads, g->ffn, g->vocab);
        TRY(check_heads(s, r, (int32_t)heads, (int32_t)MIN(heads + g->heads, s->n_heads)));
        heads += g->heads;
        ffn += g->ffn;
        vocab += g->vocab;
    }
    if (heads != s->n_heads || ffn != leaf_ffn_count(s->d_ffn) ||
        vocab != leaf_vocab_tiles(s->n_vocab))
        rc = err_raise(ERR_UNSUPPORTED,
                       "the shares of %d ranks are %lld query heads, %lld FFN leaves and %lld "
                       "vocabulary tiles; %s has %d, %d and %d",
                       width, (long long)heads, (long long)ffn, (long long)vocab, s->name,
                       s->n_heads, leaf_ffn_count(s->d_ffn), leaf_vocab_tiles(s->n_vocab));
out:
    return rc;
}

int64_t leaf_expert_scratch(const struct leaf_experts *x, int32_t tokens)
{
    int64_t per_row = x->leaves + MIN(x->leaves, TREE_MAX_NODES); /* summed leaves, and one expert's */
    return ROUND_UP(MAX((int64_t)LEAF_EXPERT_SCRATCH, per_row * tokens * LEAF_TILE), LEAF_TILE);
}

/* As engine/model/moe.c takes them. */
static int64_t expert_bytes(const struct leaf_experts *x, int32_t d_model, int32_t max_step_tokens, int32_t n_threads)
{
    if (!x->n) return 0;
    int64_t T = max_step_tokens, tokens = MIN(T, LEAF_EXPERT_TOKENS), routed = tokens * x->used,
            slots = routed + (x->shared_cols ? tokens : 0), lanes = slots + (x->held + 2) * (int64_t)LEAF_EXPERT_PAD;
    int64_t wide = ROUND_UP(MAX(MAX(d_model, x->cols), x->shared_cols), LEAF_UNIT);
    int64_t panels = lanes * (wide / LEAF_UNIT * 56); /* codes; the panels of f32 are not touched where weights are quantised */
    return 4 * (T * (x->n + 1 + 2 * x->used) + x->n + 2 + 2 * slots + slots * d_model) +
           8 * (routed * x->cols + (slots - routed) * x->shared_cols) + panels +
           4 * n_threads * leaf_expert_scratch(x, (int32_t)tokens);
}

/* Rows of products by expert: each expert's are rounded up. */
static int64_t card_rows(const struct leaf_experts *x, int64_t slots)
{
    return ROUND_UP(slots + MIN(x->n, slots) * (LEAF_EXPERT_GROUP - 1), LEAF_EXPERT_GROUP);
}

int64_t leaf_expert_card_scratch(const struct leaf_experts *x, int32_t tokens)
{
    int64_t leaves = x->leaves_each * card_rows(x, (int64_t)tokens * x->used) + (x->shared_cols ? (int64_t)x->leaves * tokens : 0);
    return MAX((int64_t)LEAF_EXPERT_ROOM, leaves * LEAF_TILE);
}

int64_t leaf_expert_card_bytes(const struct leaf_experts *x, int32_t d_model, int32_t max_step_tokens)
{
    if (!x->n) return 0;
    int64_t tokens = MIN((int64_t)max_step_tokens, LEAF_EXPERT_TOKENS), slots = tokens * x->used, apart = card_rows(x, slots) - slots;
    return 4 * (apart * (d_model + 2 * x->cols) + leaf_expert_card_scratch(x, (int32_t)tokens));
}

enum { HEAD_ROWS = 32 }; /* rows of logits computed at once (engine/engine.c) */

/* Floats of a token that attention over a latent takes beside its output: queries of heads and over the latent, what it attended to, the token's
 * own latent, and what queries are made from (engine/model/mla.c). */
static int64_t latent_floats(const struct leaf_buffers *b)
{
    const struct model_latent *x = &b->latent;
    return (int64_t)b->heads * (x->key + x->rank + x->rope + x->rank) + x->rank + x->rope + x->q_rank;
}

int64_t leaf_buffer_bytes(const struct leaf_buffers *b)
{
    int64_t q = (int64_t)b->heads * b->head_dim, kv = (int64_t)b->kv_heads * b->head_dim,
            d = b->d_model, wide = MAX(MAX(d, q), b->ffn_cols);
    int64_t attn = b->latent.rank ? q + latent_floats(b) : 2 * q + 2 * kv;
    int64_t per_tok = 4 * (3 * d + attn + 2 * b->ffn_cols + d * b->nodes) + ROUND_UP(wide, LEAF_UNIT) / LEAF_UNIT * 56 +
                      16; /* 56: the codes of a unit (engine/kernels/panel.h) */
    int64_t bytes = per_tok * b->max_step_tokens + (int64_t)b->context * b->rope_dim * 4 +
                    (int64_t)b->n_slots * b->n_tables * DIV_UP(b->context, LIMIT_BLOCK_TOKENS) * 4;
    bytes += expert_bytes(&b->experts, b->d_model, b->max_step_tokens, 1);
    if (b->last) bytes += HEAD_ROWS * 4LL * (b->vocab_rows + b->n_vocab) + 20LL * b->n_vocab;
    return bytes;
}
