/* random_model.c: keys, vocabulary and tensors of a random model, handed to gguf_write. */
#include "tests/support/random_model.h"

#include "base/arena.h"
#include "base/rng.h"
#include "engine/file/dequant.h"
#include "tests/support/gguf_write.h"
#include "tests/support/quantize.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_SPECIAL = 259 }; /* ids taken by bytes and control tokens in both vocabularies */
enum { N_LETTERS = 26 };

void random_fill(float *dst, int64_t n, uint64_t key, int64_t first, float scale)
{
    /* four 16-bit uniforms: mean 4 * 32767.5, deviation 65536 / sqrt(3) */
    const float unit = scale * 2.6429e-5f;
    for (int64_t i = 0; i < n; i++) {
        uint64_t r = rng_mix(key + (uint64_t)(first + i) * 0x9e3779b97f4a7c15u);
        int32_t sum = (int32_t)(r & 0xffff) + (int32_t)(r >> 16 & 0xffff) +
                      (int32_t)(r >> 32 & 0xffff) + (int32_t)(r >> 48);
        dst[i] = (float)(sum - 131070) * unit;
    }
}

/* ---- vocabulary ---- */

struct vocab {
    struct arena arena;
    int32_t n, n_merges;
    struct model_str *tokens, *merges;
    float *scores;
    int32_t *types;
};

static void add_token(struct vocab *v, const char *s, int32_t type)
{
    size_t n = strlen(s);
    v->tokens[v->n] = (struct model_str){arena_strndup(&v->arena, s, n), n};
    v->scores[v->n] = -(float)v->n;
    v->types[v->n++] = type;
}

/* The byte's letter in byte-level BPE: itself when printable, else U+0100 onwards. Source: GPT-2's
 * table. */
static void byte_letter(int byte, int *n_shifted, char out[5])
{
    bool plain = (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    int cp = plain ? byte : 256 + (*n_shifted)++;
    if (cp < 128) snprintf(out, 5, "%c", cp);
    else snprintf(out, 5, "%c%c", 0xc0 | cp >> 6, 0x80 | (cp & 63));
}

/* String number i of all strings of at least min_len letters, shortest first. */
static void letters(int64_t i, int min_len, char out[16])
{
    int len = min_len;
    int64_t count = 1;
    for (int k = 0; k < len; k++) count *= N_LETTERS;
    for (; i >= count; count *= N_LETTERS, len++) i -= count;
    out[len] = 0;
    for (int k = len - 1; k >= 0; k--, i /= N_LETTERS) out[k] = (char)('a' + i % N_LETTERS);
}

static void make_bpe(struct vocab *v, int32_t size)
{
    char s[40];
    int n_shifted = 0;
    for (int b = 0; b < 256; b++) {
        byte_letter(b, &n_shifted, s);
        add_token(v, s, 1);
    }
    add_token(v, "<|endoftext|>", 3);
    add_token(v, "<|im_start|>", 3);
    add_token(v, "<|im_end|>", 3);
    while (v->n < size) {
        letters(v->n - N_SPECIAL, 2, s);
        add_token(v, s, 1);
        size_t n = strlen(s);
        memmove(s + n, s + n - 1, 2);
        s[n - 1] = ' ';
        v->merges[v->n_merges++] = (struct model_str){arena_strndup(&v->arena, s, n + 1), n + 1};
    }
}

static void make_spm(struct vocab *v, int32_t size)
{
    char s[40];
    add_token(v, "<unk>", 2);
    add_token(v, "<s>", 3);
    add_token(v, "</s>", 3);
    for (int b = 0; b < 256; b++) {
        snprintf(s, sizeof s, "<0x%02X>", b);
        add_token(v, s, 6);
    }
    if (v->n < size) add_token(v, "\xe2\x96\x81", 1);
    while (v->n < size) {
        letters(v->n - N_SPECIAL - 1, 1, s);
        add_token(v, s, 1);
    }
}

static const char chatml[] =
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + "
    "'\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

static void put_vocab(struct gguf_write *w, const struct random_model *m)
{
    bool spm = m->vocab_kind == RANDOM_VOCAB_SPM, qwen = strcmp(m->arch, "llama") != 0;
    size_t n = (size_t)m->vocab;
    struct vocab v = {.tokens = xcalloc(n, sizeof *v.tokens),
                      .merges = xcalloc(n, sizeof *v.merges),
                      .scores = xcalloc(n, sizeof *v.scores),
                      .types = xcalloc(n, sizeof *v.types)};
    if (spm) make_spm(&v, m->vocab);
    else make_bpe(&v, m->vocab);
    gguf_write_str(w, "tokenizer.ggml.model", spm ? "llama" : "gpt2");
    gguf_write_str(w, "tokenizer.ggml.pre", spm ? "default" : qwen ? "qwen2" : "llama-bpe");
    gguf_write_strs(w, "tokenizer.ggml.tokens", v.tokens, n);
    gguf_write_ints(w, "tokenizer.ggml.token_type", GGUF_I32, v.types, n);
    if (spm) gguf_write_f32s(w, "tokenizer.ggml.scores", v.scores, n);
    else gguf_write_strs(w, "tokenizer.ggml.merges", v.merges, (uint64_t)v.n_merges);
    gguf_write_u32(w, "tokenizer.ggml.bos_token_id", spm ? 1 : 256);
    gguf_write_u32(w, "tokenizer.ggml.eos_token_id", spm ? 2 : qwen ? 258 : 256);
    if (spm) gguf_write_u32(w, "tokenizer.ggml.unknown_token_id", 0);
    gguf_write_bool(w, "tokenizer.ggml.add_bos_token", !qwen);
    gguf_write_bool(w, "tokenizer.ggml.add_eos_token", false);
    if (!spm) gguf_write_str(w, "tokenizer.chat_template", chatml);
    free(v.tokens);
    free(v.merges);
    free(v.scores);
    free(v.types);
    arena_free(&v.arena);
}

/* ---- families ---- */

enum { QK_NONE, QK_HEAD, QK_HEADS, QK_ALL };

/* What a family has that Llama has not, or lacks. */
static const struct features {
    const char *arch;
    bool layer_norm, norm_bias;        /* with a bias */
    bool no_ffn_norm, second_norm;     /* one norm for a parallel layer; or attention has its own beside */
    bool post, no_pre;                 /* norms of outputs; none of inputs */
    bool fused_qkv, fused_gate, no_gate;
    bool qkv_bias, o_bias, ffn_bias, expert_bias, head_bias;
    int qk;                            /* norms of q and k */
    bool sinks;
    bool ffn_norm_is_post;             /* its name is post_attention_norm */
    bool chunked;                      /* windows are chunks; layers without rope have temperatures */
    bool shared_bare;                  /* the shared expert has no gate of its own */
    float embd, residual, logit, attn, cap, logit_cap; /* keys, 0: none */
} all_features[] = {
    {"llama"},
    {"qwen2", .qkv_bias = true},
    {"qwen3", .qk = QK_HEAD},
    {"qwen2moe", .qkv_bias = true},
    {"qwen3moe", .qk = QK_HEAD},
    {"gemma"},
    {"gemma2", .post = true, .cap = 50, .logit_cap = 30},
    {"gemma3", .post = true, .qk = QK_HEAD},
    {"phi2", .layer_norm = true, .norm_bias = true, .no_ffn_norm = true, .fused_qkv = true, .no_gate = true, .qkv_bias = true, .o_bias = true,
     .ffn_bias = true, .head_bias = true},
    {"phi3", .fused_qkv = true, .fused_gate = true},
    {"falcon", .layer_norm = true, .norm_bias = true, .second_norm = true, .fused_qkv = true, .no_gate = true},
    {"stablelm", .layer_norm = true, .norm_bias = true, .qk = QK_HEADS},
    {"olmo2", .post = true, .no_pre = true, .qk = QK_ALL},
    {"olmoe", .qk = QK_ALL},
    {"granite", .embd = 12, .residual = 0.22f, .logit = 8, .attn = 0.02f},
    {"chatglm", .fused_qkv = true, .fused_gate = true, .qkv_bias = true},
    {"glm4", .post = true, .fused_gate = true, .qkv_bias = true},
    {"glm4moe", .qkv_bias = true, .ffn_norm_is_post = true, .shared_bare = true},
    {"dots1", .qk = QK_HEAD, .shared_bare = true},
    {"minimax-m2", .qk = QK_ALL},
    {"smollm3"},
    {"seed_oss", .qkv_bias = true, .ffn_norm_is_post = true},
    {"exaone4", .post = true, .no_pre = true, .qk = QK_HEAD},
    {"ernie4_5"},
    {"command-r", .layer_norm = true, .no_ffn_norm = true, .logit = 0.0625f, .qk = QK_HEADS},
    {"cohere2", .layer_norm = true, .no_ffn_norm = true, .logit = 0.0625f},
    {"deepseek2"},
    {"gpt-oss", .qkv_bias = true, .o_bias = true, .expert_bias = true, .sinks = true, .ffn_norm_is_post = true},
    {"llama4", .chunked = true, .shared_bare = true},
};

static const struct features *features_of(const struct random_model *m)
{
    for (size_t i = 0; i < COUNT_OF(all_features); i++)
        if (!strcmp(all_features[i].arch, m->arch)) return &all_features[i];
    return NULL;
}

/* ---- metadata ---- */

static enum err check(const struct random_model *m)
{
    if (!features_of(m)) return err_raise(ERR_BAD_CONFIG, "architecture '%s' is not known to random_model.c", m->arch);
    if (m->n_layer < 1 || m->d_model < 1 || m->n_head < 1 || m->n_kv_head < 1 || m->d_ffn < 1 ||
        m->head_dim < 2 || m->head_dim % 2 || m->n_head % m->n_kv_head)
        return err_raise(
            ERR_BAD_CONFIG,
            "shape: %d layers, width %d, %d heads of %d, %d KV heads, FFN %d; all must be "
            "positive, the head even, the heads a multiple of the KV heads",
            m->n_layer, m->d_model, m->n_head, m->head_dim, m->n_kv_head, m->d_ffn);
    if (m->vocab < N_SPECIAL)
        return err_raise(ERR_BAD_CONFIG, "a vocabulary of %d tokens; at least %d are needed",
                         m->vocab, N_SPECIAL);
    const int32_t k[] = {m->d_model, m->n_head * m->head_dim, m->d_ffn, m->d_expert, m->d_shared, m->latent, m->q_latent, m->latent ? m->head_dim : 0};
    static const char *const name[] = {"the width", "heads times head size", "the FFN", "an expert", "the shared expert", "the latent",
                                       "the queries' latent", "a head's key without rope"};
    for (size_t i = 0; i < COUNT_OF(k); i++)
        if (k[i] % dtype_block(m->type))
            return err_raise(ERR_BAD_CONFIG, "%s is %d, type %s needs a multiple of %d", name[i],
                             k[i], dtype_name(m->type), dtype_block(m->type));
    if (m->d_model % dtype_block(m->embd_type))
        return err_raise(ERR_BAD_CONFIG,
                         "the width is %d, type %s of the embedding needs a multiple of %d",
                         m->d_model, dtype_name(m->embd_type), dtype_block(m->embd_type));
    return OK;
}

static const char *key(const struct random_model *m, const char *suffix, char out[96])
{
    snprintf(out, 96, "%s.%s", m->arch, suffix);
    return out;
}

static void put_rope(struct gguf_write *w, const struct random_model *m)
{
    char k[96];
    gguf_write_u32(w, key(m, "rope.dimension_count", k), (uint32_t)(m->latent ? m->rope_part : m->rope_dim ? m->rope_dim : m->head_dim));
    gguf_write_f32(w, key(m, "rope.freq_base", k), (float)m->rope_theta);
    if (m->rope != RANDOM_ROPE_LINEAR && m->rope != RANDOM_ROPE_YARN) return;
    gguf_write_str(w, key(m, "rope.scaling.type", k),
                   m->rope == RANDOM_ROPE_YARN ? "yarn" : "linear");
    gguf_write_f32(w, key(m, "rope.scaling.factor", k), (float)m->rope_factor);
    if (m->rope == RANDOM_ROPE_YARN)
        gguf_write_u32(w, key(m, "rope.scaling.original_context_length", k),
                       (uint32_t)m->rope_original_context);
    if (m->rope == RANDOM_ROPE_YARN && m->latent) gguf_write_f32(w, key(m, "rope.scaling.yarn_log_multiplier", k), 0.1f);
}

/* Older files say what a head has, newer ones what the latent has, and a head's own beside. */
static void put_latent(struct gguf_write *w, const struct random_model *m)
{
    char k[96];
    uint32_t own = (uint32_t)(m->head_dim + m->rope_part), value = (uint32_t)m->head_dim;
    gguf_write_u32(w, key(m, "attention.kv_lora_rank", k), (uint32_t)m->latent);
    if (m->q_latent) gguf_write_u32(w, key(m, "attention.q_lora_rank", k), (uint32_t)m->q_latent);
    gguf_write_u32(w, key(m, "attention.key_length", k), m->latent_whole ? own : (uint32_t)(m->latent + m->rope_part));
    gguf_write_u32(w, key(m, "attention.value_length", k), m->latent_whole ? value : (uint32_t)m->latent);
    if (m->latent_whole) return;
    gguf_write_u32(w, key(m, "attention.key_length_mla", k), own);
    gguf_write_u32(w, key(m, "attention.value_length_mla", k), value);
}

static void put_switches(struct gguf_write *w, const struct random_model *m)
{
    char k[96];
    const struct features *f = features_of(m);
    const struct { const char *name; float v; } scales[] = {
        {"embedding_scale", f->embd}, {"residual_scale", f->residual}, {"logit_scale", f->logit}, {"attention.scale", f->attn},
        {"attn_logit_softcapping", f->cap}, {"final_logit_softcapping", f->logit_cap}};
    for (size_t i = 0; i < COUNT_OF(scales); i++)
        if (scales[i].v != 0) gguf_write_f32(w, key(m, scales[i].name, k), scales[i].v);
    if (m->window) gguf_write_u32(w, key(m, f->chunked ? "attention.chunk_size" : "attention.sliding_window", k), (uint32_t)m->window);
    if (f->chunked) gguf_write_u32(w, key(m, "attention.temperature_length", k), 7);
    if (!m->n_expert) return;
    gguf_write_u32(w, key(m, "expert_count", k), (uint32_t)m->n_expert);
    gguf_write_u32(w, key(m, "expert_used_count", k), (uint32_t)m->n_used);
    gguf_write_u32(w, key(m, "expert_feed_forward_length", k), (uint32_t)m->d_expert);
    if (m->n_group) {
        gguf_write_u32(w, key(m, "expert_group_count", k), (uint32_t)m->n_group);
        gguf_write_u32(w, key(m, "expert_group_used_count", k), (uint32_t)m->n_group_used);
    }
    if (m->sigmoid) {
        gguf_write_u32(w, key(m, "expert_gating_func", k), 2);
        gguf_write_bool(w, key(m, "expert_weights_norm", k), true);
        gguf_write_f32(w, key(m, "expert_weights_scale", k), 2.5f);
    }
}

static void put_metadata(struct gguf_write *w, const struct random_model *m)
{
    char k[96];
    gguf_write_str(w, "general.architecture", m->arch);
    gguf_write_str(w, "general.name", "random weights");
    gguf_write_u32(w, key(m, "context_length", k), (uint32_t)m->context);
    gguf_write_u32(w, key(m, "embedding_length", k), (uint32_t)m->d_model);
    gguf_write_u32(w, key(m, "block_count", k), (uint32_t)m->n_layer);
    gguf_write_u32(w, key(m, "feed_forward_length", k), (uint32_t)m->d_ffn);
    gguf_write_u32(w, key(m, "attention.head_count", k), (uint32_t)m->n_head);
    gguf_write_u32(w, key(m, "attention.head_count_kv", k), (uint32_t)m->n_kv_head);
    if (m->latent) {
        put_latent(w, m);
    } else {
        gguf_write_u32(w, key(m, "attention.key_length", k), (uint32_t)m->head_dim);
        gguf_write_u32(w, key(m, "attention.value_length", k), (uint32_t)m->head_dim);
    }
    gguf_write_f32(w, key(m, features_of(m)->layer_norm ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon", k),
                   strcmp(m->arch, "llama") ? 1e-6f : 1e-5f);
    put_switches(w, m);
    gguf_write_u32(w, key(m, "vocab_size", k), (uint32_t)m->vocab);
    put_rope(w, m);
    put_vocab(w, m);
}

/* ---- tensors ---- */

struct fill {
    enum dtype type;
    bool as_f32;
    int64_t cols;
    uint64_t key;
    float mean, scale;
};

static void fill_rows(void *ctx, int64_t row, int64_t n, void *dst)
{
    const struct fill *f = ctx;
    float *x = xmalloc((size_t)f->cols * sizeof *x);
    int64_t own_bytes = dtype_bytes(f->type, f->cols), row_bytes = f->as_f32 ? f->cols * 4 : own_bytes;
    uint8_t *own = xmalloc((size_t)own_bytes);
    for (int64_t r = 0; r < n; r++) {
        random_fill(x, f->cols, f->key, (row + r) * f->cols, f->scale);
        for (int64_t i = 0; i < f->cols && f->mean != 0; i++) x[i] += f->mean;
        quantize_row(f->type, x, own, f->cols);
        if (f->as_f32) eng_dequant_row(f->type, own, (float *)(void *)((uint8_t *)dst + r * row_bytes), f->cols);
        else memcpy((uint8_t *)dst + r * row_bytes, own, (size_t)own_bytes);
    }
    free(own);
    free(x);
}

struct build {
    struct gguf_write *w;
    struct arena arena; /* fills and rope factors, until saved */
    uint64_t seed, n;   /* tensors so far: each has its own stream */
    bool as_f32;
};

static void put(struct build *b, const char *name, enum dtype type, int64_t cols, int64_t rows,
                float mean, float scale)
{
    struct fill *f = arena_alloc(&b->arena, sizeof *f);
    *f = (struct fill){type, b->as_f32, cols, rng_at(b->seed, b->n++, 0, 0), mean, scale};
    gguf_write_tensor_by(b->w, name, b->as_f32 ? DTYPE_F32 : type, rows ? 2 : 1, (const int64_t[]){cols, rows}, fill_rows,
                         f);
}

static void put_matrix(struct build *b, const char *name, enum dtype type, int64_t cols,
                       int64_t rows)
{
    put(b, name, type, cols, rows, 0, (float)(1 / sqrt((double)cols)));
}

static void put_norm(struct build *b, const char *name, int64_t n)
{
    put(b, name, DTYPE_F32, n, 0, 1, 0.1f);
}
static void put_bias(struct build *b, const char *name, int64_t n)
{
    put(b, name, DTYPE_F32, n, 0, 0, 0.1f);
}

static void put_stack(struct build *b, const char *name, enum dtype type, int64_t cols, int64_t rows, int64_t n)
{
    struct fill *f = arena_alloc(&b->arena, sizeof *f);
    *f = (struct fill){type, b->as_f32, cols, rng_at(b->seed, b->n++, 0, 0), 0, (float)(1 / sqrt((double)cols))};
    gguf_write_tensor_by(b->w, name, b->as_f32 ? DTYPE_F32 : type, 3, (const int64_t[]){cols, rows, n}, fill_rows, f);
}

#define NAME(suffix) (snprintf(n, sizeof n, "blk.%d." suffix, layer), n)

static void put_norms(struct build *b, const struct random_model *m, const struct features *f, int32_t layer)
{
    char n[64];
    int64_t d = m->d_model;
    if (!f->no_pre) {
        put_norm(b, NAME("attn_norm.weight"), d);
        if (f->norm_bias) put_bias(b, NAME("attn_norm.bias"), d);
        if (f->second_norm) put_norm(b, NAME("attn_norm_2.weight"), d);
        if (f->second_norm) put_bias(b, NAME("attn_norm_2.bias"), d);
        if (f->ffn_norm_is_post) put_norm(b, NAME("post_attention_norm.weight"), d);
        else if (!f->no_ffn_norm && !f->second_norm) put_norm(b, NAME("ffn_norm.weight"), d);
        if (f->norm_bias && !f->no_ffn_norm && !f->second_norm) put_bias(b, NAME("ffn_norm.bias"), d);
    }
    if (f->post) {
        put_norm(b, NAME("post_attention_norm.weight"), d);
        put_norm(b, NAME("post_ffw_norm.weight"), d);
    }
}

/* Attention over a latent: keys of a head have head_dim values and rope_part rotated ones, values head_dim. */
static void put_latent_attention(struct build *b, const struct random_model *m, int32_t layer)
{
    char n[64];
    int64_t d = m->d_model, hd = m->head_dim, heads = m->n_head, rank = m->latent, q = m->q_latent;
    if (q) {
        put_matrix(b, NAME("attn_q_a.weight"), m->type, d, q);
        put_norm(b, NAME("attn_q_a_norm.weight"), q);
    }
    put_matrix(b, q ? NAME("attn_q_b.weight") : NAME("attn_q.weight"), m->type, q ? q : d, heads * (hd + m->rope_part));
    put_matrix(b, NAME("attn_kv_a_mqa.weight"), m->type, d, rank + m->rope_part);
    put_norm(b, NAME("attn_kv_a_norm.weight"), rank);
    if (m->latent_whole) {
        put_matrix(b, NAME("attn_kv_b.weight"), m->type, rank, heads * 2 * hd);
    } else {
        put_stack(b, NAME("attn_k_b.weight"), m->type, hd, rank, heads);
        put_stack(b, NAME("attn_v_b.weight"), m->type, rank, hd, heads);
    }
    put_matrix(b, NAME("attn_output.weight"), m->type, heads * hd, d);
}

static void put_attention(struct build *b, const struct random_model *m, const struct features *f, int32_t layer)
{
    char n[64];
    int64_t d = m->d_model, hd = m->head_dim, q = m->n_head * hd, kv = m->n_kv_head * hd;
    if (f->fused_qkv) {
        put_matrix(b, NAME("attn_qkv.weight"), m->type, d, q + 2 * kv);
        if (f->qkv_bias) put_bias(b, NAME("attn_qkv.bias"), q + 2 * kv);
    } else {
        put_matrix(b, NAME("attn_q.weight"), m->type, d, q);
        put_matrix(b, NAME("attn_k.weight"), m->type, d, kv);
        put_matrix(b, NAME("attn_v.weight"), m->type, d, kv);
    }
    put_matrix(b, NAME("attn_output.weight"), m->type, q, d);
    if (f->o_bias) put_bias(b, NAME("attn_output.bias"), d);
    if (f->qkv_bias && !f->fused_qkv) {
        put_bias(b, NAME("attn_q.bias"), q);
        put_bias(b, NAME("attn_k.bias"), kv);
        put_bias(b, NAME("attn_v.bias"), kv);
    }
    if (f->qk == QK_HEAD || f->qk == QK_ALL) {
        put_norm(b, NAME("attn_q_norm.weight"), f->qk == QK_ALL ? q : hd);
        put_norm(b, NAME("attn_k_norm.weight"), f->qk == QK_ALL ? kv : hd);
    }
    if (f->qk == QK_HEADS) {
        put(b, NAME("attn_q_norm.weight"), DTYPE_F32, hd, m->n_head, 1, 0.1f);
        put(b, NAME("attn_k_norm.weight"), DTYPE_F32, hd, m->n_kv_head, 1, 0.1f);
    }
    if (f->sinks) put_bias(b, NAME("attn_sinks.weight"), m->n_head);
}

/* One kind of matrix of all experts: in one tensor, or each in its own, some of them of the other type. */
static void put_each(struct build *b, const struct random_model *m, int32_t layer, const char *what, int32_t nth, int64_t cols, int64_t rows)
{
    char n[64];
    snprintf(n, sizeof n, "blk.%d.ffn_%s_exps.weight", layer, what);
    if (m->other_type == DTYPE_F32) put_stack(b, n, m->type, cols, rows, m->n_expert);
    for (int32_t e = 0; e < m->n_expert && m->other_type != DTYPE_F32; e++) {
        snprintf(n, sizeof n, "blk.%d.ffn_%s.%d.weight", layer, what, e);
        put_matrix(b, n, (e + nth + layer) % 3 ? m->type : m->other_type, cols, rows);
    }
}

static void put_experts(struct build *b, const struct random_model *m, const struct features *f, int32_t layer)
{
    char n[64];
    int64_t d = m->d_model, w = m->d_expert, e = m->n_expert;
    put(b, NAME("ffn_gate_inp.weight"), DTYPE_F32, d, e, 0, 0.3f);
    put_each(b, m, layer, "gate", 0, d, w);
    put_each(b, m, layer, "up", 1, d, w);
    put_each(b, m, layer, "down", 2, w, d);
    if (f->expert_bias) {
        put_bias(b, NAME("ffn_gate_inp.bias"), e);
        put(b, NAME("ffn_gate_exps.bias"), DTYPE_F32, w, e, 0, 0.1f);
        put(b, NAME("ffn_up_exps.bias"), DTYPE_F32, w, e, 0, 0.1f);
        put(b, NAME("ffn_down_exps.bias"), DTYPE_F32, d, e, 0, 0.1f);
    }
    if (m->sigmoid) put_bias(b, NAME("exp_probs_b.bias"), e);
    if (!m->d_shared) return;
    if (!f->shared_bare && !m->latent) put_bias(b, NAME("ffn_gate_inp_shexp.weight"), d);
    put_matrix(b, NAME("ffn_gate_shexp.weight"), m->type, d, m->d_shared);
    put_matrix(b, NAME("ffn_up_shexp.weight"), m->type, d, m->d_shared);
    put_matrix(b, NAME("ffn_down_shexp.weight"), m->type, m->d_shared, d);
}

static void put_layer(struct build *b, const struct random_model *m, int32_t layer)
{
    char n[64];
    int64_t d = m->d_model;
    const struct features *f = features_of(m);
    put_norms(b, m, f, layer);
    if (m->latent) put_latent_attention(b, m, layer);
    else put_attention(b, m, f, layer);
    if (m->n_expert && layer >= m->n_dense && (layer + 1) % MAX(m->moe_step, 1) == 0) {
        put_experts(b, m, f, layer);
        return;
    }
    if (!f->fused_gate && !f->no_gate) put_matrix(b, NAME("ffn_gate.weight"), m->type, d, m->d_ffn);
    put_matrix(b, NAME("ffn_up.weight"), m->type, d, f->fused_gate ? 2 * m->d_ffn : m->d_ffn);
    put_matrix(b, NAME("ffn_down.weight"), m->type, m->d_ffn, d);
    if (f->ffn_bias) put_bias(b, NAME("ffn_up.bias"), m->d_ffn);
    if (f->ffn_bias) put_bias(b, NAME("ffn_down.bias"), d);
}
#undef NAME

/* Llama 3's frequency factors: slow frequencies are divided by the factor, fast ones kept, those
 * between blended.
 * Source: Llama 3.1's rope scaling, low_freq_factor 1, high_freq_factor 4. */
static void put_rope_factors(struct build *b, const struct random_model *m)
{
    int64_t n = m->head_dim / 2;
    float *f = arena_alloc(&b->arena, (size_t)n * sizeof *f);
    for (int64_t i = 0; i < n; i++) {
        double turns = m->rope_original_context *
                       pow(m->rope_theta, -2.0 * (double)i / m->head_dim) / (2 * acos(-1));
        double keep = CLAMP((turns - 1) / 3, 0.0, 1.0);
        f[i] = (float)(1 / (keep + (1 - keep) / m->rope_factor));
    }
    gguf_write_tensor(b->w, "rope_freqs.weight", DTYPE_F32, 1, &n, f);
}

enum err random_model_write(const struct random_model *spec, const char *path)
{
    struct random_model m = *spec;
    if (!m.head_dim && m.n_head > 0) m.head_dim = m.d_model / m.n_head;
    if (!m.context) m.context = 2048;
    if (m.rope_theta == 0) m.rope_theta = 10000;
    if (m.rope_factor == 0) m.rope_factor = 8;
    if (!m.rope_original_context) m.rope_original_context = 512;
    enum err rc = check(&m);
    if (rc) return rc;
    struct build b = {.w = gguf_write_open(), .seed = m.seed, .as_f32 = m.as_f32};
    put_metadata(b.w, &m);
    put_matrix(&b, "token_embd.weight", m.embd_type, m.d_model, m.vocab);
    put_norm(&b, "output_norm.weight", m.d_model);
    if (features_of(&m)->norm_bias) put_bias(&b, "output_norm.bias", m.d_model);
    if (features_of(&m)->head_bias) put_bias(&b, "output.bias", m.vocab);
    if (!m.tied) put_matrix(&b, "output.weight", m.embd_type, m.d_model, m.vocab);
    if (m.rope == RANDOM_ROPE_LLAMA3) put_rope_factors(&b, &m);
    for (int32_t i = 0; i < m.n_layer; i++) put_layer(&b, &m, i);
    rc = gguf_write_save(b.w, path);
    gguf_write_close(b.w);
    arena_free(&b.arena);
    return rc;
}
