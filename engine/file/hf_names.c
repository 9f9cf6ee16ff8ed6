/* hf_names.c: a checkpoint's names of tensors as GGUF's. */
#include "engine/file/hf_config.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *hf, *gguf;
} of_layer[] =
    {
        {"input_layernorm.", "attn_norm."},    {"self_attn.q_proj.", "attn_q."},
        {"self_attn.k_proj.", "attn_k."},      {"self_attn.v_proj.", "attn_v."},
        {"self_attn.o_proj.", "attn_output."}, {"self_attn.q_norm.", "attn_q_norm."},
        {"self_attn.k_norm.", "attn_k_norm."}, {"post_attention_layernorm.", "ffn_norm."},
        {"mlp.gate_proj.", "ffn_gate."},       {"mlp.up_proj.", "ffn_up."},
        {"mlp.down_proj.", "ffn_down."},
},
  of_ends[] = {
      {"model.embed_tokens.", "token_embd."},
      {"model.norm.", "output_norm."},
      {"lm_head.", "output."},
};

/* Tensors that older programs wrote and that say nothing new. */
static bool is_idle(const char *name)
{
    size_t n = strlen(name), k = strlen(".rotary_emb.inv_freq");
    return n > k && !strcmp(name + n - k, ".rotary_emb.inv_freq");
}

/* "weight" everywhere; "bias" only where a family of ours has one. */
static bool is_ours(const char *arch, const char *gguf, const char *what)
{
    if (!strcmp(what, "weight")) return true;
    bool qkv = !strcmp(gguf, "attn_q.") || !strcmp(gguf, "attn_k.") || !strcmp(gguf, "attn_v.");
    return !strcmp(what, "bias") && qkv && !strcmp(arch, "qwen2");
}

static bool head_norm(const char *gguf)
{
    return !strcmp(gguf, "attn_q_norm.") || !strcmp(gguf, "attn_k_norm.");
}

static bool rename_layer(const char *arch, const char *name, char out[96])
{
    int layer, n = 0;
    if (sscanf(name, "model.layers.%6d.%n", &layer, &n) != 1 || !n || layer < 0) return false;
    for (size_t i = 0; i < COUNT_OF(of_layer); i++) {
        size_t len = strlen(of_layer[i].hf);
        if (strncmp(name + n, of_layer[i].hf, len)) continue;
        if (!is_ours(arch, of_layer[i].gguf, name + n + len)) return false;
        if (head_norm(of_layer[i].gguf) && strcmp(arch, "qwen3")) return false;
        snprintf(out, 96, "blk.%d.%s%s", layer, of_layer[i].gguf, name + n + len);
        return true;
    }
    return false;
}

static bool rename_one(const char *arch, const char *name, char out[96])
{
    for (size_t i = 0; i < COUNT_OF(of_ends); i++) {
        size_t len = strlen(of_ends[i].hf);
        if (strncmp(name, of_ends[i].hf, len)) continue;
        if (strcmp(name + len, "weight")) return false;
        snprintf(out, 96, "%s%s", of_ends[i].gguf, name + len);
        return true;
    }
    return rename_layer(arch, name, out);
}

enum err eng_hf_names(struct eng_model_file *f, const struct eng_hf_model *m,
                      struct eng_hf_keys *keys)
{
    char name[96];
    bool head = false;
    for (int64_t i = 0; i < f->n_tensors && m->known; i++) {
        struct model_tensor *t = &f->tensors[i];
        bool is_head = !strcmp(t->name, "lm_head.weight");
        if (is_idle(t->name) || (is_head && m->tied == TIE_YES))
            continue; /* a copy of the embedding */
        if (!strcmp(t->name, "model.embed_tokens.weight") && m->n_vocab >= 0 &&
            t->dims[1] != m->n_vocab)
            return err_raise(ERR_BAD_FILE,
                             "%s/config.json: key 'vocab_size' is %" PRId64
                             ", but model.embed_tokens.weight has %" PRId64 " rows",
                             f->path, m->n_vocab, t->dims[1]);
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
