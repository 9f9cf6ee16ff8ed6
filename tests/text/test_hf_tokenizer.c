/* Tokenizers of Hugging Face checkpoints: the ids that the `tokenizers` package gives
 * (golden/make_tokenizers.py), and those of real vocabularies when the shared data is there. */
#include "engine/text/detok.h"
#include "tests/text/hf_support.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* The same ids one by one: the text of the whole, with U+FFFD for what is no UTF-8. */
static void stream(const struct eng_tokenizer *t, const struct eng_tokens *ids, struct buf *out)
{
    struct eng_detok *d = eng_detok_open(t, NULL, 0, false, false);
    eng_detok_drop_first_space(d);
    for (size_t i = 0; i < ids->n; i++) eng_detok_push(d, ids->ids[i], out);
    eng_detok_finish(d, out);
    eng_detok_close(d);
}

static bool is_text(const char *name, const char *how, struct buf *got, const char *want, size_t n)
{
    if (got->len == n && !memcmp(buf_str(got), want, n)) return true;
    printf("%s: %s %s\nwanted      %s\n", name, how, buf_str(got), want);
    return false;
}

/* Whole and in pieces; want: the package's text, or NULL. Of bytes that are no UTF-8 the package makes U+FFFD, as a stream does. */
static bool decodes(const struct eng_tokenizer *t, const char *name, const struct eng_tokens *ids, const json_t *want)
{
    struct buf whole = {0}, pieces = {0};
    eng_tokenizer_decode(t, ids->ids, ids->n, false, &whole);
    stream(t, ids, &pieces);
    bool bad = memmem(buf_str(&pieces), pieces.len, "\xEF\xBF\xBD", 3);
    bool ok = bad || is_text(name, "streams as", &pieces, buf_str(&whole), whole.len);
    if (json_is_string(want)) ok &= is_text(name, "decodes to", bad ? &pieces : &whole, json_string_value(want), json_string_length(want));
    buf_free(&whole);
    buf_free(&pieces);
    return ok;
}

static int texts_differ(const struct eng_tokenizer *t, const char *name, json_t *texts,
                        json_t *lists, json_t *decoded)
{
    size_t i;
    json_t *e;
    int bad = 0;
    assert_true(json_array_size(texts) > 80 && json_array_size(lists) == json_array_size(texts));
    json_array_foreach(texts, i, e)
    {
        struct eng_tokens got = {0};
        const char *s = json_string_value(e);
        eng_tokenizer_encode(t, s, json_string_length(e), BOTH, &got);
        bad += !hf_same_ids(name, s, &got, json_array_get(lists, i));
        bad += !decodes(t, name, &got, json_array_get(decoded, i));
        eng_tokens_free(&got);
    }
    printf("%-12s %zu texts, %d differ\n", name, json_array_size(texts), bad);
    return bad;
}

static void golden(void **state)
{
    char path[128];
    const char *name = *state;
    size_t n, n_ids;
    snprintf(path, sizeof path, "tests/text/golden/%s.json", name);
    char *file = hf_read_here(path, &n), *ids = hf_read_here("tests/text/golden/ids.json", &n_ids);
    struct eng_tokenizer *t = hf_open((struct eng_hf_files){.tokenizer_json = {file, n}});
    json_t *g = json_loadb(ids, n_ids, JSON_ALLOW_NUL, NULL);
    int bad = texts_differ(t, name, json_object_get(g, "texts"),
                           json_object_get(json_object_get(g, "ids"), name),
                           json_object_get(json_object_get(g, "decoded"), name));
    assert_int_equal(bad, 0);
    eng_tokenizer_close(t);
    json_decref(g);
    free(file);
    free(ids);
}

/* A tokenizer.model: the ids and the texts that SentencePiece gives (golden/make_sentencepiece.py). */
static void sentencepiece_texts(const char *name, struct text_span model)
{
    size_t i, n, n_ids;
    json_t *e;
    int bad = 0;
    char *file = hf_read_here("tests/text/golden/sentencepiece.json", &n), *ids = hf_read_here("tests/text/golden/ids.json", &n_ids);
    json_t *g = json_loadb(file, n, JSON_ALLOW_NUL, NULL), *texts = json_loadb(ids, n_ids, JSON_ALLOW_NUL, NULL);
    json_t *lists = json_object_get(json_object_get(g, "ids"), name), *decoded = json_object_get(json_object_get(g, "decoded"), name);
    struct eng_tokenizer *t = hf_open((struct eng_hf_files){.model = model});
    assert_true(json_array_size(lists) > 80);
    json_array_foreach(json_object_get(texts, "texts"), i, e)
    {
        struct eng_tokens got = {0};
        const char *s = json_string_value(e);
        eng_tokenizer_encode(t, s, json_string_length(e), 0, &got);
        bad += !hf_same_ids(name, s, &got, json_array_get(lists, i));
        bad += !decodes(t, name, &got, json_array_get(decoded, i));
        eng_tokens_free(&got);
    }
    printf("%-12s %zu texts, %d differ\n", name, i, bad);
    assert_int_equal(bad, 0);
    eng_tokenizer_close(t);
    json_decref(g);
    json_decref(texts);
    free(file);
    free(ids);
}

static void sentencepiece_golden(void **state)
{
    char path[128];
    size_t n;
    snprintf(path, sizeof path, "tests/text/golden/%s.model", (const char *)*state);
    char *file = hf_read_here(path, &n);
    sentencepiece_texts(*state, (struct text_span){file, n});
    free(file);
}

/* ---- real vocabularies ---- */

static const char sep[] = "\n__ggml_vocab_test__\n";

/* The shared file as a span; skips the test when it is absent. */
static struct text_span shared_span(const char *path)
{
    size_t n;
    char *p = shared_read(path, &n);
    if (!p) skip();
    return (struct text_span){p, n};
}

static json_t *ids_of_line(const char *line)
{
    json_t *ids = json_array();
    char *end;
    for (const char *p = line; *p && *p != '\n'; p = end) {
        long id = strtol(p, &end, 10);
        if (end == p) break;
        json_array_append_new(ids, json_integer(id));
    }
    return ids;
}

/* 46 texts and the ids that the model's own tokenizer gives. */
static void ggml_golden(const struct eng_tokenizer *t, const char *name)
{
    char path[256];
    int bad = 0, n = 0;
    snprintf(path, sizeof path, "data/tokenizers/ggml-vocab/ggml-vocab-%s.gguf.inp", name);
    char *in = (char *)(uintptr_t)shared_span(path).p;
    snprintf(path, sizeof path, "data/tokenizers/ggml-vocab/ggml-vocab-%s.gguf.out", name);
    char *out = (char *)(uintptr_t)shared_span(path).p, *line = out, *s = in;
    for (char *next; (next = strstr(s, sep)); s = next + strlen(sep), n++) {
        struct eng_tokens got = {0};
        json_t *want = ids_of_line(line);
        *next = 0;
        eng_tokenizer_encode(t, s, (size_t)(next - s), 0, &got);
        bad += !hf_same_ids(name, s, &got, want);
        line = strchr(line, '\n') + 1;
        json_decref(want);
        eng_tokens_free(&got);
    }
    printf("%s: %d texts, %d differ\n", name, n, bad);
    assert_int_equal(n, 46);
    assert_int_equal(bad, 0);
    free(in);
    free(out);
}

/* 83 texts in many scripts, with BOS where the model has one. */
static void multilingual_golden(const struct eng_tokenizer *t, const char *golden)
{
    json_t *inputs = shared_json("data/tokenizers/golden/multilingual_inputs.json"),
           *g = shared_json(golden), *e, *in;
    size_t i, k;
    int bad = 0;
    if (!inputs || !g) skip();
    json_array_foreach(json_object_get(g, "entries"), i, e)
    {
        const char *s = NULL, *id = json_string_value(json_object_get(e, "id"));
        struct eng_tokens got = {0};
        json_array_foreach(inputs, k,
                           in) if (!strcmp(json_string_value(json_object_get(in, "id")), id)) s =
            json_string_value(json_object_get(in, "text"));
        assert_non_null(s);
        eng_tokenizer_encode(t, s, strlen(s), BOTH, &got);
        bad += !hf_same_ids(golden, s, &got, json_object_get(e, "input_ids"));
        eng_tokens_free(&got);
    }
    printf("%s: %zu texts, %d differ\n", golden, json_array_size(json_object_get(g, "entries")),
           bad);
    assert_int_equal(bad, 0);
    json_decref(inputs);
    json_decref(g);
}

static void gpt2_tokenizer_json_is_exact(void **state)
{
    (void)state;
    struct text_span f = shared_span("data/tokenizers/hf/gpt2.tokenizer.json");
    struct eng_tokenizer *t = hf_open((struct eng_hf_files){.tokenizer_json = f});
    ggml_golden(t, "gpt-2");
    multilingual_golden(t, "data/tokenizers/golden/gpt2_multilingual.json");
    eng_tokenizer_close(t);
    free((char *)(uintptr_t)f.p);
}

static void llama2_tokenizer_json_is_exact(void **state)
{
    (void)state;
    struct text_span f = shared_span("data/tokenizers/hf/llama.tokenizer.json");
    struct eng_tokenizer *t = hf_open((struct eng_hf_files){.tokenizer_json = f});
    assert_int_equal(eng_tokenizer_bos(t), 1);
    ggml_golden(t, "llama-spm");
    multilingual_golden(t, "data/tokenizers/golden/tinyllama_multilingual.json");
    eng_tokenizer_close(t);
    free((char *)(uintptr_t)f.p);
}

static void llama2_tokenizer_model_is_exact(void **state)
{
    (void)state;
    struct text_span f = shared_span("data/tokenizers/hf/llama-2-13b.tokenizer.model");
    struct eng_tokenizer *t = hf_open((struct eng_hf_files){.model = f});
    assert_int_equal(eng_tokenizer_bos(t), 1);
    assert_true(eng_tokenizer_is_eog(t, 2) && eng_tokenizer_size(t) == 32000);
    ggml_golden(t, "llama-spm");
    multilingual_golden(t, "data/tokenizers/golden/tinyllama_multilingual.json");
    eng_tokenizer_close(t);
    free((char *)(uintptr_t)f.p);
}

/* The texts of the golden files by real tokenizer.json files. */
static void real_tokenizer_json_files_give_the_packages_ids(void **state)
{
    (void)state;
    size_t n;
    int bad = 0, seen = 0;
    char path[256], *ids = hf_read_here("tests/text/golden/ids.json", &n);
    json_t *g = json_loadb(ids, n, JSON_ALLOW_NUL, NULL), *lists;
    free(ids);
    ids = hf_read_here("tests/text/golden/real.json", &n);
    json_t *real = json_loadb(ids, n, 0, NULL);
    const char *name;
    json_object_foreach(json_object_get(real, "ids"), name, lists)
    {
        snprintf(path, sizeof path, "data/%s", name);
        char *file = shared_read(path, &n);
        if (!file) continue;
        struct eng_tokenizer *t = hf_open((struct eng_hf_files){.tokenizer_json = {file, n}});
        bad += texts_differ(t, name, json_object_get(g, "texts"), lists, NULL);
        seen++;
        eng_tokenizer_close(t);
        free(file);
    }
    json_decref(g);
    json_decref(real);
    free(ids);
    if (!seen) skip();
    assert_int_equal(bad, 0);
}

static void granite_ends_where_its_config_says(void **state)
{
    (void)state;
    struct text_span f = shared_span("data/hfmeta/granite-3b-code-instruct-128k/tokenizer.json");
    struct text_span c =
        shared_span("data/hfmeta/granite-3b-code-instruct-128k/tokenizer_config.json");
    static const int32_t eos[] = {0};
    struct eng_tokenizer *t = hf_open(
        (struct eng_hf_files){.tokenizer_json = f, .tokenizer_config = c, .eos = eos, .n_eos = 1});
    assert_true(eng_tokenizer_is_eog(t, 0));
    assert_int_equal(eng_tokenizer_eos(t), 0);
    eng_tokenizer_close(t);
    free((char *)(uintptr_t)f.p);
    free((char *)(uintptr_t)c.p);
}

static void qwen2_vocab_and_merges_are_exact(void **state)
{
    (void)state;
    struct text_span v = shared_span("data/tokenizers/qwen2/vocab.json"),
                     m = shared_span("data/tokenizers/qwen2/merges.txt"),
                     c = shared_span("data/tokenizers/qwen2/tokenizer_config.json");
    static const int32_t eos[] = {151645, 151643};
    struct eng_hf_files f = {
        .vocab = v, .merges = m, .tokenizer_config = c, .eos = eos, .n_eos = 2, .bos = 151643};
    struct eng_tokenizer *t = hf_open(f);
    assert_int_equal(eng_tokenizer_bos(t), -1); /* tokenizer_config.json says null */
    assert_int_equal(eng_tokenizer_eos(t), 151645);
    assert_true(eng_tokenizer_is_eog(t, 151643) && eng_tokenizer_is_eog(t, 151645));
    ggml_golden(t, "qwen2");
    eng_tokenizer_close(t);
    char *chat;
    assert_int_equal(eng_hf_template(&chat, &f), OK);
    assert_non_null(strstr(chat, "<|im_start|>"));
    free(chat);
    free((char *)(uintptr_t)v.p);
    free((char *)(uintptr_t)m.p);
    free((char *)(uintptr_t)c.p);
}

/* SentencePiece's own model of its tests, with the map of characters that most real ones have (nmt_nfkc). */
static void a_real_map_of_characters_is_exact(void **state)
{
    (void)state;
    struct text_span uni = shared_span("data/tokenizers/spm/test_model.model");
    sentencepiece_texts("tokenizers/spm/test_model.model", uni);
    free((char *)(uintptr_t)uni.p);
}

static void foreign_kinds_are_refused_by_name(void **state)
{
    (void)state;
    struct eng_tokenizer *t = NULL;
    struct text_span ranks = shared_span("data/tokenizers/llama3/tokenizer.model");
    assert_int_equal(
        eng_hf_tokenizer_open(&t, &(struct eng_hf_files){.where = "D", .model = ranks, .bos = -1}),
        ERR_BAD_FILE);
    assert_non_null(strstr(err_text(), "base64"));
    free((char *)(uintptr_t)ranks.p);
}

#define GOLDEN(name)                                                                               \
    {                                                                                              \
        "ids_of_" name "_are_exact", golden, NULL, NULL, (char[])                                  \
        {                                                                                          \
            name                                                                                   \
        }                                                                                          \
    }

#define SP_GOLDEN(name) {"ids_of_" name "_are_exact", sentencepiece_golden, NULL, NULL, (char[]){name}}

int main(void)
{
    const struct CMUnitTest tests[] = {
        GOLDEN("llama3"),
        GOLDEN("qwen2"),
        GOLDEN("starcoder"),
        GOLDEN("gpt2-prefix"),
        GOLDEN("gpt4o"),
        GOLDEN("deepseek"),
        GOLDEN("falcon"),
        GOLDEN("tekken"),
        GOLDEN("command-r"),
        GOLDEN("neox"),
        GOLDEN("glm4"),
        GOLDEN("deepseek-v3"),
        GOLDEN("gemma"),
        GOLDEN("llama2"),
        GOLDEN("mistral"),
        GOLDEN("meta-always"),
        GOLDEN("meta-never"),
        GOLDEN("words"),
        GOLDEN("unigram"),
        GOLDEN("unigram-bytes"),
        GOLDEN("unigram-whole"),
        GOLDEN("unigram-map"),
        GOLDEN("gpt2-inner"),
        GOLDEN("meta-inner"),
        GOLDEN("unigram-words"),
        GOLDEN("bert"),
        GOLDEN("bert-cased"),
        GOLDEN("bert-plain"),
        GOLDEN("wordpiece"),
        GOLDEN("wordlevel"),
        GOLDEN("wordlevel-joined"),
        GOLDEN("wordlevel-fixed"),
        GOLDEN("gpt1"),
        GOLDEN("clip"),
        GOLDEN("bpe-inner"),
        GOLDEN("bpe-bytes"),
        GOLDEN("bpe-classes"),
        GOLDEN("bytes-first"),
        SP_GOLDEN("sp-unigram-map"),
        SP_GOLDEN("sp-unigram-plain"),
        SP_GOLDEN("sp-bpe-map"),
        cmocka_unit_test(a_real_map_of_characters_is_exact),
        cmocka_unit_test(gpt2_tokenizer_json_is_exact),
        cmocka_unit_test(llama2_tokenizer_json_is_exact),
        cmocka_unit_test(llama2_tokenizer_model_is_exact),
        cmocka_unit_test(real_tokenizer_json_files_give_the_packages_ids),
        cmocka_unit_test(granite_ends_where_its_config_says),
        cmocka_unit_test(qwen2_vocab_and_merges_are_exact),
        cmocka_unit_test(foreign_kinds_are_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
