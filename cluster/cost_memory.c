/* cost_memory.c: bytes of each rank, and the shares that they and its speed come from. */
#include "cluster/cost_impl.h"

#include "base/exchange.h"
#include "base/tree.h"

/* What rank r of the grid holds, also when the grid is dealt evenly. */
struct grid_share clu_cost_share(const struct clu_work *w, const struct grid *g, int32_t rank,
                                  int32_t *q0, int32_t *leaf0)
{
    struct grid_share even[LIMIT_RANKS] = {{0}};
    struct leaf_shape s = leaf_shape_of(w->info);
    int32_t stage = grid_stage_of(g, rank), first = grid_first(g, stage);
    const struct grid_share *all = g->share + first;
    if (!g->shared) {
        if (leaf_deal(&s, g->width[stage], even)) even[rank - first] = (struct grid_share){0};
        all = even;
    }
    *q0 = *leaf0 = 0;
    for (int32_t r = 0; r < rank - first; r++) *q0 += all[r].heads, *leaf0 += all[r].ffn;
    return all[rank - first];
}

int32_t clu_cost_parts(int32_t n_leaf, int32_t lo, int32_t n)
{
    struct tree_node nodes[TREE_MAX_NODES];
    return tree_maximal(n_leaf, lo, lo + n, nodes);
}

int64_t clu_cost_hold(const struct clu_work *w, int64_t n_tok)
{
    const struct kv_groups k = kv_groups_of_model(w->info, w->context);
    return kv_groups_hold(&k, n_tok, w->context, w->max_step_tokens);
}

int64_t clu_cost_room(const struct clu_work *w, int64_t n_blocks)
{
    const struct kv_groups k = kv_groups_of_model(w->info, w->context);
    return kv_groups_room(&k, n_blocks, w->context, w->max_step_tokens);
}

static int64_t part_of(int64_t bytes, int64_t share, int64_t all)
{
    return (int64_t)((double)bytes * (double)share / (double)all);
}

/* Columns of a feed-forward of this width that leaves [leaf0, leaf0 + n) stand for. */
static int32_t columns_of(const struct model_info *m, int32_t width, int32_t leaf0, int32_t n)
{
    int32_t all = leaf_ffn_count(m->d_ffn);
    return width ? leaf_col(width, all, leaf0 + n) - leaf_col(width, all, leaf0) : 0;
}

struct clu_cost_experts clu_cost_experts(const struct model_info *m, bool whole, int32_t leaf0, int32_t n)
{
    int32_t all = leaf_ffn_count(m->d_ffn);
    struct clu_cost_experts x = {m->n_experts, columns_of(m, m->d_expert, leaf0, n), columns_of(m, m->d_shared, leaf0, n)};
    if (!whole || !m->n_experts) return x;
    x.held = leaf_first_expert(m->n_experts, all, leaf0 + n) - leaf_first_expert(m->n_experts, all, leaf0);
    x.cols = m->d_expert;
    return x;
}

/* Which ranks are on which cards shows only later: cards of a host are taken to be in one stage where they may be. */
static bool beside_another(const struct clu_topo *t, int32_t device, int32_t width)
{
    bool beside = false;
    for (int32_t i = 0; i < t->n_devices; i++) beside |= i != device && t->devices[i].kind != CLU_CPU && clu_cost_same_host(t, i, device);
    return beside && width > 1 && t->devices[device].kind != CLU_CPU;
}

int64_t clu_cost_nccl(const struct clu_work *w, const struct clu_topo *t, int32_t device, int32_t width)
{
    return beside_another(t, device, width) ? w->rates->nccl_bytes : 0;
}

/* Rooms that cards fill for each other, and what the ways to sum are timed with (transport/coll_direct.c, coll_cards.c). */
static int64_t exchange_bytes(const struct clu_topo *t, int32_t device, int32_t width)
{
    enum { TIMED = 2 << 20 };
    return beside_another(t, device, width) ? MIN(width, (int32_t)EXCHANGE_RANKS) * (int64_t)EXCHANGE_ROOM + TIMED : 0;
}

/* What splits of attention leave until they are merged: so many items at once, of all splits (engine/model/pass.c: eng_pass_split_items). */
static int64_t split_bytes(const struct clu_work *w)
{
    const struct model_info *m = w->info;
    int64_t splits = DIV_UP(w->context, LEAF_SPLIT), group = m->n_heads / MAX(m->n_kv_heads, 1);
    if (m->latent.rank) return 4 * LEAF_CARD_LATENT_ITEMS * splits * m->n_heads * (m->latent.rank + 2);
    return 4 * (int64_t)LEAF_CARD_ITEMS * w->rates->card_units * splits * group * (m->head_dim + 2);
}

/* Of ranks of several hosts, where this host's cards sum by themselves first: that its card lies beside another shows as above. */
static int64_t hier_bytes(const struct clu_work *w, const struct clu_topo *t, int32_t device, int32_t width)
{
    if (width < 3 || !beside_another(t, device, width)) return 0;
    for (int32_t i = 0; i < t->n_devices; i++)
        if (!clu_cost_same_host(t, i, device)) return w->rates->hier_bytes * (w->wire == CLU_WIRE_F32 ? 1 : 3);
    return 0;
}

/* leaves: of the sublayer, this rank's. */
static int64_t card_bytes(const struct clu_work *w, const struct clu_topo *t, int32_t device, int32_t n_layers, int32_t width, int32_t leaves, bool whole)
{
    const struct model_info *m = w->info;
    const struct leaf_experts x = {.n = m->n_experts, .used = m->n_used, .cols = m->d_expert, .shared_cols = m->d_shared, .leaves = leaves,
                                   .leaves_each = whole ? 1 : leaves};
    if (t->devices[device].kind == CLU_CPU) return 0;
    enum { FIXED = 1 << 20 }; /* choices of tokens (engine/kernels/cuda/choose.h), scratch, small tables */
    return FIXED + n_layers * w->rates->graph_bytes + split_bytes(w) + (w->rounded ? w->rates->rounded_bytes : 0) +
           leaf_expert_card_bytes(&x, m->d_model, w->max_step_tokens) + exchange_bytes(t, device, width) + clu_cost_nccl(w, t, device, width) +
           hier_bytes(w, t, device, width);
}

int64_t clu_cost_card(const struct clu_work *w, const struct clu_topo *t, int32_t device, int32_t n_layers, int32_t width)
{
    return card_bytes(w, t, device, n_layers, width, DIV_UP(leaf_ffn_count(w->info->d_ffn), MAX(width, 1)), false);
}

void clu_cost_memory(const struct clu_work *w, const struct grid *g, int32_t rank, const struct clu_topo *t, int32_t device, struct clu_memory *out)
{
    const struct model_info *m = w->info;
    const struct model_weights *y = w->weights;
    struct leaf_shape s = leaf_shape_of(w->info);
    int32_t stage = grid_stage_of(g, rank), q0, leaf0, kv0, kv1, hpl = leaf_heads(m->head_dim);
    struct grid_share h = clu_cost_share(w, g, rank, &q0, &leaf0);
    bool first = stage == 0, last = stage == g->n_stages - 1;
    int32_t cols = columns_of(m, m->d_ffn, leaf0, h.ffn),
            tiles = leaf_vocab_tiles(m->n_vocab);
    const struct clu_cost_experts x = clu_cost_experts(m, g->whole_experts, leaf0, h.ffn);
    leaf_kv_range(&s, q0, q0 + h.heads, &kv0, &kv1);
    *out = (struct clu_memory){.process = w->rates->process_bytes,
                               .card = card_bytes(w, t, device, g->layers[stage + 1] - g->layers[stage], g->width[stage], h.ffn, g->whole_experts)};
    for (int32_t i = g->layers[stage]; i < g->layers[stage + 1]; i++) {
        const struct model_layer *l = &y->layers[i];
        out->weights += part_of(l->q.mem, h.heads, m->n_heads) +
                        part_of(l->kv.mem, kv1 - kv0, m->n_kv_heads) +
                        (l->experts ? part_of(l->ffn.mem, (int64_t)x.held * x.cols + x.shared_cols, (int64_t)m->n_experts * m->d_expert + m->d_shared)
                                    : part_of(l->ffn.mem, cols, m->d_ffn)) +
                        l->rest.mem;
    }
    if (first || (last && y->tied)) out->weights += part_of(y->embd.mem, h.vocab, tiles);
    if (last && !y->tied) out->weights += part_of(y->head.mem, h.vocab, tiles);
    if (last) out->weights += y->ends.mem;
    const struct kv_groups k = kv_groups_of_model(m, w->context);
    out->kv_block = leaf_kv_block_bytes(&m->kv, kv_groups_planes(&k, m->windowed, g->layers[stage], g->layers[stage + 1]), kv1 - kv0,
                                        w->kv_type);
    int32_t attn = clu_cost_parts(DIV_UP(m->n_heads, hpl), q0 / hpl, DIV_UP(h.heads, hpl)),
            ffn = clu_cost_parts(leaf_ffn_count(m->d_ffn), leaf0, h.ffn);
    out->buffers =
        leaf_buffer_bytes(&(struct leaf_buffers){.d_model = m->d_model,
                                                 .head_dim = m->head_dim,
                                                 .rope_dim = y->rope_dim,
                                                 .n_vocab = m->n_vocab,
                                                 .heads = h.heads,
                                                 .kv_heads = kv1 - kv0,
                                                 .ffn_cols = columns_of(m, MAX(m->d_dense, m->d_ffn), leaf0, h.ffn),
                                                 .nodes = MAX(attn, ffn),
                                                 .vocab_rows = MIN(h.vocab * LEAF_TILE, m->n_vocab),
                                                 .last = last,
                                                 .max_step_tokens = w->max_step_tokens,
                                                 .context = w->context,
                                                 .n_slots = w->n_slots,
                                                 .n_tables = k.n,
                                                 .experts = {m->n_experts, m->n_used, x.held, x.cols, x.shared_cols, h.ffn},
                                                 .latent = m->latent});
}

int64_t clu_cost_blocks(const struct clu_work *w, const struct clu_topo *t,
                        const struct clu_layout *l, int32_t *tightest)
{
    int64_t least = INT64_MAX;
    for (int32_t r = 0; r < grid_ranks(&l->grid); r++) {
        struct clu_memory m;
        clu_cost_memory(w, &l->grid, r, t, l->device[r], &m);
        int64_t left = t->devices[l->device[r]].mem_bytes - clu_memory_fixed(&m);
        int64_t blocks = left < 0 ? -1 : left / MAX(m.kv_block, 1);
        if (blocks < least) {
            least = blocks;
            if (tightest) *tightest = r;
        }
    }
    return least;
}
