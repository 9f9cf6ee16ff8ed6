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

static inline int64_t eng_moe_floats(int64_t n) { return n * (int64_t)sizeof(float); }

/* Routed experts that this rank has, and with the shared one. */
static inline int32_t eng_moe_routed(const struct eng_model *m) { return m->shard.e1 - m->shard.e0; }
static inline int32_t eng_moe_n(const struct eng_model *m) { return eng_moe_routed(m) + (m->spec.experts.d_shared > 0); }

static inline const struct eng_ffn *eng_moe_ffn(const struct moe_group *g, int32_t e)
{
    return e < eng_moe_routed(g->m) ? &g->l->experts[g->m->shard.e0 + e] : &g->l->shared;
}

static inline int32_t eng_moe_slots(const struct moe_group *g, int32_t e) { return g->o->first[e + 1] - g->o->first[e]; }

/* Leaves of the sublayer that this rank has; floats per row and token of one thread's scratch: these leaves, and those of one expert that are
 * not added yet; floats of scratch that a block's rows are chosen for. */
static inline int32_t eng_moe_leaves(const struct eng_shard *h) { return h->ffn.hi - h->ffn.lo; }
int64_t eng_moe_per_row(const struct eng_shard *h);
int64_t eng_moe_room(const struct eng_model *m);

/* The addresses of a layer's experts on a device (moe_there.tables): gate, up, down, and their biases. */
enum { MOE_GATE, MOE_UP, MOE_DOWN, MOE_BIAS_GATE, MOE_BIAS_UP, MOE_BIAS_DOWN, MOE_TABLES };

/* ---- moe_slots.c ---- */

/* Thread 0: which slots a group has. Tokens of an expert stand in order. */
void eng_moe_list(const struct moe_group *g);
/* Off the host: those lists go over. */
MUST_USE enum err eng_moe_send_lists(const struct moe_group *g);
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

/* Subtrees of the group's tokens to parts. Err: a device's, where one thread runs this. */
MUST_USE enum err eng_moe_down(const struct moe_group *g, float *parts, int64_t node_stride, int32_t i, int32_t n);

#endif
