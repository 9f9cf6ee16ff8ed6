/* arch.c: the families: one row each. To add one: a row here, its golden in tests/model, a line in docs/models.md. */
#include "engine/model/spec.h"

#include "engine/file/pooling.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a family fixes that its files do not say. */
struct family {
    const char *arch;          /* general.architecture */
    bool qkv_bias, qk_norm;
    bool rope_interleaved;
};

static const struct family families[] = {
    /* Llama 2/3.x, Mistral, Yi, R1-distills of Llama: GGUF stores q and k permuted for interleaved pairs */
    {"llama", .rope_interleaved = true},
    {"qwen2", .qkv_bias = true},
    {"qwen3", .qk_norm = true},
};

const char *eng_spec_known(void) { return "llama (Llama 2/3.x, Mistral, Yi), qwen2 (Qwen 2/2.5), qwen3"; }

static enum err read_int(const struct eng_model_file *f, const char *arch, const char *key, int64_t def, int64_t min,
                         int64_t max, int32_t *out)
{
    char k[128];
    int64_t v;
    snprintf(k, sizeof k, "%s.%s", arch, key);
    enum err e = eng_model_file_int(f, k, def, min, max, &v);
    if (!e && v < min) return err_raise(ERR_BAD_FILE, "%s: key %s is missing", eng_model_file_path(f), k);
    if (!e) *out = (int32_t)v;
    return e;
}

static enum err read_float(const struct eng_model_file *f, const char *arch, const char *key, double def, double *out)
{
    char k[128];
    snprintf(k, sizeof k, "%s.%s", arch, key);
    return eng_model_file_float(f, k, def, out);
}

static enum err read_rope(struct eng_spec *s, const struct eng_model_file *f)
{
    enum err rc;
    int32_t original, trained;
    double factor;
    char key[128], *type = NULL;
    TRY(read_float(f, s->arch, "rope.freq_base", 10000, &s->rope_base));
    TRY(read_int(f, s->arch, "rope.dimension_count", s->head_dim, 2, s->head_dim, &s->rope_dim));
    TRY(read_float(f, s->arch, "rope.scale_linear", 1, &factor)); /* the key's first name */
    TRY(read_float(f, s->arch, "rope.scaling.factor", factor, &factor));
    s->rope_factor = factor == 0 ? 1 : factor;
    TRY(read_int(f, s->arch, "context_length", 0, 1, 1 << 30, &trained)); /* s->context may be cut short */
    TRY(read_int(f, s->arch, "rope.scaling.original_context_length", trained, 1, 1 << 30, &original));
    s->rope_orig_context = original;
    TRY(read_float(f, s->arch, "rope.scaling.attn_factor", 1, &s->rope_attn_factor));
    snprintf(key, sizeof key, "%s.rope.scaling.type", s->arch);
    TRY(eng_model_file_string(f, key, &type));
    /* A file that gives a factor and no type means linear: early converters wrote no type. */
    if (type ? !strcmp(type, "none") : s->rope_factor == 1) s->rope_scaling = ROPE_NONE;
    else if (!type || !strcmp(type, "linear")) s->rope_scaling = ROPE_LINEAR;
    else if (!strcmp(type, "yarn")) s->rope_scaling = ROPE_YARN;
    else if (!strcmp(type, "llama3")) s->rope_scaling = ROPE_LLAMA3;
    else rc = err_raise(ERR_UNSUPPORTED, "rope scaling '%s' is not supported (known: none, linear, yarn, llama3)", type);
    if (rc) goto out;
    if (s->rope_scaling == ROPE_LLAMA3) {
        TRY(read_float(f, s->arch, "rope.scaling.high_freq_factor", 4, &s->rope_fast));
        TRY(read_float(f, s->arch, "rope.scaling.low_freq_factor", 1, &s->rope_slow));
    } else {
        TRY(read_float(f, s->arch, "rope.scaling.yarn_beta_fast", 32, &s->rope_fast));
        TRY(read_float(f, s->arch, "rope.scaling.yarn_beta_slow", 1, &s->rope_slow));
    }
    TRY(eng_model_file_float(f, "tessera.rope.attention_factor", 0, &s->rope_attn_said));
    s->rope_freqs = eng_model_file_tensor_find(f, "rope_freqs.weight") != NULL;
    if (s->rope_dim % 2 || !(s->rope_base > 0) || !(s->rope_factor > 0) || !(s->rope_orig_context > 0) ||
        !(s->rope_slow > 0) || !(s->rope_fast > s->rope_slow))
        rc = err_raise(ERR_BAD_FILE, "%s: rope of %d dims, base %g, factor %g makes no sense", eng_model_file_path(f),
                       s->rope_dim, s->rope_base, s->rope_factor);
out:
    free(type);
    return rc;
}

static enum err read_sizes(struct eng_spec *s, const struct eng_model_file *f)
{
    enum err rc;
    double eps;
    int32_t value_len, window;
    const char *a = s->arch;
    const struct model_kv *tokens = eng_model_file_find(f, "tokenizer.ggml.tokens");
    const struct model_tensor *embd = eng_model_file_tensor_find(f, "token_embd.weight");
    TRY(read_int(f, a, "block_count", 0, 1, LIMIT_LAYERS, &s->n_layers));
    TRY(read_int(f, a, "embedding_length", 0, 1, 1 << 20, &s->d_model));
    TRY(read_int(f, a, "feed_forward_length", 0, 1, 1 << 22, &s->d_ffn));
    TRY(read_int(f, a, "attention.head_count", 0, 1, 4096, &s->n_heads));
    TRY(read_int(f, a, "attention.head_count_kv", s->n_heads, 1, s->n_heads, &s->n_kv_heads));
    TRY(read_int(f, a, "attention.key_length", s->d_model / s->n_heads, 1, 1024, &s->head_dim));
    TRY(read_int(f, a, "attention.value_length", s->head_dim, 1, 1024, &value_len));
    TRY(read_int(f, a, "context_length", 0, 1, LIMIT_CONTEXT * 16, &s->context));
    TRY(read_int(f, a, "attention.sliding_window", 1 << 30, 1, 1 << 30, &window));
    TRY(read_float(f, a, "attention.layer_norm_rms_epsilon", 1e-5, &eps));
    s->norm_eps = (float)eps;
    /* Within the window full attention is the same function; past it this build would be wrong, so it ends there. */
    s->context = MIN(MIN(s->context, window), LIMIT_CONTEXT);
    if (value_len != s->head_dim)
        return err_raise(ERR_UNSUPPORTED, "key length %d and value length %d differ: not supported for %s", s->head_dim,
                         value_len, a);
    if (s->n_heads % s->n_kv_heads)
        return err_raise(ERR_BAD_FILE, "%d query heads are no multiple of %d KV heads", s->n_heads, s->n_kv_heads);
    if (!embd) return err_raise(ERR_BAD_FILE, "%s: tensor token_embd.weight is missing", eng_model_file_path(f));
    if (embd->dims[1] < 1 || embd->dims[1] > 1 << 24)
        return err_raise(ERR_BAD_FILE, "token_embd.weight has %lld rows", (long long)embd->dims[1]);
    s->n_vocab = (int32_t)embd->dims[1];
    if (tokens && tokens->kind == KV_ARRAY && (int64_t)tokens->a.n > embd->dims[1])
        return err_raise(ERR_BAD_FILE, "the vocabulary has %lld tokens but token_embd.weight only %d rows",
                         (long long)tokens->a.n, s->n_vocab);
    s->tied = !eng_model_file_tensor_find(f, "output.weight");
out:
    return rc;
}

enum err eng_spec_read(struct eng_spec *out, const struct eng_model_file *f)
{
    enum err rc;
    struct eng_spec s = {0};
    const struct family *fam = NULL;
    char *arch = NULL, *name = NULL, *why = NULL;
    TRY(eng_model_file_string(f, "tessera.unsupported", &why)); /* engine/file/hf_config.h */
    if (why) {
        rc = err_raise(ERR_UNSUPPORTED, "%s", why);
        goto out;
    }
    TRY(eng_model_file_string(f, "general.architecture", &arch));
    if (!arch) {
        rc = err_raise(ERR_BAD_FILE, "%s: key general.architecture is missing", eng_model_file_path(f));
        goto out;
    }
    for (size_t i = 0; i < COUNT_OF(families); i++)
        if (!strcmp(families[i].arch, arch)) fam = &families[i];
    if (!fam) {
        rc = err_raise(ERR_UNSUPPORTED, "architecture '%s' is not supported; known: %s", arch, eng_spec_known());
        goto out;
    }
    TRY(eng_model_file_string(f, "general.name", &name));
    snprintf(s.arch, sizeof s.arch, "%s", arch);
    snprintf(s.name, sizeof s.name, "%s", name ? name : arch);
    s.qkv_bias = fam->qkv_bias;
    s.qk_norm = fam->qk_norm;
    TRY(eng_model_file_bool(f, "tessera.rope.interleaved", fam->rope_interleaved, &s.rope_interleaved));
    TRY(read_sizes(&s, f));
    TRY(read_rope(&s, f));
    *out = s;
out:
    free(why);
    free(arch);
    free(name);
    return rc;
}

void eng_spec_info(const struct eng_spec *s, const struct eng_model_file *f, struct model_info *out)
{
    *out = (struct model_info){
        .n_layers = s->n_layers, .d_model = s->d_model, .n_heads = s->n_heads, .n_kv_heads = s->n_kv_heads,
        .head_dim = s->head_dim, .d_ffn = s->d_ffn, .n_vocab = s->n_vocab, .context = s->context, .n_groups = 1,
    };
    snprintf(out->name, sizeof out->name, "%s", s->name);
    snprintf(out->arch, sizeof out->arch, "%s", s->arch);
    out->pooling = eng_pooling_of(f, s->arch);
    out->groups[0] = (struct kv_group){
        .kind = KV_FULL, .n_layers = s->n_layers, .n_kv_heads = s->n_kv_heads, .head_dim = s->head_dim};
    for (int64_t i = 0; i < eng_model_file_n_tensors(f); i++) {
        const struct model_tensor *t = eng_model_file_tensor(f, i);
        out->n_params += t->dims[0] * t->dims[1] * t->dims[2] * t->dims[3];
        out->weight_bytes += t->bytes;
    }
}
