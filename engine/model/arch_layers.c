/* arch_layers.c: what differs from layer to layer: windows and experts. */
#include "engine/model/arch_keys.h"

#include <stdio.h>
#include <string.h>

static const struct model_tensor *of_layer(const struct eng_model_file *f, int32_t layer, const char *what)
{
    char name[96];
    snprintf(name, sizeof name, "blk.%d.%s", layer, what);
    return eng_model_file_tensor_find(f, name);
}

/* The file may list the layers, or say how often one sees everything. */
static enum err read_pattern(const struct eng_spec *s, const struct eng_model_file *f, const struct model_kv **list, int32_t *period)
{
    char key[128];
    snprintf(key, sizeof key, "%s.attention.sliding_window_pattern", s->arch);
    const struct model_kv *kv = eng_model_file_find(f, key);
    *list = NULL;
    if (!kv) return OK;
    if (kv->kind == KV_INT && kv->i >= 0 && kv->i <= LIMIT_LAYERS) *period = (int32_t)kv->i;
    else if (kv->kind == KV_ARRAY && (kv->a.kind == KV_BOOL || kv->a.kind == KV_INT) && kv->a.n >= (uint64_t)s->n_layers) *list = kv;
    else return err_raise(ERR_BAD_FILE, "%s: key %s must be a number of layers or a list of %d", eng_model_file_path(f), key, s->n_layers);
    return OK;
}

enum err eng_arch_windows(struct eng_spec *s, const struct eng_model_file *f, int32_t period, bool first_global)
{
    enum err rc;
    const struct model_kv *list;
    TRY(eng_arch_int(f, s->arch, "attention.sliding_window", s->window, 0, 1 << 30, &s->window));
    if (s->chunked && s->window) TRY(eng_arch_int(f, s->arch, "attention.chunk_size", s->window, 1, 1 << 30, &s->window));
    TRY(read_pattern(s, f, &list, &period));
    for (int32_t l = 0; l < s->n_layers && s->window; l++) {
        if (list) s->local[l] = eng_model_file_array_int(list, (uint64_t)l) != 0;
        else s->local[l] = !period || l % period != (first_global ? 0 : period - 1);
    }
out:
    return rc;
}

enum err eng_arch_no_rope(struct eng_spec *s, const struct eng_model_file *f, bool global, int32_t period)
{
    const struct model_kv *kv = eng_model_file_find(f, "tessera.rope.layers");
    if (kv && (kv->kind != KV_ARRAY || (kv->a.kind != KV_BOOL && kv->a.kind != KV_INT) || kv->a.n < (uint64_t)s->n_layers))
        return err_raise(ERR_BAD_FILE, "%s: key tessera.rope.layers must be a list of %d", eng_model_file_path(f), s->n_layers);
    for (int32_t l = 0; l < s->n_layers; l++)
        s->no_rope[l] = kv ? !eng_model_file_array_int(kv, (uint64_t)l) : (global && !s->local[l]) || (period && l % period == period - 1);
    return OK;
}

static enum err read_counts(struct eng_experts *x, const struct eng_spec *s, const struct eng_model_file *f)
{
    enum err rc;
    int32_t gating;
    double scale;
    TRY(eng_arch_int(f, s->arch, "expert_used_count", 0, 1, x->n, &x->used));
    TRY(eng_arch_int(f, s->arch, "expert_feed_forward_length", s->d_ffn, 1, 1 << 22, &x->d_ffn));
    TRY(eng_arch_int(f, s->arch, "expert_gating_func", x->gating, 1, 3, &gating));
    TRY(eng_arch_bool(f, s->arch, "expert_weights_norm", x->renorm, &x->renorm));
    TRY(eng_arch_float(f, s->arch, "expert_weights_scale", 1, &scale));
    TRY(eng_arch_int(f, s->arch, "expert_group_count", 1, 1, x->n, &x->n_groups));
    TRY(eng_arch_int(f, s->arch, "expert_group_used_count", x->n_groups, 1, x->n_groups, &x->groups_used));
    bool same = x->gating == ENG_GATING_SIGMOID_CHOSEN && gating == ENG_GATING_SIGMOID; /* the key has no word for it */
    if (!same) x->gating = (enum eng_gating)gating;
    x->scale = scale > 0 ? (float)scale : 1.0f;
    if (x->n % x->n_groups)
        rc = err_raise(ERR_BAD_FILE, "%s: %d experts are no multiple of %d groups", eng_model_file_path(f), x->n, x->n_groups);
    else if (x->used > x->n / x->n_groups * x->groups_used)
        rc = err_raise(ERR_BAD_FILE, "%s: %d experts a token are more than %d groups of %d have", eng_model_file_path(f), x->used, x->groups_used,
                       x->n / x->n_groups);
out:
    return rc;
}

/* Where a file says which layers have experts, and how wide the shared one is, its tensors must agree. */
static enum err check_said(const struct eng_spec *s, const struct eng_model_file *f)
{
    enum err rc;
    int32_t dense, step, shared;
    char key[128];
    TRY(eng_arch_int(f, s->arch, "leading_dense_block_count", 0, 0, LIMIT_LAYERS, &dense));
    TRY(eng_arch_int(f, s->arch, "interleave_moe_layer_step", 1, 1, LIMIT_LAYERS, &step));
    TRY(eng_arch_int(f, s->arch, "expert_shared_count", 0, 0, LIMIT_EXPERTS, &shared));
    snprintf(key, sizeof key, "%s.leading_dense_block_count", s->arch);
    for (int32_t l = 0; l < s->n_layers && eng_model_file_find(f, key); l++)
        if (s->moe[l] != (l >= dense && l % step == 0))
            return err_raise(ERR_BAD_FILE, "%s: layer %d %s, but %d dense layers and then one of %d with experts are said to be there", eng_model_file_path(f), l,
                             s->moe[l] ? "has a router" : "has no router (ffn_gate_inp.weight)", dense, step);
    snprintf(key, sizeof key, "%s.expert_shared_count", s->arch);
    if (eng_model_file_find(f, key) && s->experts.d_shared != shared * s->experts.d_ffn)
        rc = err_raise(ERR_BAD_FILE, "%s: the shared expert has %d columns, %d of %d each are said to be there", eng_model_file_path(f),
                       s->experts.d_shared, shared, s->experts.d_ffn);
out:
    return rc;
}

enum err eng_arch_experts(struct eng_spec *s, const struct eng_model_file *f)
{
    enum err rc;
    struct eng_experts *x = &s->experts;
    int32_t first = -1;
    TRY(eng_arch_int(f, s->arch, "expert_count", 0, 0, LIMIT_EXPERTS, &x->n));
    if (!x->n) goto out;
    TRY(read_counts(x, s, f));
    for (int32_t l = 0; l < s->n_layers; l++) {
        s->moe[l] = of_layer(f, l, "ffn_gate_inp.weight") != NULL;
        if (s->moe[l] && first < 0) first = l;
    }
    if (first < 0)
        return err_raise(ERR_BAD_FILE, "%s: %d experts are said to be there, but no layer has a router (ffn_gate_inp.weight)",
                         eng_model_file_path(f), x->n);
    const struct model_tensor *shared = of_layer(f, first, "ffn_up_shexp.weight");
    if (shared && (shared->dims[1] < 1 || shared->dims[1] > 1 << 22))
        return err_raise(ERR_BAD_FILE, "%s: the shared expert has %lld columns", eng_model_file_path(f), (long long)shared->dims[1]);
    x->d_shared = shared ? (int32_t)shared->dims[1] : 0;
    x->shared_gated = of_layer(f, first, "ffn_gate_inp_shexp.weight") != NULL;
    if (s->mla.kv_rank) TRY(check_said(s, f));
out:
    return rc;
}
