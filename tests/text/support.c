#include "tests/text/support.h"
#include "engine/text/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *shared_path(const char *path)
{
    static char full[4096];
    const char *root = getenv("TESSERA_SHARED");
    snprintf(full, sizeof full, "%s/%s", root && *root ? root : "../shared", path);
    return full;
}

char *shared_read(const char *path, size_t *n)
{
    FILE *f = fopen(shared_path(path), "rb");
    struct buf b = {0};
    char part[65536];
    if (!f) {
        printf("skipped: %s is absent (set TESSERA_SHARED)\n", shared_path(path));
        return NULL;
    }
    for (size_t got; (got = fread(part, 1, sizeof part, f)) > 0;) buf_put(&b, part, got);
    fclose(f);
    *n = b.len;
    return buf_take(&b);
}

json_t *shared_json(const char *path)
{
    json_error_t e;
    json_t *j = json_load_file(shared_path(path), 0, &e);
    if (!j) printf("skipped: %s: %s\n", shared_path(path), e.text);
    return j;
}

void test_vocab_free(struct test_vocab *v)
{
    arena_free(&v->a);
    free(v->file);
    json_decref(v->json);
    *v = (struct test_vocab){0};
}

static void blank(struct test_vocab *v, const char *model)
{
    *v = (struct test_vocab){0};
    v->src = (struct eng_vocab_src){.model = model,
                                    .bos = -1,
                                    .eos = -1,
                                    .eot = -1,
                                    .unk = -1,
                                    .add_space_prefix = !strcmp(model, "llama")};
}

static struct text_span rd_str(struct rd *r)
{
    uint64_t n = rd_u64(r);
    const void *p = rd_bytes(r, n);
    return (struct text_span){p ? p : "", p ? n : 0};
}

static const size_t width[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

static struct text_span *rd_strings(struct test_vocab *v, struct rd *r, uint64_t n)
{
    if (n > rd_left(r) / 8) return NULL;
    struct text_span *s = arena_alloc(&v->a, sizeof *s * (n + 1));
    for (uint64_t i = 0; i < n; i++) s[i] = rd_str(r);
    return s;
}

static bool is(struct text_span key, const char *name)
{
    return key.n == strlen(name) && !memcmp(key.p, name, key.n);
}

static void rd_array(struct test_vocab *v, struct rd *r, struct text_span key)
{
    uint32_t type = rd_u32(r);
    uint64_t n = rd_u64(r);
    if (type == 8) {
        struct text_span *s = rd_strings(v, r, n);
        if (is(key, "tokenizer.ggml.tokens")) v->src.tokens = s, v->src.n_tokens = (int32_t)n;
        if (is(key, "tokenizer.ggml.merges")) v->src.merges = s, v->src.n_merges = (int64_t)n;
        return;
    }
    const void *p = type < COUNT_OF(width) ? rd_bytes(r, n * width[type]) : NULL;
    if (!p) return;
    void *copy = arena_alloc(&v->a, n * width[type] + 1);
    memcpy(copy, p, n * width[type]);
    if (is(key, "tokenizer.ggml.scores")) v->src.scores = copy;
    if (is(key, "tokenizer.ggml.token_type")) v->src.types = copy;
}

static void rd_scalar(struct test_vocab *v, struct rd *r, struct text_span key, uint32_t type)
{
    if (type == 8) {
        struct text_span s = rd_str(r);
        if (is(key, "tokenizer.ggml.model")) v->src.model = arena_strndup(&v->a, s.p, s.n);
        if (is(key, "tokenizer.ggml.pre")) v->src.pre = arena_strndup(&v->a, s.p, s.n);
        return;
    }
    const uint8_t *p = type < COUNT_OF(width) ? rd_bytes(r, width[type]) : NULL;
    if (!p) return;
    int32_t id = -1;
    if (width[type] == 4) memcpy(&id, p, 4);
    if (is(key, "tokenizer.ggml.bos_token_id")) v->src.bos = id;
    if (is(key, "tokenizer.ggml.eos_token_id")) v->src.eos = id;
    if (is(key, "tokenizer.ggml.unknown_token_id")) v->src.unk = id;
    if (is(key, "tokenizer.ggml.add_bos_token")) v->src.add_bos = *p;
    if (is(key, "tokenizer.ggml.add_eos_token")) v->src.add_eos = *p;
    if (is(key, "tokenizer.ggml.add_space_prefix")) v->src.add_space_prefix = *p;
}

bool test_vocab_gguf(struct test_vocab *v, const char *path)
{
    size_t n;
    blank(v, "");
    v->file = shared_read(path, &n);
    if (!v->file) return false;
    struct rd r = rd_of(v->file, n);
    rd_bytes(&r, 16); /* magic, version, number of tensors */
    for (uint64_t i = rd_u64(&r); i && !r.bad; i--) {
        struct text_span key = rd_str(&r);
        uint32_t type = rd_u32(&r);
        if (type == 9)
            rd_array(v, &r, key);
        else
            rd_scalar(v, &r, key, type);
    }
    if (!strcmp(v->src.model, "llama")) v->src.add_bos = v->src.add_space_prefix = true;
    if (r.bad) printf("skipped: %s does not read as GGUF\n", path);
    return !r.bad;
}

static void lines(struct test_vocab *v, char *text)
{
    size_t n = 0, cap = 1;
    for (char *p = text; *p; p++) cap += *p == '\n';
    struct text_span *m = arena_alloc(&v->a, sizeof *m * (cap + 1));
    for (char *line = strtok(text, "\r\n"); line; line = strtok(NULL, "\r\n"))
        if (strncmp(line, "#version", 8)) m[n++] = (struct text_span){line, strlen(line)};
    v->src.merges = m;
    v->src.n_merges = (int64_t)n;
}

bool test_vocab_lists(struct test_vocab *v, const char *vocab, const char *merges, const char *pre,
                      const char *const *control)
{
    size_t n, n_control = 0, n_base;
    const char *key;
    json_t *id;
    blank(v, "gpt2");
    v->json = shared_json(vocab);
    v->file = v->json ? shared_read(merges, &n) : NULL;
    if (!v->file) return false;
    while (control[n_control]) n_control++;
    n_base = json_object_size(v->json);
    struct text_span *t = arena_alloc(&v->a, sizeof *t * (n_base + n_control));
    int32_t *types = arena_alloc(&v->a, sizeof *types * (n_base + n_control));
    json_object_foreach(v->json, key, id)
    {
        size_t i = (size_t)json_integer_value(id);
        if (i >= n_base) return printf("skipped: %s has gaps in its ids\n", vocab), false;
        t[i] = (struct text_span){key, strlen(key)};
        types[i] = TOKEN_NORMAL;
    }
    for (size_t i = 0; i < n_control; i++) {
        t[n_base + i] = (struct text_span){control[i], strlen(control[i])};
        types[n_base + i] = TOKEN_CONTROL;
    }
    v->src.tokens = t, v->src.types = types, v->src.n_tokens = (int32_t)(n_base + n_control),
    v->src.pre = pre;
    lines(v, v->file);
    return true;
}

static struct text_span *spans(struct test_vocab *v, size_t before, const char *const *texts,
                               size_t *n)
{
    for (*n = 0; texts && texts[*n];) ++*n;
    struct text_span *t = arena_alloc(&v->a, sizeof *t * (before + *n + 1));
    for (size_t i = 0; i < *n; i++) t[before + i] = (struct text_span){texts[i], strlen(texts[i])};
    return t;
}

void test_vocab_texts(struct test_vocab *v, const char *model, const char *const *texts)
{
    size_t n;
    blank(v, model);
    v->src.tokens = spans(v, 0, texts, &n);
    v->src.n_tokens = (int32_t)n;
}

void test_vocab_bytes(struct test_vocab *v, const char *const *more, const char *const *merges)
{
    size_t n;
    uint32_t other = 0x100;
    blank(v, "gpt2");
    struct text_span *t = spans(v, 256, more, &n);
    for (uint32_t b = 0; b < 256; b++) {
        bool shown = (b > 0x20 && b < 0x7F) || (b > 0xA0 && b != 0xAD);
        uint8_t u[4];
        size_t len = utf8_put(u, shown ? b : other++);
        t[b] = (struct text_span){arena_strndup(&v->a, (char *)u, len), len};
    }
    v->src.tokens = t;
    v->src.n_tokens = 256 + (int32_t)n;
    v->src.merges = spans(v, 0, merges, &n);
    v->src.n_merges = (int64_t)n;
}
