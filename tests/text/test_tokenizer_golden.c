/* Ids against those of the models' own tokenizers; each test skips when the shared data is absent.
 */
#include "tests/text/support.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static const char sep[] = "\n__ggml_vocab_test__\n";

static struct eng_tokenizer *open_tokenizer(const struct test_vocab *v)
{
    struct eng_tokenizer *t = NULL;
    enum err rc = eng_tokenizer_open(&t, &v->src);
    if (rc) fail_msg("%s", err_text());
    return t;
}

static void print_ids(const char *what, const int32_t *ids, size_t n)
{
    printf("%s:", what);
    for (size_t i = 0; i < n && i < 60; i++) printf(" %d", ids[i]);
    printf("\n");
}

static bool same(const char *text, const struct eng_tokens *got, const struct eng_tokens *want)
{
    if (got->n == want->n && (!got->n || !memcmp(got->ids, want->ids, sizeof *got->ids * got->n)))
        return true;
    printf("text: %.200s\n", text);
    print_ids("got", got->ids, got->n);
    print_ids("want", want->ids, want->n);
    return false;
}

static void parse_ids(const char *line, struct eng_tokens *out)
{
    char *end;
    out->n = 0;
    for (const char *p = line;; p = end) {
        long id = strtol(p, &end, 10);
        if (end == p) return;
        eng_tokens_push(out, (int32_t)id);
    }
}

/* Encode and decode back one text. */
static int check_text(const struct eng_tokenizer *t, const char *text, size_t n,
                      const struct eng_tokens *want)
{
    struct eng_tokens got = {0};
    struct buf back = {0};
    eng_tokenizer_encode(t, text, n, 0, &got);
    int bad = !same(text, &got, want);
    eng_tokenizer_decode(t, got.ids, got.n, false, &back);
    if (back.len != n || memcmp(buf_str(&back), text, n)) {
        printf("text: %.200s\ndecodes to: %.200s\n", text, buf_str(&back));
        bad = 1;
    }
    eng_tokens_free(&got);
    buf_free(&back);
    return bad;
}

static void check_golden(struct test_vocab *v, const char *name)
{
    char path[256];
    size_t n_in, n_out;
    int bad = 0, n = 0;
    struct eng_tokens want = {0};
    snprintf(path, sizeof path, "data/tokenizers/ggml-vocab/ggml-vocab-%s.gguf.inp", name);
    char *in = shared_read(path, &n_in);
    snprintf(path, sizeof path, "data/tokenizers/ggml-vocab/ggml-vocab-%s.gguf.out", name);
    char *out = in ? shared_read(path, &n_out) : NULL;
    if (!out) {
        free(in);
        test_vocab_free(v);
        skip();
    }
    struct eng_tokenizer *t = open_tokenizer(v);
    char *text = in, *line = out;
    for (char *next; (next = strstr(text, sep)); text = next + strlen(sep), n++) {
        char *eol = strchr(line, '\n');
        assert_non_null(eol);
        *eol = 0;
        parse_ids(line, &want);
        bad += check_text(t, text, (size_t)(next - text), &want);
        line = eol + 1;
    }
    printf("%s: %d texts, %s\n", name, n, eng_tokenizer_kind(t));
    assert_int_equal(n, 46);
    assert_int_equal(bad, 0);
    eng_tokens_free(&want);
    eng_tokenizer_close(t);
    free(in);
    free(out);
    test_vocab_free(v);
}

static void check_gguf(const char *name)
{
    char path[256];
    struct test_vocab v;
    snprintf(path, sizeof path, "data/tokenizers/ggml-vocab/ggml-vocab-%s.gguf", name);
    if (!test_vocab_gguf(&v, path)) {
        test_vocab_free(&v);
        skip();
    }
    check_golden(&v, name);
}

static void gpt_2_ids_are_exact(void **s) { (void)s, check_gguf("gpt-2"); }
static void starcoder_ids_are_exact(void **s) { (void)s, check_gguf("starcoder"); }
static void deepseek_llm_ids_are_exact(void **s) { (void)s, check_gguf("deepseek-llm"); }
static void llama_spm_ids_are_exact(void **s) { (void)s, check_gguf("llama-spm"); }

static void llama_bpe_ids_are_exact(void **s)
{
    static char names[256][40];
    const char *control[257] = {0};
    struct test_vocab v;
    (void)s;
    for (int i = 0; i < 256; i++) {
        snprintf(names[i], sizeof names[i], "<|reserved_special_token_%d|>", i);
        control[i] = names[i];
    }
    control[0] = "<|begin_of_text|>", control[1] = "<|end_of_text|>", control[9] = "<|eot_id|>";
    if (!test_vocab_lists(&v, "data/tokenizers/llama3/encoder.json",
                          "data/tokenizers/llama3/vocab.bpe", "llama-bpe", control)) {
        test_vocab_free(&v);
        skip();
    }
    check_golden(&v, "llama-bpe");
}

static void qwen2_ids_are_exact(void **s)
{
    static const char *const control[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>", NULL};
    struct test_vocab v;
    (void)s;
    if (!test_vocab_lists(&v, "data/tokenizers/qwen2/vocab.json",
                          "data/tokenizers/qwen2/merges.txt", "qwen2", control)) {
        test_vocab_free(&v);
        skip();
    }
    check_golden(&v, "qwen2");
}

static const char *input_of(json_t *inputs, const char *id)
{
    size_t i;
    json_t *e;
    json_array_foreach(inputs, i,
                       e) if (!strcmp(json_string_value(json_object_get(e, "id")),
                                      id)) return json_string_value(json_object_get(e, "text"));
    return NULL;
}

static int check_entry(const struct eng_tokenizer *t, json_t *e, const char *text)
{
    struct eng_tokens got = {0}, want = {0};
    struct buf back = {0};
    size_t i;
    json_t *id;
    int bad = 0;
    json_array_foreach(json_object_get(e, "input_ids"), i, id)
        eng_tokens_push(&want, (int32_t)json_integer_value(id));
    eng_tokenizer_encode(t, text, strlen(text), TOKENIZE_ADD_SPECIAL | TOKENIZE_PARSE_SPECIAL,
                         &got);
    bad += !same(text, &got, &want);
    for (int special = 0; special < 2; special++) {
        const char *key = special ? "decoded_with_special" : "decoded_skip_special";
        const char *decoded = json_string_value(json_object_get(e, key));
        buf_clear(&back);
        eng_tokenizer_decode(t, want.ids, want.n, special, &back);
        if (strcmp(buf_str(&back), decoded)) {
            printf("%s\n  got  %s\n  want %s\n", key, buf_str(&back), decoded);
            bad++;
        }
    }
    eng_tokens_free(&got);
    eng_tokens_free(&want);
    buf_free(&back);
    return bad;
}

static void check_multilingual(const char *vocab, const char *golden)
{
    struct test_vocab v;
    json_t *inputs = shared_json("data/tokenizers/golden/multilingual_inputs.json"),
           *g = shared_json(golden), *e;
    size_t i;
    int bad = 0;
    if (!inputs || !g || !test_vocab_gguf(&v, vocab)) skip();
    struct eng_tokenizer *t = open_tokenizer(&v);
    json_array_foreach(json_object_get(g, "entries"), i, e)
    {
        const char *text = input_of(inputs, json_string_value(json_object_get(e, "id")));
        assert_non_null(text);
        bad += check_entry(t, e, text);
    }
    printf("%s: %zu texts\n", golden, json_array_size(json_object_get(g, "entries")));
    assert_int_equal(bad, 0);
    eng_tokenizer_close(t);
    test_vocab_free(&v);
    json_decref(inputs);
    json_decref(g);
}

static void gpt2_multilingual_is_exact(void **s)
{
    (void)s;
    check_multilingual("data/tokenizers/ggml-vocab/ggml-vocab-gpt-2.gguf",
                       "data/tokenizers/golden/gpt2_multilingual.json");
}

static void tinyllama_multilingual_is_exact(void **s)
{
    (void)s;
    check_multilingual("data/tokenizers/ggml-vocab/ggml-vocab-llama-spm.gguf",
                       "data/tokenizers/golden/tinyllama_multilingual.json");
}

static void check_paragraph(const char *vocab, const char *golden)
{
    struct test_vocab v;
    json_t *g = shared_json(golden);
    struct eng_tokens want = {0}, got = {0};
    if (!g || !test_vocab_gguf(&v, vocab)) skip();
    struct eng_tokenizer *t = open_tokenizer(&v);
    const char *text = json_string_value(json_object_get(g, "text"));
    json_t *ids = json_object_get(g, "token_ids");
    size_t i;
    json_t *id;
    if (json_is_string(ids)) parse_ids(json_string_value(ids) + 1, &want);
    json_array_foreach(ids, i, id) eng_tokens_push(&want, (int32_t)json_integer_value(id));
    eng_tokenizer_encode(t, text, strlen(text), TOKENIZE_ADD_SPECIAL, &got);
    assert_true(want.n > 100);
    assert_true(same(text, &got, &want));
    eng_tokens_free(&want);
    eng_tokens_free(&got);
    eng_tokenizer_close(t);
    test_vocab_free(&v);
    json_decref(g);
}

static void gpt2_paragraph_is_exact(void **s)
{
    (void)s;
    check_paragraph("data/tokenizers/ggml-vocab/ggml-vocab-gpt-2.gguf",
                    "data/tokenizers/golden/gpt2_encoded_tokens.json");
}

static void llama_paragraph_is_exact(void **s)
{
    (void)s;
    check_paragraph("data/tokenizers/ggml-vocab/ggml-vocab-llama-spm.gguf",
                    "data/tokenizers/golden/llama_encoded.json");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gpt_2_ids_are_exact),
        cmocka_unit_test(starcoder_ids_are_exact),
        cmocka_unit_test(deepseek_llm_ids_are_exact),
        cmocka_unit_test(llama_spm_ids_are_exact),
        cmocka_unit_test(llama_bpe_ids_are_exact),
        cmocka_unit_test(qwen2_ids_are_exact),
        cmocka_unit_test(gpt2_multilingual_is_exact),
        cmocka_unit_test(tinyllama_multilingual_is_exact),
        cmocka_unit_test(gpt2_paragraph_is_exact),
        cmocka_unit_test(llama_paragraph_is_exact),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
