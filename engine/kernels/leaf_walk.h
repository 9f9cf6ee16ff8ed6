/* leaf_walk.h: the loops around a vector matmul: tiles, tokens, nodes, leaves. Internal to kernels.
 *
 * An instruction set brings functions that continue the chains of ONE leaf for a few tiles and one
 * group of tokens (panel.h). The tree over leaves is a stack of such blocks: after a leaf its block
 * is pushed, and as many pairs are added as subtrees end there.
 *
 * What is read again should be near: as many groups as fit in half of a second-level cache are done
 * before the next ones, so weights come from memory once per so many tokens; within them a block of
 * tiles meets one group after the other, K in steps, so that a step's slice of the panel stays in
 * the first-level cache while the block's tiles use it. A single group uses each weight once: tiles
 * go one by one, straight through memory. Static, because every folder compiles it with its own
 * flags. */
#ifndef ENGINE_KERNELS_LEAF_WALK_H
#define ENGINE_KERNELS_LEAF_WALK_H

#include "base/base.h"
#include "engine/kernels/panel.h"
#include "engine/kernels/table.h"

#include <string.h>

#if defined(__clang__)
#define KRN_UNROLL _Pragma("unroll")
#else
#define KRN_UNROLL _Pragma("GCC unroll 16")
#endif
#define KRN_INLINE static inline __attribute__((always_inline))

enum {
    KRN_WALK_TILES = 4,        /* tiles of a block at most */
    KRN_WALK_DEPTH = 12,       /* of the tree over TREE_MAX_LEAF leaves, plus one */
    KRN_WALK_NEAR = 512 << 10, /* bytes of panels that share one pass over the weights */
    KRN_WALK_BLOCK = KRN_WALK_TILES * KRN_GROUP * KRN_TILE,
};

/* Columns [k0,k1) of one leaf for n_tiles consecutive tiles and one group. */
struct krn_leaf_job {
    const struct krn_mat *w;
    const uint8_t *tile;
    int32_t n_tiles, width;
    const void *panel; /* the group's, from column 0: int8 units, f32 [cols][width] or words of two bf16 [cols/2][width] */
    int32_t k0, k1;
    bool more;  /* the chains go on from acc, else they begin at +0 */
    float *acc; /* in, out [n_tiles][width][KRN_TILE], 64-byte aligned */
};
typedef void (*krn_leaf_fn)(const struct krn_leaf_job *j);

/* The form of the activations that a kernel reads: q; xt (or x); xb. */
enum krn_leaf_form { KRN_LEAF_CODES, KRN_LEAF_F32, KRN_LEAF_BF16 };

struct krn_leaf_kernel {
    krn_leaf_fn fn;
    int32_t single_tiles; /* tiles of a block when there is a single group */
    int32_t k_step;       /* columns per step, a multiple of KRN_UNIT */
    enum krn_leaf_form form;
};

/* One tile of a job, for a number of lanes that is a constant where it is compiled. */
typedef void (*krn_chain_fn)(const struct krn_leaf_job *j, int32_t tile, const enum dtype type, const int width);

/* Every tile by the chain of its width, one of krn_group_width's. */
KRN_INLINE void krn_chain_widths(const struct krn_leaf_job *j, const enum dtype type, krn_chain_fn chain)
{
    for (int32_t tile = 0; tile < j->n_tiles; tile++)
        switch (j->width) {
        case 1: chain(j, tile, type, 1); break;
        case 2: chain(j, tile, type, 2); break;
        case 4: chain(j, tile, type, 4); break;
        case 6: chain(j, tile, type, 6); break;
        case 8: chain(j, tile, type, 8); break;
        case 12: chain(j, tile, type, 12); break;
        case 16: chain(j, tile, type, 16); break;
        }
}

/* Subtrees of `node` that end after `leaf`, leaving out the leaf itself: additions due once its
 * chain is done. */
static inline uint8_t krn_leaf_merges(struct tree_node node, int32_t leaf)
{
    uint8_t n = 0;
    while (node.b - node.a > 1) {
        int32_t m = tree_split(node.a, node.b);
        if (leaf < m) {
            node.b = m;
            n = 0;
        } else {
            node.a = m;
            n++;
        }
    }
    return n;
}

/* One product on its way. */
struct krn_walk {
    const struct krn_matmul *a;
    const struct krn_leaf_kernel *k;
    int32_t k_step;
    uint8_t merges[TREE_MAX_LEAF];
    _Alignas(64) float stack[KRN_WALK_DEPTH][KRN_WALK_BLOCK];
};

/* One node for one block of tiles and one group; the result is stack[0]. */
static inline void krn_walk_node(struct krn_walk *w, struct krn_leaf_job *j, struct tree_node node)
{
    const struct krn_leaves *l = w->a->leaves;
    int32_t depth = 0, n = j->n_tiles * j->width * KRN_TILE;
    for (int32_t i = node.a; i < node.b; i++) {
        int32_t k0 = l->cols[i - l->lo], k1 = l->cols[i - l->lo + 1];
        j->acc = w->stack[depth++];
        for (j->k0 = k0; j->k0 < k1; j->k0 = j->k1) {
            j->more = j->k0 > k0;
            j->k1 = MIN(k1, j->k0 + w->k_step);
            w->k->fn(j);
        }
        for (int32_t m = w->merges[i - l->lo]; m > 0; m--) {
            depth--;
            float *left = w->stack[depth - 1];
            const float *right = w->stack[depth];
            for (int32_t e = 0; e < n; e++) left[e] = left[e] + right[e];
        }
    }
}

/* One block of tiles from `row` and the group of `width` lanes from token t. */
static inline void krn_walk_group(struct krn_walk *w, struct krn_leaf_job *j, int32_t row,
                                  int32_t t)
{
    const struct krn_matmul *a = w->a;
    int32_t n_tok = MIN(j->width, a->x->n_tok - t);
    for (int32_t i = 0; i < a->leaves->n_nodes; i++) {
        krn_walk_node(w, j, a->leaves->nodes[i]);
        for (int32_t m = 0; m < j->n_tiles; m++)
            for (int32_t n = 0; n < n_tok; n++) {
                int32_t first = row + m * KRN_TILE, rows = MIN(KRN_TILE, a->row1 - first);
                memcpy(a->y + (t + n) * a->y_stride + i * a->node_stride + first,
                       w->stack[0] + (m * j->width + n) * KRN_TILE, (size_t)rows * sizeof(float));
            }
    }
}

/* Bytes of one token's columns in a panel. */
static inline int64_t krn_walk_token_bytes(const struct krn_leaf_kernel *k, int32_t cols)
{
    if (k->form == KRN_LEAF_CODES) return (int64_t)cols / KRN_UNIT * KRN_UNIT_BYTES;
    return k->form == KRN_LEAF_F32 ? (int64_t)cols * 4 : (int64_t)DIV_UP(cols, 2) * 4;
}

static inline const void *krn_walk_panel(const struct krn_leaf_kernel *k, const struct krn_act *x)
{
    if (k->form == KRN_LEAF_CODES) return x->q;
    if (k->form == KRN_LEAF_BF16) return x->xb;
    return x->xt ? x->xt : x->x;
}

static inline void krn_leaf_walk(const struct krn_matmul *a, const struct krn_leaf_kernel *k)
{
    const struct krn_leaves *l = a->leaves;
    const struct krn_act *x = a->x;
    ASSERT(x->cols == a->w->cols && l->cols[l->hi - l->lo] == a->w->cols &&
           a->row0 % KRN_TILE == 0);
    struct krn_walk w; /* most of it is the stack: not cleared */
    w.a = a;
    w.k = k;
    for (int32_t i = 0; i < l->n_nodes; i++)
        for (int32_t leaf = l->nodes[i].a; leaf < l->nodes[i].b; leaf++)
            w.merges[leaf - l->lo] = krn_leaf_merges(l->nodes[i], leaf);

    /* without xt every token is a group of its own: its row of x is the panel */
    int32_t group = k->form == KRN_LEAF_F32 && !x->xt ? 1 : KRN_GROUP;
    bool single = x->n_tok <= group;
    w.k_step = single && k->single_tiles == 1 ? x->cols : k->k_step;
    int32_t most_tiles = single ? k->single_tiles : KRN_WALK_TILES;
    int64_t token_bytes = krn_walk_token_bytes(k, x->cols);
    const uint8_t *panels = krn_walk_panel(k, x);
    int32_t near = (int32_t)MAX(KRN_WALK_NEAR / token_bytes / group, 1) * group;

    struct krn_leaf_job j = {.w = a->w};
    for (int32_t c = 0; c < x->n_tok; c += near)
        for (int32_t row = a->row0; row < a->row1; row += j.n_tiles * KRN_TILE) {
            j.n_tiles = MIN(most_tiles, DIV_UP(a->row1 - row, KRN_TILE));
            j.tile = a->w->data + row / KRN_TILE * a->w->tile_bytes;
            for (int32_t t = c; t < MIN(x->n_tok, c + near); t += group) {
                j.width = group == 1 ? 1 : krn_group_width(x->n_tok, t);
                j.panel = panels + t * token_bytes;
                krn_walk_group(&w, &j, row, t);
            }
        }
}

#endif
