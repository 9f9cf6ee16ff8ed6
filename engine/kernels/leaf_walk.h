/* leaf_walk.h: the loops around a vector matmul: tiles, tokens, nodes, leaves. Internal to kernels.
 *
 * An instruction set brings functions that run the chain of ONE leaf for a few tiles and tokens in
 * registers. The tree over leaves is a stack of such blocks: after a leaf its block is pushed, and
 * as many pairs are added as subtrees end there. Static, because every folder compiles it with its
 * own flags. */
#ifndef ENGINE_KERNELS_LEAF_WALK_H
#define ENGINE_KERNELS_LEAF_WALK_H

#include "base/base.h"
#include "engine/kernels/table.h"

#include <string.h>

#if defined(__clang__)
#define KRN_UNROLL _Pragma("unroll")
#else
#define KRN_UNROLL _Pragma("GCC unroll 16")
#endif
#define KRN_INLINE static inline __attribute__((always_inline))

enum {
    KRN_WALK_BLOCK = 16, /* tiles x tokens in one call of a leaf function */
    KRN_WALK_DEPTH = 12, /* of the tree over TREE_MAX_LEAF leaves, plus one */
};

/* The chain of one leaf for n_tiles consecutive tiles and n_tok tokens. */
struct krn_leaf_job {
    const struct krn_mat *w;
    const struct krn_act *x;
    const uint8_t *tile;
    int32_t t0;      /* first token */
    int32_t k0, k1;  /* columns of the leaf */
    float *acc;      /* out [n_tiles][n_tok][KRN_TILE], 64-byte aligned */
};

struct krn_leaf_kernel {
    int32_t max_tiles, max_tok; /* powers of two; product <= KRN_WALK_BLOCK */
    /* n_tiles and n_tok are powers of two up to these. */
    void (*run)(const struct krn_leaf_job *j, int32_t n_tiles, int32_t n_tok);
};

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

static inline int32_t krn_leaf_power(int32_t n, int32_t max)
{
    while (max > n) max /= 2;
    return max;
}

/* One node for one block of tiles and tokens; the result is stack[0]. */
static inline void krn_leaf_node(const struct krn_leaf_kernel *k, struct krn_leaf_job *j,
                                 const struct krn_leaves *l, struct tree_node node,
                                 const uint8_t merges[], int32_t n_tiles, int32_t n_tok,
                                 float stack[][KRN_WALK_BLOCK * KRN_TILE])
{
    int32_t depth = 0, n = n_tiles * n_tok * KRN_TILE;
    for (int32_t i = node.a; i < node.b; i++) {
        j->k0 = l->cols[i - l->lo];
        j->k1 = l->cols[i - l->lo + 1];
        j->acc = stack[depth++];
        k->run(j, n_tiles, n_tok);
        for (int32_t m = merges[i - l->lo]; m > 0; m--) {
            depth--;
            float *left = stack[depth - 1];
            const float *right = stack[depth];
            for (int32_t e = 0; e < n; e++) left[e] = left[e] + right[e];
        }
    }
}

static inline void krn_leaf_walk(const struct krn_matmul *a, const struct krn_leaf_kernel *k)
{
    const struct krn_leaves *l = a->leaves;
    ASSERT(a->x->cols == a->w->cols && l->cols[l->hi - l->lo] == a->w->cols &&
           a->row0 % KRN_TILE == 0);
    _Alignas(64) float stack[KRN_WALK_DEPTH][KRN_WALK_BLOCK * KRN_TILE];
    uint8_t merges[TREE_MAX_LEAF];
    for (int32_t i = 0; i < l->n_nodes; i++)
        for (int32_t leaf = l->nodes[i].a; leaf < l->nodes[i].b; leaf++)
            merges[leaf - l->lo] = krn_leaf_merges(l->nodes[i], leaf);

    int32_t n_tiles, n_tok;
    for (int32_t row = a->row0; row < a->row1; row += n_tiles * KRN_TILE) {
        n_tiles = krn_leaf_power(DIV_UP(a->row1 - row, KRN_TILE), k->max_tiles);
        struct krn_leaf_job j = {
            .w = a->w, .x = a->x, .tile = a->w->data + row / KRN_TILE * a->w->tile_bytes};
        for (int32_t t = 0; t < a->x->n_tok; t += n_tok) {
            n_tok = krn_leaf_power(a->x->n_tok - t, k->max_tok);
            j.t0 = t;
            for (int32_t i = 0; i < l->n_nodes; i++) {
                krn_leaf_node(k, &j, l, l->nodes[i], merges, n_tiles, n_tok, stack);
                for (int32_t m = 0; m < n_tiles; m++)
                    for (int32_t n = 0; n < n_tok; n++) {
                        int32_t first = row + m * KRN_TILE, rows = MIN(KRN_TILE, a->row1 - first);
                        memcpy(a->y + (t + n) * a->y_stride + i * a->node_stride + first,
                               stack[0] + (m * n_tok + n) * KRN_TILE, (size_t)rows * sizeof(float));
                    }
            }
        }
    }
}

#endif
