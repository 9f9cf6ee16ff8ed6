/* moe_down.c: the products that go out of experts, added into the leaves of the sublayer, and these into subtrees. See moe_impl.h.
 *
 * A leaf is a chain over experts in id order, the shared one last. Cut inside, an expert has a part of every leaf that this rank has; whole, it
 * is in one of them, with its K whole. The shared one is always cut inside. */
#include "engine/model/moe_impl.h"

#include <string.h>

/* The leaves of `rows` rows from row0 on, of all tokens of the group: acc[leaf][token][rows]. */
struct block {
    const struct moe_group *g;
    float *acc, *y;
    int32_t row0, rows;
};

static const struct krn_leaves *leaves_of(const struct moe_group *g, int32_t e)
{
    return e < eng_moe_routed(g->m) ? &g->m->shard.expert : &g->m->shard.shared;
}

/* The leaf of the sublayer that an expert's first one is added to, counted from the first that this rank has. */
static int32_t first_leaf(const struct moe_group *g, int32_t e)
{
    const struct eng_shard *h = &g->m->shard;
    return h->whole_experts && e < eng_moe_routed(g->m) ? leaf_of_expert(g->m->spec.experts.n, h->ffn.n_leaf, h->e0 + e) - h->ffn.lo : 0;
}

/* acc += weight * leaf, for every leaf and slot of expert e; some leaves at a time. */
static void add_expert(const struct block *b, int32_t e)
{
    const struct moe_group *g = b->g;
    const struct eng_ffn *f = eng_moe_ffn(g, e);
    int32_t n = eng_moe_slots(g, e), first = g->o->first[e];
    struct krn_leaves l = *leaves_of(g, e);
    struct krn_act in = eng_moe_product(g, e);
    struct krn_mat w = f->down;
    float *acc = b->acc + (int64_t)first_leaf(g, e) * g->n_tok * b->rows;
    w.data += b->row0 / KRN_TILE * w.tile_bytes;
    w.rows = b->rows;
    for (int32_t i = l.lo; i < l.hi; i += l.n_nodes) {
        l.n_nodes = MIN(l.hi - i, TREE_MAX_NODES);
        for (int32_t k = 0; k < l.n_nodes; k++) l.nodes[k] = (struct tree_node){i + k, i + k + 1};
        int64_t node = (int64_t)n * b->rows;
        g->m->krn->matmul(&(struct krn_matmul){.w = &w, .x = &in, .leaves = &l, .y = b->y, .y_stride = b->rows, .node_stride = node,
                                               .row0 = 0, .row1 = b->rows});
        for (int32_t k = 0; k < l.n_nodes; k++)
            g->m->krn->axpy_rows(acc + (int64_t)(i + k - l.lo) * g->n_tok * b->rows, b->rows, g->o->token + first, g->o->weight + first,
                                 b->y + k * node, b->rows, n, b->rows);
    }
}

/* The node's sum, left in its first leaf. */
static float *add_leaves(const struct block *b, struct tree_node node)
{
    int64_t each = (int64_t)b->g->n_tok * b->rows;
    float *left = b->acc + (node.a - b->g->m->shard.ffn.lo) * each;
    if (node.b - node.a > 1) {
        int32_t mid = tree_split(node.a, node.b);
        add_leaves(b, (struct tree_node){node.a, mid});
        b->g->m->krn->add(left, add_leaves(b, (struct tree_node){mid, node.b}), each);
    }
    return left;
}

static void show_products(const struct moe_group *g, int32_t i)
{
    const struct eng_model *m = g->m;
    for (int32_t e = 0; e < eng_moe_n(m) && i == 0 && m->watch; e++) {
        struct krn_act in = eng_moe_product(g, e);
        if (in.n_tok) m->watch(m->watch_user, &eng_moe_ffn(g, e)->down, in.x, in.n_tok);
    }
}

void eng_moe_down(const struct moe_group *g, float *parts, int64_t node_stride, int32_t i, int32_t n)
{
    const struct krn_leaves *l = &g->m->shard.ffn;
    int32_t leaves = eng_moe_leaves(&g->m->shard);
    int64_t r0, r1, d = g->m->spec.d_model, each = (int64_t)(leaves + MIN(leaves, TREE_MAX_NODES)) * g->n_tok; /* leaves, and one expert's not yet added */
    int32_t most = (int32_t)MAX(LEAF_EXPERT_SCRATCH / (each * KRN_TILE), 1) * KRN_TILE;
    show_products(g, i);
    eng_team_range(d, KRN_TILE, i, n, &r0, &r1);
    struct block b = {.g = g, .acc = g->m->moe->scratch + i * g->m->moe->scratch_each};
    for (int64_t r = r0; r < r1; r += b.rows) {
        b.row0 = (int32_t)r;
        b.rows = (int32_t)MIN(most, r1 - r);
        int64_t held = (int64_t)leaves * g->n_tok * b.rows;
        b.y = b.acc + held;
        memset(b.acc, 0, (size_t)held * sizeof(float));
        for (int32_t e = 0; e < eng_moe_n(g->m); e++)
            if (eng_moe_slots(g, e)) add_expert(&b, e);
        for (int32_t k = 0; k < l->n_nodes; k++) {
            const float *sum = add_leaves(&b, l->nodes[k]);
            float *to = parts + k * node_stride + g->t0 * d + r;
            for (int32_t t = 0; t < g->n_tok; t++)
                memcpy(to + t * d, sum + (int64_t)t * b.rows, (size_t)b.rows * sizeof(float));
        }
    }
}
