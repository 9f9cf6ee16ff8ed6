/* hf_config.c: see hf_config.h.
 *
 * A switch of config.json that changes the mathematics and that this build does not have refuses
 * the checkpoint by name; switches that only concern training are not looked at. */
#include "engine/file/hf_config.h"

#include "engine/file/hf_json.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LARGEST_CONFIG = 1 << 20, MOST_EOS = 64, GGUF_INT32 = 5 };

static const struct family {
    const char *class, *model_type, *arch;
} families[] = {
    {"LlamaForCausalLM", "llama", "llama"},
    {"MistralForCausalLM", "mistral", "llama"},
    {"Qwen2ForCausalLM", "qwen2", "qwen2"},
    {"Qwen3ForCausalLM", "qwen3", "qwen3"},
};
static const char known[] =
    "LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM";

/* ---- the list of keys ---- */

static struct model_kv *add(struct eng_hf_keys *k, const char *arch, const char *key)
{
    if (k->n == k->cap) {
        k->cap = MAX(32, 2 * k->cap);
        k->at = xrealloc(k->at, (size_t)k->cap * sizeof *k->at);
    }
    char *full = arch ? xasprintf("%s.%s", arch, key) : xstrdup(key);
    struct model_kv *kv = &k->at[k->n++];
    *kv = (struct model_kv){.key = {arena_strndup(k->a, full, strlen(full)), strlen(full)}};
    free(full);
    return kv;
}

void eng_hf_key_int(struct eng_hf_keys *k, const char *arch, const char *key, int64_t v)
{
    struct model_kv *kv = add(k, arch, key);
    kv->kind = KV_INT, kv->i = v;
}

void eng_hf_key_real(struct eng_hf_keys *k, const char *arch, const char *key, double v)
{
    struct model_kv *kv = add(k, arch, key);
    kv->kind = KV_FLOAT, kv->f = v;
}

void eng_hf_key_bool(struct eng_hf_keys *k, const char *arch, const char *key, bool v)
{
    struct model_kv *kv = add(k, arch, key);
    kv->kind = KV_BOOL, kv->b = v;
}

void eng_hf_key_text(struct eng_hf_keys *k, const char *arch, const char *key, const char *v)
{
    struct model_kv *kv = add(k, arch, key);
    kv->kind = KV_STRING, kv->s = (struct model_str){arena_strndup(k->a, v, strlen(v)), strlen(v)};
}

static void key_ids(struct eng_hf_keys *k, const char *key, const int32_t *ids, uint64_t n)
{
    struct model_kv *kv = add(k, NULL, key);
    int32_t *copy = arena_alloc(k->a, (n + 1) * sizeof *copy);
    memcpy(copy, ids, n * sizeof *copy);
    kv->kind = KV_ARRAY;
    kv->a.kind = KV_INT, kv->a.n = n, kv->a.at = copy, kv->a.elem = GGUF_INT32;
}

void eng_hf_refuse(struct eng_hf_keys *k, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    if (k->refused) return;
    k->refused = true;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    eng_hf_key_text(k, NULL, "tessera.unsupported", text);
}

/* ---- config.json ---- */

static void pick_family(struct eng_hf_obj c, struct eng_hf_model *m, struct eng_hf_keys *k)
{
    const json_t *list = json_object_get(c.json, "architectures");
    const char *class = json_string_value(json_array_get(list, 0));
    const char *type = json_string_value(json_object_get(c.json, "model_type"));
    for (size_t i = 0; i < COUNT_OF(families); i++)
        if (class ? !strcmp(class, families[i].class)
                  : type && !strcmp(type, families[i].model_type)) {
            snprintf(m->arch, sizeof m->arch, "%s", families[i].arch);
            m->known = true;
            return;
        }
    const char *name = class ? class : type ? type : "(none named)";
    snprintf(m->arch, sizeof m->arch, "%s", eng_show(name, strlen(name)).s);
    eng_hf_refuse(k, "architecture %s is not supported; of Hugging Face's classes these are: %s",
                  m->arch, known);
}

static enum err copy_int(struct eng_hf_obj c, struct eng_hf_keys *k, const char *arch,
                         const char *from, const char *to, int64_t def, int64_t *out)
{
    int64_t v;
    enum err rc = eng_hf_int(c, from, def, 1, 1 << 30, &v);
    if (rc) return rc;
    if (v < 1) return err_raise(ERR_BAD_FILE, "%s: key '%s' is missing", c.what, from);
    eng_hf_key_int(k, arch, to, v);
    if (out) *out = v;
    return OK;
}

static enum err read_sizes(struct eng_hf_obj c, struct eng_hf_keys *k, struct eng_hf_model *m)
{
    enum err rc;
    const char *a = m->arch;
    int64_t heads, width, head_dim, context;
    double eps, partial;
    const json_t *rope = json_object_get(c.json, "rope_parameters");
    TRY(copy_int(c, k, a, "num_hidden_layers", "block_count", 0, NULL));
    TRY(copy_int(c, k, a, "hidden_size", "embedding_length", 0, &width));
    TRY(copy_int(c, k, a, "intermediate_size", "feed_forward_length", 0, NULL));
    TRY(copy_int(c, k, a, "num_attention_heads", "attention.head_count", 0, &heads));
    TRY(copy_int(c, k, a, "num_key_value_heads", "attention.head_count_kv", heads, NULL));
    TRY(copy_int(c, k, a, "head_dim", "attention.key_length",
                 !strcmp(a, "qwen3") ? 128 : width / heads, &head_dim));
    eng_hf_key_int(k, a, "attention.value_length", head_dim);
    TRY(eng_hf_real((struct eng_hf_obj){rope, c.what}, "partial_rotary_factor", 1, &partial));
    TRY(eng_hf_real(c, "partial_rotary_factor", partial, &partial));
    if (!(partial > 0 && partial <= 1)) {
        rc = err_raise(ERR_BAD_FILE,
                       "%s: key 'partial_rotary_factor' is %g, it must be above 0 and at most 1",
                       c.what, partial);
        goto out;
    }
    eng_hf_key_int(k, a, "rope.dimension_count", (int64_t)((double)head_dim * partial));
    TRY(eng_hf_real(c, "rms_norm_eps", 1e-6, &eps));
    eng_hf_key_real(k, a, "attention.layer_norm_rms_epsilon", eps);
    TRY(eng_hf_int(c, "max_position_embeddings", 0, 1, 1 << 30, &context));
    if (!context) {
        rc = err_raise(ERR_BAD_FILE, "%s: key 'max_position_embeddings' is missing", c.what);
        goto out;
    }
    TRY(eng_hf_rope_read(&c, a, k, &context));
    eng_hf_key_int(k, a, "context_length", context);
    TRY(eng_hf_int(c, "vocab_size", -1, 1, 1 << 24, &m->n_vocab));
out:
    return rc;
}

/* Qwen2 names a window and says beside it whether it is used; newer files list each layer. */
static enum err read_window(struct eng_hf_obj c, struct eng_hf_keys *k, const char *arch)
{
    int64_t window;
    bool used, sliding;
    size_t i;
    json_t *layer;
    const json_t *layers = json_object_get(c.json, "layer_types");
    enum err rc = eng_hf_int(c, "sliding_window", 0, 0, 1 << 30, &window);
    if (!rc) rc = eng_hf_bool(c, "use_sliding_window", !strcmp(arch, "llama"), &used);
    if (rc || !window || !used) return rc;
    sliding = !json_is_array(layers);
    json_array_foreach((json_t *)(uintptr_t)layers, i, layer)
    {
        const char *type = json_string_value(layer);
        sliding |= type && !strcmp(type, "sliding_attention");
    }
    if (sliding) eng_hf_key_int(k, arch, "attention.sliding_window", window);
    return OK;
}

static enum err read_switches(struct eng_hf_obj c, struct eng_hf_keys *k, struct eng_hf_model *m)
{
    enum err rc;
    bool bias, mlp_bias, tied;
    const char *act;
    const json_t *quant = json_object_get(c.json, "quantization_config");
    TRY(eng_hf_bool(c, "attention_bias", false, &bias));
    TRY(eng_hf_bool(c, "mlp_bias", false, &mlp_bias));
    TRY(eng_hf_bool(c, "tie_word_embeddings", false, &tied));
    TRY(eng_hf_text(c, "hidden_act", "silu", &act));
    TRY(read_window(c, k, m->arch));
    const json_t *said = json_object_get(c.json, "tie_word_embeddings");
    m->tied = !said || json_is_null(said) ? TIE_UNSAID : tied ? TIE_YES : TIE_NO;
    if (bias && strcmp(m->arch, "qwen2"))
        eng_hf_refuse(k, "%s: attention_bias true is not supported for this architecture", c.what);
    if (mlp_bias) eng_hf_refuse(k, "%s: mlp_bias true is not supported", c.what);
    if (strcmp(act, "silu") && strcmp(act, "swish"))
        eng_hf_refuse(k, "%s: hidden_act '%s' is not supported (known: silu)", c.what,
                      eng_show(act, strlen(act)).s);
    if (json_is_object(quant)) {
        const char *method = json_string_value(json_object_get(quant, "quant_method"));
        eng_hf_refuse(k,
                      "%s: weights quantised by '%s' are not supported; use the unquantised "
                      "checkpoint or a GGUF file",
                      c.what, method ? eng_show(method, strlen(method)).s : "?");
    }
out:
    return rc;
}

/* ---- ids ---- */

static uint64_t take_ids(const json_t *v, int32_t ids[MOST_EOS], uint64_t n)
{
    size_t many = json_is_array(v) ? json_array_size(v) : 1;
    for (size_t i = 0; i < many && n < MOST_EOS; i++) {
        const json_t *id = json_is_array(v) ? json_array_get(v, i) : v;
        int64_t x = json_is_integer(id) ? json_integer_value(id) : -1;
        if (x >= 0 && x < 1 << 24) ids[n++] = (int32_t)x;
    }
    return n;
}

/* The ids that end a generation: generation_config.json's before config.json's. */
static enum err read_ids(struct eng_hf_obj c, struct eng_hf_keys *k, const struct eng_model_file *f)
{
    json_t *gen = NULL;
    int32_t ids[MOST_EOS];
    enum err rc = eng_hf_json_file(&gen, f, "generation_config.json", LARGEST_CONFIG);
    if (rc) return rc;
    uint64_t n = take_ids(json_object_get(gen, "eos_token_id"), ids, 0);
    n = take_ids(json_object_get(c.json, "eos_token_id"), ids, n);
    if (n) key_ids(k, "tokenizer.ggml.eos_token_ids", ids, n);
    if (take_ids(json_object_get(c.json, "bos_token_id"), ids, 0))
        eng_hf_key_int(k, NULL, "tokenizer.ggml.bos_token_id", ids[0]);
    json_decref(gen);
    return OK;
}

static void key_name(struct eng_hf_keys *k, const char *path)
{
    char *full = realpath(path, NULL);
    const char *slash = full ? strrchr(full, '/') : NULL;
    eng_hf_key_text(k, NULL, "general.name", slash && slash[1] ? slash + 1 : path);
    free(full);
}

enum err eng_hf_config_read(struct eng_hf_model *out, struct eng_hf_keys *k,
                            const struct eng_model_file *f)
{
    enum err rc;
    json_t *json = NULL;
    char *what = xasprintf("%s/config.json", f->path);
    struct eng_hf_model m = {.n_vocab = -1};
    key_name(k, f->path);
    TRY(eng_hf_json_file(&json, f, "config.json", LARGEST_CONFIG));
    if (!json) eng_hf_refuse(k, "%s has no config.json", f->path);
    struct eng_hf_obj c = {json, what};
    if (json) {
        pick_family(c, &m, k);
        eng_hf_key_text(k, NULL, "general.architecture", m.arch);
        TRY(read_ids(c, k, f));
    }
    if (m.known) {
        TRY(read_sizes(c, k, &m));
        TRY(read_switches(c, k, &m));
        eng_hf_key_bool(k, NULL, "tessera.rope.interleaved", false);
    }
    *out = m;
out:
    json_decref(json);
    free(what);
    return rc;
}
