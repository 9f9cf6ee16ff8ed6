/* moe.c: see moe.h. The order of work: norm -> router -> choice -> for a group of tokens: lists (moe_slots.c) -> inputs by expert -> gate, up ->
 * their product (moe_inner.c) -> down, added into leaves (moe_down.c). Buffers are moe_open.c's. On a device all behind the router is moe_there.c's. */
#include "engine/model/moe_impl.h"
#include "engine/model/route.h"

/* Router's and shared gate's values to choices, for tokens [t0,t1). */
static void choose(const struct eng_model *m, const float *shift, int64_t t0, int64_t t1)
{
    const struct eng_experts *x = &m->spec.experts;
    struct eng_moe *o = m->moe;
    for (int64_t t = t0; t < t1; t++) {
        float *logits = o->logits + t * x->n;
        eng_route(x, logits, shift, o->ids + t * x->used, o->weights + t * x->used);
        o->shared[t] = x->shared_gated ? 1.0f / (1.0f + krn_exp(-o->shared[t])) : 1.0f;
    }
}

/* ---- the sublayer ---- */

static void route(const struct eng_model *m, const struct eng_layer *l, int32_t k, int32_t T, int32_t i, int32_t n)
{
    bool here = m->be->on_host;
    float *logits = here ? m->moe->logits : m->moe->there.logits;
    int64_t t0, t1;
    bool gated = m->spec.experts.shared_gated;
    eng_team_range(T, 1, i, n, &t0, &t1);
    struct krn_act in = eng_pass_act(m, m->h, T, m->spec.d_model, eng_pass_reads(m, &l->router) | (gated ? eng_pass_reads(m, &l->shared_gate) : 0));
    eng_pass_enter(m, &in, k, t0, t1);
    eng_pass_lap(m, i, ENG_OP_NORM);
    eng_pass_barrier(m, i);
    eng_pass_matmul_whole(m, &l->router, m->h, T, logits, i, n);
    if (gated) eng_pass_matmul_whole(m, &l->shared_gate, m->h, T, here ? m->moe->shared : m->moe->there.shared, i, n);
    eng_pass_lap(m, i, ENG_OP_MATMUL);
    eng_pass_barrier(m, i);
    eng_pass_bias(m, logits, l->router_bias, m->spec.experts.n, t0, t1);
    if (!here) return;
    choose(m, l->router_shift, t0, t1);
    eng_pass_barrier(m, i);
}

void eng_moe_run(struct eng_pass *p, int32_t k, int32_t i, int32_t n)
{
    const struct eng_model *m = p->m;
    const struct eng_layer *l = &m->weights->layers[k / 2];
    int32_t T = p->b->n_tok;
    route(m, l, k, T, i, n);
    if (!m->be->on_host) {
        eng_moe_there_run(m, l, T, eng_pass_parts(m, k));
        return;
    }
    for (int32_t t = 0; t < T; t += m->moe->tokens) {
        struct moe_group g = {.m = m, .o = m->moe, .l = l, .t0 = t, .n_tok = MIN(m->moe->tokens, T - t)};
        if (t) eng_pass_barrier(m, i);
        if (i == 0) eng_moe_list(&g);
        eng_pass_barrier(m, i);
        eng_moe_gather(&g, i, n);
        eng_pass_lap(m, i, ENG_OP_NORM);
        eng_pass_barrier(m, i);
        eng_moe_gate_and_up(&g, i, n);
        eng_pass_lap(m, i, ENG_OP_MATMUL);
        eng_pass_barrier(m, i);
        eng_moe_products(&g, i, n);
        eng_pass_lap(m, i, ENG_OP_GATE);
        eng_pass_barrier(m, i);
        eng_moe_down(&g, eng_pass_parts(m, k), (int64_t)T * m->spec.d_model, i, n);
        eng_pass_lap(m, i, ENG_OP_MATMUL);
    }
}

void eng_moe_bias(const struct eng_model *m, const struct eng_layer *l, float *sum, int64_t t)
{
    int32_t used = m->spec.experts.used;
    for (int32_t k = 0; k < used; k++) {
        const float *bias = l->experts[m->moe->ids[t * used + k]].bdown;
        if (bias) m->krn->axpy(sum, m->moe->scale ? 1.0f : m->moe->weights[t * used + k], bias, m->spec.d_model);
    }
    if (l->shared.bdown) m->krn->axpy(sum, m->moe->shared[t], l->shared.bdown, m->spec.d_model);
}
