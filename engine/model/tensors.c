/* tensors.c: which tensors a model has, by GGUF's names, and what a rank takes of each. Fused ones are split here, so that the pass knows
 * none. A bias is taken where the file has one. */
#include "engine/model/loader.h"

#include <stdio.h>
#include <stdlib.h>

/* One layer while its tensors are listed. */
struct list {
    struct eng_loader *l;
    int32_t layer;
    char name[96];
};

static const char *named(struct list *t, const char *what)
{
    snprintf(t->name, sizeof t->name, "blk.%d.%s", t->layer, what);
    return t->name;
}

static bool has(struct list *t, const char *what) { return eng_loader_has(t->l, named(t, what)); }

static void kind(struct eng_loader *l, struct model_part *part) { l->part = l->parts ? part : NULL; }

static struct model_layer *layer_parts(struct list *t)
{
    static _Thread_local struct model_layer nowhere;
    return t->l->parts ? &t->l->parts->layers[t->layer] : &nowhere;
}

/* Values [i0,i1) of a vector of n, if it is there. */
static enum err maybe(struct list *t, float **out, const char *what, int64_t n, int64_t i0, int64_t i1)
{
    struct eng_place at;
    *out = NULL;
    if (!has(t, what)) return OK;
    enum err e = eng_loader_find(t->l, t->name, n, 1, 1, &at);
    return e ? e : eng_loader_vector(t->l, out, &at, i0, i1);
}

static enum err vector(struct list *t, float **out, const char *what, int64_t n)
{
    struct eng_place at;
    enum err e = eng_loader_find(t->l, named(t, what), n, 1, 1, &at);
    return e ? e : eng_loader_vector(t->l, out, &at, 0, n);
}

/* ---- attention ---- */

/* q (0), k (1) or v (2) inside a fused tensor: behind each other, or each group of heads by itself. */
static void within_qkv(const struct eng_spec *s, int part, struct eng_place *at)
{
    int64_t hd = s->head_dim, nq = s->n_heads * hd, nkv = s->n_kv_heads * hd, group = nq / s->n_kv_heads;
    if (!s->qkv_grouped) {
        at->first = part == 0 ? 0 : part == 1 ? nq : nq + nkv;
        return;
    }
    at->first = part == 0 ? 0 : part == 1 ? group : group + hd;
    at->run = part == 0 ? group : hd;
    at->stride = group + 2 * hd;
}

static enum err qkv_matrix(struct list *t, struct krn_mat *out, int part, int64_t r0, int64_t r1)
{
    static const char *const own[] = {"attn_q.weight", "attn_k.weight", "attn_v.weight"};
    const struct eng_spec *s = t->l->spec;
    int64_t nq = (int64_t)s->n_heads * s->head_dim, nkv = (int64_t)s->n_kv_heads * s->head_dim, d = s->d_model;
    struct eng_place at;
    bool fused = !has(t, own[part]) && has(t, "attn_qkv.weight");
    enum err e = eng_loader_find(t->l, named(t, fused ? "attn_qkv.weight" : own[part]), d, fused ? nq + 2 * nkv : part ? nkv : nq, 1, &at);
    if (!e && fused) within_qkv(s, part, &at);
    if (!e && at.run % KRN_TILE && at.run)
        e = err_raise(ERR_UNSUPPORTED, "tensor %s with heads of %d values is not supported: use a GGUF file", t->name, s->head_dim);
    return e ? e : eng_loader_matrix(t->l, out, &at, r0, r1, 0, d);
}

/* Biases of q, k and v, each its own tensor, or all in one: that one is taken whole. */
static enum err qkv_biases(struct list *t, struct eng_layer *y)
{
    enum err rc;
    const struct eng_spec *s = t->l->spec;
    const struct eng_shard *h = t->l->shard;
    int64_t hd = s->head_dim, nq = s->n_heads * hd, nkv = s->n_kv_heads * hd;
    struct eng_place at;
    y->bq = y->bk = y->bv = NULL;
    if (!has(t, "attn_qkv.bias")) {
        TRY(maybe(t, &y->bq, "attn_q.bias", nq, h->q0 * hd, h->q1 * hd));
        TRY(maybe(t, &y->bk, "attn_k.bias", nkv, h->kv0 * hd, h->kv1 * hd));
        return maybe(t, &y->bv, "attn_v.bias", nkv, h->kv0 * hd, h->kv1 * hd);
    }
    TRY(eng_loader_find(t->l, t->name, nq + 2 * nkv, 1, 1, &at));
    if (s->qkv_grouped)
        return err_raise(ERR_UNSUPPORTED, "tensor %s: biases of grouped q, k, v are not supported: use a GGUF file", t->name);
    TRY(eng_loader_vector(t->l, &y->bq, &at, 0, nq + 2 * nkv));
    if (!y->bq) goto out; /* only counted */
    y->bk = y->bq + nq + h->kv0 * hd;
    y->bv = y->bq + nq + nkv + h->kv0 * hd;
    y->bq += h->q0 * hd;
    eng_loader_note(t->l, &y->bk);
    eng_loader_note(t->l, &y->bv);
out:
    return rc;
}

/* Of one head, of each of them, or over all: the last has the whole vector's part of this rank's heads. */
static enum err head_norm(struct list *t, float **out, const char *what, int64_t heads, int64_t h0, int64_t h1)
{
    const struct eng_spec *s = t->l->spec;
    struct eng_place at;
    int64_t hd = s->head_dim;
    enum err e;
    if (s->qk_norm == ENG_QK_HEAD) return vector(t, out, what, hd);
    if (s->qk_norm == ENG_QK_ALL) e = eng_loader_find(t->l, named(t, what), heads * hd, 1, 1, &at);
    else e = eng_loader_find(t->l, named(t, what), hd, heads, 1, &at);
    return e ? e : eng_loader_vector(t->l, out, &at, h0 * hd, h1 * hd);
}

static enum err attention(struct list *t, struct eng_layer *y)
{
    enum err rc;
    const struct eng_spec *s = t->l->spec;
    const struct eng_shard *h = t->l->shard;
    struct model_layer *p = layer_parts(t);
    struct eng_place at;
    int64_t d = s->d_model, hd = s->head_dim, nq = s->n_heads * hd, q0 = h->q0 * hd, q1 = h->q1 * hd, kv0 = h->kv0 * hd, kv1 = h->kv1 * hd;
    kind(t->l, &p->q);
    TRY(qkv_matrix(t, &y->q, 0, q0, q1));
    TRY(eng_loader_find(t->l, named(t, "attn_output.weight"), nq, d, 1, &at));
    if (dtype_block(at.t->type) > 1 && hd * 2 % KRN_UNIT) {
        rc = err_raise(ERR_UNSUPPORTED, "%s attention output with heads of %lld values is not supported: use an F16 file",
                       dtype_name(at.t->type), (long long)hd);
        goto out;
    }
    TRY(eng_loader_matrix(t->l, &y->o, &at, 0, d, q0, q1));
    kind(t->l, &p->kv);
    TRY(qkv_matrix(t, &y->k, 1, kv0, kv1));
    TRY(qkv_matrix(t, &y->v, 2, kv0, kv1));
    kind(t->l, &p->rest);
    TRY(qkv_biases(t, y));
    TRY(maybe(t, &y->bo, "attn_output.bias", d, 0, d));
    if (s->qk_norm == ENG_QK_BARE) {
        float ones[1024];
        for (int32_t i = 0; i < s->head_dim; i++) ones[i] = 1.0f;
        TRY(eng_loader_floats(t->l, &y->q_norm, ones, hd));
    } else if (s->qk_norm) {
        TRY(head_norm(t, &y->q_norm, "attn_q_norm.weight", s->n_heads, h->q0, h->q1));
        TRY(head_norm(t, &y->k_norm, "attn_k_norm.weight", s->n_kv_heads, h->kv0, h->kv1));
    }
    if (s->sinks) {
        TRY(eng_loader_find(t->l, named(t, "attn_sinks.weight"), s->n_heads, 1, 1, &at));
        TRY(eng_loader_vector(t->l, &y->sinks, &at, h->q0, h->q1));
    }
out:
    return rc;
}

/* ---- norms ---- */

/* Falcon calls attention's own norm the second; gpt-oss calls the feed-forward's what others call attention's last. */
static enum err norms(struct list *t, struct eng_layer *y)
{
    enum err rc = OK;
    const struct eng_spec *s = t->l->spec;
    int64_t d = s->d_model;
    kind(t->l, &layer_parts(t)->rest);
    y->attn_norm = y->ffn_norm = y->attn_post = y->ffn_post = NULL;
    bool second = has(t, "attn_norm_2.weight");
    const char *ffn = has(t, "ffn_norm.weight") ? "ffn_norm.weight" : second ? "attn_norm.weight" : s->post_norm ? NULL : "post_attention_norm.weight";
    if (s->pre_norm) {
        TRY(vector(t, &y->attn_norm, second ? "attn_norm_2.weight" : "attn_norm.weight", d));
        TRY(maybe(t, &y->attn_norm_bias, second ? "attn_norm_2.bias" : "attn_norm.bias", d, 0, d));
        if (ffn && (has(t, ffn) || !s->parallel)) TRY(vector(t, &y->ffn_norm, has(t, ffn) ? ffn : "ffn_norm.weight", d));
        TRY(maybe(t, &y->ffn_norm_bias, second ? "attn_norm.bias" : "ffn_norm.bias", d, 0, d));
        if (!y->ffn_norm && !ffn) rc = err_raise(ERR_BAD_FILE, "%s: tensor %s is missing", eng_model_file_path(t->l->file), named(t, "ffn_norm.weight"));
        if (rc) goto out;
    }
    if (s->post_norm) {
        TRY(vector(t, &y->attn_post, "post_attention_norm.weight", d));
        TRY(vector(t, &y->ffn_post, "post_ffw_norm.weight", d));
    }
out:
    return rc;
}

/* ---- feed-forward ---- */

/* Names of a feed-forward's three matrices, and how much of them a rank has. */
struct ffn_names {
    const char *gate, *up, *down;
    int64_t width, c0, c1;
};

static enum err dense(struct list *t, struct eng_ffn *y, const struct ffn_names *n)
{
    enum err rc;
    struct eng_place gate, up, down;
    int64_t d = t->l->spec->d_model, w = n->width;
    char bias[64];
    if (t->l->spec->gated) {
        bool fused = !has(t, n->gate); /* up holds gate's rows first */
        TRY(eng_loader_find(t->l, named(t, fused ? n->up : n->gate), d, fused ? 2 * w : w, 1, &gate));
        TRY(eng_loader_find(t->l, named(t, n->up), d, fused ? 2 * w : w, 1, &up));
        if (fused) up.first = w;
        TRY(eng_loader_matrix(t->l, &y->gate, &gate, n->c0, n->c1, 0, d));
    } else {
        TRY(eng_loader_find(t->l, named(t, n->up), d, w, 1, &up));
    }
    TRY(eng_loader_matrix(t->l, &y->up, &up, n->c0, n->c1, 0, d));
    TRY(eng_loader_find(t->l, named(t, n->down), w, d, 1, &down));
    TRY(eng_loader_matrix(t->l, &y->down, &down, 0, d, n->c0, n->c1));
    const char *const of[] = {n->gate, n->up, n->down};
    float **const to[] = {&y->bgate, &y->bup, &y->bdown};
    for (int i = 0; i < 3; i++) {
        snprintf(bias, sizeof bias, "%.*s.bias", (int)(__builtin_strlen(of[i]) - 7), of[i]);
        if (i < 2) TRY(maybe(t, to[i], bias, w, n->c0, n->c1));
        else TRY(maybe(t, to[i], bias, d, 0, d));
    }
out:
    return rc;
}

/* One expert's matrix: its part of a tensor of all of them, or a tensor of its own ("ffn_gate.7.weight", older files and checkpoints). */
static enum err of_expert(struct list *t, const char *what, int32_t e, int64_t cols, int64_t rows, struct eng_place *at)
{
    char all[64], own[64];
    snprintf(all, sizeof all, "ffn_%s_exps.weight", what);
    snprintf(own, sizeof own, "ffn_%s.%d.weight", what, e);
    if (!has(t, all) && has(t, own)) return eng_loader_find(t->l, t->name, cols, rows, 1, at);
    enum err rc = eng_loader_find(t->l, named(t, all), cols, rows, t->l->spec->experts.n, at);
    at->first = e * rows;
    return rc;
}

static enum err bias_of_expert(struct list *t, float **out, const char *what, int32_t e, int64_t n, int64_t i0, int64_t i1)
{
    char all[64];
    struct eng_place at;
    *out = NULL;
    snprintf(all, sizeof all, "ffn_%s_exps.bias", what);
    if (!has(t, all)) return OK;
    enum err rc = eng_loader_find(t->l, t->name, n, t->l->spec->experts.n, 1, &at);
    if (rc) return rc;
    at.first = e * n;
    return eng_loader_vector(t->l, out, &at, i0, i1);
}

/* Of an expert that is another rank's only the bias that is added behind the sum over ranks. */
static enum err expert(struct list *t, struct eng_ffn *y, int32_t e)
{
    enum err rc;
    struct eng_place at;
    const struct eng_shard *h = t->l->shard;
    int64_t d = t->l->spec->d_model, w = t->l->spec->experts.d_ffn, c0 = h->expert0, c1 = h->expert1;
    if (e < h->e0 || e >= h->e1) return bias_of_expert(t, &y->bdown, "down", e, d, 0, d);
    TRY(of_expert(t, "gate", e, d, w, &at));
    TRY(eng_loader_matrix(t->l, &y->gate, &at, c0, c1, 0, d));
    TRY(of_expert(t, "up", e, d, w, &at));
    TRY(eng_loader_matrix(t->l, &y->up, &at, c0, c1, 0, d));
    TRY(of_expert(t, "down", e, w, d, &at));
    TRY(eng_loader_matrix(t->l, &y->down, &at, 0, d, c0, c1));
    TRY(bias_of_expert(t, &y->bgate, "gate", e, w, c0, c1));
    TRY(bias_of_expert(t, &y->bup, "up", e, w, c0, c1));
    TRY(bias_of_expert(t, &y->bdown, "down", e, d, 0, d));
out:
    return rc;
}

static enum err experts(struct list *t, struct eng_layer *y)
{
    enum err rc;
    const struct eng_spec *s = t->l->spec;
    const struct eng_shard *h = t->l->shard;
    const struct eng_experts *x = &s->experts;
    struct eng_place at;
    struct eng_ffn none = {0};
    if (!t->l->only_count) y->experts = xcalloc((size_t)x->n, sizeof *y->experts);
    kind(t->l, &layer_parts(t)->rest);
    TRY(eng_loader_find(t->l, named(t, "ffn_gate_inp.weight"), s->d_model, x->n, 1, &at));
    TRY(eng_loader_matrix(t->l, &y->router, &at, 0, x->n, 0, s->d_model));
    TRY(maybe(t, &y->router_bias, "ffn_gate_inp.bias", x->n, 0, x->n));
    TRY(maybe(t, &y->router_shift, "exp_probs_b.bias", x->n, 0, x->n));
    if (x->shared_gated) {
        TRY(eng_loader_find(t->l, named(t, "ffn_gate_inp_shexp.weight"), s->d_model, 1, 1, &at));
        TRY(eng_loader_matrix(t->l, &y->shared_gate, &at, 0, 1, 0, s->d_model));
    }
    kind(t->l, &layer_parts(t)->ffn);
    layer_parts(t)->experts = true;
    for (int32_t e = 0; e < x->n; e++) TRY(expert(t, t->l->only_count ? &none : &y->experts[e], e));
    const struct ffn_names shared = {"ffn_gate_shexp.weight", "ffn_up_shexp.weight", "ffn_down_shexp.weight", x->d_shared, h->shared0, h->shared1};
    if (x->d_shared) TRY(dense(t, &y->shared, &shared));
out:
    return rc;
}

enum err eng_tensors_layer(struct eng_loader *l, int32_t layer, struct eng_layer *y)
{
    enum err rc;
    struct list t = {.l = l, .layer = layer};
    const struct ffn_names ffn = {"ffn_gate.weight", "ffn_up.weight", "ffn_down.weight", l->spec->d_ffn, l->shard->ffn0, l->shard->ffn1};
    TRY(norms(&t, y));
    TRY(l->spec->mla.kv_rank ? eng_tensors_mla(l, layer, y) : attention(&t, y));
    if (l->spec->moe[layer]) {
        TRY(experts(&t, y));
    } else {
        kind(l, &layer_parts(&t)->ffn);
        TRY(dense(&t, &y->ffn, &ffn));
    }
    l->part = NULL;
out:
    return rc;
}

/* ---- the ends ---- */

/* Divisors of LongRoPE: a tensor, or a list that config.json had. */
static enum err rope_factors(struct eng_loader *l, float **out, const char *tensor, const char *key)
{
    struct eng_place at;
    int64_t n = l->spec->rope_dim / 2;
    if (eng_loader_has(l, tensor)) {
        enum err e = eng_loader_find(l, tensor, n, 1, 1, &at);
        return e ? e : eng_loader_vector(l, out, &at, 0, n);
    }
    const struct model_kv *kv = eng_model_file_find(l->file, key);
    if (!kv || kv->kind != KV_ARRAY || kv->a.kind != KV_FLOAT || kv->a.n != (uint64_t)n)
        return err_raise(ERR_BAD_FILE, "%s: longrope needs %lld factors: tensor %s is missing", eng_model_file_path(l->file), (long long)n, tensor);
    float *f = xmalloc((size_t)n * sizeof *f);
    for (int64_t i = 0; i < n; i++) f[i] = (float)eng_model_file_array_float(kv, (uint64_t)i);
    enum err e = eng_loader_floats(l, out, f, n);
    free(f);
    return e;
}

static enum err rope(struct eng_loader *l)
{
    enum err rc = OK;
    struct eng_place at;
    int64_t n = l->spec->rope_dim / 2;
    if (l->spec->rope_freqs) {
        TRY(eng_loader_find(l, "rope_freqs.weight", n, 1, 1, &at));
        TRY(eng_loader_vector(l, &l->w->rope_freqs, &at, 0, n));
    }
    if (l->spec->rope_scaling == ROPE_LONG) {
        TRY(rope_factors(l, &l->w->rope_long, "rope_factors_long.weight", "tessera.rope.long_factors"));
        TRY(rope_factors(l, &l->w->rope_short, "rope_factors_short.weight", "tessera.rope.short_factors"));
    }
out:
    return rc;
}

static enum err last(struct eng_loader *l)
{
    enum err rc = OK;
    const struct eng_spec *s = l->spec;
    const struct eng_shard *h = l->shard;
    struct eng_weights *w = l->w;
    struct eng_place at;
    kind(l, l->parts ? &l->parts->head : NULL);
    if (s->tied) {
        w->head = w->embd;
        eng_loader_note(l, &w->head.data);
    } else {
        TRY(eng_loader_find(l, "output.weight", s->d_model, s->n_vocab, 1, &at));
        TRY(eng_loader_matrix(l, &w->head, &at, h->embd0, h->embd1, 0, s->d_model));
    }
    kind(l, l->parts ? &l->parts->ends : NULL);
    TRY(eng_loader_find(l, "output_norm.weight", s->d_model, 1, 1, &at));
    TRY(eng_loader_vector(l, &w->out_norm, &at, 0, s->d_model));
    if (eng_loader_has(l, "output_norm.bias")) {
        TRY(eng_loader_find(l, "output_norm.bias", s->d_model, 1, 1, &at));
        TRY(eng_loader_vector(l, &w->out_norm_bias, &at, 0, s->d_model));
    }
    if (eng_loader_has(l, "output.bias")) {
        TRY(eng_loader_find(l, "output.bias", s->n_vocab, 1, 1, &at));
        TRY(eng_loader_vector(l, &w->head_bias, &at, h->embd0, h->embd1));
    }
out:
    return rc;
}

enum err eng_tensors_ends(struct eng_loader *l)
{
    enum err rc;
    const struct eng_spec *s = l->spec;
    const struct eng_shard *h = l->shard;
    struct eng_place at;
    if (h->first || (h->last && s->tied)) {
        kind(l, l->parts ? &l->parts->embd : NULL);
        TRY(eng_loader_find(l, "token_embd.weight", s->d_model, s->n_vocab, 1, &at));
        TRY(eng_loader_matrix(l, &l->w->embd, &at, h->embd0, h->embd1, 0, s->d_model));
    }
    if (h->last) TRY(last(l));
    l->part = NULL;
    TRY(rope(l));
out:
    return rc;
}

/* ---- after loading ---- */

static void plus_one(float *w, int64_t n)
{
    for (int64_t i = 0; w && i < n; i++) w[i] += 1.0f;
}

void eng_tensors_plus_one(struct eng_weights *w, const struct eng_spec *s)
{
    for (int32_t i = 0; i < w->n_layers; i++) {
        struct eng_layer *y = &w->layers[i];
        float *wide[] = {y->attn_norm, y->ffn_norm, y->attn_post, y->ffn_post};
        for (size_t k = 0; k < COUNT_OF(wide); k++) plus_one(wide[k], s->d_model);
        if (s->qk_norm != ENG_QK_HEAD) continue;
        plus_one(y->q_norm, s->head_dim);
        plus_one(y->k_norm, s->head_dim);
    }
    plus_one(w->out_norm, s->d_model);
}
