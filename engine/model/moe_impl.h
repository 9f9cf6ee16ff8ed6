/* moe_impl.h: what the files of the experts' sublayer share: the group of tokens that is computed at once, its slots, and what its products
 * read. Private to moe*.c.
 *
 * Experts are counted by what this rank has: e = 0 is the first one that it holds something of, and behind the last one comes the shared one. */
#ifndef ENGINE_MODEL_MOE_IMPL_H
#define ENGINE_MODEL_MOE_IMPL_H

#include "engine/model/moe.h"
#include "engine/model/pass.h"

/* The group of tokens [t0, t0 + n_tok) in one layer. */
struct moe_group {
    const struct eng_model *m;
    const struct eng_moe *o;
    const struct eng_layer *l;
    int32_t t0, n_tok;
};

/* Routed experts that this rank has, and with the shared one. */
static inline int32_t eng_moe_routed(const struct eng_model *m) { return m->shard.e1 - m->shard.e0; }
static inline int32_t eng_moe_n(const struct eng_model *m) { return eng_moe_routed(m) + (m->spec.experts.d_shared > 0); }

static inline const struct eng_ffn *eng_moe_ffn(const struct moe_group *g, int32_t e)
{
    return e < eng_moe_routed(g->m) ? &g->l->experts[g->m->shard.e0 + e] : &g->l->shared;
}

static inline int32_t eng_moe_slots(const struct moe_group *g, int32_t e) { return g->o->first[e + 1] - g->o->first[e]; }

/* Leaves of the sublayer that this rank has; how many of them an expert has a part of. */
static inline int32_t eng_moe_leaves(const struct eng_shard *h) { return h->ffn.hi - h->ffn.lo; }
static inline int32_t eng_moe_leaves_each(const struct eng_shard *h) { return h->expert.hi - h->expert.lo; }

/* ---- on a device ---- */

enum { MOE_GATE, MOE_UP, MOE_DOWN, MOE_MATRICES };
/* Those of a layer's experts whose matrix is of one type, which one kernel computes. `at`: where their [n] addresses begin in there.tables, NULL
 * for experts of other kinds and of other ranks. */
struct moe_kind {
    struct krn_mat w; /* of the first of them */
    int64_t at;
};
/* Kinds [first[i], first[i + 1]) are those of matrix i: one, where a file has the experts of a layer in one tensor. bias: where the [n] addresses
 * of that begin; -1: there is none. */
struct moe_layer {
    int32_t first[MOE_MATRICES + 1];
    int64_t bias[MOE_MATRICES];
};

/* ---- on the host: moe_slots.c ---- */

/* Thread 0: which slots a group has. Tokens of an expert stand in order. */
void eng_moe_list(const struct moe_group *g);
/* Where the columns of expert e's slots begin in gate and up. */
int64_t eng_moe_columns_at(const struct moe_group *g, int32_t e);
/* The input of expert e's gate and up, and of its down. */
struct krn_act eng_moe_input(const struct moe_group *g, int32_t e);
struct krn_act eng_moe_product(const struct moe_group *g, int32_t e);

/* ---- moe_inner.c: each run by all threads, with a barrier between two ---- */

void eng_moe_gather(const struct moe_group *g, int32_t i, int32_t n);
void eng_moe_gate_and_up(const struct moe_group *g, int32_t i, int32_t n);
void eng_moe_products(const struct moe_group *g, int32_t i, int32_t n);

/* ---- moe_down.c ---- */

/* Subtrees of the group's tokens to parts. */
void eng_moe_down(const struct moe_group *g, float *parts, int64_t node_stride, int32_t i, int32_t n);

#endif
