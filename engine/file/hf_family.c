/* hf_family.c: config.json of each family as GGUF's keys.
 *
 * A switch of config.json that changes the mathematics and that this build does not have refuses
 * the checkpoint by name; switches that only concern training are not looked at. */
#include "engine/file/hf_config.h"
#include "engine/file/hf_json.h"
#include "proto/limits.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct sizes { int32_t layers, width, ffn, heads, kv_heads, context; };

/* What config.json calls things, and what it leaves unsaid. */
static const struct family {
    const char *class, *model_type, *arch;
    int32_t head_dim;          /* when unsaid; 0: the width over the heads */
    double rotary;             /* part of a head that is rotated, when unsaid; 0: 1 */
    const char *act;           /* the one we have; NULL: silu */
    const char *eps;           /* its key; NULL: rms_norm_eps */
    bool interleaved;          /* pairs of rope stand side by side */
    bool biases;               /* attention_bias is no other mathematics here: the tensors tell */
    bool window_on;            /* a window counts without use_sliding_window */
    int32_t pattern;           /* one layer of so many sees everything, when unsaid; 0: the family's rule */
    struct sizes unsaid;       /* when unsaid; 0: they must be said, kv_heads: as many as heads */
    struct sizes within;       /* the same of a text_config, where more may be left unsaid */
} families[] = {
    {"LlamaForCausalLM", "llama", "llama", .biases = true, .window_on = true, .within = {32, 4096, 11008, 32, 0, 2048}},
    {"MistralForCausalLM", "mistral", "llama", .window_on = true, .within = {32, 4096, 14336, 32, 8, 131072}},
    {"MixtralForCausalLM", "mixtral", "llama", .window_on = true},
    {"Qwen2ForCausalLM", "qwen2", "qwen2", .biases = true},
    {"Qwen3ForCausalLM", "qwen3", "qwen3", .head_dim = 128},
    {"Qwen2MoeForCausalLM", "qwen2_moe", "qwen2moe", .biases = true},
    {"Qwen3MoeForCausalLM", "qwen3_moe", "qwen3moe"},
    {"OlmoeForCausalLM", "olmoe", "olmoe"},
    {"Olmo2ForCausalLM", "olmo2", "olmo2"},
    {"Olmo3ForCausalLM", "olmo3", "olmo2", .window_on = true, .pattern = 4},
    {"Exaone4ForCausalLM", "exaone4", "exaone4", .window_on = true, .pattern = 4},
    {"SmolLM3ForCausalLM", "smollm3", "smollm3", .biases = true},
    {"SeedOssForCausalLM", "seed_oss", "seed_oss", .head_dim = 128, .biases = true},
    {"Ernie4_5ForCausalLM", "ernie4_5", "ernie4_5", .head_dim = 128, .interleaved = true},
    {"Glm4MoeForCausalLM", "glm4_moe", "glm4moe", .rotary = 0.5, .biases = true},
    {"Dots1ForCausalLM", "dots1", "dots1", .window_on = true},
    {"MiniMaxM2ForCausalLM", "minimax_m2", "minimax-m2", .head_dim = 128},
    {"GemmaForCausalLM", "gemma", "gemma", .head_dim = 256, .act = "gelu_pytorch_tanh"},
    {"Gemma2ForCausalLM", "gemma2", "gemma2", .head_dim = 256, .act = "gelu_pytorch_tanh", .window_on = true},
    {"Gemma3ForCausalLM", "gemma3_text", "gemma3", .head_dim = 256, .act = "gelu_pytorch_tanh", .window_on = true, .pattern = 6,
     .unsaid = {.heads = 8, .kv_heads = 4, .context = 131072}},
    {"PhiForCausalLM", "phi", "phi2", .rotary = 0.5, .act = "gelu_new", .eps = "layer_norm_eps"},
    {"Phi3ForCausalLM", "phi3", "phi3", .window_on = true},
    {"FalconForCausalLM", "falcon", "falcon", .act = "gelu", .eps = "layer_norm_epsilon"},
    {"StableLmForCausalLM", "stablelm", "stablelm", .rotary = 0.25, .eps = "layer_norm_eps"},
    {"GraniteForCausalLM", "granite", "granite"},
    {"GlmForCausalLM", "glm", "chatglm", .head_dim = 128, .rotary = 0.5, .interleaved = true, .biases = true},
    {"Glm4ForCausalLM", "glm4", "glm4", .head_dim = 128, .rotary = 0.5, .interleaved = true, .biases = true},
    {"CohereForCausalLM", "cohere", "command-r", .eps = "layer_norm_eps", .interleaved = true},
    {"DeepseekV2ForCausalLM", "deepseek_v2", "deepseek2", .interleaved = true},
    {"DeepseekV3ForCausalLM", "deepseek_v3", "deepseek2", .interleaved = true},
    {"GptOssForCausalLM", "gpt_oss", "gpt-oss", .head_dim = 64, .biases = true, .window_on = true, .pattern = 2},
    {"Cohere2ForCausalLM", "cohere2", "cohere2", .eps = "layer_norm_eps", .interleaved = true, .window_on = true, .pattern = 4},
    {"Llama4ForCausalLM", "llama4_text", "llama4", .head_dim = 128, .interleaved = true,
     .unsaid = {.heads = 40, .kv_heads = 8, .context = 131072}},
};

/* Classes whose language model is one of these families; what they see with is left out. */
static const char *const seeing[] = {"Gemma3ForConditionalGeneration", "Mistral3ForConditionalGeneration", "LlavaForConditionalGeneration", "LlavaNextForConditionalGeneration",
                                     "Llama4ForConditionalGeneration"};

struct eng_hf_obj eng_hf_family_text(struct eng_hf_obj c, struct eng_hf_model *m)
{
    const char *class = json_string_value(json_array_get(json_object_get(c.json, "architectures"), 0));
    const json_t *text = json_object_get(c.json, "text_config");
    for (size_t i = 0; i < COUNT_OF(seeing) && class && json_is_object(text); i++) m->within |= !strcmp(class, seeing[i]);
    return m->within ? (struct eng_hf_obj){text, c.what} : c;
}

static const struct family *family_of(const char *class, const char *type)
{
    for (size_t i = 0; i < COUNT_OF(families); i++)
        if (class ? !strcmp(class, families[i].class) : type && !strcmp(type, families[i].model_type)) return &families[i];
    return NULL;
}

static const char *known(void)
{
    static char list[2048];
    size_t n = 0;
    for (size_t i = 0; i < COUNT_OF(families); i++)
        n += (size_t)snprintf(list + n, sizeof list - n, "%s%s", i ? ", " : "", families[i].class);
    for (size_t i = 0; i < COUNT_OF(seeing); i++) n += (size_t)snprintf(list + n, sizeof list - n, ", %s (its text)", seeing[i]);
    return list;
}

void eng_hf_family_pick(const struct eng_hf_obj *c, struct eng_hf_model *m, struct eng_hf_keys *k)
{
    const char *class = json_string_value(json_array_get(json_object_get(c->json, "architectures"), 0));
    const char *type = json_string_value(json_object_get(c->json, "model_type"));
    const struct family *fam = family_of(class, type);
    if (fam) {
        snprintf(m->arch, sizeof m->arch, "%s", fam->arch);
        m->known = true;
        return;
    }
    const char *name = class ? class : type ? type : "(none named)";
    snprintf(m->arch, sizeof m->arch, "%s", eng_show(name, strlen(name)).s);
    eng_hf_refuse(k, "architecture %s is not supported; of Hugging Face's classes these are: %s", m->arch, known());
}

/* ---- one key ---- */

/* A config while it is read. */
struct reading {
    struct eng_hf_obj c;
    struct eng_hf_keys *k;
    const struct family *fam;
    const char *arch;
    const struct sizes *unsaid;
};

static bool is(const struct reading *r, const char *arch) { return !strcmp(r->arch, arch); }

static enum err copy_int(const struct reading *r, const char *from, const char *to, int64_t def, int64_t *out)
{
    int64_t v;
    enum err rc = eng_hf_int(r->c, from, def, 1, 1 << 30, &v);
    if (rc) return rc;
    if (v < 1) return err_raise(ERR_BAD_FILE, "%s: key '%s' is missing", r->c.what, from);
    eng_hf_key_int(r->k, r->arch, to, v);
    if (out) *out = v;
    return OK;
}

/* Nothing when it is not said. */
static enum err maybe_int(const struct reading *r, const char *from, const char *to)
{
    int64_t v;
    enum err rc = eng_hf_int(r->c, from, 0, 0, 1 << 30, &v);
    if (!rc && v) eng_hf_key_int(r->k, r->arch, to, v);
    return rc;
}


static enum err maybe_real(const struct reading *r, const char *from, const char *to)
{
    double v;
    enum err rc = eng_hf_real(r->c, from, 0, &v);
    if (!rc && v != 0) eng_hf_key_real(r->k, r->arch, to, v);
    return rc;
}

/* A switch that must have this value here. */
static enum err needs(const struct reading *r, const char *key, bool value)
{
    bool v;
    enum err rc = eng_hf_bool(r->c, key, value, &v);
    if (!rc && v != value) eng_hf_refuse(r->k, "%s: %s %s is not supported for this architecture", r->c.what, key, v ? "true" : "false");
    return rc;
}

/* ---- sizes ---- */

static enum err read_context(const struct reading *r)
{
    int64_t context;
    enum err rc;
    TRY(eng_hf_int(r->c, "max_position_embeddings", r->unsaid->context, 1, 1 << 30, &context));
    if (!context) {
        rc = err_raise(ERR_BAD_FILE, "%s: key 'max_position_embeddings' is missing", r->c.what);
        goto out;
    }
    TRY(eng_hf_rope_read(&r->c, r->arch, r->k, &context));
    eng_hf_key_int(r->k, r->arch, "context_length", context);
out:
    return rc;
}

static enum err read_rotary(const struct reading *r, int64_t head_dim)
{
    enum err rc;
    double rotated, partial = r->fam->rotary > 0 ? r->fam->rotary : 1;
    const json_t *rope = json_object_get(r->c.json, "rope_parameters");
    TRY(eng_hf_real((struct eng_hf_obj){rope, r->c.what}, "partial_rotary_factor", partial, &partial));
    TRY(eng_hf_real(r->c, "partial_rotary_factor", partial, &partial));
    rotated = partial * (double)head_dim;
    if (is(r, "minimax-m2")) TRY(eng_hf_real(r->c, "rotary_dim", rotated, &rotated));
    partial = rotated / (double)head_dim;
    if (!(partial > 0 && partial <= 1))
        rc = err_raise(ERR_BAD_FILE, "%s: key 'partial_rotary_factor' is %g, it must be above 0 and at most 1", r->c.what, partial);
    else
        eng_hf_key_int(r->k, r->arch, "rope.dimension_count", (int64_t)((double)head_dim * partial));
out:
    return rc;
}

static enum err read_kv_heads(const struct reading *r, int64_t heads)
{
    bool grouped, one;
    enum err rc;
    if (!is(r, "falcon")) return copy_int(r, "num_key_value_heads", "attention.head_count_kv", r->unsaid->kv_heads ? r->unsaid->kv_heads : heads, NULL);
    TRY(eng_hf_bool(r->c, "new_decoder_architecture", false, &grouped));
    TRY(eng_hf_bool(r->c, "multi_query", true, &one));
    if (grouped) TRY(copy_int(r, "num_kv_heads", "attention.head_count_kv", heads, NULL));
    else eng_hf_key_int(r->k, r->arch, "attention.head_count_kv", one ? 1 : heads);
    eng_hf_key_bool(r->k, NULL, "tessera.qkv_grouped", grouped || !one);
out:
    return rc;
}

static enum err read_heads(const struct reading *r, int64_t heads, int64_t width)
{
    enum err rc;
    int64_t head_dim;
    TRY(read_kv_heads(r, heads));
    TRY(copy_int(r, "head_dim", "attention.key_length", r->fam->head_dim ? r->fam->head_dim : width / heads, &head_dim));
    eng_hf_key_int(r->k, r->arch, "attention.value_length", head_dim);
    TRY(read_rotary(r, head_dim));
out:
    return rc;
}

static enum err read_sizes(const struct reading *r, struct eng_hf_model *m)
{
    enum err rc;
    int64_t heads, width;
    double eps;
    bool layer_norm = r->fam->eps != NULL;
    TRY(copy_int(r, "num_hidden_layers", "block_count", r->unsaid->layers, &m->n_layers));
    TRY(copy_int(r, "hidden_size", "embedding_length", r->unsaid->width, &width));
    const char *ffn = is(r, "falcon") ? "ffn_hidden_size" : is(r, "llama4") ? "intermediate_size_mlp" : "intermediate_size";
    TRY(copy_int(r, ffn, "feed_forward_length", is(r, "falcon") ? 4 * width : r->unsaid->ffn, NULL));
    TRY(copy_int(r, "num_attention_heads", "attention.head_count", r->unsaid->heads, &heads));
    TRY(is(r, "deepseek2") ? eng_hf_latent_heads(&r->c, r->arch, r->k, heads) : read_heads(r, heads, width));
    TRY(eng_hf_real(r->c, layer_norm ? r->fam->eps : "rms_norm_eps", layer_norm || is(r, "llama4") ? 1e-5 : 1e-6, &eps));
    eng_hf_key_real(r->k, r->arch, layer_norm ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon", eps);
    TRY(read_context(r));
    TRY(eng_hf_int(r->c, "vocab_size", -1, 1, 1 << 24, &m->n_vocab));
out:
    return rc;
}

/* ---- windows ---- */

/* Newer files list the layers; Qwen's older ones say from which on. */
static enum err list_layers(const struct reading *r, bool local[LIMIT_LAYERS], int64_t *n, bool *listed)
{
    const json_t *types = json_object_get(r->c.json, "layer_types");
    int64_t first;
    enum err rc = eng_hf_int(r->c, "num_hidden_layers", 0, 1, LIMIT_LAYERS, n);
    if (rc) return rc;
    *listed = json_is_array(types) && json_array_size(types) >= (size_t)*n;
    for (int64_t i = 0; i < *n && *listed; i++) {
        const char *type = json_string_value(json_array_get(types, (size_t)i));
        local[i] = type && !strcmp(type, "sliding_attention");
        if (!type || (!local[i] && strcmp(type, "full_attention")))
            eng_hf_refuse(r->k, "%s: layer type '%s' is not supported", r->c.what, type ? eng_show(type, strlen(type)).s : "?");
    }
    if (*listed || (strncmp(r->arch, "qwen", 4) && !is(r, "dots1"))) return OK;
    rc = eng_hf_int(r->c, "max_window_layers", is(r, "dots1") ? 62 : 0, 0, 1 << 30, &first);
    for (int64_t i = 0; i < *n; i++) local[i] = i >= first;
    *listed = true;
    return rc;
}

static enum err read_window(const struct reading *r)
{
    enum err rc;
    int64_t window, n;
    bool used, listed, any = false, local[LIMIT_LAYERS];
    TRY(eng_hf_int(r->c, "sliding_window", 0, 0, 1 << 30, &window));
    TRY(eng_hf_bool(r->c, "use_sliding_window", r->fam->window_on, &used));
    if (!window && is(r, "phi3")) eng_hf_key_int(r->k, r->arch, "attention.sliding_window", 0); /* older llama.cpp wants it said */
    if (!window || !used) goto out;
    TRY(list_layers(r, local, &n, &listed));
    for (int64_t i = 0; i < n && listed; i++) any |= local[i];
    if (listed && !any) goto out;
    eng_hf_key_int(r->k, r->arch, "attention.sliding_window", window);
    if (!listed && r->fam->pattern) {
        int64_t period;
        TRY(eng_hf_int(r->c, "sliding_window_pattern", r->fam->pattern, 1, LIMIT_LAYERS, &period));
        eng_hf_key_int(r->k, r->arch, "attention.sliding_window_pattern", period);
    }
    if (listed) eng_hf_key_bools(r->k, r->arch, "attention.sliding_window_pattern", local, (uint64_t)n);
out:
    return rc;
}

/* ---- experts, scales ---- */

static enum err read_experts(const struct reading *r)
{
    enum err rc;
    bool renorm;
    if (is(r, "deepseek2") || is(r, "glm4moe") || is(r, "dots1")) return eng_hf_latent_experts(&r->c, r->arch, r->k, r->fam->class);
    TRY(maybe_int(r, "num_local_experts", "expert_count"));
    TRY(maybe_int(r, "num_experts", "expert_count"));
    TRY(maybe_int(r, "num_experts_per_tok", "expert_used_count"));
    bool only = is(r, "llama4") || is(r, "gpt-oss") || is(r, "minimax-m2"); /* no other width: other programs want it said of experts too */
    TRY(maybe_int(r, only ? "intermediate_size" : "moe_intermediate_size", "expert_feed_forward_length"));
    if (is(r, "qwen2moe")) TRY(maybe_int(r, "shared_expert_intermediate_size", "expert_shared_feed_forward_length"));
    if (is(r, "minimax-m2")) eng_hf_key_int(r->k, r->arch, "expert_gating_func", 2); /* sigmoids, which other programs want said */
    TRY(eng_hf_bool(r->c, "norm_topk_prob", is(r, "llama") || is(r, "minimax-m2"), &renorm));
    eng_hf_key_bool(r->k, r->arch, "expert_weights_norm", renorm);
out:
    return rc;
}

/* Factors of Granite, Cohere and Gemma. */
static enum err read_scales(const struct reading *r)
{
    enum err rc;
    double head;
    TRY(maybe_real(r, "embedding_multiplier", "embedding_scale"));
    TRY(maybe_real(r, "residual_multiplier", "residual_scale"));
    TRY(maybe_real(r, "attention_multiplier", "attention.scale"));
    TRY(maybe_real(r, "logits_scaling", "logit_scale"));
    TRY(maybe_real(r, "logit_scale", "logit_scale"));
    TRY(maybe_real(r, "attn_logit_softcapping", "attn_logit_softcapping"));
    TRY(maybe_real(r, "final_logit_softcapping", "final_logit_softcapping"));
    TRY(eng_hf_real(r->c, "query_pre_attn_scalar", 0, &head));
    if (head > 0) eng_hf_key_real(r->k, r->arch, "attention.scale", 1 / sqrt(head));
out:
    return rc;
}

/* SmolLM3: which layers have no rope. */
static enum err read_no_rope(const struct reading *r)
{
    enum err rc;
    const json_t *list = json_object_get(r->c.json, "no_rope_layers");
    int64_t n, every;
    bool rope[LIMIT_LAYERS];
    TRY(eng_hf_int(r->c, "num_hidden_layers", 0, 1, LIMIT_LAYERS, &n));
    TRY(eng_hf_int(r->c, "no_rope_layer_interval", 4, 1, LIMIT_LAYERS, &every));
    if (json_array_size(list) && json_array_size(list) < (size_t)n)
        return err_raise(ERR_BAD_FILE, "%s: key 'no_rope_layers' must be a list of %" PRId64, r->c.what, n);
    for (int64_t i = 0; i < n; i++) rope[i] = json_array_size(list) ? json_integer_value(json_array_get(list, (size_t)i)) != 0 : (i + 1) % every != 0;
    eng_hf_key_bools(r->k, NULL, "tessera.rope.layers", rope, (uint64_t)n);
    TRY(needs(r, "use_sliding_window", false));
out:
    return rc;
}

/* Switches of single families. */
static enum err read_odd(const struct reading *r)
{
    enum err rc = OK;
    bool parallel, both;
    double clip;
    if (!strncmp(r->arch, "gemma", 5)) {
        eng_hf_key_bool(r->k, NULL, "tessera.norm.plus_one", true);
        TRY(needs(r, "use_bidirectional_attention", false));
    }
    if (is(r, "falcon")) {
        TRY(needs(r, "alibi", false));
        TRY(needs(r, "bias", false));
        TRY(eng_hf_bool(r->c, "new_decoder_architecture", false, &both));
        if (!both) TRY(needs(r, "parallel_attn", true));
    }
    if (is(r, "gpt-oss")) {
        TRY(eng_hf_real(r->c, "swiglu_limit", 7, &clip));
        if (clip != 7) eng_hf_refuse(r->k, "%s: swiglu_limit %g is not supported (known: 7)", r->c.what, clip);
        TRY(eng_hf_real(r->c, "swiglu_alpha", 1.702, &clip));
        if (clip != 1.702) eng_hf_refuse(r->k, "%s: swiglu_alpha %g is not supported (known: 1.702)", r->c.what, clip);
    }
    if (is(r, "llama4")) TRY(eng_hf_llama4_read(&r->c, r->arch, r->k));
    if (is(r, "smollm3")) TRY(read_no_rope(r));
    if (is(r, "ernie4_5")) TRY(needs(r, "use_bias", false));
    if (is(r, "stablelm") || is(r, "phi2")) TRY(needs(r, "qk_layernorm", false));
    if (is(r, "stablelm")) {
        TRY(eng_hf_bool(r->c, "use_parallel_residual", false, &parallel));
        eng_hf_key_bool(r->k, r->arch, "use_parallel_residual", parallel);
    }
    TRY(eng_hf_real(r->c, "clip_qkv", 0, &clip));
    if (clip != 0) eng_hf_refuse(r->k, "%s: clip_qkv is not supported", r->c.what);
out:
    return rc;
}

/* ---- switches ---- */

static enum err read_act(const struct reading *r)
{
    enum err rc;
    const char *act, *want = r->fam->act ? r->fam->act : "silu";
    TRY(eng_hf_text(r->c, is(r, "falcon") ? "activation" : "hidden_act", want, &act));
    TRY(eng_hf_text(r->c, "hidden_activation", act, &act));
    if (strcmp(act, want) && !(!strcmp(want, "silu") && !strcmp(act, "swish")) && !(!strcmp(want, "gelu_pytorch_tanh") && !strcmp(act, "gelu")))
        eng_hf_refuse(r->k, "%s: hidden_act '%s' is not supported (known: %s)", r->c.what, eng_show(act, strlen(act)).s, want);
out:
    return rc;
}

static enum err read_switches(const struct reading *r, struct eng_hf_model *m)
{
    enum err rc;
    bool tied, mlp_bias, interleaved = r->fam->interleaved;
    TRY(eng_hf_bool(r->c, "tie_word_embeddings", false, &tied));
    const json_t *said = json_object_get(r->c.json, "tie_word_embeddings");
    m->tied = !said || json_is_null(said) ? TIE_UNSAID : tied ? TIE_YES : TIE_NO;
    if (!r->fam->biases) TRY(needs(r, "attention_bias", false));
    TRY(eng_hf_bool(r->c, "mlp_bias", false, &mlp_bias));
    if (mlp_bias && !is(r, "llama")) eng_hf_refuse(r->k, "%s: mlp_bias true is not supported", r->c.what);
    TRY(read_act(r));
    TRY(read_window(r));
    TRY(read_experts(r));
    TRY(read_scales(r));
    TRY(read_odd(r));
    if (is(r, "deepseek2")) TRY(eng_hf_bool(r->c, "rope_interleave", true, &interleaved));
    eng_hf_key_bool(r->k, NULL, "tessera.rope.interleaved", interleaved);
out:
    return rc;
}

enum err eng_hf_family_read(const struct eng_hf_obj *c, struct eng_hf_keys *k, struct eng_hf_model *m)
{
    enum err rc;
    const char *class = json_string_value(json_array_get(json_object_get(c->json, "architectures"), 0));
    const char *type = json_string_value(json_object_get(c->json, "model_type"));
    const struct family *fam = family_of(class, type);
    struct reading r = {*c, k, fam, m->arch, m->within && fam->within.layers ? &fam->within : &fam->unsaid};
    TRY(read_sizes(&r, m));
    TRY(read_switches(&r, m));
out:
    return rc;
}
