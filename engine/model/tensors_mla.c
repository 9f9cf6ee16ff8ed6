/* tensors_mla.c: the tensors of attention over a latent, by GGUF's names. What files hold as one matrix for keys and values of all heads
 * (attn_kv_b) the model file gives as two, turned as they are used here (engine/file/derived_heads.c). */
#include "engine/model/loader.h"

#include <stdio.h>
#include <stdlib.h>

struct list {
    struct eng_loader *l;
    int32_t layer;
    char name[96];
};

static enum err find(struct list *t, const char *what, int64_t cols, int64_t rows, int64_t heads, struct eng_place *at)
{
    snprintf(t->name, sizeof t->name, "blk.%d.%s.weight", t->layer, what);
    return eng_loader_find(t->l, t->name, cols, rows, heads, at);
}

static enum err matrix(struct list *t, struct krn_mat *out, const char *what, int64_t cols, int64_t rows, int64_t r0, int64_t r1)
{
    struct eng_place at;
    enum err e = find(t, what, cols, rows, 1, &at);
    return e ? e : eng_loader_matrix(t->l, out, &at, r0, r1, 0, cols);
}

static enum err norm(struct list *t, float **out, const char *what, int64_t n)
{
    struct eng_place at;
    enum err e = find(t, what, n, 1, 1, &at);
    return e ? e : eng_loader_vector(t->l, out, &at, 0, n);
}

/* A matrix of each of this rank's heads. */
static enum err of_heads(struct list *t, struct krn_mat out[], const char *what, int64_t cols, int64_t rows)
{
    enum err rc;
    struct eng_place at;
    struct krn_mat none;
    const struct eng_shard *h = t->l->shard;
    const struct eng_spec *s = t->l->spec;
    snprintf(t->name, sizeof t->name, "blk.%d.%s.weight", t->layer, what);
    if (!eng_loader_has(t->l, t->name)) /* the one that it would be made of is not as it should be */
        TRY(find(t, "attn_kv_b", s->mla.kv_rank, (int64_t)s->n_heads * (s->mla.key - s->mla.rope + s->head_dim), 1, &at));
    TRY(find(t, what, cols, rows, s->n_heads, &at));
    for (int32_t i = h->q0; i < h->q1; i++) {
        at.first = i * rows;
        TRY(eng_loader_matrix(t->l, t->l->only_count ? &none : &out[i - h->q0], &at, 0, rows, 0, cols));
    }
out:
    return rc;
}

static void kind(struct eng_loader *l, struct model_part *part) { l->part = l->parts ? part : NULL; }

static struct model_layer *layer_parts(const struct eng_loader *l, int32_t layer)
{
    static struct model_layer nowhere;
    return l->parts ? &l->parts->layers[layer] : &nowhere;
}

enum err eng_tensors_mla(struct eng_loader *l, int32_t layer, struct eng_layer *y)
{
    enum err rc;
    struct list t = {.l = l, .layer = layer};
    const struct eng_spec *s = l->spec;
    const struct eng_latent *x = &s->mla;
    const struct eng_shard *h = l->shard;
    struct model_layer *p = layer_parts(l, layer);
    int64_t d = s->d_model, from = x->q_rank ? x->q_rank : d, values = (int64_t)s->n_heads * s->head_dim;
    struct eng_place at;
    kind(l, &p->q);
    TRY(matrix(&t, &y->q, x->q_rank ? "attn_q_b" : "attn_q", from, (int64_t)s->n_heads * x->key, (int64_t)h->q0 * x->key, (int64_t)h->q1 * x->key));
    TRY(find(&t, "attn_output", values, d, 1, &at));
    if (dtype_block(at.t->type) > 1 && s->head_dim * 2 % KRN_UNIT)
        return err_raise(ERR_UNSUPPORTED, "%s attention output with heads of %d values is not supported: use an F16 file", dtype_name(at.t->type),
                         s->head_dim);
    TRY(eng_loader_matrix(l, &y->o, &at, 0, d, (int64_t)h->q0 * s->head_dim, (int64_t)h->q1 * s->head_dim));
    if (!l->only_count) y->mla.k_b = xcalloc(2 * (size_t)(h->q1 - h->q0), sizeof *y->mla.k_b);
    if (!l->only_count) y->mla.v_b = y->mla.k_b + (h->q1 - h->q0);
    TRY(of_heads(&t, y->mla.k_b, "attn_k_b", x->key - x->rope, x->kv_rank));
    TRY(of_heads(&t, y->mla.v_b, "attn_v_b", x->kv_rank, s->head_dim));
    kind(l, &p->kv); /* one KV head: every rank has it */
    if (x->q_rank) TRY(matrix(&t, &y->mla.q_a, "attn_q_a", d, x->q_rank, 0, x->q_rank));
    TRY(matrix(&t, &y->mla.kv_a, "attn_kv_a_mqa", d, eng_latent_cached(x), 0, eng_latent_cached(x)));
    kind(l, &p->rest);
    if (x->q_rank) TRY(norm(&t, &y->mla.q_a_norm, "attn_q_a_norm", x->q_rank));
    TRY(norm(&t, &y->mla.kv_a_norm, "attn_kv_a_norm", x->kv_rank));
out:
    return rc;
}
