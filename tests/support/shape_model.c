/* shape_model.c: see shape_model.h. */
#include "tests/support/shape_model.h"

#include "tests/support/gguf_write.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct shape_model models[] = {
    {"Llama-3-8B", "llama", 32, 4096, 32, 8, 128, 14336, 128256, 8192, false},
    {"Llama-3-70B", "llama", 80, 8192, 64, 8, 128, 28672, 128256, 8192, false},
    {"Qwen2.5-72B", "qwen2", 80, 8192, 64, 8, 128, 29568, 152064, 32768, false},
    {"Qwen2.5-0.5B", "qwen2", 24, 896, 14, 2, 64, 4864, 151936, 32768, true},
    {"Qwen3-32B", "qwen3", 64, 5120, 64, 8, 128, 25600, 151936, 40960, false},
    {"Mistral-7B", "llama", 32, 4096, 32, 8, 128, 14336, 32768, 32768, false},
    {"Llama-2-7B", "llama", 32, 4096, 32, 32, 128, 11008, 32000, 4096, false},
    {"Llama-3.2-1B", "llama", 16, 2048, 32, 8, 64, 8192, 128256, 131072, true},
    {"Mixtral-8x7B", "llama", 32, 4096, 32, 8, 128, 14336, 32000, 32768, false, 8, 2, 14336},
    {"Mistral-7B-v0.1", "llama", 32, 4096, 32, 8, 128, 14336, 32000, 32768, false, .window = 4096},
    {"Gemma-3-27B", "gemma3", 62, 5376, 32, 16, 128, 21504, 262144, 131072, true, .window = 1024},
    {"gpt-oss-20B", "gpt-oss", 24, 2880, 64, 8, 64, 2880, 201088, 131072, false, 32, 4, 2880, .window = 128},
    {"Qwen3-235B-A22B", "qwen3moe", 94, 4096, 64, 4, 128, 12288, 151936, 40960, false, 128, 8, 1536},
    {"DeepSeek-V2-Lite", "deepseek2", 27, 2048, 16, 1, 128, 10944, 102400, 163840, false, 64, 6, 1408, 512, 0, 64, 1, 2816},
    {"DeepSeek-V3", "deepseek2", 61, 7168, 128, 1, 128, 18432, 129280, 163840, false, 256, 8, 2048, 512, 1536, 64, 3, 2048},
    {"Llama-4-Scout", "llama4", 48, 5120, 40, 8, 128, 16384, 202048, 10485760, false, 16, 1, 8192, .d_shared = 8192},
    {"Llama-4-Maverick", "llama4", 48, 5120, 40, 8, 128, 16384, 202048, 1048576, false, 128, 1, 8192, .d_shared = 8192, .every = 2},
};

const struct shape_model *shape_model_named(const char *name)
{
    for (size_t i = 0; i < COUNT_OF(models); i++)
        if (!strcmp(models[i].name, name)) return &models[i];
    return NULL;
}

struct writer {
    struct gguf_write *w;
    int64_t at;
};

static void tensors(struct writer *x, const char *name, enum dtype t, int64_t d0, int64_t d1, int64_t d2)
{
    int64_t dims[] = {d0, d1, d2};
    gguf_write_tensor_entry(x->w, name, dtype_ggml(t), d2 > 1 ? 3 : d1 > 1 ? 2 : 1, dims, (uint64_t)x->at);
    x->at = ROUND_UP(x->at + dtype_bytes(t, d0) * d1 * d2, 32);
}

static void tensor(struct writer *x, const char *name, enum dtype t, int64_t d0, int64_t d1)
{
    tensors(x, name, t, d0, d1, 1);
}

/* As newer files have it. A turned matrix of keys has rows too short for blocks of 256. */
static void latent(struct writer *x, const struct shape_model *m, enum dtype t, int32_t i)
{
    char name[64];
    int64_t d = m->d_model, n = m->n_head, hd = m->head_dim, from = m->q_latent ? m->q_latent : d;
    const struct {
        const char *what;
        int64_t d0, d1, d2;
        bool have;
    } all[] = {{"attn_norm", d, 1, 1, true},
               {"attn_q_a", d, m->q_latent, 1, m->q_latent > 0},
               {"attn_q_a_norm", m->q_latent, 1, 1, m->q_latent > 0},
               {m->q_latent ? "attn_q_b" : "attn_q", from, n * (hd + m->rope), 1, true},
               {"attn_kv_a_mqa", d, m->latent + m->rope, 1, true},
               {"attn_kv_a_norm", m->latent, 1, 1, true},
               {"attn_k_b", hd, m->latent, n, true},
               {"attn_v_b", m->latent, hd, n, true},
               {"attn_output", n * hd, d, 1, true},
               {"ffn_norm", d, 1, 1, true}};
    for (size_t k = 0; k < COUNT_OF(all); k++) {
        snprintf(name, sizeof name, "blk.%d.%s.weight", i, all[k].what);
        if (all[k].have) tensors(x, name, all[k].d1 == 1 ? DTYPE_F32 : all[k].d0 % dtype_block(t) ? DTYPE_Q8_0 : t, all[k].d0, all[k].d1, all[k].d2);
    }
}

static void layer(struct writer *x, const struct shape_model *m, enum dtype t, int32_t i)
{
    char name[64];
    bool experts = m->n_expert && i >= m->n_dense && (!m->every || i % m->every == m->every - 1);
    int64_t d = m->d_model, q = (int64_t)m->n_head * m->head_dim,
            kv = (int64_t)m->n_kv_head * m->head_dim;
    bool gemma = !strcmp(m->arch, "gemma3"), oss = !strcmp(m->arch, "gpt-oss"),
         qk_norm = gemma || !strncmp(m->arch, "qwen3", 5);
    const struct {
        const char *what;
        int64_t d0, d1;
        bool have;
    } all[] = {{"attn_norm", d, 1, true},
               {"attn_q", d, q, true},
               {"attn_k", d, kv, true},
               {"attn_v", d, kv, true},
               {"attn_output", q, d, true},
               {"attn_q_norm", m->head_dim, 1, qk_norm},
               {"attn_k_norm", m->head_dim, 1, qk_norm},
               {"attn_sinks", m->n_head, 1, oss},
               {"post_attention_norm", d, 1, gemma || oss},
               {"post_ffw_norm", d, 1, gemma},
               {"ffn_norm", d, 1, !oss},
               {"ffn_gate", d, m->d_ffn, !experts},
               {"ffn_up", d, m->d_ffn, !experts},
               {"ffn_down", m->d_ffn, d, !experts},
               {"ffn_gate_shexp", d, m->d_shared, experts && m->d_shared},
               {"ffn_up_shexp", d, m->d_shared, experts && m->d_shared},
               {"ffn_down_shexp", m->d_shared, d, experts && m->d_shared}};
    if (m->latent) latent(x, m, t, i); /* and its feed-forward as others have it */
    for (size_t k = m->latent ? COUNT_OF(all) - 6 : 0; k < COUNT_OF(all); k++) {
        snprintf(name, sizeof name, "blk.%d.%s.weight", i, all[k].what);
        /* as the usual converters do: a row that is no multiple of the type's block is kept in Q8_0
         */
        enum dtype u = all[k].d0 % dtype_block(t) ? DTYPE_Q8_0 : t;
        if (all[k].have) tensor(x, name, all[k].d1 > 1 ? u : DTYPE_F32, all[k].d0, all[k].d1);
    }
    if (experts) {
        snprintf(name, sizeof name, "blk.%d.ffn_gate_inp.weight", i);
        tensor(x, name, DTYPE_F32, d, m->n_expert);
        snprintf(name, sizeof name, "blk.%d.ffn_gate_exps.weight", i);
        tensors(x, name, t, d, m->d_expert, m->n_expert);
        snprintf(name, sizeof name, "blk.%d.ffn_up_exps.weight", i);
        tensors(x, name, t, d, m->d_expert, m->n_expert);
        snprintf(name, sizeof name, "blk.%d.ffn_down_exps.weight", i);
        tensors(x, name, m->d_expert % dtype_block(t) ? DTYPE_Q8_0 : t, m->d_expert, d, m->n_expert);
    }
    const struct { const char *what; int64_t d0, d1; } bias[] = {{"attn_q", q, 1}, {"attn_k", kv, 1}, {"attn_v", kv, 1},
        {"attn_output", d, 1}, {"ffn_gate_inp", m->n_expert, 1}, {"ffn_gate_exps", m->d_expert, m->n_expert},
        {"ffn_up_exps", m->d_expert, m->n_expert}, {"ffn_down_exps", d, m->n_expert}};
    for (size_t k = 0; k < (oss ? COUNT_OF(bias) : strcmp(m->arch, "qwen2") ? 0 : 3); k++) {
        snprintf(name, sizeof name, "blk.%d.%s.bias", i, bias[k].what);
        tensor(x, name, DTYPE_F32, bias[k].d0, bias[k].d1);
    }
}

enum err shape_model_write(const struct shape_model *m, enum dtype t, enum dtype ends,
                           const char *path)
{
    struct writer x = {.w = gguf_write_open()};
    char key[96];
    const struct {
        const char *what;
        int32_t v;
    } sizes[] = {{"block_count", m->n_layer},           {"context_length", m->context},
                 {"embedding_length", m->d_model},      {"feed_forward_length", m->d_ffn},
                 {"attention.head_count", m->n_head},   {"attention.head_count_kv", m->n_kv_head},
                 {"attention.key_length", m->latent ? m->latent + m->rope : m->head_dim},
                 {"attention.value_length", m->latent ? m->latent : m->head_dim}};
    gguf_write_str(x.w, "general.architecture", m->arch);
    gguf_write_str(x.w, "general.name", m->name);
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        snprintf(key, sizeof key, "%s.%s", m->arch, sizes[i].what);
        gguf_write_u32(x.w, key, (uint32_t)sizes[i].v);
    }
    const struct { const char *what; int32_t v; } latents[] = {
        {"attention.kv_lora_rank", m->latent}, {"attention.q_lora_rank", m->q_latent}, {"attention.key_length_mla", m->head_dim + m->rope},
        {"attention.value_length_mla", m->head_dim}, {"rope.dimension_count", m->rope}, {"leading_dense_block_count", m->n_dense}};
    for (size_t i = 0; i < COUNT_OF(latents) && m->latent; i++) {
        snprintf(key, sizeof key, "%s.%s", m->arch, latents[i].what);
        gguf_write_u32(x.w, key, (uint32_t)latents[i].v);
    }
    const struct { const char *what; int32_t v; } experts[] = {
        {"expert_count", m->n_expert}, {"expert_used_count", m->n_used}, {"expert_feed_forward_length", m->d_expert}};
    for (size_t i = 0; i < COUNT_OF(experts) && m->n_expert; i++) {
        snprintf(key, sizeof key, "%s.%s", m->arch, experts[i].what);
        gguf_write_u32(x.w, key, (uint32_t)experts[i].v);
    }
    snprintf(key, sizeof key, "%s.attention.sliding_window", m->arch);
    if (m->window) gguf_write_u32(x.w, key, (uint32_t)m->window);
    tensor(&x, "token_embd.weight", ends, m->d_model, m->vocab);
    for (int32_t i = 0; i < m->n_layer; i++) layer(&x, m, t, i);
    tensor(&x, "output_norm.weight", DTYPE_F32, m->d_model, 1);
    if (!m->tied) tensor(&x, "output.weight", ends, m->d_model, m->vocab);
    struct stat st;
    enum err e = gguf_write_save(x.w, path);
    if (!e && (stat(path, &st) || truncate(path, st.st_size + x.at + 64)))
        e = err_raise(ERR_IO, "cannot make %s %lld bytes long: %s", path, (long long)x.at,
                      strerror(errno));
    gguf_write_close(x.w);
    return e;
}
