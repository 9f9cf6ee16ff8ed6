/* moe_slots.c: which (token, expert) pairs a group of tokens has on this rank, and where their inputs and products lie. See moe_impl.h. */
#include "engine/model/moe_impl.h"

#include <string.h>

/* The number here of an expert that was chosen; negative: another rank's. */
static int32_t number_of(const struct eng_shard *h, int32_t id) { return id < h->e1 ? id - h->e0 : -1; }

static void count_slots(const struct moe_group *g)
{
    const struct eng_moe *o = g->o;
    int32_t used = g->m->spec.experts.used, n = eng_moe_routed(g->m);
    memset(o->first, 0, (size_t)(n + 2) * sizeof *o->first);
    for (int32_t i = 0; i < g->n_tok * used; i++) {
        int32_t e = number_of(&g->m->shard, o->ids[(int64_t)g->t0 * used + i]);
        if (e >= 0) o->first[e + 1]++;
    }
    for (int32_t e = 0; e < n; e++) o->first[e + 1] += o->first[e];
}

static void put_slot(const struct eng_moe *o, int32_t slot, int32_t token, float weight)
{
    o->token[slot] = token;
    o->weight[slot] = o->scale ? 1.0f : weight;
    if (o->scale) o->scale[slot] = weight;
}

void eng_moe_list(const struct moe_group *g)
{
    const struct eng_moe *o = g->o;
    const struct eng_experts *x = &g->m->spec.experts;
    int32_t n = eng_moe_routed(g->m), used = x->used;
    count_slots(g);
    for (int32_t t = 0; t < g->n_tok; t++)
        for (int32_t k = 0; k < used; k++) { /* first[e] moves to the end of e's slots */
            int64_t at = (int64_t)(g->t0 + t) * used + k;
            int32_t e = number_of(&g->m->shard, o->ids[at]);
            if (e >= 0) put_slot(o, o->first[e]++, t, o->weights[at]);
        }
    for (int32_t e = n; e > 0; e--) o->first[e] = o->first[e - 1];
    o->first[0] = 0;
    o->first[n + 1] = o->first[n];
    for (int32_t t = 0; t < g->n_tok && x->d_shared; t++) {
        int32_t slot = o->first[n + 1]++;
        o->token[slot] = t;
        o->weight[slot] = o->shared[g->t0 + t];
        if (o->scale) o->scale[slot] = 1.0f;
    }
}

int64_t eng_moe_columns_at(const struct moe_group *g, int32_t e)
{
    const struct eng_shard *h = &g->m->shard;
    int32_t n = eng_moe_routed(g->m);
    return (int64_t)g->o->first[MIN(e, n)] * (h->expert1 - h->expert0) + (e > n ? (int64_t)eng_moe_slots(g, n) * (h->shared1 - h->shared0) : 0);
}

/* The input of expert e's products of `cols` columns: panels lie expert after expert, each with room for whole groups. */
static struct krn_act act_of(const struct moe_group *g, int32_t e, const float *x, int32_t cols, int32_t widest, int forms)
{
    struct krn_act a = {.n_tok = eng_moe_slots(g, e), .cols = cols, .x = x};
    int64_t before = ROUND_UP(g->o->first[e], LEAF_EXPERT_PAD / 2) + (int64_t)e * LEAF_EXPERT_PAD;
    if (forms & READS_CODES) a.q = g->o->act_q + krn_act_q_bytes(1, widest) * before;
    if (forms & (READS_FLOATS | READS_BF16) && a.n_tok > 1 && g->o->act_xt) a.xt = g->o->act_xt + krn_act_xt_floats(1, widest) * before;
    return a;
}

static int32_t widest_of(const struct eng_model *m)
{
    const struct eng_shard *h = &m->shard;
    int32_t w = MAX(MAX(m->spec.d_model, h->expert1 - h->expert0), h->shared1 - h->shared0);
    return ROUND_UP(w, KRN_UNIT);
}

struct krn_act eng_moe_input(const struct moe_group *g, int32_t e)
{
    const struct eng_ffn *f = eng_moe_ffn(g, e);
    int32_t d = g->m->spec.d_model;
    int forms = eng_pass_reads(g->m, &f->gate) | eng_pass_reads(g->m, &f->up);
    return act_of(g, e, g->o->x + (int64_t)g->o->first[e] * d, d, widest_of(g->m), forms);
}

struct krn_act eng_moe_product(const struct moe_group *g, int32_t e)
{
    const struct eng_ffn *f = eng_moe_ffn(g, e);
    return act_of(g, e, g->o->gate + eng_moe_columns_at(g, e), f->down.cols, widest_of(g->m), eng_pass_reads(g->m, &f->down));
}
