/* arch.c: the families: one row each. To add one: docs/models.md, "Adding one". */
#include "engine/model/arch_keys.h"

#include "base/buf.h"
#include "base/plain.h"
#include "engine/file/adapter.h"
#include "engine/file/pooling.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a family fixes that its files do not say. */
struct family {
    const char *arch;          /* general.architecture */
    enum eng_norm norm;
    bool no_pre_norm, post_norm, parallel, no_gate;
    enum eng_act act;
    enum eng_qk_norm qk_norm;
    bool rope_interleaved;
    bool embd_sqrt;            /* embeddings are multiplied with the root of their width */
    bool logit_divides;        /* logit_scale is what logits are divided by */
    bool renorm;               /* weights of experts are divided by their sum, where the file does not say */
    enum eng_gating gating;    /* the same */
    bool weigh_input;
    bool sinks;
    bool no_rope_global;       /* layers that see everything have no rope */
    bool rope_alone;           /* but all have it where none has a window */
    int32_t no_rope_period;    /* of so many layers the last has no rope, where the file does not say; 0: all have it */
    bool local_unscaled;       /* rope of layers with a window is not scaled, on the same base */
    int32_t period;            /* of so many layers one sees everything, the others a window; 0: all have the window */
    bool first_global;         /* it is the first of them; else the last */
    int32_t window;            /* where the file does not say */
    bool chunked;              /* the window is a chunk */
    int32_t temper_length;     /* where the file does not say */
    double temper_scale;
    double rope_base_local;
    bool mla;                  /* attention over a latent */
    int32_t big_layers;        /* the size of this depth scales scores by the mean width of a head, not its own */
};

static const struct family families[] = {
    /* Llama 2/3.x, Mistral, Mixtral, Yi, R1-distills of Llama: GGUF stores q and k permuted for interleaved pairs */
    {"llama", .rope_interleaved = true, .renorm = true},
    {"qwen2"},
    {"qwen3", .qk_norm = ENG_QK_HEAD},
    {"qwen2moe"},
    {"qwen3moe", .qk_norm = ENG_QK_HEAD, .renorm = true},
    {"gemma", .act = ENG_GELU_TANH, .embd_sqrt = true},
    {"gemma2", .act = ENG_GELU_TANH, .embd_sqrt = true, .post_norm = true, .window = 4096, .period = 2,
     .big_layers = 46},
    {"gemma3", .act = ENG_GELU_TANH, .embd_sqrt = true, .post_norm = true, .qk_norm = ENG_QK_HEAD, .period = 6, .rope_base_local = 10000,
     .big_layers = 62},
    {"phi2", .norm = ENG_NORM_LAYER, .parallel = true, .no_gate = true, .act = ENG_GELU_TANH},
    {"phi3"},
    {"falcon", .norm = ENG_NORM_LAYER, .parallel = true, .no_gate = true, .act = ENG_GELU_ERF},
    {"stablelm", .norm = ENG_NORM_LAYER},
    {"olmo2", .no_pre_norm = true, .post_norm = true, .qk_norm = ENG_QK_ALL, .period = 4, .local_unscaled = true}, /* OLMo 3: with windows */
    {"olmoe", .qk_norm = ENG_QK_ALL},
    {"granite", .rope_interleaved = true, .logit_divides = true},
    {"chatglm", .rope_interleaved = true},
    {"glm4", .rope_interleaved = true, .post_norm = true},
    {"glm4moe"},
    {"dots1", .qk_norm = ENG_QK_HEAD},
    {"minimax-m2", .qk_norm = ENG_QK_ALL, .renorm = true, .gating = ENG_GATING_SIGMOID},
    {"smollm3", .rope_interleaved = true, .no_rope_period = 4},
    {"seed_oss"},
    {"exaone4", .no_pre_norm = true, .post_norm = true, .qk_norm = ENG_QK_HEAD, .period = 4, .no_rope_global = true, .rope_alone = true},
    {"ernie4_5", .rope_interleaved = true},
    {"command-r", .norm = ENG_NORM_LAYER, .parallel = true, .rope_interleaved = true},
    {"cohere2", .norm = ENG_NORM_LAYER, .parallel = true, .rope_interleaved = true, .period = 4, .no_rope_global = true},
    {"deepseek2", .rope_interleaved = true, .mla = true},
    {"gpt-oss", .act = ENG_SWIGLU_CLAMPED, .sinks = true, .gating = ENG_GATING_SOFTMAX_CHOSEN, .period = 2},
    {"llama4", .rope_interleaved = true, .gating = ENG_GATING_SIGMOID_CHOSEN, .weigh_input = true, .period = 4, .no_rope_global = true, .rope_alone = true,
     .window = 8192, .chunked = true, .temper_length = 8192, .temper_scale = 0.1},
};

enum err eng_arch_int(const struct eng_model_file *f, const char *arch, const char *key, int64_t def, int64_t min, int64_t max, int32_t *out)
{
    char k[128];
    int64_t v;
    snprintf(k, sizeof k, "%s.%s", arch, key);
    enum err e = eng_model_file_int(f, k, def, min, max, &v);
    if (!e && v < min) return err_raise(ERR_BAD_FILE, "%s: key %s is missing", eng_model_file_path(f), k);
    if (!e) *out = (int32_t)v;
    return e;
}

enum err eng_arch_float(const struct eng_model_file *f, const char *arch, const char *key, double def, double *out)
{
    char k[128];
    snprintf(k, sizeof k, "%s.%s", arch, key);
    return eng_model_file_float(f, k, def, out);
}

enum err eng_arch_bool(const struct eng_model_file *f, const char *arch, const char *key, bool def, bool *out)
{
    char k[128];
    snprintf(k, sizeof k, "%s.%s", arch, key);
    return eng_model_file_bool(f, k, def, out);
}

static enum err check_vocab(struct eng_spec *s, const struct eng_model_file *f)
{
    const struct model_kv *tokens = eng_model_file_find(f, "tokenizer.ggml.tokens");
    const struct model_tensor *embd = eng_model_file_tensor_find(f, "token_embd.weight");
    if (!embd) return err_raise(ERR_BAD_FILE, "%s: tensor token_embd.weight is missing", eng_model_file_path(f));
    if (embd->dims[1] < 1 || embd->dims[1] > 1 << 24)
        return err_raise(ERR_BAD_FILE, "token_embd.weight has %lld rows", (long long)embd->dims[1]);
    s->n_vocab = (int32_t)embd->dims[1];
    if (tokens && tokens->kind == KV_ARRAY && (int64_t)tokens->a.n > embd->dims[1])
        return err_raise(ERR_BAD_FILE, "the vocabulary has %lld tokens but token_embd.weight only %d rows",
                         (long long)tokens->a.n, s->n_vocab);
    s->tied = !eng_model_file_tensor_find(f, "output.weight");
    return OK;
}

static enum err read_heads(struct eng_spec *s, const struct eng_model_file *f)
{
    enum err rc;
    int32_t value_len;
    const char *a = s->arch;
    TRY(eng_arch_int(f, a, "attention.head_count_kv", s->n_heads, 1, s->n_heads, &s->n_kv_heads));
    TRY(eng_arch_int(f, a, "attention.key_length", s->d_model / s->n_heads, 1, 1024, &s->head_dim));
    TRY(eng_arch_int(f, a, "attention.value_length", s->head_dim, 1, 1024, &value_len));
    if (value_len != s->head_dim)
        return err_raise(ERR_UNSUPPORTED, "key length %d and value length %d differ: not supported for %s", s->head_dim,
                         value_len, a);
    if (s->n_heads % s->n_kv_heads)
        return err_raise(ERR_BAD_FILE, "%d query heads are no multiple of %d KV heads", s->n_heads, s->n_kv_heads);
out:
    return rc;
}

static enum err read_sizes(struct eng_spec *s, const struct eng_model_file *f, const struct family *fam)
{
    enum err rc;
    double eps;
    int64_t longer;
    int32_t further;
    const char *a = s->arch;
    TRY(eng_arch_int(f, a, "block_count", 0, 1, LIMIT_LAYERS, &s->n_layers));
    TRY(eng_arch_int(f, a, "nextn_predict_layers", 0, 0, s->n_layers - 1, &further)); /* the last ones predict further tokens: not used */
    s->n_layers -= further;
    TRY(eng_arch_int(f, a, "embedding_length", 0, 1, 1 << 20, &s->d_model));
    TRY(eng_arch_int(f, a, "feed_forward_length", 0, 1, 1 << 22, &s->d_ffn));
    TRY(eng_arch_int(f, a, "attention.head_count", 0, 1, 4096, &s->n_heads));
    TRY(fam->mla ? eng_arch_mla(s, f) : read_heads(s, f));
    TRY(eng_arch_int(f, a, "context_length", 0, 1, LIMIT_CONTEXT * 16, &s->context));
    TRY(eng_model_file_int(f, "tessera.context_length", s->context, 1, LIMIT_CONTEXT * 16, &longer)); /* with a scaling that GGUF has no key for */
    s->context = (int32_t)longer;
    TRY(eng_arch_float(f, a, s->norm == ENG_NORM_RMS ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon", 1e-5, &eps));
    s->norm_eps = (float)eps;
    s->context = MIN(s->context, LIMIT_CONTEXT);
    TRY(check_vocab(s, f));
out:
    return rc;
}

/* Factors that stand in keys, or are a family's rule. */
static enum err read_scales(struct eng_spec *s, const struct eng_model_file *f, const struct family *fam)
{
    enum err rc;
    double embd, residual, logit, attn, cap, logit_cap;
    double head = fam->big_layers && s->n_layers == fam->big_layers ? (double)s->d_model / s->n_heads : s->head_dim;
    TRY(eng_arch_float(f, s->arch, "embedding_scale", fam->embd_sqrt ? __builtin_sqrt(s->d_model) : 1, &embd));
    TRY(eng_arch_float(f, s->arch, "residual_scale", 1, &residual));
    TRY(eng_arch_float(f, s->arch, "logit_scale", 1, &logit));
    TRY(eng_arch_float(f, s->arch, "attention.scale", 0, &attn));
    TRY(eng_arch_float(f, s->arch, "attn_logit_softcapping", 0, &cap));
    TRY(eng_arch_float(f, s->arch, "final_logit_softcapping", 0, &logit_cap));
    s->embd_scale = (float)embd;
    s->residual_scale = (float)residual;
    s->logit_scale = fam->logit_divides ? 1.0f / (float)logit : (float)logit;
    s->attn_scale = attn > 0 ? (float)attn : 1.0f / __builtin_sqrtf((float)head);
    s->attn_cap = (float)cap;
    s->logit_cap = (float)logit_cap;
    if (!(embd > 0) || !(residual > 0) || !(logit > 0) || !(cap >= 0) || !(logit_cap >= 0))
        rc = err_raise(ERR_BAD_FILE, "%s: scales of embedding %g, residual %g, logits %g, caps %g, %g make no sense", eng_model_file_path(f), embd,
                       residual, logit, cap, logit_cap);
out:
    return rc;
}

/* Switches that a family has always, or that the presence of a tensor tells. */
static enum err read_switches(struct eng_spec *s, const struct eng_model_file *f, const struct family *fam)
{
    enum err rc;
    const struct model_tensor *q_norm = eng_model_file_tensor_find(f, "blk.0.attn_q_norm.weight");
    s->norm = fam->norm;
    s->pre_norm = !fam->no_pre_norm;
    s->post_norm = fam->post_norm;
    s->gated = !fam->no_gate;
    s->act = fam->act;
    s->qk_norm = fam->qk_norm;
    if (!s->qk_norm && q_norm) s->qk_norm = q_norm->dims[1] > 1 ? ENG_QK_HEADS : ENG_QK_HEAD;
    s->sinks = fam->sinks;
    s->window = fam->window;
    s->chunked = fam->chunked;
    s->rope_base_local = fam->rope_base_local;
    s->experts.renorm = fam->renorm;
    s->experts.gating = fam->gating ? fam->gating : ENG_GATING_SOFTMAX;
    s->experts.weigh_input = fam->weigh_input;
    TRY(eng_arch_bool(f, s->arch, "use_parallel_residual", fam->parallel, &s->parallel));
    TRY(eng_model_file_bool(f, "tessera.norm.plus_one", false, &s->norm_plus_one));
    TRY(eng_model_file_bool(f, "tessera.rope.interleaved", fam->rope_interleaved, &s->rope_interleaved));
    TRY(eng_model_file_bool(f, "tessera.qkv_grouped", false, &s->qkv_grouped));
out:
    return rc;
}

/* Llama 4: norms of q and k are said by a key or, in files without it, by the size: the one with 128 experts has none. */
static enum err read_chunked(struct eng_spec *s, const struct eng_model_file *f, const struct family *fam)
{
    enum err rc;
    bool norms;
    double scale;
    TRY(eng_arch_bool(f, s->arch, "use_qk_norm", s->experts.n != 128, &norms));
    s->qk_norm = norms ? ENG_QK_BARE : ENG_QK_NONE;
    TRY(eng_arch_int(f, s->arch, "attention.temperature_length", fam->temper_length, 0, 1 << 30, &s->temper_length));
    TRY(eng_arch_float(f, s->arch, "attention.temperature_scale", fam->temper_scale, &scale));
    s->temper_scale = (float)scale;
    if (s->temper_length && (s->head_dim % 2 || !(scale >= 0)))
        rc = err_raise(ERR_BAD_FILE, "%s: a temperature of scale %g over heads of %d values makes no sense", eng_model_file_path(f), scale, s->head_dim);
out:
    return rc;
}

static const struct family *family_of(const char *arch)
{
    for (size_t i = 0; i < COUNT_OF(families); i++)
        if (!strcmp(families[i].arch, arch)) return &families[i];
    return NULL;
}

static enum err read_family(struct eng_spec *s, const struct eng_model_file *f, const struct family *fam)
{
    enum err rc;
    TRY(read_switches(s, f, fam));
    TRY(read_sizes(s, f, fam));
    TRY(read_scales(s, f, fam));
    TRY(eng_arch_rope(s, f));
    if (fam->mla) TRY(eng_arch_mla_scale(s, f));
    TRY(eng_arch_windows(s, f, fam->period, fam->first_global));
    TRY(eng_arch_no_rope(s, f, fam->no_rope_global && (s->window || !fam->rope_alone), fam->no_rope_period));
    if (fam->local_unscaled && s->window && s->rope_base_local == 0) s->rope_base_local = s->rope_base;
    TRY(eng_arch_experts(s, f));
    if (s->chunked) TRY(read_chunked(s, f, fam));
out:
    return rc;
}

static enum err refuse_unknown(const char *arch)
{
    struct buf known = {0};
    for (size_t i = 0; i < COUNT_OF(families); i++) buf_printf(&known, "%s%s", i ? ", " : "", families[i].arch);
    enum err e = err_raise(ERR_UNSUPPORTED, "architecture '%s' is not supported; known: %s", arch, buf_str(&known));
    buf_free(&known);
    return e;
}

enum err eng_spec_read(struct eng_spec *out, const struct eng_model_file *f)
{
    enum err rc;
    struct eng_spec s = {0};
    const struct family *fam = NULL;
    char *arch = NULL, *name = NULL, *why = NULL;
    if (eng_adapter_is(f))
        return err_raise(ERR_UNSUPPORTED, "%s is a LoRA adapter, not a model: serve the model that it was trained on, with --lora NAME=%s",
                         eng_model_file_path(f), eng_model_file_path(f));
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
    fam = family_of(arch);
    if (!fam) {
        rc = refuse_unknown(arch);
        goto out;
    }
    TRY(eng_model_file_string(f, "general.name", &name));
    snprintf(s.arch, sizeof s.arch, "%s", arch);
    snprintf(s.name, sizeof s.name, "%s", name ? name : arch);
    TRY(read_family(&s, f, fam));
    *out = s;
out:
    free(why);
    free(arch);
    free(name);
    return rc;
}

int32_t eng_spec_cut_ffn(const struct eng_spec *s)
{
    int32_t least = INT32_MAX;
    bool dense = !s->experts.n;
    for (int32_t l = 0; l < s->n_layers; l++) dense |= !s->moe[l];
    if (dense) least = s->d_ffn;
    if (s->experts.n) least = MIN(least, s->experts.d_ffn);
    if (s->experts.d_shared) least = MIN(least, s->experts.d_shared);
    return least;
}

struct kv_groups eng_spec_groups(const struct eng_spec *s, int32_t context)
{
    return kv_groups_of_layers(s->local, s->n_layers, s->window, context);
}

void eng_spec_info(const struct eng_spec *s, const struct eng_model_file *f, struct model_info *out)
{
    *out = (struct model_info){
        .n_layers = s->n_layers, .d_model = s->d_model, .n_heads = s->n_heads, .n_kv_heads = s->n_kv_heads,
        .head_dim = s->head_dim, .d_ffn = eng_spec_cut_ffn(s), .n_vocab = s->n_vocab, .context = s->context,
        .d_dense = MAX(s->d_ffn, eng_spec_cut_ffn(s)), .n_experts = s->experts.n, .n_used = s->experts.used, .d_expert = s->experts.n ? s->experts.d_ffn : 0,
        .d_shared = s->experts.d_shared,
        .latent = {.rank = s->mla.kv_rank, .q_rank = s->mla.q_rank, .key = s->mla.key, .rope = s->mla.rope},
    };
    plain(out->name, sizeof out->name, s->name, strlen(s->name));
    snprintf(out->arch, sizeof out->arch, "%s", s->arch);
    out->pooling = eng_pooling_of(f, s->arch);
    out->window = s->window;
    for (int32_t l = 0; l < s->n_layers; l++) out->windowed[l] = s->window && s->local[l];
    out->kv = (struct kv_layer){.kind = KV_FULL, .n_kv_heads = s->n_kv_heads, .head_dim = s->head_dim};
    if (s->mla.kv_rank) out->kv.kind = KV_LATENT, out->kv.head_dim = eng_latent_cached(&s->mla);
    int64_t bytes_of[DTYPE_COUNT] = {0};
    for (int64_t i = 0; i < eng_model_file_n_tensors(f); i++) {
        const struct model_tensor *t = eng_model_file_tensor(f, i);
        if (t->part_of) continue;
        out->n_params += t->dims[0] * t->dims[1] * t->dims[2] * t->dims[3];
        out->weight_bytes += t->bytes;
        if (t->type < DTYPE_COUNT && t->dims[1] > 1) bytes_of[t->type] += t->bytes;
    }
    int32_t most = 0;
    for (int32_t t = 1; t < DTYPE_COUNT; t++)
        if (bytes_of[t] > bytes_of[most]) most = t;
    snprintf(out->type, sizeof out->type, "%s", dtype_name((enum dtype)most));
}
