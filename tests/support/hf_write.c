/* hf_write.c: see hf_write.h. */
#include "tests/support/hf_write.h"

#include "base/buf.h"
#include "engine/file/model_file.h"
#include "tests/support/scratch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

const char *hf_write_dir(const char *const files[])
{
    static int n;
    char name[32];
    snprintf(name, sizeof name, "checkpoint-%d", n++);
    const char *dir = scratch_path(name);
    ASSERT(!mkdir(dir, 0700));
    for (size_t i = 0; files && files[i]; i += 2) {
        char *path = xasprintf("%s/%s", dir, files[i]);
        scratch_write(path, files[i + 1], strlen(files[i + 1]));
        free(path);
    }
    return dir;
}

static const struct {
    const char *gguf, *hf;
} names[] = {
    {"attn_norm.", "input_layernorm."},    {"attn_q.", "self_attn.q_proj."},
    {"attn_k.", "self_attn.k_proj."},      {"attn_v.", "self_attn.v_proj."},
    {"attn_output.", "self_attn.o_proj."}, {"attn_q_norm.", "self_attn.q_norm."},
    {"attn_k_norm.", "self_attn.k_norm."}, {"ffn_norm.", "post_attention_layernorm."},
    {"ffn_gate.", "mlp.gate_proj."},       {"ffn_up.", "mlp.up_proj."},
    {"ffn_down.", "mlp.down_proj."},
};

static void name_of(const char *gguf, char out[128])
{
    int layer, n;
    if (!strcmp(gguf, "token_embd.weight"))
        snprintf(out, 128, "model.embed_tokens.weight");
    else if (!strcmp(gguf, "output_norm.weight"))
        snprintf(out, 128, "model.norm.weight");
    else if (!strcmp(gguf, "output.weight"))
        snprintf(out, 128, "lm_head.weight");
    else {
        ASSERT(sscanf(gguf, "blk.%d.%n", &layer, &n) == 1);
        for (size_t i = 0; i < COUNT_OF(names); i++)
            if (!strncmp(gguf + n, names[i].gguf, strlen(names[i].gguf)))
                snprintf(out, 128, "model.layers.%d.%s%s", layer, names[i].hf,
                         gguf + n + strlen(names[i].gguf));
    }
}

static int64_t key(const struct eng_model_file *f, const char *arch, const char *what, int64_t def)
{
    char k[128];
    int64_t v;
    snprintf(k, sizeof k, "%s.%s", arch, what);
    ASSERT(!eng_model_file_int(f, k, def, INT64_MIN, INT64_MAX, &v));
    return v;
}

/* Rows of every head from (2i, 2i + 1) to (i, i + d/2). */
static void halves(uint8_t *rows, const struct model_tensor *t, int64_t n_head)
{
    int64_t bytes = t->bytes / t->dims[1], d = t->dims[1] / n_head;
    uint8_t *copy = xmalloc((size_t)t->bytes);
    memcpy(copy, rows, (size_t)t->bytes);
    for (int64_t r = 0; r < t->dims[1]; r++) {
        int64_t i = r % d, from = r - i + (i < d / 2 ? 2 * i : 2 * (i - d / 2) + 1);
        memcpy(rows + r * bytes, copy + from * bytes, (size_t)bytes);
    }
    free(copy);
}

static void put_tensor(const struct eng_model_file *f, const char *arch,
                       const struct model_tensor *t, struct buf *head, struct buf *data)
{
    char name[128] = "";
    if (!strcmp(t->name, "rope_freqs.weight")) return;
    name_of(t->name, name);
    ASSERT(*name && dtype_block(t->type) == 1);
    buf_printf(head, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[", head->len ? "," : "{", name,
               dtype_name(t->type));
    for (int i = t->n_dims - 1; i >= 0; i--)
        buf_printf(head, "%lld%s", (long long)t->dims[i], i ? "," : "");
    buf_printf(head, "],\"data_offsets\":[%zu,%zu]}", data->len, data->len + (size_t)t->bytes);
    buf_reserve(data, (size_t)t->bytes + 1);
    uint8_t *dst = data->data + data->len;
    ASSERT(!eng_model_file_read(f, t, 0, t->bytes, dst));
    data->len += (size_t)t->bytes;
    int64_t n_head = key(f, arch, "attention.head_count", 1);
    if (strcmp(arch, "llama")) return;
    if (strstr(t->name, "attn_q.weight")) halves(dst, t, n_head);
    if (strstr(t->name, "attn_k.weight"))
        halves(dst, t, key(f, arch, "attention.head_count_kv", n_head));
}

void hf_write_weights(const char *dir, const char *gguf)
{
    struct eng_model_file *f;
    char *arch, *path = xasprintf("%s/model.safetensors", dir);
    struct buf head = {0}, data = {0}, all = {0};
    ASSERT(!eng_model_file_open(&f, gguf));
    ASSERT(!eng_model_file_string(f, "general.architecture", &arch) && arch);
    for (int64_t i = 0; i < eng_model_file_n_tensors(f); i++)
        put_tensor(f, arch, eng_model_file_tensor(f, i), &head, &data);
    buf_putc(&head, '}');
    buf_u64(&all, head.len);
    buf_put(&all, head.data, head.len);
    buf_put(&all, data.data, data.len);
    scratch_write(path, all.data, all.len);
    eng_model_file_close(f);
    buf_free(&head);
    buf_free(&data);
    buf_free(&all);
    free(arch);
    free(path);
}

void hf_write_config(const char *dir, const char *gguf)
{
    struct eng_model_file *f;
    struct buf c = {0};
    double base, eps;
    char *arch, k[128], *path = xasprintf("%s/config.json", dir);
    ASSERT(!eng_model_file_open(&f, gguf));
    ASSERT(!eng_model_file_string(f, "general.architecture", &arch) && arch);
    snprintf(k, sizeof k, "%s.rope.freq_base", arch);
    ASSERT(!eng_model_file_float(f, k, 10000, &base));
    snprintf(k, sizeof k, "%s.attention.layer_norm_rms_epsilon", arch);
    ASSERT(!eng_model_file_float(f, k, 1e-5, &eps));
    int64_t width = key(f, arch, "embedding_length", 0),
            heads = key(f, arch, "attention.head_count", 1);
    buf_printf(&c, "{\"model_type\":\"%s\",\"rope_theta\":%.17g,\"rms_norm_eps\":%.17g", arch, base,
               eps);
    buf_printf(&c, ",\"hidden_size\":%lld,\"num_attention_heads\":%lld", (long long)width,
               (long long)heads);
    buf_printf(&c, ",\"num_key_value_heads\":%lld,\"num_hidden_layers\":%lld",
               (long long)key(f, arch, "attention.head_count_kv", heads),
               (long long)key(f, arch, "block_count", 0));
    buf_printf(&c,
               ",\"intermediate_size\":%lld,\"max_position_embeddings\":%lld,\"head_dim\":%lld}",
               (long long)key(f, arch, "feed_forward_length", 0),
               (long long)key(f, arch, "context_length", 0),
               (long long)key(f, arch, "attention.key_length", width / heads));
    scratch_write(path, c.data, c.len);
    eng_model_file_close(f);
    buf_free(&c);
    free(arch);
    free(path);
}
