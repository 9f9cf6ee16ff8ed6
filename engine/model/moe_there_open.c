/* moe_there_open.c: may a device choose experts itself, and what it needs for it: addresses of experts, lists, constants. See moe_there.c.
 *
 * One kernel computes all experts of a layer, so they have to be of one type and shape; whole experts on each rank are the host's to choose. */
#include "engine/model/moe_impl.h"

#include <stdlib.h>
#include <string.h>

_Static_assert((int)KRN_GROUP == (int)LEAF_EXPERT_GROUP, "the planner counts rows of no slot by it");

static bool alike(const struct krn_mat *a, const struct krn_mat *b)
{
    return a->type == b->type && a->rows == b->rows && a->cols == b->cols && a->tile_bytes == b->tile_bytes;
}

/* One kernel computes them all. */
static bool all_alike(const struct eng_layer *l, int32_t n)
{
    bool same = true;
    for (int32_t e = 1; e < n; e++)
        same &= alike(&l->experts[e].gate, &l->experts[0].gate) && alike(&l->experts[e].up, &l->experts[0].up) &&
                alike(&l->experts[e].down, &l->experts[0].down) && !l->experts[e].bgate == !l->experts[0].bgate &&
                !l->experts[e].bup == !l->experts[0].bup && !l->experts[e].bdown == !l->experts[0].bdown;
    return same;
}

/* The addresses of a layer's experts, as [MOE_TABLES][n]. */
static void list(const struct eng_layer *l, int32_t n, const void **to)
{
    for (int32_t e = 0; e < n; e++) {
        const struct eng_ffn *f = &l->experts[e];
        const void *of[MOE_TABLES] = {f->gate.data, f->up.data, f->down.data, f->bgate, f->bup, f->bdown};
        for (int32_t i = 0; i < MOE_TABLES; i++) to[i * n + e] = of[i];
    }
}

/* out: the address of a pointer. */
static enum err take(const struct eng_model *m, void *out, int64_t n, int64_t size)
{
    void *p;
    enum err e = eng_backend_alloc(m->be, ENG_MEMORY_STEP, &p, MAX(n, 1) * size);
    if (!e) memcpy(out, &p, sizeof p);
    return e;
}

static enum err take_tables(struct eng_model *m)
{
    enum err rc = OK;
    const struct eng_experts *x = &m->spec.experts;
    int32_t n_layers = m->weights->n_layers, each = MOE_TABLES * x->n;
    const void **all = xcalloc((size_t)n_layers * (size_t)each, sizeof *all);
    void *there;
    for (int32_t l = 0; l < n_layers; l++)
        if (m->spec.moe[m->shard.layer0 + l]) list(&m->weights->layers[l], x->n, all + (int64_t)l * each);
    TRY(take(m, &there, (int64_t)n_layers * each, sizeof *all));
    TRY(eng_backend_upload(m->be, there, all, (int64_t)n_layers * each * (int64_t)sizeof *all));
    m->moe->there.tables = there;
out:
    free((void *)all);
    return rc;
}

/* What does not change from step to step: the token of each slot; where weights multiply inputs, a weight of 1 in the chain. */
static enum err put_constants(struct eng_model *m)
{
    enum err rc = OK;
    const struct eng_experts *x = &m->spec.experts;
    struct eng_moe_there *o = &m->moe->there;
    int64_t all = (int64_t)m->max_tok * x->used;
    int32_t *token = xmalloc((size_t)o->slots_most * sizeof *token);
    float *one = xmalloc((size_t)all * sizeof *one);
    for (int32_t i = 0; i < o->slots_most; i++) token[i] = i / x->used;
    for (int64_t i = 0; i < all; i++) one[i] = 1.0f;
    TRY(eng_backend_upload(m->be, o->token_of, token, o->slots_most * (int64_t)sizeof *token));
    if (x->weigh_input) TRY(eng_backend_upload(m->be, o->weight, one, all * (int64_t)sizeof *one));
out:
    free(token);
    free(one);
    return rc;
}

enum err eng_moe_there_open(struct eng_model *m)
{
    enum err rc = OK;
    const struct eng_experts *x = &m->spec.experts;
    struct eng_moe_there *o = m->moe ? &m->moe->there : NULL;
    bool can = o && !m->be->on_host && x->n_groups <= KRN_ROUTE_GROUPS && !m->shard.whole_experts;
    for (int32_t l = 0; l < m->weights->n_layers && can; l++)
        can = !m->spec.moe[m->shard.layer0 + l] || all_alike(&m->weights->layers[l], x->n);
    if (!can) return OK;
    o->slots_most = m->moe->tokens * x->used;
    int32_t rows = krn_grouping_rows(o->slots_most, x->n);
    TRY(take(m, &o->token_of, o->slots_most, sizeof *o->token_of));
    TRY(take(m, &o->at, o->slots_most, sizeof *o->at));
    TRY(take(m, &o->row_token, rows, sizeof *o->row_token));
    TRY(take(m, &o->row_expert, rows, sizeof *o->row_expert));
    if (x->weigh_input) TRY(take(m, &o->row_scale, rows, sizeof *o->row_scale));
    TRY(take(m, &o->parts, krn_grouping_parts(o->slots_most, x->n), sizeof *o->parts));
    TRY(put_constants(m));
    TRY(take_tables(m));
    o->rows = MIN(m->moe->tokens, MAX(x->n / x->used, 1));
out:
    return rc;
}
