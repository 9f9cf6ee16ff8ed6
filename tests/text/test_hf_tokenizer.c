/* Tokenizers of Hugging Face checkpoints: the ids that the `tokenizers` package gives
 * (golden/make_tokenizers.py), and those of real vocabularies when the shared data is there. */
#include "engine/text/hf_tokenizer.h"
#include "tests/text/support.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { BOTH = TOKENIZE_ADD_SPECIAL | TOKENIZE_PARSE_SPECIAL };

static char *read_here(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    if (!f) fail_msg("%s cannot be read: run from the repository's root", path);
    char *p = xmalloc(1 << 20);
    *n = fread(p, 1, (1 << 20) - 1, f);
    p[*n] = 0;
    fclose(f);
    return p;
}

static struct eng_tokenizer *open_files(struct eng_hf_files f)
{
    struct eng_tokenizer *t = NULL;
    f.where = "here";
    f.bos = f.bos ? f.bos : -1;
    if (eng_hf_tokenizer_open(&t, &f)) fail_msg("%s", err_text());
    return t;
}

static struct text_span text(const char *s) { return (struct text_span){s, strlen(s)}; }

static bool same_ids(const char *name, const char *shown, const struct eng_tokens *got, json_t *want)
{
    size_t n = json_array_size(want);
    bool same = got->n == n;
    for (size_t i = 0; i < n && same; i++)
        same = got->ids[i] == (int32_t)json_integer_value(json_array_get(want, i));
    if (same) return true;
    printf("%s: text: %.200s\ngot ", name, shown);
    for (size_t i = 0; i < got->n && i < 80; i++) printf(" %d", got->ids[i]);
    printf("\nwant");
    for (size_t i = 0; i < n && i < 80; i++)
        printf(" %lld", (long long)json_integer_value(json_array_get(want, i)));
    printf("\n");
    return false;
}

static int texts_differ(const struct eng_tokenizer *t, const char *name, json_t *texts, json_t *lists,
                        json_t *decoded)
{
    size_t i;
    json_t *e;
    int bad = 0;
    assert_true(json_array_size(texts) > 80 && json_array_size(lists) == json_array_size(texts));
    json_array_foreach(texts, i, e)
    {
        struct eng_tokens got = {0};
        struct buf back = {0};
        const char *s = json_string_value(e);
        eng_tokenizer_encode(t, s, json_string_length(e), BOTH, &got);
        bad += !same_ids(name, s, &got, json_array_get(lists, i));
        const json_t *want = json_array_get(decoded, i);
        eng_tokenizer_decode(t, got.ids, got.n, false, &back);
        if (json_is_string(want) && (back.len != json_string_length(want) ||
                                     memcmp(buf_str(&back), json_string_value(want), back.len))) {
            printf("%s: decodes to %s\nwanted      %s\n", name, buf_str(&back), json_string_value(want));
            bad++;
        }
        eng_tokens_free(&got);
        buf_free(&back);
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
    char *file = read_here(path, &n), *ids = read_here("tests/text/golden/ids.json", &n_ids);
    struct eng_tokenizer *t = open_files((struct eng_hf_files){.tokenizer_json = {file, n}});
    json_t *g = json_loadb(ids, n_ids, JSON_ALLOW_NUL, NULL);
    int bad = texts_differ(t, name, json_object_get(g, "texts"), json_object_get(json_object_get(g, "ids"), name),
                           json_object_get(json_object_get(g, "decoded"), name));
    assert_int_equal(bad, 0);
    eng_tokenizer_close(t);
    json_decref(g);
    free(file);
    free(ids);
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
        bad += !same_ids(name, s, &got, want);
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
        json_array_foreach(inputs, k, in) if (!strcmp(json_string_value(json_object_get(in, "id")), id))
            s = json_string_value(json_object_get(in, "text"));
        assert_non_null(s);
        eng_tokenizer_encode(t, s, strlen(s), BOTH, &got);
        bad += !same_ids(golden, s, &got, json_object_get(e, "input_ids"));
        eng_tokens_free(&got);
    }
    printf("%s: %zu texts, %d differ\n", golden, json_array_size(json_object_get(g, "entries")), bad);
    assert_int_equal(bad, 0);
    json_decref(inputs);
    json_decref(g);
}

static void gpt2_tokenizer_json_is_exact(void **state)
{
    (void)state;
    struct text_span f = shared_span("data/tokenizers/hf/gpt2.tokenizer.json");
    struct eng_tokenizer *t = open_files((struct eng_hf_files){.tokenizer_json = f});
    ggml_golden(t, "gpt-2");
    multilingual_golden(t, "data/tokenizers/golden/gpt2_multilingual.json");
    eng_tokenizer_close(t);
    free((char *)(uintptr_t)f.p);
}

static void llama2_tokenizer_json_is_exact(void **state)
{
    (void)state;
    struct text_span f = shared_span("data/tokenizers/hf/llama.tokenizer.json");
    struct eng_tokenizer *t = open_files((struct eng_hf_files){.tokenizer_json = f});
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
    struct eng_tokenizer *t = open_files((struct eng_hf_files){.model = f});
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
    char path[256], *ids = read_here("tests/text/golden/ids.json", &n);
    json_t *g = json_loadb(ids, n, JSON_ALLOW_NUL, NULL), *lists;
    free(ids);
    ids = read_here("tests/text/golden/real.json", &n);
    json_t *real = json_loadb(ids, n, 0, NULL);
    const char *name;
    json_object_foreach(json_object_get(real, "ids"), name, lists)
    {
        snprintf(path, sizeof path, "data/%s", name);
        char *file = shared_read(path, &n);
        if (!file) continue;
        struct eng_tokenizer *t = open_files((struct eng_hf_files){.tokenizer_json = {file, n}});
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
    struct text_span c = shared_span("data/hfmeta/granite-3b-code-instruct-128k/tokenizer_config.json");
    static const int32_t eos[] = {0};
    struct eng_tokenizer *t = open_files(
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
    struct eng_hf_files f = {.vocab = v, .merges = m, .tokenizer_config = c, .eos = eos, .n_eos = 2,
                             .bos = 151643};
    struct eng_tokenizer *t = open_files(f);
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

static void foreign_kinds_are_refused_by_name(void **state)
{
    (void)state;
    struct eng_tokenizer *t = NULL;
    struct text_span uni = shared_span("data/tokenizers/spm/test_model.model"),
                     ranks = shared_span("data/tokenizers/llama3/tokenizer.model");
    assert_int_equal(eng_hf_tokenizer_open(&t, &(struct eng_hf_files){.where = "D", .model = uni, .bos = -1}),
                     ERR_UNSUPPORTED);
    assert_non_null(strstr(err_text(), "map of characters"));
    assert_int_equal(eng_hf_tokenizer_open(&t, &(struct eng_hf_files){.where = "D", .model = ranks, .bos = -1}),
                     ERR_BAD_FILE);
    assert_non_null(strstr(err_text(), "base64"));
    free((char *)(uintptr_t)uni.p);
    free((char *)(uintptr_t)ranks.p);
}

/* ---- made by hand ---- */

#define VOCAB "\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a b\"]"
#define BYTES "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false}"

static const struct lie {
    const char *claim, *json;
    enum err err;
    const char *says;
} lies[] = {
    {"no JSON", "{\"model\":", ERR_BAD_FILE, "tokenizer.json"},
    {"an array", "[]", ERR_BAD_FILE, "not an object"},
    {"no model", "{}", ERR_UNSUPPORTED, "model"},
    {"unigram", "{\"model\":{\"type\":\"Unigram\",\"vocab\":[]}}", ERR_UNSUPPORTED, "'Unigram'"},
    {"word pieces", "{\"model\":{\"type\":\"WordPiece\"}}", ERR_UNSUPPORTED, "'WordPiece'"},
    {"vocabulary a list", "{\"model\":{\"type\":\"BPE\",\"vocab\":[],\"merges\":[]}}", ERR_BAD_FILE, "not an object of ids"},
    {"no merges", "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0}}}", ERR_BAD_FILE, "merges"},
    {"merge a number", "{\"model\":{\"vocab\":{\"a\":0},\"merges\":[7]}," BYTES "}", ERR_BAD_FILE, "merge 0"},
    {"merge of one text", "{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"ab\"]}," BYTES "}", ERR_BAD_FILE, "merge 0"},
    {"merge of one in an array", "{\"model\":{\"vocab\":{\"a\":0},\"merges\":[[\"a\"]]}}", ERR_BAD_FILE, "merge 0"},
    {"id -1", "{\"model\":{\"vocab\":{\"a\":-1},\"merges\":[]}}", ERR_BAD_FILE, "token id -1"},
    {"id a text", "{\"model\":{\"vocab\":{\"a\":\"1\"},\"merges\":[]}}", ERR_BAD_FILE, "token id -1"},
    {"id 2^31", "{\"model\":{\"vocab\":{\"a\":2147483648},\"merges\":[]}}", ERR_BAD_FILE, "2147483648"},
    {"id far away", "{\"model\":{\"vocab\":{\"a\":900000},\"merges\":[]}}", ERR_BAD_FILE, "900000"},
    {"added token without text", "{\"model\":{" VOCAB "},\"added_tokens\":[{\"id\":3}]}", ERR_BAD_FILE, "no 'content'"},
    {"added token without id", "{\"model\":{" VOCAB "},\"added_tokens\":[{\"content\":\"x\"}]}", ERR_BAD_FILE, "token id -1"},
    {"subword prefix", "{\"model\":{" VOCAB ",\"continuing_subword_prefix\":\"##\"}}", ERR_UNSUPPORTED, "prefix"},
    {"unknown normalizer", "{\"model\":{" VOCAB "},\"normalizer\":{\"type\":\"Precompiled\"}}", ERR_UNSUPPORTED, "'Precompiled'"},
    {"lower case", "{\"model\":{" VOCAB "},\"normalizer\":{\"type\":\"Lowercase\"}}", ERR_UNSUPPORTED, "'Lowercase'"},
    {"unknown pre-tokenizer", "{\"model\":{" VOCAB "},\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"}}", ERR_UNSUPPORTED, "'BertPreTokenizer'"},
    {"split without pattern", "{\"model\":{" VOCAB "},\"pre_tokenizer\":{\"type\":\"Split\"}}", ERR_BAD_FILE, "pattern"},
    {"split of unknown behavior", "{\"model\":{" VOCAB "},\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a\"},\"behavior\":\"Odd\"}}", ERR_UNSUPPORTED, "'Odd'"},
    {"a broken expression", "{\"model\":{" VOCAB "},\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(a\"}}}", ERR_UNSUPPORTED, "compile"},
    {"class within a class", "{\"model\":{" VOCAB "},\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[a[bc]]\"}}}", ERR_UNSUPPORTED, "within another"},
    {"two tokens before a text", "{\"model\":{" VOCAB "},\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"a\"}},{\"SpecialToken\":{\"id\":\"a\"}},{\"Sequence\":{}}],\"special_tokens\":{\"a\":{\"ids\":[0]}}}}", ERR_UNSUPPORTED, "2 tokens before"},
    {"post-processor's id outside", "{\"model\":{" VOCAB "},\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"a\"}}],\"special_tokens\":{\"a\":{\"ids\":[99]}}}}", ERR_BAD_FILE, "no id of the vocabulary"},
    {"another post-processor", "{\"model\":{" VOCAB "},\"post_processor\":{\"type\":\"BertProcessing\"}}", ERR_UNSUPPORTED, "'BertProcessing'"},
};

static void each_lie_is_refused_by_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(lies); i++) {
        struct eng_tokenizer *t = NULL;
        struct eng_hf_files f = {.where = "D", .tokenizer_json = text(lies[i].json), .bos = -1};
        enum err e = eng_hf_tokenizer_open(&t, &f);
        if (e != lies[i].err || !strstr(err_text(), lies[i].says) || t)
            fail_msg("%s: error %d, \"%s\"", lies[i].claim, e, e ? err_text() : "");
    }
}

static void nothing_at_all_is_said_so(void **state)
{
    (void)state;
    struct eng_tokenizer *t = NULL;
    assert_int_equal(eng_hf_tokenizer_open(&t, &(struct eng_hf_files){.where = "D", .bos = -1}), ERR_BAD_FILE);
    assert_non_null(strstr(err_text(), "none of tokenizer.json"));
    struct eng_hf_files f = {.where = "D", .vocab = text("{\"a\":0}"), .model_type = "llama", .bos = -1};
    assert_int_equal(eng_hf_tokenizer_open(&t, &f), ERR_UNSUPPORTED);
    assert_non_null(strstr(err_text(), "Qwen2Tokenizer"));
}

static void added_tokens_without_a_row_are_left_out(void **state)
{
    (void)state;
    size_t n;
    char *file = read_here("tests/text/golden/llama3.json", &n);
    struct eng_tokenizer *t = open_files((struct eng_hf_files){.tokenizer_json = {file, n}});
    int32_t size = eng_tokenizer_size(t), last = eng_tokenizer_find(t, "<\xC3\xA9>");
    assert_int_equal(last, size - 1);
    eng_tokenizer_close(t);
    t = open_files((struct eng_hf_files){.tokenizer_json = {file, n}, .n_rows = size - 1});
    assert_int_equal(eng_tokenizer_size(t), size - 1);
    struct eng_tokens ids = {0};
    eng_tokenizer_encode(t, "<\xC3\xA9>", 4, BOTH, &ids);
    for (size_t i = 0; i < ids.n; i++) assert_true(ids.ids[i] < size - 1);
    eng_tokens_free(&ids);
    eng_tokenizer_close(t);
    t = NULL;
    struct eng_hf_files f = {.where = "D", .tokenizer_json = {file, n}, .n_rows = 300, .bos = -1};
    assert_int_equal(eng_hf_tokenizer_open(&t, &f), ERR_BAD_FILE);
    assert_non_null(strstr(err_text(), "300 rows"));
    free(file);
}

/* Every byte of a broken text comes back; the valid part is what it would be alone. */
static void broken_utf8_is_encoded_through_bytes(void **state)
{
    static const char *const names[] = {"llama3", "qwen2", "llama2", "mistral", "falcon"};
    static const char broken[] = "ab\xFF\xC3 \xE2\x82 x\xF0\x9F\x98 \x80\xC0\xAF\xED\xA0\x80 end";
    (void)state;
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        char path[128];
        size_t n;
        struct eng_tokens ids = {0};
        struct buf back = {0};
        snprintf(path, sizeof path, "tests/text/golden/%s.json", names[i]);
        char *file = read_here(path, &n);
        struct eng_tokenizer *t = open_files((struct eng_hf_files){.tokenizer_json = {file, n}});
        eng_tokenizer_encode(t, broken, sizeof broken - 1, BOTH, &ids);
        eng_tokenizer_decode(t, ids.ids, ids.n, false, &back);
        assert_int_equal(back.len, sizeof broken - 1);
        assert_memory_equal(back.data, broken, back.len);
        for (size_t cut = 0; cut < sizeof broken; cut++) /* ends anywhere */
            eng_tokenizer_encode(t, broken, cut, BOTH, &ids);
        eng_tokens_free(&ids);
        buf_free(&back);
        eng_tokenizer_close(t);
        free(file);
    }
}

static void control_tokens_are_text_unless_asked_for(void **state)
{
    (void)state;
    size_t n;
    char *file = read_here("tests/text/golden/llama3.json", &n);
    struct eng_tokenizer *t = open_files((struct eng_hf_files){.tokenizer_json = {file, n}});
    struct eng_tokens ids = {0};
    int32_t start = eng_tokenizer_find(t, "<|im_start|>");
    eng_tokenizer_encode(t, "<|im_start|>", 12, TOKENIZE_PARSE_SPECIAL, &ids);
    assert_true(ids.n == 1 && ids.ids[0] == start);
    ids.n = 0;
    eng_tokenizer_encode(t, "<|im_start|>", 12, 0, &ids);
    assert_true(ids.n > 1);
    for (size_t i = 0; i < ids.n; i++) assert_int_not_equal(ids.ids[i], start);
    eng_tokens_free(&ids);
    eng_tokenizer_close(t);
    free(file);
}

/* Any prefix of any file is refused or opens; nothing else. */
static void truncation_at_every_byte_is_no_crash(void **state)
{
    (void)state;
    size_t n;
    char *file = read_here("tests/text/golden/llama2.json", &n);
    for (size_t cut = 0; cut < n; cut += cut < n - 600 ? 97 : 1) {
        struct eng_tokenizer *t = NULL;
        struct eng_hf_files f = {.where = "D", .tokenizer_json = {file, cut}, .bos = -1};
        if (!eng_hf_tokenizer_open(&t, &f) && cut < n - 1) fail_msg("cut at %zu opens", cut);
        eng_tokenizer_close(t);
    }
    free(file);
}

/* A SentencePiece model of four pieces, by hand. */
static void put_piece(struct buf *b, const char *s, float score, int type)
{
    size_t n = strlen(s);
    buf_u8(b, 1 << 3 | 2), buf_u8(b, (uint8_t)(2 + n + 5 + 2));
    buf_u8(b, 1 << 3 | 2), buf_u8(b, (uint8_t)n), buf_put(b, s, n);
    buf_u8(b, 2 << 3 | 5), buf_f32(b, score);
    buf_u8(b, 3 << 3), buf_u8(b, (uint8_t)type);
}

static void a_sentencepiece_model_survives_truncation_and_damage(void **state)
{
    (void)state;
    struct buf b = {0};
    put_piece(&b, "<unk>", 0, 2), put_piece(&b, "<s>", 0, 3), put_piece(&b, "</s>", 0, 3);
    put_piece(&b, "\xE2\x96\x81" "a", -1, 1), put_piece(&b, "a", -2, 1), put_piece(&b, "\xE2\x96\x81", -3, 1);
    static const uint8_t rest[] = {2 << 3 | 2, 2, 3 << 3, 2, 3 << 3 | 2, 2, 4 << 3, 0};
    buf_put(&b, rest, sizeof rest);
    struct eng_tokenizer *t = NULL;
    struct eng_hf_files f = {.where = "D", .model = {buf_str(&b), b.len}, .bos = -1};
    if (eng_hf_tokenizer_open(&t, &f)) fail_msg("%s", err_text());
    struct eng_tokens ids = {0};
    eng_tokenizer_encode(t, "a aa", 4, BOTH, &ids);
    assert_true(ids.n == 4 && ids.ids[0] == 1 && ids.ids[1] == 3 && ids.ids[2] == 3 && ids.ids[3] == 4);
    eng_tokenizer_close(t);
    eng_tokens_free(&ids);
    for (size_t cut = 0; cut < b.len; cut++) {
        t = NULL;
        f.model.n = cut;
        (void)!eng_hf_tokenizer_open(&t, &f);
        eng_tokenizer_close(t);
    }
    for (size_t at = 0; at < b.len; at++)
        for (int v = 0; v < 256; v += 51) {
            uint8_t was = b.data[at];
            t = NULL;
            b.data[at] = (uint8_t)v;
            f.model.n = b.len;
            (void)!eng_hf_tokenizer_open(&t, &f);
            eng_tokenizer_close(t);
            b.data[at] = was;
        }
    buf_free(&b);
}

static void chat_templates_are_found_in_their_three_places(void **state)
{
    static const char *const configs[] = {
        "{\"chat_template\":\"one\"}",
        "{\"chat_template\":[{\"name\":\"tool_use\",\"template\":\"two\"},{\"name\":\"default\",\"template\":\"one\"}]}",
        "{\"chat_template\":[{\"name\":\"x\",\"template\":\"one\"}]}",
    };
    char *s;
    (void)state;
    for (size_t i = 0; i < COUNT_OF(configs); i++) {
        struct eng_hf_files f = {.where = "D", .tokenizer_config = text(configs[i])};
        assert_int_equal(eng_hf_template(&s, &f), OK);
        assert_string_equal(s, "one");
        free(s);
        f.chat_template = text("jinja");
        assert_int_equal(eng_hf_template(&s, &f), OK);
        assert_string_equal(s, "jinja");
        free(s);
    }
    assert_int_equal(eng_hf_template(&s, &(struct eng_hf_files){.where = "D"}), OK);
    assert_null(s);
}

#define GOLDEN(name) {"ids_of_" name "_are_exact", golden, NULL, NULL, (char[]){name}}

int main(void)
{
    const struct CMUnitTest tests[] = {
        GOLDEN("llama3"), GOLDEN("qwen2"), GOLDEN("starcoder"), GOLDEN("gpt2-prefix"),
        GOLDEN("gpt4o"), GOLDEN("deepseek"), GOLDEN("falcon"), GOLDEN("llama2"),
        GOLDEN("mistral"), GOLDEN("meta-always"), GOLDEN("meta-never"), GOLDEN("words"),
        cmocka_unit_test(gpt2_tokenizer_json_is_exact),
        cmocka_unit_test(llama2_tokenizer_json_is_exact),
        cmocka_unit_test(llama2_tokenizer_model_is_exact),
        cmocka_unit_test(real_tokenizer_json_files_give_the_packages_ids),
        cmocka_unit_test(granite_ends_where_its_config_says),
        cmocka_unit_test(qwen2_vocab_and_merges_are_exact),
        cmocka_unit_test(foreign_kinds_are_refused_by_name),
        cmocka_unit_test(each_lie_is_refused_by_name),
        cmocka_unit_test(nothing_at_all_is_said_so),
        cmocka_unit_test(added_tokens_without_a_row_are_left_out),
        cmocka_unit_test(broken_utf8_is_encoded_through_bytes),
        cmocka_unit_test(control_tokens_are_text_unless_asked_for),
        cmocka_unit_test(truncation_at_every_byte_is_no_crash),
        cmocka_unit_test(a_sentencepiece_model_survives_truncation_and_damage),
        cmocka_unit_test(chat_templates_are_found_in_their_three_places),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
