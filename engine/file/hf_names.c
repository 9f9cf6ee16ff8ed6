/* hf_names.c: a checkpoint's names of tensors as GGUF's. The names of experts become those of older GGUF files, one tensor an expert
 * ("ffn_gate.7.weight"). */
#include "engine/file/hf_config.h"

#include "base/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* archs: of which families, NULL: of all. bias: which of them have one beside the weight, "" none. The first row that fits is taken. */
struct name {
    const char *hf, *gguf, *archs, *bias;
};

static const struct name of_layer[] = {
    {"input_layernorm.", "attn_norm.", NULL, " phi2 falcon stablelm "},
    {"self_attn.q_proj.", "attn_q.", NULL, " gpt-oss llama qwen2 qwen2moe phi2 stablelm chatglm glm4 glm4moe seed_oss smollm3 "},
    {"self_attn.k_proj.", "attn_k.", NULL, " gpt-oss llama qwen2 qwen2moe phi2 stablelm chatglm glm4 glm4moe seed_oss smollm3 "},
    {"self_attn.v_proj.", "attn_v.", NULL, " gpt-oss llama qwen2 qwen2moe phi2 stablelm chatglm glm4 glm4moe seed_oss smollm3 "},
    {"self_attn.o_proj.", "attn_output.", NULL, " gpt-oss llama seed_oss smollm3 "},
    {"self_attn.q_norm.", "attn_q_norm.", " qwen3 qwen3moe gemma3 olmo2 olmoe command-r glm4moe dots1 minimax-m2 exaone4 ", ""},
    {"self_attn.k_norm.", "attn_k_norm.", " qwen3 qwen3moe gemma3 olmo2 olmoe command-r glm4moe dots1 minimax-m2 exaone4 ", ""},
    {"self_attn.qkv_proj.", "attn_qkv.", " phi3 ", ""},
    {"self_attn.dense.", "attn_output.", " phi2 ", " phi2 "},
    {"post_attention_layernorm.", "post_attention_norm.", " gemma2 gemma3 olmo2 exaone4 glm4moe seed_oss gpt-oss ", ""},
    {"post_attention_layernorm.", "ffn_norm.", NULL, " stablelm "},
    {"pre_feedforward_layernorm.", "ffn_norm.", " gemma2 gemma3 ", ""},
    {"post_feedforward_layernorm.", "post_ffw_norm.", " gemma2 gemma3 olmo2 exaone4 ", ""},
    {"post_self_attn_layernorm.", "post_attention_norm.", " glm4 ", ""},
    {"post_mlp_layernorm.", "post_ffw_norm.", " glm4 ", ""},
    {"mlp.gate_up_proj.", "ffn_up.", " phi3 chatglm glm4 ", ""},
    {"mlp.gate_proj.", "ffn_gate.", NULL, " llama "},
    {"mlp.up_proj.", "ffn_up.", NULL, " llama "},
    {"mlp.down_proj.", "ffn_down.", NULL, " llama "},
    {"mlp.fc1.", "ffn_up.", " phi2 ", " phi2 "},
    {"mlp.fc2.", "ffn_down.", " phi2 ", " phi2 "},
    {"block_sparse_moe.gate.", "ffn_gate_inp.", " llama minimax-m2 ", ""},
    {"mlp.gate.", "ffn_gate_inp.", " qwen2moe qwen3moe olmoe deepseek2 glm4moe dots1 ", ""},
    {"mlp.router.", "ffn_gate_inp.", " gpt-oss ", " gpt-oss "},
    {"mlp.experts.gate.", "ffn_gate_exps.", " gpt-oss ", " gpt-oss "},
    {"mlp.experts.up.", "ffn_up_exps.", " gpt-oss ", " gpt-oss "},
    {"mlp.experts.down.", "ffn_down_exps.", " gpt-oss ", " gpt-oss "},
    {"mlp.shared_expert.gate_proj.", "ffn_gate_shexp.", " qwen2moe ", ""},
    {"mlp.shared_expert.up_proj.", "ffn_up_shexp.", " qwen2moe ", ""},
    {"mlp.shared_expert.down_proj.", "ffn_down_shexp.", " qwen2moe ", ""},
    {"mlp.shared_expert_gate.", "ffn_gate_inp_shexp.", " qwen2moe ", ""},
    {"feed_forward.gate_proj.", "ffn_gate.", " llama4 ", ""},
    {"feed_forward.up_proj.", "ffn_up.", " llama4 ", ""},
    {"feed_forward.down_proj.", "ffn_down.", " llama4 ", ""},
    {"feed_forward.router.", "ffn_gate_inp.", " llama4 ", ""},
    {"feed_forward.experts.gate.", "ffn_gate_exps.", " llama4 ", ""},
    {"feed_forward.experts.up.", "ffn_up_exps.", " llama4 ", ""},
    {"feed_forward.experts.down.", "ffn_down_exps.", " llama4 ", ""},
    {"feed_forward.shared_expert.gate_proj.", "ffn_gate_shexp.", " llama4 ", ""},
    {"feed_forward.shared_expert.up_proj.", "ffn_up_shexp.", " llama4 ", ""},
    {"feed_forward.shared_expert.down_proj.", "ffn_down_shexp.", " llama4 ", ""},
    {"self_attn.q_a_proj.", "attn_q_a.", " deepseek2 ", ""},
    {"self_attn.q_a_layernorm.", "attn_q_a_norm.", " deepseek2 ", ""},
    {"self_attn.q_b_proj.", "attn_q_b.", " deepseek2 ", ""},
    {"self_attn.kv_a_proj_with_mqa.", "attn_kv_a_mqa.", " deepseek2 ", ""},
    {"self_attn.kv_a_layernorm.", "attn_kv_a_norm.", " deepseek2 ", ""},
    {"self_attn.kv_b_proj.", "attn_kv_b.", " deepseek2 ", ""},
    {"mlp.shared_experts.gate_proj.", "ffn_gate_shexp.", " deepseek2 glm4moe dots1 ", ""},
    {"mlp.shared_experts.up_proj.", "ffn_up_shexp.", " deepseek2 glm4moe dots1 ", ""},
    {"mlp.shared_experts.down_proj.", "ffn_down_shexp.", " deepseek2 glm4moe dots1 ", ""},
    {"self_attention.query_key_value.", "attn_qkv.", " falcon ", ""},
    {"self_attention.dense.", "attn_output.", " falcon ", ""},
    {"mlp.dense_h_to_4h.", "ffn_up.", " falcon ", ""},
    {"mlp.dense_4h_to_h.", "ffn_down.", " falcon ", ""},
    {"ln_attn.", "attn_norm_2.", " falcon ", " falcon "},
    {"ln_mlp.", "attn_norm.", " falcon ", " falcon "},
};

static const struct name of_ends[] = {
    {"model.embed_tokens.", "token_embd.", NULL, ""},
    {"model.norm.", "output_norm.", NULL, " stablelm "},
    {"model.final_layernorm.", "output_norm.", " phi2 ", " phi2 "},
    {"lm_head.", "output.", NULL, " phi2 "},
    {"transformer.word_embeddings.", "token_embd.", " falcon ", ""},
    {"transformer.ln_f.", "output_norm.", " falcon ", " falcon "},
};

/* One expert's matrices: Mixtral's w1, w2, w3, the others' names. */
static const struct {
    const char *block, *what, *gguf, *archs;
} of_expert[] = {
    {"block_sparse_moe", "w1.", "ffn_gate", " llama minimax-m2 "},
    {"block_sparse_moe", "w2.", "ffn_down", " llama minimax-m2 "},
    {"block_sparse_moe", "w3.", "ffn_up", " llama minimax-m2 "},
    {"mlp", "gate_proj.", "ffn_gate", " qwen2moe qwen3moe olmoe deepseek2 glm4moe dots1 "},
    {"mlp", "up_proj.", "ffn_up", " qwen2moe qwen3moe olmoe deepseek2 glm4moe dots1 "},
    {"mlp", "down_proj.", "ffn_down", " qwen2moe qwen3moe olmoe deepseek2 glm4moe dots1 "},
    {"feed_forward", "gate_proj.", "ffn_gate", " llama4 "}, /* of quantised ones; others lie in one */
    {"feed_forward", "up_proj.", "ffn_up", " llama4 "},
    {"feed_forward", "down_proj.", "ffn_down", " llama4 "},
};

/* Is arch one of the words of the list? */
static bool among(const char *arch, const char *list)
{
    char word[80];
    snprintf(word, sizeof word, " %s ", arch);
    return !list || strstr(list, word);
}

/* Tensors that older programs wrote and that say nothing new. */
static bool is_idle(const char *name)
{
    size_t n = strlen(name), k = strlen(".rotary_emb.inv_freq");
    return n > k && !strcmp(name + n - k, ".rotary_emb.inv_freq");
}

/* The row for this name, and what follows in it: "weight" everywhere, "bias" only where a family of ours has one. */
static const struct name *row_of(const struct name *rows, size_t n, const char *arch, const char *name, const char **what)
{
    for (size_t i = 0; i < n; i++) {
        size_t len = strlen(rows[i].hf);
        if (strncmp(name, rows[i].hf, len) || !among(arch, rows[i].archs)) continue;
        *what = name + len;
        if (!strcmp(*what, "weight") || (!strcmp(*what, "bias") && among(arch, rows[i].bias))) return &rows[i];
    }
    return NULL;
}

static bool rename_expert(const char *arch, const char *name, int layer, char out[96])
{
    for (size_t i = 0; i < COUNT_OF(of_expert); i++) {
        char format[64];
        int expert, n = 0;
        snprintf(format, sizeof format, "%s.experts.%%6d.%%n", of_expert[i].block);
        if (!among(arch, of_expert[i].archs) || sscanf(name, format, &expert, &n) != 1 || !n || expert < 0) continue;
        size_t len = strlen(of_expert[i].what);
        if (strncmp(name + n, of_expert[i].what, len) || strcmp(name + n + len, "weight")) continue;
        snprintf(out, 96, "blk.%d.%s.%d.weight", layer, of_expert[i].gguf, expert);
        return true;
    }
    return false;
}

/* Tensors without "weight" or "bias" behind their names. */
static const struct {
    const char *hf, *gguf, *archs;
} odd[] = {
    {"self_attn.sinks", "attn_sinks.weight", " gpt-oss "},
    {"mlp.gate.e_score_correction_bias", "exp_probs_b.bias", " deepseek2 glm4moe dots1 "},
    {"block_sparse_moe.e_score_correction_bias", "exp_probs_b.bias", " minimax-m2 "},
};

static bool rename_layer(const char *arch, const char *name, char out[96])
{
    int layer, n = 0;
    const char *what, *format = strcmp(arch, "falcon") ? "model.layers.%6d.%n" : "transformer.h.%6d.%n";
    if (sscanf(name, format, &layer, &n) != 1 || !n || layer < 0) return false;
    for (size_t i = 0; i < COUNT_OF(odd); i++)
        if (!strcmp(name + n, odd[i].hf) && among(arch, odd[i].archs)) {
            snprintf(out, 96, "blk.%d.%s", layer, odd[i].gguf);
            return true;
        }
    const struct name *row = row_of(of_layer, COUNT_OF(of_layer), arch, name + n, &what);
    if (!row) return rename_expert(arch, name + n, layer, out);
    snprintf(out, 96, "blk.%d.%s%s", layer, row->gguf, what);
    return true;
}

static bool rename_one(const char *arch, const char *name, char out[96])
{
    const char *what;
    const struct name *row = row_of(of_ends, COUNT_OF(of_ends), arch, name, &what);
    if (!row) return rename_layer(arch, name, out);
    snprintf(out, 96, "%s%s", row->gguf, what);
    return true;
}

/* A name within a model that also sees, as the language model alone would have it; NULL: of what it sees with. */
static const char *within(const char *name, char out[320])
{
    static const char *const from[] = {"language_model.model.", "model.language_model.", "language_model.lm_head."};
    static const char *const to[] = {"model.", "model.", "lm_head."};
    static const char *const eyes[] = {"vision_tower.", "multi_modal_projector.", "vision_model.", "model.vision_tower.", "model.multi_modal_projector.",
                                       "model.vision_model.", "image_newline", "model.image_newline"};
    for (size_t i = 0; i < COUNT_OF(eyes); i++)
        if (!strncmp(name, eyes[i], strlen(eyes[i]))) return NULL;
    snprintf(out, 320, "%s", name);
    for (size_t i = 0; i < COUNT_OF(from); i++)
        if (!strncmp(name, from[i], strlen(from[i]))) snprintf(out, 320, "%s%s", to[i], name + strlen(from[i]));
    return out;
}

bool eng_hf_tensor_name(const char *arch, const char *name, char out[96])
{
    char own[320];
    const char *text = within(name, own);
    return text && rename_one(arch, text, out);
}

/* What goes from f->tensors stays in f->raw, which the seal looks at. */
static void keep_raw(struct eng_model_file *f)
{
    if (f->raw) return;
    f->n_raw = f->n_tensors;
    f->raw = xmalloc(((size_t)f->n_raw + 1) * sizeof *f->raw);
    memcpy(f->raw, f->tensors, (size_t)f->n_raw * sizeof *f->raw);
}

/* Layers behind the last that predict further tokens (the "MTP" of DeepSeek V3, GLM-4.5, MiniMax-M2) go. */
static void keep_layers(struct eng_model_file *f, const struct eng_hf_model *m)
{
    int64_t n = 0;
    int layer, more = -1;
    keep_raw(f);
    for (int64_t i = 0; i < f->n_tensors; i++) {
        if (sscanf(f->tensors[i].name, "model.layers.%6d.", &layer) == 1 && layer >= m->n_layers) more = layer;
        else f->tensors[n++] = f->tensors[i];
    }
    if (more >= 0)
        log_info("model", "%s: layers %" PRId64 " to %d predict further tokens and are not used: %" PRId64 " tensors", f->path, m->n_layers, more,
                 f->n_tensors - n);
    f->n_tensors = n;
}

/* Tensors of what a model sees with go. */
static void keep_text(struct eng_model_file *f)
{
    int64_t n = 0;
    char name[320];
    keep_raw(f);
    for (int64_t i = 0; i < f->n_tensors; i++) {
        const char *text = within(f->tensors[i].name, name);
        if (!text) continue;
        f->tensors[n] = f->tensors[i];
        f->tensors[n++].name = arena_strndup(&f->arena, text, strlen(text));
    }
    f->n_tensors = n;
}

enum err eng_hf_names(struct eng_model_file *f, const struct eng_hf_model *m,
                      struct eng_hf_keys *keys)
{
    char name[96];
    bool head = false;
    if (m->known && m->within && f->n_tensors) keep_text(f);
    if (m->known && among(m->arch, " deepseek2 glm4moe minimax-m2 ") && f->n_tensors) keep_layers(f, m);
    for (int64_t i = 0; i < f->n_tensors && m->known; i++) {
        struct model_tensor *t = &f->tensors[i];
        bool is_head = !strcmp(t->name, "lm_head.weight");
        if (is_idle(t->name) || (is_head && m->tied == TIE_YES))
            continue; /* a copy of the embedding */
        bool is_embd = !strcmp(t->name, "model.embed_tokens.weight") || !strcmp(t->name, "transformer.word_embeddings.weight");
        if (is_embd && m->n_vocab >= 0 && t->dims[1] != m->n_vocab)
            return err_raise(ERR_BAD_FILE,
                             "%s/config.json: key 'vocab_size' is %" PRId64
                             ", but %s has %" PRId64 " rows",
                             f->path, m->n_vocab, t->name, t->dims[1]);
        head |= is_head;
        if (rename_one(m->arch, t->name, name))
            t->name = arena_strndup(&f->arena, name, strlen(name));
        else
            eng_hf_refuse(keys, "%s: tensor %s is not one that this architecture has here", f->path,
                          eng_show(t->name, strlen(t->name)).s);
    }
    if (m->known && f->n_tensors && !head && m->tied == TIE_NO)
        return err_raise(ERR_BAD_FILE,
                         "%s: lm_head.weight is missing, and config.json says "
                         "tie_word_embeddings false",
                         f->path);
    return OK;
}
