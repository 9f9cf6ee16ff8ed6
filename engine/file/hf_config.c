/* hf_config.c: see hf_config.h.
 *
 * A switch of config.json that changes the mathematics and that this build does not have refuses
 * the checkpoint by name; switches that only concern training are not looked at. */
#include "engine/file/hf_config.h"

#include "engine/file/hf_json.h"
#include "engine/file/hf_quant.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LARGEST_CONFIG = 1 << 20, MOST_EOS = 64, GGUF_INT32 = 5, GGUF_BOOL = 7, GGUF_FLOAT64 = 12 };

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

void eng_hf_key_reals(struct eng_hf_keys *k, const char *key, const double *v, uint64_t n)
{
    struct model_kv *kv = add(k, NULL, key);
    double *copy = arena_alloc(k->a, (n + 1) * sizeof *copy);
    memcpy(copy, v, n * sizeof *copy);
    kv->kind = KV_ARRAY;
    kv->a.kind = KV_FLOAT, kv->a.n = n, kv->a.at = copy, kv->a.elem = GGUF_FLOAT64;
}

void eng_hf_key_bools(struct eng_hf_keys *k, const char *arch, const char *key, const bool *v, uint64_t n)
{
    struct model_kv *kv = add(k, arch, key);
    uint8_t *copy = arena_alloc(k->a, n + 1);
    for (uint64_t i = 0; i < n; i++) copy[i] = v[i];
    kv->kind = KV_ARRAY;
    kv->a.kind = KV_BOOL, kv->a.n = n, kv->a.at = copy, kv->a.elem = GGUF_BOOL;
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

/* What generation_config.json says of sampling, in GGUF's words. Anything but a number says nothing. */
static void read_sampling(const json_t *gen, struct eng_hf_keys *k)
{
    static const struct {
        const char *theirs, *key;
    } names[] = {
        {"temperature", "temp"}, {"top_k", "top_k"}, {"top_p", "top_p"}, {"min_p", "min_p"}, {"repetition_penalty", "penalty_repeat"},
    };
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        const json_t *v = json_object_get(gen, names[i].theirs);
        if (json_is_integer(v)) eng_hf_key_int(k, "general.sampling", names[i].key, json_integer_value(v));
        else if (json_is_real(v)) eng_hf_key_real(k, "general.sampling", names[i].key, json_real_value(v));
    }
}

/* The ids that end a generation: generation_config.json's before config.json's; and how it samples. */
static enum err read_generation(struct eng_hf_obj c, struct eng_hf_keys *k, const struct eng_model_file *f)
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
    read_sampling(gen, k);
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
    struct eng_hf_model m = {.n_vocab = -1, .quant = arena_alloc(k->a, sizeof *m.quant)};
    key_name(k, f->path);
    TRY(eng_hf_json_file(&json, f, "config.json", LARGEST_CONFIG));
    if (!json) eng_hf_refuse(k, "%s has no config.json", f->path);
    struct eng_hf_obj c = {json, what}, text = eng_hf_family_text(c, &m);
    if (json) {
        eng_hf_family_pick(&text, &m, k);
        eng_hf_key_text(k, NULL, "general.architecture", m.arch);
        TRY(read_generation(json_object_get(json, "eos_token_id") ? c : text, k, f));
    }
    if (m.known) TRY(eng_hf_family_read(&text, k, &m));
    TRY(eng_hf_quant_read(m.quant, c, f, k));
    *out = m;
out:
    json_decref(json);
    free(what);
    return rc;
}
