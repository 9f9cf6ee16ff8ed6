/* from_hf.c: a checkpoint's directory as a GGUF file: what llama.cpp's converter does to it, so that both programs run the
 * result. Names and most keys are GGUF's already (engine/file/hf_config.h); left to do are
 *   q and k     of families whose rope turns pairs that stand side by side: rows, and their biases, from halves to pairs
 *   q, k and v  of Falcon, in one tensor group by group: all of q, all of k, all of v
 *   norms       of families that add one to them: with the one
 *   experts     a tensor of each becomes a tensor of all
 *   rope        factors of llama3 and longrope scaling as tensors, with longrope's factor of cos and sin beside them; dynamic scaling, which no
 *               key of GGUF says, as a key of our own: who does not know it is right up to the original context
 *   words       the tokenizer and the chat template as keys (words.c) */
#include "engine/convert/plan.h"
#include "engine/convert/words.h"

#include "base/base.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct from {
    struct conv_plan *p;
    const struct eng_model_file *in;
    bool pairs, plus_one, grouped; /* what is to be done */
    char *scaling;        /* rope.scaling.type; Own */
};

/* ---- keys ---- */

static bool is(const struct model_kv *kv, const char *key) { return kv->key.n == strlen(key) && !memcmp(kv->key.p, key, kv->key.n); }

static bool of_arch(const struct from *f, const struct model_kv *kv, const char *what)
{
    size_t n = strlen(f->p->model.arch);
    return kv->key.n > n + 1 && !memcmp(kv->key.p, f->p->model.arch, n) && kv->key.p[n] == '.' && kv->key.n - n - 1 >= strlen(what) &&
           !memcmp(kv->key.p + n + 1, what, strlen(what));
}

static bool is_dynamic(const struct from *f) { return f->scaling && !strcmp(f->scaling, "dynamic"); }
static bool is_long(const struct from *f) { return f->scaling && (!strcmp(f->scaling, "longrope") || !strcmp(f->scaling, "su")); }

/* What GGUF says otherwise, or what tensors and words.c say. */
static bool is_dropped(const struct from *f, const struct model_kv *kv)
{
    static const char *const keys[] = {"tessera.rope.interleaved", "tessera.norm.plus_one", "tessera.rope.long_factors", "tessera.rope.short_factors",
                                       "tessera.qkv_grouped", "tokenizer.ggml.eos_token_ids", "tokenizer.ggml.bos_token_id"};
    for (size_t i = 0; i < COUNT_OF(keys); i++)
        if (is(kv, keys[i])) return true;
    if (f->scaling && !strcmp(f->scaling, "llama3") && of_arch(f, kv, "rope.scaling.")) return true;
    if (is_dynamic(f) && (of_arch(f, kv, "rope.scaling.type") || of_arch(f, kv, "rope.scaling.factor") || of_arch(f, kv, "context_length"))) return true;
    /* the tensors say it: others would divide by the factor too */
    return is_long(f) && (is(kv, "tessera.rope.attention_factor") || of_arch(f, kv, "rope.scaling.type") || of_arch(f, kv, "rope.scaling.factor"));
}

static enum err check(struct from *f)
{
    enum err rc;
    char *why = NULL, key[128];
    bool interleaved;
    TRY(eng_model_file_string(f->in, "tessera.unsupported", &why));
    if (why) TRY(err_raise(ERR_UNSUPPORTED, "%s", why));
    TRY(eng_model_file_bool(f->in, "tessera.qkv_grouped", false, &f->grouped));
    TRY(eng_model_file_bool(f->in, "tessera.rope.interleaved", true, &interleaved));
    if (!interleaved && !strcmp(f->p->model.arch, "deepseek2"))
        TRY(err_raise(ERR_UNSUPPORTED, "%s: with rope_interleave false it cannot be written as GGUF, where pairs of this family stand side by side",
                      eng_model_file_path(f->in)));
    f->pairs = !interleaved && (!strcmp(f->p->model.arch, "llama") || !strcmp(f->p->model.arch, "granite") || !strcmp(f->p->model.arch, "smollm3"));
    TRY(eng_model_file_bool(f->in, "tessera.norm.plus_one", false, &f->plus_one));
    snprintf(key, sizeof key, "%.64s.rope.scaling.type", f->p->model.arch);
    TRY(eng_model_file_string(f->in, key, &f->scaling));
out:
    free(why);
    return rc;
}

static enum err real(const struct from *f, const char *what, double def, double *out)
{
    char key[128];
    snprintf(key, sizeof key, "%.64s.%s", f->p->model.arch, what);
    const struct model_kv *kv = eng_model_file_find(f->in, key);
    if (kv && kv->kind == KV_INT) {
        *out = (double)kv->i;
        return OK;
    }
    return eng_model_file_float(f->in, key, def, out);
}

/* Others read the original context, without scaling. */
static enum err put_dynamic(const struct from *f)
{
    enum err rc;
    char key[128];
    double factor, context, original;
    TRY(real(f, "rope.scaling.factor", 1, &factor));
    TRY(real(f, "context_length", 0, &context));
    TRY(real(f, "rope.scaling.original_context_length", context, &original));
    snprintf(key, sizeof key, "%.64s.context_length", f->p->model.arch);
    eng_gguf_out_u32(f->p->out, key, (uint32_t)original);
    eng_gguf_out_u32(f->p->out, "tessera.context_length", (uint32_t)context);
    eng_gguf_out_f32(f->p->out, "tessera.rope.dynamic_factor", (float)factor);
out:
    return rc;
}

/* Others have no rule of their own for what cos and sin are multiplied with. */
static enum err put_long(const struct from *f)
{
    enum err rc;
    char key[128];
    double factor, original, by;
    TRY(real(f, "rope.scaling.factor", 1, &factor));
    TRY(real(f, "rope.scaling.original_context_length", 0, &original));
    TRY(eng_model_file_float(f->in, "tessera.rope.attention_factor", 0, &by));
    if (!(by > 0)) by = factor > 1 && original > 1 ? sqrt(1 + log(factor) / log(original)) : 1;
    snprintf(key, sizeof key, "%.64s.rope.scaling.attn_factor", f->p->model.arch);
    eng_gguf_out_f32(f->p->out, key, (float)by);
out:
    return rc;
}

static void put_vocab_size(const struct from *f)
{
    const struct model_tensor *embd = eng_model_file_tensor_find(f->in, "token_embd.weight");
    char key[128];
    snprintf(key, sizeof key, "%.64s.vocab_size", f->p->model.arch);
    if (embd && embd->dims[1] > 0 && embd->dims[1] <= UINT32_MAX) eng_gguf_out_u32(f->p->out, key, (uint32_t)embd->dims[1]);
}

static enum err copy_keys(struct from *f)
{
    enum err rc = OK;
    for (int64_t i = 0; i < eng_model_file_n_kv(f->in); i++) {
        const struct model_kv *kv = eng_model_file_kv(f->in, i);
        if (!is_dropped(f, kv)) eng_gguf_out_kv(f->p->out, kv);
    }
    eng_gguf_out_str(f->p->out, "general.type", "model", 5);
    if (is_long(f)) TRY(put_long(f));
    if (is_dynamic(f)) TRY(put_dynamic(f));
    put_vocab_size(f);
out:
    return rc;
}

/* ---- rope's tensors ---- */

static void add_values(struct from *f, const char *name, float *values, int64_t n)
{
    struct conv_tensor *t = conv_add(f->p, name, 1, &n);
    t->values = values;
}

/* Divisors of the frequencies: long waves by the factor, short ones by none, between them a blend. */
static enum err llama3_factors(struct from *f)
{
    enum err rc;
    double base, factor, low, high, context, dim, heads, width;
    TRY(real(f, "rope.freq_base", 10000, &base));
    TRY(real(f, "rope.scaling.factor", 1, &factor));
    TRY(real(f, "rope.scaling.low_freq_factor", 1, &low));
    TRY(real(f, "rope.scaling.high_freq_factor", 4, &high));
    TRY(real(f, "rope.scaling.original_context_length", 8192, &context));
    TRY(real(f, "embedding_length", 0, &width));
    TRY(real(f, "attention.head_count", 1, &heads));
    TRY(real(f, "attention.key_length", width / MAX(heads, 1), &dim));
    TRY(real(f, "rope.dimension_count", dim, &dim));
    int64_t n = (int64_t)dim / 2;
    if (n < 1 || n > 1 << 16 || !(base > 0 && factor > 0 && low > 0 && high >= low && context > 0))
        return err_raise(ERR_BAD_FILE, "%s: rope scaling llama3 with these numbers makes no sense", eng_model_file_path(f->in));
    float *v = arena_alloc(&f->p->arena, (size_t)n * sizeof *v);
    for (int64_t i = 0; i < n; i++) {
        double wave = 2 * 3.14159265358979323846 * pow(base, (double)(2 * i) / dim), blend = (context / wave - low) / (high - low);
        v[i] = (float)(wave <= context / high ? 1 : wave > context / low ? factor : 1 / ((1 - blend) / factor + blend));
    }
    add_values(f, "rope_freqs.weight", v, n);
out:
    return rc;
}

static void long_factors(struct from *f, const char *key, const char *name)
{
    const struct model_kv *kv = eng_model_file_find(f->in, key);
    if (!kv || kv->kind != KV_ARRAY || kv->a.kind != KV_FLOAT || !kv->a.n) return;
    float *v = arena_alloc(&f->p->arena, kv->a.n * sizeof *v);
    for (uint64_t i = 0; i < kv->a.n; i++) v[i] = (float)eng_model_file_array_float(kv, i);
    add_values(f, name, v, (int64_t)kv->a.n);
}

/* ---- tensors ---- */

static bool ends_with(const char *name, const char *end)
{
    size_t n = strlen(name), m = strlen(end);
    return n >= m && !strcmp(name + n - m, end);
}

static enum err add_part(struct from *f, struct conv_tensor *c, const struct model_tensor *t, int64_t n)
{
    c->parts = arena_alloc(&f->p->arena, (size_t)n * sizeof(void *));
    c->n_parts = n;
    for (int64_t e = 0; e < n; e++) c->parts[e] = t;
    return OK;
}

/* Experts of a layer that have a tensor each: all of them, once the first is met. */
static enum err add_experts(struct from *f, const struct model_tensor *t, int layer, const char *what)
{
    enum err rc = OK;
    char name[96];
    int64_t n = f->p->model.n_expert, dims[3] = {t->dims[0], t->dims[1], n};
    if (n < 1) return err_raise(ERR_BAD_FILE, "%s: tensor %s is an expert's, and config.json names no number of experts", eng_model_file_path(f->in), t->name);
    snprintf(name, sizeof name, "blk.%d.%s_exps.weight", layer, what);
    struct conv_tensor *c = conv_add(f->p, name, 3, dims);
    TRY(add_part(f, c, t, n));
    for (int64_t e = 0; e < n; e++) {
        snprintf(name, sizeof name, "blk.%d.%s.%lld.weight", layer, what, (long long)e);
        const struct model_tensor *x = eng_model_file_tensor_find(f->in, name);
        if (!x || x->type != t->type || x->dims[0] != t->dims[0] || x->dims[1] != t->dims[1])
            return err_raise(ERR_BAD_FILE, "%s: expert %lld of layer %d has no %s like the others", eng_model_file_path(f->in), (long long)e, layer, what);
        c->parts[e] = x;
    }
out:
    return rc;
}

static enum err group(const struct from *f, struct conv_tensor *c, const struct model_tensor *t)
{
    int64_t heads = f->p->model.n_heads, kv = f->p->model.n_kv_heads;
    if (kv < 1 || heads % kv || t->dims[1] % (heads + 2 * kv))
        return err_raise(ERR_BAD_FILE, "tensor %s has %lld rows, which are not those of %lld query heads and %lld of keys and values", t->name,
                         (long long)t->dims[1], (long long)heads, (long long)kv);
    c->n_groups = (int32_t)kv;
    c->group_heads = (int32_t)(heads / kv);
    return OK;
}

static enum err add_tensor(struct from *f, const struct model_tensor *t)
{
    enum err rc;
    int layer, expert, n = 0;
    char what[32];
    if (t->type >= DTYPE_COUNT)
        return err_raise(ERR_UNSUPPORTED, "tensor %s is of type %s, which cannot be read: known are %s", t->name, dtype_ggml_name(t->ggml_type), dtype_all_names());
    if (sscanf(t->name, "blk.%6d.%31[a-z_].%6d.weight%n", &layer, what, &expert, &n) == 3 && n && !t->name[n])
        return expert ? OK : add_experts(f, t, layer, what);
    struct conv_tensor *c = conv_add(f->p, t->name, t->n_dims, t->dims);
    if (f->plus_one && ends_with(t->name, "norm.weight")) c->plus = 1;
    if (f->pairs && ends_with(t->name, ".attn_q.weight")) c->pair_heads = f->p->model.n_heads;
    if (f->pairs && ends_with(t->name, ".attn_k.weight")) c->pair_heads = f->p->model.n_kv_heads;
    if (f->pairs && ends_with(t->name, ".attn_q.bias")) c->pair_heads = f->p->model.n_heads;
    if (f->pairs && ends_with(t->name, ".attn_k.bias")) c->pair_heads = f->p->model.n_kv_heads;
    int64_t rows = t->n_dims == 1 ? t->dims[0] : t->dims[1];
    if (f->grouped && ends_with(t->name, ".attn_qkv.weight")) TRY(group(f, c, t));
    if (c->pair_heads && rows % (2 * (int64_t)c->pair_heads))
        return err_raise(ERR_BAD_FILE, "tensor %s has %lld rows, which are not those of %d heads", t->name, (long long)rows, c->pair_heads);
    rc = add_part(f, c, t, 1);
out:
    return rc;
}

/* Names that are GGUF's: others were left out of the model. */
static bool is_named(const char *name) { return !strncmp(name, "blk.", 4) || !strncmp(name, "token_embd.", 11) || !strncmp(name, "output", 6); }

enum err conv_plan_hf(struct conv_plan *p, const struct eng_model_file *in)
{
    enum err rc;
    struct from f = {.p = p, .in = in};
    TRY(check(&f));
    TRY(copy_keys(&f));
    bool words;
    TRY(conv_words(p->out, in, &words));
    p->no_words = !words;
    for (int64_t i = 0; i < eng_model_file_n_tensors(in); i++) {
        const struct model_tensor *t = eng_model_file_tensor(in, i);
        if (is_named(t->name)) TRY(add_tensor(&f, t));
    }
    if (f.scaling && !strcmp(f.scaling, "llama3")) TRY(llama3_factors(&f));
    long_factors(&f, "tessera.rope.long_factors", "rope_factors_long.weight");
    long_factors(&f, "tessera.rope.short_factors", "rope_factors_short.weight");
out:
    free(f.scaling);
    return rc;
}
