/* moe_there_open.c: what a device needs to choose experts and compute them: addresses of their matrices, by kind, lists, constants. See
 * moe_there.c. */
#include "engine/model/moe_impl.h"

#include <stdlib.h>
#include <string.h>

_Static_assert((int)KRN_GROUP == (int)LEAF_EXPERT_GROUP, "the planner counts rows of no slot by it");

static const struct krn_mat *matrix(const struct eng_ffn *f, int32_t i) { return i == MOE_GATE ? &f->gate : i == MOE_UP ? &f->up : &f->down; }
static const float *bias(const struct eng_ffn *f, int32_t i) { return i == MOE_GATE ? f->bgate : i == MOE_UP ? f->bup : f->bdown; }

/* One kernel computes both. */
static bool alike(const struct krn_mat *a, const struct krn_mat *b)
{
    return a->type == b->type && a->rows == b->rows && a->cols == b->cols && a->tile_bytes == b->tile_bytes;
}

/* Addresses until they are on the device: lists of n, one after the other. */
struct lists {
    int32_t n;
    int64_t used, cap;
    const void **all;
};

/* A list of nothing. */
static int64_t add_list(struct lists *l)
{
    int64_t at = l->used;
    l->used += l->n;
    if (l->used > l->cap) {
        l->cap = 2 * l->used;
        l->all = xrealloc((void *)l->all, (size_t)l->cap * sizeof *l->all);
    }
    for (int64_t i = at; i < l->used; i++) l->all[i] = NULL;
    return at;
}

/* The kind of a matrix among those from `first` on; a new one where there is none. */
static struct moe_kind *kind_of(struct eng_moe_there *o, struct lists *l, int32_t first, const struct krn_mat *w)
{
    for (int32_t k = first; k < o->n_kinds; k++)
        if (alike(&o->kinds[k].w, w)) return &o->kinds[k];
    o->kinds = xrealloc(o->kinds, (size_t)(o->n_kinds + 1) * sizeof *o->kinds);
    o->kinds[o->n_kinds] = (struct moe_kind){*w, add_list(l)};
    return &o->kinds[o->n_kinds++];
}

static void list_layer(const struct eng_model *m, const struct eng_layer *y, struct moe_layer *to, struct lists *l)
{
    struct eng_moe_there *o = &m->moe->there;
    for (int32_t i = 0; i < MOE_MATRICES; i++) {
        to->first[i] = o->n_kinds;
        for (int32_t e = m->shard.e0; e < m->shard.e1; e++) {
            const struct krn_mat *w = matrix(&y->experts[e], i);
            int64_t at = kind_of(o, l, to->first[i], w)->at; /* which moves `all` */
            l->all[at + e] = w->data;
        }
        to->bias[i] = -1;
        for (int32_t e = 0; e < l->n; e++) {
            const float *b = bias(&y->experts[e], i);
            if (b && to->bias[i] < 0) to->bias[i] = add_list(l);
            if (b) l->all[to->bias[i] + e] = b;
        }
    }
    to->first[MOE_MATRICES] = o->n_kinds;
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
    struct eng_moe_there *o = &m->moe->there;
    struct lists l = {.n = m->spec.experts.n};
    o->n_layers = m->weights->n_layers;
    o->layers = xcalloc((size_t)o->n_layers, sizeof *o->layers);
    for (int32_t i = 0; i < o->n_layers; i++)
        if (m->spec.moe[m->shard.layer0 + i]) list_layer(m, &m->weights->layers[i], &o->layers[i], &l);
    TRY(take(m, &o->tables, l.used, sizeof *l.all));
    TRY(eng_backend_upload(m->be, (void *)o->tables, l.all, l.used * (int64_t)sizeof *l.all));
out:
    free((void *)l.all);
    return rc;
}

static enum err take_leaves(struct eng_model *m)
{
    enum err rc = OK;
    int32_t n = m->spec.experts.n, *leaf = xmalloc((size_t)n * sizeof *leaf);
    for (int32_t e = 0; e < n; e++) leaf[e] = leaf_of_expert(n, m->shard.ffn.n_leaf, e) - m->shard.ffn.lo;
    TRY(take(m, &m->moe->there.leaf, n, sizeof *leaf));
    TRY(eng_backend_upload(m->be, m->moe->there.leaf, leaf, n * (int64_t)sizeof *leaf));
out:
    free(leaf);
    return rc;
}

/* What does not change from step to step: the token of each slot; where weights multiply inputs, a weight of 1 in the chain. */
static enum err put_constants(struct eng_model *m, int32_t slots)
{
    enum err rc = OK;
    const struct eng_experts *x = &m->spec.experts;
    struct eng_moe_there *o = &m->moe->there;
    int64_t all = (int64_t)m->max_tok * x->used;
    int32_t *token = xmalloc((size_t)slots * sizeof *token);
    float *one = xmalloc((size_t)all * sizeof *one);
    for (int32_t i = 0; i < slots; i++) token[i] = i / x->used;
    for (int64_t i = 0; i < all; i++) one[i] = 1.0f;
    TRY(eng_backend_upload(m->be, o->token_of, token, slots * (int64_t)sizeof *token));
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
    if (!m->moe || m->be->on_host) return OK;
    struct eng_moe_there *o = &m->moe->there;
    int32_t slots = m->moe->tokens * x->used, held = eng_moe_routed(m), rows = krn_grouping_rows(slots, held);
    TRY(take(m, &o->token_of, slots, sizeof *o->token_of));
    TRY(take(m, &o->at, slots, sizeof *o->at));
    TRY(take(m, &o->row_token, rows, sizeof *o->row_token));
    TRY(take(m, &o->row_expert, rows, sizeof *o->row_expert));
    if (x->weigh_input) TRY(take(m, &o->row_scale, rows, sizeof *o->row_scale));
    TRY(take(m, &o->parts, krn_grouping_parts(slots, held), sizeof *o->parts));
    TRY(put_constants(m, slots));
    if (m->shard.whole_experts) TRY(take_leaves(m));
    TRY(take_tables(m));
    o->rows = MIN(m->moe->tokens, MAX(x->n / x->used, 1));
out:
    return rc;
}
