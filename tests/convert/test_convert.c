/* test_convert.c: what `tessera quantize` writes: the same keys and values in other types, and of a checkpoint the model that it was. */
#include "engine/convert/convert.h"

#include "base/base.h"
#include "engine/file/dequant.h"
#include "engine/model/spec.h"
#include "engine/model_text.h"
#include "tests/support/gguf_write.h"
#include "tests/support/hf_write.h"
#include "tests/support/quantize.h"
#include "tests/support/random_model.h"
#include "tests/support/scratch.h"
#include "tests/support/sequence.h"

#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct eng_team *team;

static enum err convert_with(const char *in, const char *out, const char *type, const struct eng_imatrix *m, struct eng_convert_stats *s)
{
    enum err rc;
    struct eng_model_file *f = NULL;
    TRY(eng_model_file_open(&f, in));
    struct eng_convert_conf c = {.in = f, .out = out, .mix = eng_qmix_find(type), .imatrix = m, .imatrix_path = m ? "test" : NULL, .team = team};
    assert_non_null(c.mix);
    TRY(eng_convert(&c, s));
out:
    eng_model_file_close(f);
    return rc;
}

static void convert(const char *in, const char *out, const char *type, struct eng_convert_stats *s)
{
    if (convert_with(in, out, type, NULL, s)) fail_msg("%s as %s: %s", in, type, err_text());
}

static struct eng_model_file *open_file(const char *path)
{
    struct eng_model_file *f = NULL;
    if (eng_model_file_open(&f, path)) fail_msg("%s", err_text());
    return f;
}

/* Own: free(). */
static float *values_of(const struct eng_model_file *f, const struct model_tensor *t, int64_t *n)
{
    *n = t->dims[0] * t->dims[1] * t->dims[2] * t->dims[3];
    uint8_t *raw = xmalloc((size_t)t->bytes + 1);
    float *x = xmalloc((size_t)*n * sizeof *x);
    if (eng_model_file_read(f, t, 0, t->bytes, raw)) fail_msg("%s", err_text());
    eng_dequant_row(t->type, raw, x, *n);
    free(raw);
    return x;
}

static const struct random_model small = {.arch = "llama", .n_layer = 2, .d_model = 256, .n_head = 8, .n_kv_head = 4, .head_dim = 32, .d_ffn = 256,
                                          .vocab = 320, .type = DTYPE_F32, .embd_type = DTYPE_F32, .seed = 900};

/* ---- files ---- */

static void every_mix_is_written_and_read_again(void **state)
{
    static const struct {
        const char *type;
        double most; /* root of the mean square error, of bell-shaped weights */
    } mixes[] = {{"F32", 0}, {"F16", 3e-4}, {"BF16", 2.5e-3}, {"Q8_0", 0.006}, {"Q6_K", 0.02}, {"Q5_K_M", 0.04}, {"Q5_K_S", 0.04}, {"Q4_K_M", 0.08},
                 {"Q4_K_S", 0.08}, {"IQ4_XS", 0.085}, {"IQ4_NL", 0.085}, {"Q3_K_L", 0.16}, {"Q3_K_M", 0.16}, {"Q3_K_S", 0.17}, {"Q2_K", 0.27},
                 {"Q2_K_S", 0.31}, {"Q5_1", 0.05}, {"Q5_0", 0.05}, {"Q4_1", 0.09}, {"Q4_0", 0.1}};
    (void)state;
    const char *in = scratch_path("in.gguf");
    struct random_model one = small;
    one.n_layer = 1;
    if (random_model_write(&one, in)) fail_msg("%s", err_text());
    struct eng_model_file *f = open_file(in);
    for (size_t i = 0; i < COUNT_OF(mixes); i++) {
        char name[32];
        snprintf(name, sizeof name, "%s.gguf", mixes[i].type);
        const char *out = scratch_path(name);
        struct eng_convert_stats s;
        convert(in, out, mixes[i].type, &s);
        struct eng_model_file *g = open_file(out);
        int64_t file_type, n;
        double errors = 0, squares = 0;
        assert_int_equal(eng_model_file_int(g, "general.file_type", -1, 0, 100, &file_type), OK);
        assert_int_equal(file_type, eng_qmix_find(mixes[i].type)->file_type);
        assert_int_equal(eng_model_file_n_tensors(g), eng_model_file_n_tensors(f));
        for (int64_t k = 0; k < eng_model_file_n_kv(f); k++) {
            const struct model_kv *a = eng_model_file_kv(f, k);
            char *key = xstrndup(a->key.p, a->key.n);
            const struct model_kv *b = eng_model_file_find(g, key);
            assert_true(b && a->raw_n == b->raw_n && !memcmp(a->raw, b->raw, a->raw_n));
            free(key);
        }
        for (int64_t k = 0; k < eng_model_file_n_tensors(f); k++) {
            const struct model_tensor *a = eng_model_file_tensor(f, k), *b = eng_model_file_tensor_find(g, a->name);
            float *x = values_of(f, a, &n), *y = values_of(g, b, &n);
            for (int64_t v = 0; v < n && a->dims[1] > 1; v++) {
                squares += (double)x[v] * (double)x[v];
                errors += pow((double)x[v] - (double)y[v], 2);
            }
            if (a->dims[1] == 1) assert_memory_equal(x, y, (size_t)n * sizeof *x);
            free(x);
            free(y);
        }
        double off = sqrt(errors / squares);
        printf("%-7s %8lld bytes, error %.5f\n", mixes[i].type, (long long)s.out_bytes, off);
        assert_true(off <= mixes[i].most);
        struct eng_spec spec;
        assert_int_equal(eng_spec_read(&spec, g), OK);
        assert_int_equal(s.out_bytes, eng_model_file_bytes(g));
        eng_model_file_close(g);
    }
    eng_model_file_close(f);
}

/* The types of all tensors that llama.cpp's quantiser gave to models of these shapes (golden/make_mixes.py). */
struct choice {
    const char *model, *mix, *types;
};
static const struct choice choices[] = {
#define CHOICE(model, mix, types) {model, mix, types},
#include "golden/mixes.inc"
#undef CHOICE
};
struct shape {
    const char *name;
    struct eng_qmix_model m;
    int64_t d, ffn, kv;
};

static enum dtype chosen(const struct shape *s, const struct eng_qmix *r, const char *name, int64_t cols, int64_t rows)
{
    return eng_qmix_type(r, &s->m, name, (const int64_t[]){cols, rows}, DTYPE_F32);
}

/* "Q4_K*3 Q6_K*1": equal ones after each other. */
struct runs {
    struct buf text;
    enum dtype t;
    int32_t n;
};
static void add_run(struct runs *r, enum dtype t)
{
    if (r->n && t != r->t) {
        buf_printf(&r->text, "%s%s*%d", r->text.len ? " " : "", dtype_name(r->t), r->n);
        r->n = 0;
    }
    r->t = t;
    r->n++;
}

static void each_tensor_gets_the_type_that_its_mix_is_known_for(void **state)
{
    static const struct shape shapes[] = {
        {"llama32", {.arch = "llama", .n_layers = 32, .n_heads = 8, .n_kv_heads = 2, .has_output = true}, 256, 512, 64},
        {"llama12", {.arch = "llama", .n_layers = 12, .n_heads = 8, .n_kv_heads = 8}, 256, 512, 256},
        {"qwen28", {.arch = "qwen2", .n_layers = 28, .n_heads = 7, .n_kv_heads = 1, .has_output = true}, 224, 608, 32},
    };
    (void)state;
    assert_true(COUNT_OF(choices) >= 30);
    for (size_t i = 0; i < COUNT_OF(choices); i++) {
        const struct shape *s = NULL;
        for (size_t k = 0; k < COUNT_OF(shapes); k++)
            if (!strcmp(shapes[k].name, choices[i].model)) s = &shapes[k];
        assert_non_null(s);
        const struct eng_qmix *r = eng_qmix_find(choices[i].mix);
        assert_non_null(r);
        struct runs got = {0};
        char name[64];
        add_run(&got, chosen(s, r, "token_embd.weight", s->d, 320));
        if (s->m.has_output) add_run(&got, chosen(s, r, "output.weight", s->d, 320));
        static const char *const what[] = {"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"};
        const int64_t rows[] = {s->d, s->kv, s->kv, s->d, s->ffn, s->ffn, s->d};
        for (size_t w = 0; w < COUNT_OF(what); w++)
            for (int32_t l = 0; l < s->m.n_layers; l++) {
                snprintf(name, sizeof name, "blk.%d.%s.weight", l, what[w]);
                add_run(&got, chosen(s, r, name, w == 6 ? s->ffn : s->d, rows[w]));
            }
        add_run(&got, DTYPE_COUNT);
        assert_string_equal(buf_str(&got.text), choices[i].types);
        buf_free(&got.text);
    }
}

/* Heads of 8 values: attention's output stays F16, and the model runs. */
static void narrow_heads_leave_a_model_that_runs(void **state)
{
    (void)state;
    struct random_model m = small;
    struct eng_convert_stats s;
    m.d_model = 64, m.head_dim = 8, m.d_ffn = 96;
    const char *in = scratch_path("narrow.gguf"), *out = scratch_path("narrow-q8.gguf");
    if (random_model_write(&m, in)) fail_msg("%s", err_text());
    convert(in, out, "Q8_0", &s);
    struct eng_model_file *f = open_file(out);
    assert_int_equal(eng_model_file_tensor_find(f, "blk.0.attn_output.weight")->type, DTYPE_F16);
    assert_int_equal(eng_model_file_tensor_find(f, "blk.0.attn_q.weight")->type, DTYPE_Q8_0);
    eng_model_file_close(f);
    struct local_replica *r;
    struct local_replica_conf c = {.path = out, .context = 64};
    if (local_replica_open(&r, &c)) fail_msg("%s", err_text());
    local_replica_close(r);
}

static void quantised_weights_are_copied_or_made_again(void **state)
{
    (void)state;
    struct random_model m = small;
    struct eng_convert_stats s;
    m.type = m.embd_type = DTYPE_Q8_0;
    const char *in = scratch_path("q8.gguf"), *same = scratch_path("q8-again.gguf"), *other = scratch_path("q8-q4.gguf");
    if (random_model_write(&m, in)) fail_msg("%s", err_text());
    convert(in, same, "Q8_0", &s);
    assert_int_equal(s.n_requantised, 0);
    struct eng_model_file *f = open_file(in), *g = open_file(same);
    for (int64_t k = 0; k < eng_model_file_n_tensors(f); k++) {
        const struct model_tensor *a = eng_model_file_tensor(f, k), *b = eng_model_file_tensor_find(g, a->name);
        uint8_t *x = xmalloc((size_t)a->bytes), *y = xmalloc((size_t)a->bytes);
        assert_int_equal(a->bytes, b->bytes);
        assert_true(!eng_model_file_read(f, a, 0, a->bytes, x) && !eng_model_file_read(g, b, 0, b->bytes, y));
        assert_memory_equal(x, y, (size_t)a->bytes);
        free(x);
        free(y);
    }
    eng_model_file_close(f);
    eng_model_file_close(g);
    convert(in, other, "Q4_K_M", &s);
    assert_true(s.n_requantised > 10);
}

/* ---- checkpoints ---- */

enum { N_PROMPT = 60 };

static float *logits_of(const char *path, size_t *n)
{
    struct local_replica *r;
    struct local_replica_conf c = {.path = path, .context = 112, .oracle = true, .kv_type = KV_F32};
    int32_t prompt[N_PROMPT];
    struct step_bounds b;
    if (local_replica_open(&r, &c)) fail_msg("%s: %s", path, err_text());
    local_replica_bounds(r, &b);
    for (int32_t i = 0; i < N_PROMPT; i++) prompt[i] = i * 13 % b.n_vocab;
    struct sequence s = {.prompt = prompt, .n_prompt = N_PROMPT, .n_gen = 1, .sampling = sampling_default()};
    s.sampling.temperature = 0;
    if (sequence_run(r, &s, 1, true)) fail_msg("%s: %s", path, err_text());
    *n = (size_t)N_PROMPT * (size_t)b.n_vocab;
    float *out = xmalloc(*n * sizeof *out);
    memcpy(out, s.logits, *n * sizeof *out);
    sequence_free(&s);
    local_replica_close(r);
    return out;
}

/* The same logits from the directory and from its F32 GGUF: to the last bit where no row moves. */
static void check_same(const char *dir, const char *name, bool bits)
{
    struct eng_convert_stats s;
    char file[96];
    size_t n[2];
    snprintf(file, sizeof file, "%s.gguf", name);
    const char *out = scratch_path(file);
    if (convert_with(dir, out, "F32", NULL, &s)) fail_msg("%s: %s", dir, err_text());
    float *x = logits_of(dir, &n[0]), *y = logits_of(out, &n[1]);
    double diff = 0, size = 0;
    assert_int_equal(n[0], n[1]);
    for (size_t i = 0; i < n[0]; i++) {
        diff = fmax(diff, fabs((double)x[i] - (double)y[i]));
        size = fmax(size, fabs((double)x[i]));
    }
    printf("%-16s largest difference %.1e of the largest logit\n", name, diff / size);
    if (bits ? diff != 0 : !(diff <= 1e-5 * size)) fail_msg("%s: the GGUF file says something else", name);
    free(x);
    free(y);
    unlink(out);
}

static void a_checkpoint_and_its_gguf_say_the_same(void **state)
{
    static const struct { const char *name; bool bits; } dirs[] = {
        {"mistral", false}, {"qwen2", true}, {"qwen3-bf16", true}, {"mixtral", false}, {"qwen2moe", true}, {"qwen3moe", true}, {"gemma", true}, {"gemma2", true}, {"gemma3", true},
        {"phi2", true}, {"phi3", true}, {"stablelm", true}, {"olmo2", true}, {"granite", false}, {"olmo3", true}, {"exaone4", true}, {"smollm3", false}, {"smollm3-odd", false}, {"llama-biases", false}, {"gpt-oss", true}, {"phi3-short", true}, {"llama4-sees", true},
        {"seed-oss", true}, {"ernie4_5", true}, {"glm4moe", true}, {"dots1", true}, {"minimax-m2", true}, {"glm", true}, {"glm4", true}, {"deepseek2-lite", true}, {"deepseek2", true}, {"deepseek3", true}, {"cohere", true}, {"cohere2", true},
        {"falcon-7b", true}, {"falcon-40b", true}, {"llama-dynamic", false}, {"llama-llama3", false}, {"llama4", true}, {"llama4-dense", true}, {"llama4-mixed", true},
    };
    int32_t n = 0;
    (void)state;
    for (size_t i = 0; i < COUNT_OF(dirs); i++) {
        char path[128], weights[160];
        snprintf(path, sizeof path, "tests/model/golden/%s", dirs[i].name);
        snprintf(weights, sizeof weights, "%s/model.safetensors", path);
        bool whole = !access(weights, R_OK);
        snprintf(weights, sizeof weights, "%s/model.safetensors.index.json", path);
        if (!whole && access(weights, R_OK)) continue;
        check_same(path, dirs[i].name, dirs[i].bits);
        n++;
    }
    assert_true(n >= 12);
}

/* What llama.cpp's converter calls the tensors of these checkpoints, and the keys it gives them (golden/make_names.py). */
static const struct {
    const char *dir, *arch, *tensors, *keys;
} known_names[] = {
#define NAMES(dir, arch, tensors, keys) {dir, arch, tensors, keys},
#include "golden/names.inc"
#undef NAMES
};

static int by_text(const void *a, const void *b) { return strcmp(a, b); }

/* "*.attn_k.weight ...": every name once, layers without their numbers, in order. */
static void list_names(const struct eng_model_file *f, struct buf *out)
{
    int64_t n = eng_model_file_n_tensors(f);
    char(*all)[96] = xcalloc((size_t)n, sizeof *all);
    for (int64_t i = 0; i < n; i++) {
        int layer, at = 0;
        const char *name = eng_model_file_tensor(f, i)->name;
        bool of_layer = sscanf(name, "blk.%6d.%n", &layer, &at) == 1 && at;
        snprintf(all[i], sizeof all[i], "%s%s", of_layer ? "*." : "", name + (of_layer ? at : 0));
    }
    qsort(all, (size_t)n, sizeof *all, by_text);
    for (int64_t i = 0; i < n; i++)
        if (!i || strcmp(all[i], all[i - 1])) buf_printf(out, "%s%s", i ? " " : "", all[i]);
    free(all);
}

static bool is_value(const struct model_kv *kv, const char *want)
{
    if (kv->kind == KV_STRING) return kv->s.n == strlen(want) && !memcmp(kv->s.p, want, kv->s.n);
    if (kv->kind == KV_FLOAT) return fabs(kv->f - strtod(want, NULL)) <= 1e-6 * fabs(kv->f);
    if (kv->kind != KV_ARRAY) return (kv->kind == KV_BOOL ? kv->b : kv->i) == strtoll(want, NULL, 10);
    const char *p = want + 1;
    for (uint64_t i = 0; i < kv->a.n; i++, p += strcspn(p, ",]") + 1)
        if (!*p || eng_model_file_array_int(kv, i) != strtoll(p, NULL, 10)) return false;
    return !*p;
}

static void check_keys(const struct eng_model_file *f, const char *arch, const char *keys, const char *dir)
{
    char *list = xstrndup(keys, strlen(keys)), *rest = list;
    for (char *pair; (pair = strtok_r(rest, " ", &rest));) {
        char key[128], *value = strchr(pair, '=');
        *value++ = 0;
        snprintf(key, sizeof key, "%s.%s", arch, pair);
        const struct model_kv *kv = eng_model_file_find(f, key);
        if (!kv || !is_value(kv, value)) fail_msg("%s: key %s must be there and be %s", dir, key, value);
    }
    free(list);
}

static void names_and_keys_are_those_that_others_look_for(void **state)
{
    struct eng_convert_stats s;
    (void)state;
    assert_true(COUNT_OF(known_names) > 40);
    for (size_t i = 0; i < COUNT_OF(known_names); i++) {
        char path[128];
        struct buf names = {0};
        const char *out = scratch_path("names.gguf");
        snprintf(path, sizeof path, "tests/model/golden/%s", known_names[i].dir);
        convert(path, out, "F32", &s);
        struct eng_model_file *f = open_file(out);
        list_names(f, &names);
        char *arch = NULL;
        assert_int_equal(eng_model_file_string(f, "general.architecture", &arch), OK);
        assert_string_equal(arch, known_names[i].arch);
        if (strcmp(buf_str(&names), known_names[i].tensors)) fail_msg("%s: other names:\n%s\nnot\n%s", path, buf_str(&names), known_names[i].tensors);
        check_keys(f, arch, known_names[i].keys, path);
        free(arch);
        buf_free(&names);
        eng_model_file_close(f);
        unlink(out);
    }
}

/* As an earlier tessera wrote it: another name for the second norm, and no key of the experts' width. */
static void write_old_gpt_oss(const char *now, const char *old)
{
    struct gguf_write *w = gguf_write_open();
    struct eng_model_file *f = open_file(now);
    float *kept[64];
    int32_t n_kept = 0;
    for (int64_t i = 0; i < eng_model_file_n_kv(f); i++) {
        const struct model_kv *kv = eng_model_file_kv(f, i);
        char *key = xstrndup(kv->key.p, kv->key.n);
        uint32_t type;
        memcpy(&type, kv->raw, sizeof type);
        if (strcmp(key, "gpt-oss.expert_feed_forward_length")) gguf_write_raw(w, key, type, (const char *)kv->raw + sizeof type, kv->raw_n - sizeof type);
        free(key);
    }
    for (int64_t i = 0; i < eng_model_file_n_tensors(f); i++) {
        const struct model_tensor *t = eng_model_file_tensor(f, i);
        int64_t n;
        int layer, at = 0;
        char name[96];
        bool norm = sscanf(t->name, "blk.%6d.post_attention_norm.weight%n", &layer, &at) == 1 && at;
        if (norm) snprintf(name, sizeof name, "blk.%d.ffn_norm.weight", layer);
        else snprintf(name, sizeof name, "%s", t->name);
        assert_true(n_kept < 64);
        kept[n_kept] = values_of(f, t, &n);
        gguf_write_tensor(w, name, DTYPE_F32, t->n_dims, t->dims, kept[n_kept++]);
    }
    assert_int_equal(gguf_write_save(w, old), OK);
    gguf_write_close(w);
    eng_model_file_close(f);
    while (n_kept) free(kept[--n_kept]);
}

static void an_older_file_of_gpt_oss_runs_and_is_mended(void **state)
{
    struct eng_convert_stats s;
    size_t n[2];
    int64_t width;
    (void)state;
    const char *now = scratch_path("oss.gguf"), *old = scratch_path("oss-old.gguf"), *again = scratch_path("oss-again.gguf");
    convert("tests/model/golden/gpt-oss", now, "F32", &s);
    write_old_gpt_oss(now, old);
    convert(old, again, "F32", &s);
    struct eng_model_file *f = open_file(again);
    assert_non_null(eng_model_file_tensor_find(f, "blk.1.post_attention_norm.weight"));
    assert_null(eng_model_file_tensor_find(f, "blk.1.ffn_norm.weight"));
    assert_int_equal(eng_model_file_int(f, "gpt-oss.expert_feed_forward_length", 0, 0, 1 << 20, &width), OK);
    assert_int_equal(width, 24);
    eng_model_file_close(f);
    float *x = logits_of(now, &n[0]), *y = logits_of(old, &n[1]);
    assert_int_equal(n[0], n[1]);
    assert_memory_equal(x, y, n[0] * sizeof *x);
    free(x);
    free(y);
}

static void a_quantised_checkpoint_is_widened_first(void **state)
{
    (void)state;
    check_same("tests/model/quant/gptq-4", "gptq-4", false);
    check_same("tests/model/quant/fp8-block", "fp8-block", false);
}

static void what_gguf_cannot_say_is_refused(void **state)
{
    static const struct { const char *name, *says; } dirs[] = {{"deepseek3-halves", "rope_interleave"}};
    struct eng_convert_stats s;
    (void)state;
    for (size_t i = 0; i < COUNT_OF(dirs); i++) {
        char path[128];
        snprintf(path, sizeof path, "tests/model/golden/%s", dirs[i].name);
        if (access(path, R_OK)) continue;
        const char *out = scratch_path("never.gguf");
        assert_int_equal(convert_with(path, out, "Q8_0", NULL, &s), ERR_UNSUPPORTED);
        assert_non_null(strstr(err_text(), dirs[i].says));
        assert_int_not_equal(access(out, F_OK), 0);
    }
}

/* A checkpoint with this tokenizer.json: the file's own tokenizer makes the directory's ids, or the directory is refused. */
static bool keeps_words(const char *json)
{
    static const char *const texts[] = {"Once upon a time, there was a little girl named Lily. She's 3 years old!\n\nThe end.  ",
                                        "  two  spaces\tand\ttabs\r\n 12345 67,890.12 don't WE'LL I'm", "Grüße, 你好，世界! Привет мир — 한국어 日本語 العربية 🚀🦙",
                                        "def f(x):\n    return x**2  # naïve\n", "", " ", "\n"};
    static const char *const ends = "{\"eos_token_id\": [7, 3, 9, 11]}"; /* more than GGUF has keys for */
    struct buf text = {0};
    char path[128], file[64];
    snprintf(path, sizeof path, "tests/text/golden/%s.json", json);
    snprintf(file, sizeof file, "words-%s.gguf", json);
    if (!scratch_read(path, &text)) fail_msg("%s cannot be read", path);
    const char *files[] = {"tokenizer.json", buf_str(&text), "generation_config.json", ends, NULL}, *dir = hf_write_dir(files), *gguf = scratch_path("words-of.gguf"), *out = scratch_path(file);
    struct eng_tokenizer *t[2] = {NULL, NULL};
    struct eng_model_file *f = open_file(dir);
    if (eng_model_tokenizer(&t[0], f)) fail_msg("%s: %s", json, err_text());
    eng_model_file_close(f);
    struct random_model m = {.arch = "llama", .n_layer = 1, .d_model = 64, .n_head = 2, .n_kv_head = 2, .head_dim = 32, .d_ffn = 64,
                             .vocab = MAX(eng_tokenizer_size(t[0]) + 3, 300), .type = DTYPE_F32, .embd_type = DTYPE_F32, .seed = 77};
    if (random_model_write(&m, gguf)) fail_msg("%s", err_text());
    hf_write_weights(dir, gguf);
    hf_write_config(dir, gguf);
    eng_tokenizer_close(t[0]); /* now also with the ids of generation_config.json */
    f = open_file(dir);
    if (eng_model_tokenizer(&t[0], f)) fail_msg("%s: %s", json, err_text());
    eng_model_file_close(f);
    struct eng_convert_stats s;
    enum err e = convert_with(dir, out, "Q8_0", NULL, &s);
    if (e && e != ERR_UNSUPPORTED) fail_msg("%s: %s", json, err_text());
    if (!e) {
        f = open_file(out);
        if (eng_model_tokenizer(&t[1], f)) fail_msg("%s: %s", json, err_text());
        assert_int_equal(eng_tokenizer_size(t[1]), m.vocab);
        if (eng_tokenizer_eos(t[0]) >= 0) assert_int_equal(eng_tokenizer_eos(t[1]), eng_tokenizer_eos(t[0]));
        int32_t last[2][64], n_ends = eng_tokenizer_eog(t[0], last[0], 64);
        assert_int_equal(eng_tokenizer_eog(t[1], last[1], 64), n_ends);
        assert_memory_equal(last[0], last[1], (size_t)n_ends * sizeof **last);
        eng_model_file_close(f);
    }
    for (size_t i = 0; i < COUNT_OF(texts) && !e; i++) {
        struct eng_tokens ids[2] = {0};
        for (int k = 0; k < 2; k++) eng_tokenizer_encode(t[k], texts[i], strlen(texts[i]), TOKENIZE_ADD_SPECIAL, &ids[k]);
        if (ids[0].n != ids[1].n || (ids[0].n && memcmp(ids[0].ids, ids[1].ids, ids[0].n * sizeof *ids[0].ids))) fail_msg("%s: other ids of '%s'", json, texts[i]);
        eng_tokens_free(&ids[0]);
        eng_tokens_free(&ids[1]);
    }
    printf("%s: %s\n", json, e ? err_text() : "the same ids");
    eng_tokenizer_close(t[0]);
    eng_tokenizer_close(t[1]);
    buf_free(&text);
    return !e;
}

static void a_checkpoint_keeps_its_words(void **state)
{
    static const char *const known[] = {"llama3", "qwen2", "starcoder", "gpt4o", "llama2"};
    static const char *const others[] = {"mistral", "deepseek", "falcon", "gpt2-prefix", "meta-always", "meta-never", "words",
                                        "gpt1", "clip", "bpe-inner", "bpe-bytes", "bytes-first"};
    (void)state;
    for (size_t i = 0; i < COUNT_OF(known); i++)
        if (!keeps_words(known[i])) fail_msg("%s", known[i]);
    for (size_t i = 0; i < COUNT_OF(others); i++) (void)keeps_words(others[i]); /* the same, or refused */
    assert_false(keeps_words("unigram-map"));
    assert_non_null(strstr(err_text(), "of type Unigram"));
    assert_false(keeps_words("bert"));
    assert_non_null(strstr(err_text(), "of type WordPiece"));
    assert_false(keeps_words("wordlevel"));
    assert_non_null(strstr(err_text(), "of type WordLevel"));
}

/* ---- what must not be ---- */

/* Nothing but these names is in the scratch directory's folder `sub`. */
static int32_t count_files(const char *dir)
{
    DIR *d = opendir(dir);
    int32_t n = 0;
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

static void a_file_is_whole_or_not_there(void **state)
{
    (void)state;
    const char *dir = hf_write_dir((const char *const[]){NULL});
    char out[512];
    float bad[2][32];
    struct eng_convert_stats s;
    for (int r = 0; r < 2; r++)
        for (int i = 0; i < 32; i++) bad[r][i] = (float)i;
    bad[1][7] = NAN;
    struct gguf_write *w = gguf_write_open();
    gguf_write_str(w, "general.architecture", "llama");
    gguf_write_tensor(w, "blk.0.ffn_up.weight", DTYPE_F32, 2, (const int64_t[]){32, 2}, bad);
    const char *in = scratch_path("nan.gguf");
    assert_int_equal(gguf_write_save(w, in), OK);
    gguf_write_close(w);
    snprintf(out, sizeof out, "%s/out.gguf", dir);
    assert_int_equal(convert_with(in, out, "Q8_0", NULL, &s), ERR_BAD_FILE);
    assert_non_null(strstr(err_text(), "blk.0.ffn_up.weight"));
    assert_non_null(strstr(err_text(), "row 1"));
    assert_int_equal(count_files(dir), 0);
    assert_int_equal(convert_with(scratch_path("in.gguf"), "/nowhere/at/all.gguf", "Q8_0", NULL, &s), ERR_IO);
}

static void another_models_importance_is_refused(void **state)
{
    (void)state;
    struct eng_convert_stats s;
    const char *in = scratch_path("imp.gguf"), *out = scratch_path("imp-out.gguf");
    if (random_model_write(&small, in)) fail_msg("%s", err_text());
    struct eng_imatrix *m = eng_imatrix_open();
    struct eng_imatrix_entry *e = eng_imatrix_entry(m, "blk.0.nothing.weight", 256, 1);
    e->counts[0] = 1;
    assert_int_equal(convert_with(in, out, "Q4_K_S", m, &s), ERR_BAD_CONFIG);
    e = eng_imatrix_entry(m, "blk.0.ffn_up.weight", 128, 1);
    e->counts[0] = 1;
    assert_int_equal(convert_with(in, out, "Q4_K_S", m, &s), ERR_BAD_CONFIG);
    assert_non_null(strstr(err_text(), "blk.0.ffn_up.weight"));
    eng_imatrix_close(m);
    assert_int_not_equal(access(out, F_OK), 0);
}

static void importance_moves_the_error(void **state)
{
    (void)state;
    struct eng_convert_stats s;
    int64_t n;
    const char *in = scratch_path("w.gguf"), *out[2] = {scratch_path("w0.gguf"), scratch_path("w1.gguf")};
    if (random_model_write(&small, in)) fail_msg("%s", err_text());
    struct eng_imatrix *m = eng_imatrix_open();
    struct eng_imatrix_entry *e = eng_imatrix_entry(m, "blk.1.ffn_up.weight", 256, 1);
    for (int i = 0; i < 256; i++) e->sums[i] = i % 8 ? 0.1f : 100.0f;
    e->counts[0] = 10;
    convert(in, out[0], "Q4_K_S", &s);
    assert_int_equal(convert_with(in, out[1], "Q4_K_S", m, &s), OK);
    assert_true(s.n_without_importance > 5);
    double err[2] = {0, 0};
    struct eng_model_file *f = open_file(in);
    float *x = values_of(f, eng_model_file_tensor_find(f, "blk.1.ffn_up.weight"), &n);
    for (int k = 0; k < 2; k++) {
        struct eng_model_file *g = open_file(out[k]);
        float *y = values_of(g, eng_model_file_tensor_find(g, "blk.1.ffn_up.weight"), &n);
        for (int64_t i = 0; i < n; i += 8) err[k] += pow((double)x[i] - (double)y[i], 2);
        free(y);
        eng_model_file_close(g);
    }
    free(x);
    eng_model_file_close(f);
    eng_imatrix_close(m);
    assert_true(err[1] < 0.7 * err[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_mix_is_written_and_read_again),
        cmocka_unit_test(each_tensor_gets_the_type_that_its_mix_is_known_for),
        cmocka_unit_test(narrow_heads_leave_a_model_that_runs),
        cmocka_unit_test(quantised_weights_are_copied_or_made_again),
        cmocka_unit_test(a_checkpoint_and_its_gguf_say_the_same),
        cmocka_unit_test(names_and_keys_are_those_that_others_look_for),
        cmocka_unit_test(an_older_file_of_gpt_oss_runs_and_is_mended),
        cmocka_unit_test(a_quantised_checkpoint_is_widened_first),
        cmocka_unit_test(what_gguf_cannot_say_is_refused),
        cmocka_unit_test(a_checkpoint_keeps_its_words),
        cmocka_unit_test(a_file_is_whole_or_not_there),
        cmocka_unit_test(another_models_importance_is_refused),
        cmocka_unit_test(importance_moves_the_error),
    };
    if (eng_team_open(&team, 2, NULL)) return 1;
    int rc = cmocka_run_group_tests_name("convert", tests, NULL, NULL);
    eng_team_close(team);
    return rc;
}
