/* Tokenizers on vocabularies made here: rules by name, special tokens, hostile data, long and
 * broken texts. */
#include "tests/text/support.h"
#include "base/clock.h"
#include "base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define SP "\xE2\x96\x81"

static struct eng_tokenizer *open_ok(struct test_vocab *v)
{
    struct eng_tokenizer *t = NULL;
    enum err rc = eng_tokenizer_open(&t, &v->src);
    if (rc) fail_msg("%s", err_text());
    return t;
}

static void close_all(struct eng_tokenizer *t, struct test_vocab *v)
{
    eng_tokenizer_close(t);
    test_vocab_free(v);
}

/* "id id id" */
static void expect(const struct eng_tokenizer *t, const char *text, unsigned flags, const char *ids)
{
    struct eng_tokens got = {0};
    struct buf b = {0};
    eng_tokenizer_encode(t, text, strlen(text), flags, &got);
    for (size_t i = 0; i < got.n; i++) buf_printf(&b, "%s%d", i ? " " : "", got.ids[i]);
    assert_string_equal(buf_str(&b), ids);
    buf_free(&b);
    eng_tokens_free(&got);
}

static void expect_back(const struct eng_tokenizer *t, const char *text, size_t n, unsigned flags)
{
    struct eng_tokens ids = {0};
    struct buf b = {0};
    eng_tokenizer_encode(t, text, n, flags, &ids);
    eng_tokenizer_decode(t, ids.ids, ids.n, true, &b);
    assert_int_equal(b.len, n);
    if (n) assert_memory_equal(b.data, text, n);
    buf_free(&b);
    eng_tokens_free(&ids);
}

static void unknown_names_are_refused_with_the_list(void **s)
{
    struct test_vocab v;
    struct eng_tokenizer *t = NULL;
    (void)s;
    test_vocab_bytes(&v, NULL, NULL);
    v.src.pre = "no-such-rule";
    assert_int_equal(eng_tokenizer_open(&t, &v.src), ERR_UNSUPPORTED);
    assert_non_null(strstr(err_text(), "no-such-rule"));
    assert_non_null(strstr(err_text(), "llama-bpe"));
    assert_non_null(strstr(err_text(), "deepseek-coder"));
    v.src.model = "bert";
    assert_int_equal(eng_tokenizer_open(&t, &v.src), ERR_UNSUPPORTED);
    assert_non_null(strstr(err_text(), "gpt2"));
    v.src.model = NULL;
    assert_int_equal(eng_tokenizer_open(&t, &v.src), ERR_UNSUPPORTED);
    assert_null(t);
    test_vocab_free(&v);
}

static void byte_level_merges_go_by_rank_then_left(void **s)
{
    static const char *const more[] = {"aa", "aaa", "ab", NULL}, *const merges[] = {"a a", "aa a",
                                                                                    "a b", NULL};
    struct test_vocab v;
    (void)s;
    test_vocab_bytes(&v, more, merges);
    struct eng_tokenizer *t = open_ok(&v);
    expect(t, "a", 0, "97");
    expect(t, "aa", 0, "256");
    expect(t, "aaa", 0, "257");
    expect(t, "aaaa", 0, "256 256"); /* both pairs merge before rank 1 comes */
    expect(t, "aaaaa", 0, "256 257");
    expect(t, "aab", 0, "256 98");
    expect(t, "ab", 0, "258");
    expect(t, "", 0, "");
    close_all(t, &v);
}

static void whole_words_skip_merges_only_where_the_rule_says(void **s)
{
    static const char *const more[] = {"xyz", NULL};
    struct test_vocab v;
    (void)s;
    test_vocab_bytes(&v, more, NULL);
    v.src.pre = "llama-bpe";
    struct eng_tokenizer *t = open_ok(&v);
    expect(t, "xyz", 0, "256");
    eng_tokenizer_close(t);
    v.src.pre = "qwen2";
    t = open_ok(&v);
    expect(t, "xyz", 0, "120 121 122");
    close_all(t, &v);
}

static void special_tokens_are_parsed_longest_first_and_only_when_asked(void **s)
{
    static const char *const more[] = {"<|a|>", "<|a|>b", "  ", "<|im_end|>", NULL};
    static const int32_t types[] = {TOKEN_CONTROL, TOKEN_CONTROL, TOKEN_USER, TOKEN_NORMAL};
    struct test_vocab v;
    (void)s;
    test_vocab_bytes(&v, more, NULL);
    int32_t *all = arena_alloc(&v.a, sizeof *all * 260);
    for (int i = 0; i < 260; i++) all[i] = i < 256 ? TOKEN_NORMAL : types[i - 256];
    v.src.types = all;
    struct eng_tokenizer *t = open_ok(&v);
    expect(t, "<|a|>", TOKENIZE_PARSE_SPECIAL, "256");
    expect(t, "<|a|>b", TOKENIZE_PARSE_SPECIAL, "257");
    expect(t, "x<|a|>c", TOKENIZE_PARSE_SPECIAL, "120 256 99");
    expect(t, "<|a|>", 0, "60 124 97 124 62");
    expect(t, "x  y", 0, "120 258 121"); /* user-defined: always */
    expect(t, "<|im_end|>", TOKENIZE_PARSE_SPECIAL,
           "259"); /* a control token whatever the file says */
    assert_int_equal(eng_tokenizer_type(t, 259), TOKEN_CONTROL);
    assert_true(eng_tokenizer_is_eog(t, 259));
    assert_false(eng_tokenizer_is_eog(t, 256));
    assert_int_equal(eng_tokenizer_find(t, "<|a|>"), 256);
    assert_int_equal(eng_tokenizer_find(t, "<|nothing|>"), -1);
    struct buf b = {0};
    int32_t ids[] = {256, 120, 258, -5, 99999};
    eng_tokenizer_decode(t, ids, 5, false, &b);
    assert_string_equal(buf_str(&b), "x  ");
    buf_clear(&b);
    eng_tokenizer_decode(t, ids, 5, true, &b);
    assert_string_equal(buf_str(&b), "<|a|>x  ");
    buf_free(&b);
    close_all(t, &v);
}

/* gpt-oss: an answer ends by the others; elsewhere (Phi) <|end|> ends it. */
static void a_message_that_ends_ends_no_answer_where_calls_and_returns_do(void **s)
{
    static const char *const phi[] = {"<|end|>", "<|return|>", NULL}, *const oss[] = {"<|end|>", "<|return|>", "<|call|>", NULL};
    struct test_vocab v;
    (void)s;
    test_vocab_bytes(&v, phi, NULL);
    struct eng_tokenizer *t = open_ok(&v);
    assert_true(eng_tokenizer_is_eog(t, 256) && eng_tokenizer_is_eog(t, 257));
    close_all(t, &v);
    test_vocab_bytes(&v, oss, NULL);
    t = open_ok(&v);
    assert_true(!eng_tokenizer_is_eog(t, 256) && eng_tokenizer_is_eog(t, 257) && eng_tokenizer_is_eog(t, 258));
    assert_int_equal(eng_tokenizer_type(t, 256), TOKEN_CONTROL);
    close_all(t, &v);
}

static void bos_and_eos_stand_where_the_model_says(void **s)
{
    static const char *const more[] = {"<s>", "</s>", NULL};
    struct test_vocab v;
    (void)s;
    test_vocab_bytes(&v, more, NULL);
    v.src.bos = 256, v.src.eos = 257, v.src.add_bos = v.src.add_eos = true;
    struct eng_tokenizer *t = open_ok(&v);
    expect(t, "a", TOKENIZE_ADD_SPECIAL, "256 97 257");
    expect(t, "", TOKENIZE_ADD_SPECIAL, "256 257");
    expect(t, "a", 0, "97");
    assert_int_equal(eng_tokenizer_bos(t), 256);
    assert_int_equal(eng_tokenizer_eos(t), 257);
    int32_t eog[4];
    assert_int_equal(eng_tokenizer_eog(t, eog, 4), 1);
    assert_int_equal(eog[0], 257);
    close_all(t, &v);
}

static const char *const spm_texts[] = {"<unk>", "<s>",   "</s>",   SP,       "a",      "b", SP "a",
                                        "ab",    SP "ab", "<0x00>", "<0xFF>", "<0xC3>", NULL};

static void sentencepiece_merges_by_score_and_falls_back_to_bytes(void **s)
{
    static const float scores[] = {0, 0, 0, -1, -2, -3, -5, -4, -6, 0, 0, 0};
    struct test_vocab v;
    (void)s;
    test_vocab_texts(&v, "llama", spm_texts);
    v.src.scores = scores, v.src.unk = 0, v.src.bos = 1, v.src.eos = 2, v.src.add_bos = true;
    struct eng_tokenizer *t = open_ok(&v);
    expect(t, "ab", 0, "8"); /* a b: -4 comes before SP a: -5 */
    expect(t, "aab", 0, "6 7");
    expect(t, "", TOKENIZE_ADD_SPECIAL, "1");
    expect(t, "a", TOKENIZE_ADD_SPECIAL, "1 6");
    expect(t, "a<s>a", TOKENIZE_PARSE_SPECIAL, "6 1 6");
    expect(t, "\xFF", 0, "3 10");
    expect(t, "\xC3\xA9", 0, "3 11 0"); /* a missing byte is the unknown token */
    struct eng_tokens ids = {0};
    eng_tokenizer_encode(t, "a\0b", 3, 0, &ids);
    assert_int_equal(ids.n, 3);
    assert_int_equal(ids.ids[1], 9);
    eng_tokens_free(&ids);
    expect_back(t, "a b\0 ab \xFF", 9, 0);
    close_all(t, &v);
}

static enum err try_open(struct test_vocab *v)
{
    struct eng_tokenizer *t = NULL;
    enum err rc = eng_tokenizer_open(&t, &v->src);
    if (!rc)
        eng_tokenizer_close(t);
    else
        assert_true(strlen(err_text()) > 10);
    return rc;
}

static void hostile_vocabularies_are_refused_or_survived(void **s)
{
    static const char *const dup[] = {"a", "a", "", "b", NULL}, *const odd[] = {"x", NULL};
    static const char *const bad_merge[] = {"ab", NULL}, *const absent[] = {"x y", "a b", NULL};
    static const int32_t types[] = {1, 1, 1, 7};
    static const float nan_scores[] = {0.0f / 0.0f, 1.0f / 0.0f, 0, -1.0f / 0.0f};
    struct test_vocab v;
    (void)s;
    test_vocab_texts(&v, "llama", dup);
    v.src.bos = 4;
    assert_int_equal(try_open(&v), ERR_BAD_FILE);
    v.src.bos = -2;
    assert_int_equal(try_open(&v), ERR_BAD_FILE);
    v.src.bos = -1, v.src.types = types;
    assert_int_equal(try_open(&v), ERR_BAD_FILE);
    v.src.types = NULL, v.src.scores = nan_scores;
    struct eng_tokenizer *t = open_ok(&v);
    expect(t, "ab", 0, "0 3"); /* of duplicates the lowest id; no dummy space token: nothing */
    close_all(t, &v);
    test_vocab_texts(&v, "gpt2", odd);
    t = open_ok(&v); /* hardly any byte: what has no token is left out */
    expect(t, "axb", 0, "0");
    eng_tokenizer_close(t);
    v.src.n_tokens = 0;
    assert_int_equal(try_open(&v), ERR_BAD_FILE);
    v.src.n_tokens = -5;
    assert_int_equal(try_open(&v), ERR_BAD_FILE);
    test_vocab_free(&v);
    test_vocab_bytes(&v, NULL, bad_merge);
    assert_int_equal(try_open(&v), ERR_BAD_FILE);
    assert_non_null(strstr(err_text(), "\"ab\""));
    test_vocab_free(&v);
    test_vocab_bytes(&v, NULL, absent);
    t = open_ok(&v);
    expect(t, "ab", 0, "97 98");
    close_all(t, &v);
}

static void every_text_of_any_bytes_comes_back(void **s)
{
    static const char *const more[] = {"ab",
                                       "\xC4\xA0"
                                       "a",
                                       NULL},
                             *const merges[] = {"a b", "\xC4\xA0 a", NULL};
    static const char *const rules[] = {
        "gpt-2",       "llama-bpe", "qwen2",  "starcoder", "deepseek-llm", "deepseek-coder",
        "deepseek-v3", "gpt-4o",    "tekken", "falcon",    "viking",       "chameleon"};
    static const char *const parts[] = {"a",
                                        "b",
                                        " ",
                                        "\n",
                                        "\r",
                                        "1",
                                        "'s",
                                        "'LL",
                                        ".",
                                        "!",
                                        "\xFF",
                                        "\xC3",
                                        "\xE2\x96\x81",
                                        "\xC3\xA9",
                                        "\xE4\xB8\x80",
                                        "\xF0\x9F\x98\x81",
                                        "\xED\xA0\x80",
                                        "\t",
                                        "  "};
    const uint64_t seed = (uint64_t)clock_us();
    struct test_vocab v;
    (void)s;
    printf("seed %llu\n", (unsigned long long)seed);
    test_vocab_bytes(&v, more, merges);
    for (size_t r = 0; r < COUNT_OF(rules); r++) {
        v.src.pre = rules[r];
        struct eng_tokenizer *t = open_ok(&v);
        for (uint64_t i = 0; i < 300; i++) {
            struct buf b = {0};
            for (uint64_t k = rng_at(seed, r, i, 0) % 40; k; k--)
                buf_puts(&b, parts[rng_at(seed, r, i, k) % COUNT_OF(parts)]);
            if (i % 7 == 0) buf_put(&b, "\0", 1);
            expect_back(t, buf_str(&b), b.len, TOKENIZE_PARSE_SPECIAL);
            buf_free(&b);
        }
        eng_tokenizer_close(t);
    }
    test_vocab_free(&v);
}

/* n log n, whatever the letter: quadratic work would take minutes. */
static void a_megabyte_of_one_letter_is_no_attack(void **s)
{
    static const char *const more[] = {"aa", "aaaa", "\xC4\xA0\xC4\xA0", NULL};
    static const char *const merges[] = {"a a", "aa aa", "\xC4\xA0 \xC4\xA0", NULL};
    static const char *const rules[] = {
        "gpt-2", "llama-bpe", "deepseek-llm", "deepseek-coder", "deepseek-v3", "gpt-4o", "tekken"};
    static const char *const letters[] = {
        "a", " ", "1", "A", ".", "\n", "\xFF", "\xE4\xB8\x80", "\xE0\xB8\x81", " .", "\t\n"};
    const size_t n = 1 << 20;
    char *text = xmalloc(n);
    struct test_vocab v, w;
    (void)s;
    test_vocab_bytes(&v, more, merges);
    test_vocab_texts(&w, "llama", spm_texts);
    int64_t start = clock_us();
    for (size_t l = 0; l < COUNT_OF(letters); l++) {
        size_t len = strlen(letters[l]);
        for (size_t i = 0; i < n; i++) text[i] = letters[l][i % len];
        text[n - 1] = '5'; /* so that trailing blanks do not end the text */
        for (size_t r = l % 3; r <= COUNT_OF(rules); r += 3) {
            struct eng_tokens ids = {0};
            struct test_vocab *x = r < COUNT_OF(rules) ? &v : &w;
            if (r < COUNT_OF(rules)) v.src.pre = rules[r];
            struct eng_tokenizer *t = open_ok(x);
            eng_tokenizer_encode(t, text, n, TOKENIZE_PARSE_SPECIAL, &ids);
            if (x == &v) assert_true(ids.n >= n / 4);
            eng_tokens_free(&ids);
            eng_tokenizer_close(t);
        }
    }
    printf("%.2f s\n", (double)(clock_us() - start) / 1e6);
    assert_true(clock_us() - start < 100 * 1000000);
    free(text);
    test_vocab_free(&v);
    test_vocab_free(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unknown_names_are_refused_with_the_list),
        cmocka_unit_test(byte_level_merges_go_by_rank_then_left),
        cmocka_unit_test(whole_words_skip_merges_only_where_the_rule_says),
        cmocka_unit_test(special_tokens_are_parsed_longest_first_and_only_when_asked),
        cmocka_unit_test(a_message_that_ends_ends_no_answer_where_calls_and_returns_do),
        cmocka_unit_test(bos_and_eos_stand_where_the_model_says),
        cmocka_unit_test(sentencepiece_merges_by_score_and_falls_back_to_bytes),
        cmocka_unit_test(hostile_vocabularies_are_refused_or_survived),
        cmocka_unit_test(every_text_of_any_bytes_comes_back),
        cmocka_unit_test(a_megabyte_of_one_letter_is_no_attack),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
