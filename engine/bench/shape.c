/* shape.c: see shape.h. Source: the config.json of each model's publisher; the GGUF specification (version 3). */
#include "engine/bench/shape.h"

#include "base/base.h"
#include "base/buf.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <unistd.h>

struct shape {
    const char *name, *arch;
    int32_t n_layer, d_model, n_head, n_kv_head, head_dim, d_ffn, vocab, context;
    bool tied;
    double rope_base;
};

static const struct shape shapes[] = {
    {"llama3-8b", "llama", 32, 4096, 32, 8, 128, 14336, 128256, 8192, false, 500000},
    {"llama3-70b", "llama", 80, 8192, 64, 8, 128, 28672, 128256, 8192, false, 500000},
    {"llama3.2-1b", "llama", 16, 2048, 32, 8, 64, 8192, 128256, 131072, true, 500000},
    {"llama2-7b", "llama", 32, 4096, 32, 32, 128, 11008, 32000, 4096, false, 10000},
    {"mistral-7b", "llama", 32, 4096, 32, 8, 128, 14336, 32768, 32768, false, 1000000},
    {"qwen2.5-0.5b", "qwen2", 24, 896, 14, 2, 64, 4864, 151936, 32768, true, 1000000},
    {"qwen2.5-72b", "qwen2", 80, 8192, 64, 8, 128, 29568, 152064, 32768, false, 1000000},
    {"qwen3-32b", "qwen3", 64, 5120, 64, 8, 128, 25600, 151936, 40960, false, 1000000},
};

const char *bench_shape_names(void)
{
    return "llama3-8b, llama3-70b, llama3.2-1b, llama2-7b, mistral-7b, qwen2.5-0.5b, qwen2.5-72b, qwen3-32b";
}

enum err bench_shape_type(const char *name, enum dtype *out)
{
    for (int32_t t = 0; t < DTYPE_COUNT; t++)
        if (!strcasecmp(name, dtype_name((enum dtype)t))) {
            *out = (enum dtype)t;
            return OK;
        }
    return err_raise(ERR_BAD_CONFIG, "--type %s is not known: known are %s", name, dtype_all_names());
}

/* ---- the header ------------------------------------------------------------------------------------ */

enum { GGUF_U32 = 4, GGUF_F32 = 6, GGUF_STRING = 8, ALIGN = 32 };

struct header {
    struct buf kv, infos;
    uint64_t n_kv, n_tensors, at;
};

static void put_string(struct buf *b, const char *s)
{
    buf_u64(b, strlen(s));
    buf_puts(b, s);
}

static struct buf *key(struct header *h, const char *name, uint32_t type)
{
    put_string(&h->kv, name);
    buf_u32(&h->kv, type);
    h->n_kv++;
    return &h->kv;
}

static void size(struct header *h, const char *arch, const char *what, int32_t v)
{
    char name[96];
    snprintf(name, sizeof name, "%s.%s", arch, what);
    buf_u32(key(h, name, GGUF_U32), (uint32_t)v);
}

static void number(struct header *h, const char *arch, const char *what, double v)
{
    char name[96];
    snprintf(name, sizeof name, "%s.%s", arch, what);
    buf_f32(key(h, name, GGUF_F32), (float)v);
}

static void tensor(struct header *h, const char *name, enum dtype t, int64_t d0, int64_t d1)
{
    put_string(&h->infos, name);
    buf_u32(&h->infos, d1 > 1 ? 2 : 1);
    buf_u64(&h->infos, (uint64_t)d0);
    if (d1 > 1) buf_u64(&h->infos, (uint64_t)d1);
    buf_u32(&h->infos, dtype_ggml(t));
    buf_u64(&h->infos, h->at);
    h->at += (uint64_t)ROUND_UP(dtype_bytes(t, d0) * d1, ALIGN);
    h->n_tensors++;
}

static void matrix(struct header *h, const char *name, enum dtype t, int64_t d0, int64_t d1)
{
    tensor(h, name, d0 % dtype_block(t) ? DTYPE_Q8_0 : t, d0, d1);
}

static void layer(struct header *h, const struct shape *m, enum dtype t, int32_t i)
{
    char name[64];
    int64_t d = m->d_model, q = (int64_t)m->n_head * m->head_dim, kv = (int64_t)m->n_kv_head * m->head_dim;
    const struct { const char *what; int64_t d0, d1; const char *only; } all[] = {
        {"attn_norm.weight", d, 1, NULL},    {"attn_q.weight", d, q, NULL},         {"attn_k.weight", d, kv, NULL},
        {"attn_v.weight", d, kv, NULL},      {"attn_output.weight", q, d, NULL},    {"ffn_norm.weight", d, 1, NULL},
        {"ffn_gate.weight", d, m->d_ffn, NULL}, {"ffn_up.weight", d, m->d_ffn, NULL}, {"ffn_down.weight", m->d_ffn, d, NULL},
        {"attn_q.bias", q, 1, "qwen2"},      {"attn_k.bias", kv, 1, "qwen2"},       {"attn_v.bias", kv, 1, "qwen2"},
        {"attn_q_norm.weight", m->head_dim, 1, "qwen3"}, {"attn_k_norm.weight", m->head_dim, 1, "qwen3"}};
    for (size_t k = 0; k < COUNT_OF(all); k++) {
        if (all[k].only && strcmp(all[k].only, m->arch)) continue;
        snprintf(name, sizeof name, "blk.%d.%s", i, all[k].what);
        if (all[k].d1 > 1) matrix(h, name, t, all[k].d0, all[k].d1);
        else tensor(h, name, DTYPE_F32, all[k].d0, 1);
    }
}

static void describe(struct header *h, const struct shape *m, enum dtype t)
{
    put_string(key(h, "general.architecture", GGUF_STRING), m->arch);
    put_string(key(h, "general.name", GGUF_STRING), m->name);
    size(h, m->arch, "block_count", m->n_layer);
    size(h, m->arch, "context_length", m->context);
    size(h, m->arch, "embedding_length", m->d_model);
    size(h, m->arch, "feed_forward_length", m->d_ffn);
    size(h, m->arch, "attention.head_count", m->n_head);
    size(h, m->arch, "attention.head_count_kv", m->n_kv_head);
    size(h, m->arch, "attention.key_length", m->head_dim);
    size(h, m->arch, "attention.value_length", m->head_dim);
    number(h, m->arch, "attention.layer_norm_rms_epsilon", 1e-5);
    number(h, m->arch, "rope.freq_base", m->rope_base);
    matrix(h, "token_embd.weight", t, m->d_model, m->vocab);
    for (int32_t i = 0; i < m->n_layer; i++) layer(h, m, t, i);
    tensor(h, "output_norm.weight", DTYPE_F32, m->d_model, 1);
    if (!m->tied) matrix(h, "output.weight", t, m->d_model, m->vocab);
}

/* ---- the file ---------------------------------------------------------------------------------------- */

/* In memory, and as long as the model would be: nothing past the header is ever read or written. */
static enum err save(const struct header *h, int *fd)
{
    struct buf b = {0};
    enum err rc = OK;
    buf_puts(&b, "GGUF");
    buf_u32(&b, 3);
    buf_u64(&b, h->n_tensors);
    buf_u64(&b, h->n_kv);
    buf_put(&b, h->kv.data, h->kv.len);
    buf_put(&b, h->infos.data, h->infos.len);
    int f = memfd_create("tessera-shape", MFD_CLOEXEC);
    size_t done = 0;
    for (ssize_t n; f >= 0 && done < b.len; done += (size_t)n)
        if ((n = write(f, b.data + done, b.len - done)) <= 0) break;
    if (f < 0 || done < b.len || ftruncate(f, (off_t)(ROUND_UP(b.len, (size_t)ALIGN) + h->at))) {
        rc = err_raise(ERR_IO, "cannot write the header of a made model: %s", strerror(errno));
        if (f >= 0) close(f);
    } else {
        *fd = f;
    }
    buf_free(&b);
    return rc;
}

enum err bench_shape_open(const char *name, enum dtype type, char path[64], int *fd)
{
    struct header h = {0};
    enum err e = OK;
    const struct shape *m = NULL;
    for (size_t i = 0; i < COUNT_OF(shapes); i++)
        if (!strcmp(shapes[i].name, name)) m = &shapes[i];
    if (!m) return err_raise(ERR_BAD_CONFIG, "--shape %s is not known: shapes are %s", name, bench_shape_names());
    describe(&h, m, type);
    e = save(&h, fd);
    if (!e) snprintf(path, 64, "/proc/self/fd/%d", *fd);
    buf_free(&h.kv);
    buf_free(&h.infos);
    return e;
}
