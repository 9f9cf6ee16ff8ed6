/* Tokens one by one: whole characters, nothing lost, stop strings. */
#include "base/clock.h"
#include "base/rng.h"
#include "engine/text/detok.h"
#include "engine/text/utf8.h"
#include "tests/text/support.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define BAD "\xEF\xBF\xBD"
#define SP  "\xE2\x96\x81"

static struct test_vocab vocab;
static struct eng_tokenizer *tok;

static int setup(void **s)
{
    static const char *const more[] = {"ab", "abc", "<|im_end|>", NULL};
    (void)s;
    test_vocab_bytes(&vocab, more, NULL);
    return eng_tokenizer_open(&tok, &vocab.src) ? -1 : 0;
}

static int teardown(void **s)
{
    (void)s;
    eng_tokenizer_close(tok);
    test_vocab_free(&vocab);
    return 0;
}

/* Every byte of `bytes` as one token; between what each push lets out stands a '|'. */
static void expect(const char *bytes, const char *const *stops, int32_t n_stops, bool include,
                   const char *want, int32_t want_stop)
{
    struct buf out = {0}, all = {0};
    struct eng_detok *d = eng_detok_open(tok, stops, n_stops, include, false);
    int32_t hit = -1;
    for (const char *p = bytes; *p; p++) {
        struct eng_tokens id = {0};
        eng_tokenizer_encode(tok, p, 1, 0, &id);
        buf_clear(&out);
        hit = eng_detok_push(d, id.ids[0], &out);
        if (out.len) buf_printf(&all, "%s|", buf_str(&out));
        eng_tokens_free(&id);
        if (hit >= 0) break;
    }
    buf_clear(&out);
    eng_detok_finish(d, &out);
    buf_puts(&all, buf_str(&out));
    assert_string_equal(buf_str(&all), want);
    assert_int_equal(hit, want_stop);
    eng_detok_close(d);
    buf_free(&out);
    buf_free(&all);
}

static void only_whole_characters_leave(void **s)
{
    (void)s;
    expect("a\xC3\xA9z", NULL, 0, false, "a|\xC3\xA9|z|", -1);
    expect("\xF0\x9F\x98\x81", NULL, 0, false, "\xF0\x9F\x98\x81|", -1);
    expect("\xF0\x9F\x98", NULL, 0, false, BAD, -1);
    expect("\xF0\x9F"
           "a",
           NULL, 0, false, BAD "a|", -1);
    expect("\xFF\x80", NULL, 0, false, BAD "|" BAD "|", -1);
    expect("\xE0\x80", NULL, 0, false, BAD BAD "|", -1); /* overlong: two maximal subparts */
    expect("\xC3\xC3\xA9", NULL, 0, false, BAD "|\xC3\xA9|", -1);
}

static void stop_strings_are_held_back_and_cut(void **s)
{
    static const char *const one[] = {"END"}, *const self[] = {"aab"},
                             *const two[] = {"bc", "abcd", "abc"};
    static const char *const accent[] = {"\xC3\xA9!"}, *const broken[] = {"\xA9"};
    (void)s;
    expect("xEND", one, 1, false, "x|", 0);
    expect("xENDmore", one, 1, true, "x|END|", 0);
    expect("xENx", one, 1, false, "x|ENx|", -1);
    expect("xEN", one, 1, false, "x|EN", -1);
    expect("EENEND", one, 1, false, "E|EN|", 0);
    expect("aaab", self, 1, false, "a|", 0);
    expect("xabc", two, 3, false, "x|", 2); /* completed together: the one that began first */
    expect("xbc", two, 3, false, "x|", 0);
    expect("\xC3\xA9?\xC3\xA9!", accent, 1, false, "\xC3\xA9?|", 0);
    expect("\xC3\xA9", broken, 1, false, "\xC3\xA9|", -1);
}

static void a_completed_stop_stays_completed(void **s)
{
    static const char *const stop[] = {"b"};
    struct buf out = {0};
    (void)s;
    struct eng_detok *d = eng_detok_open(tok, stop, 1, false, false);
    assert_int_equal(eng_detok_push(d, 257, &out), 0); /* "abc": what follows the stop is gone */
    assert_string_equal(buf_str(&out), "a");
    assert_int_equal(eng_detok_push(d, 97, &out), 0);
    eng_detok_finish(d, &out);
    assert_string_equal(buf_str(&out), "a");
    eng_detok_close(d);
    eng_detok_close(NULL);
    buf_free(&out);
}

static void control_tokens_show_only_when_asked(void **s)
{
    (void)s;
    for (int special = 0; special < 2; special++) {
        struct buf out = {0};
        struct eng_detok *d = eng_detok_open(tok, NULL, 0, false, special);
        eng_detok_push(d, 258, &out);
        assert_string_equal(buf_str(&out), special ? "<|im_end|>" : "");
        eng_detok_close(d);
        buf_free(&out);
    }
}

static void sanitize(const struct buf *in, struct buf *out)
{
    for (size_t i = 0, len; i < in->len; i += len) {
        if (utf8_step(in->data + i, in->len - i, &len) == UTF8_OK)
            buf_put(out, in->data + i, len);
        else
            buf_puts(out, BAD);
    }
}

/* Any ids, one by one, against all at once; stops never lose or invent text. */
static void check_random(struct eng_tokenizer *t, uint64_t seed)
{
    for (uint64_t round = 0; round < 400; round++) {
        struct eng_tokens ids = {0};
        struct buf whole = {0}, clean = {0}, out = {0};
        uint64_t n = rng_at(seed, round, 0, 0) % 30;
        for (uint64_t i = 0; i < n; i++)
            eng_tokens_push(
                &ids,
                (int32_t)(rng_at(seed, round, i, 1) % ((uint64_t)eng_tokenizer_size(t) + 2)) - 1);
        static const char *const stops[] = {"ab\xC3\xA9never", "aaaaaaaab"};
        struct eng_detok *d = eng_detok_open(t, stops, round % 2 ? 2 : 0, false, round % 3 == 0);
        eng_detok_drop_first_space(d);
        for (size_t i = 0; i < ids.n; i++) {
            assert_int_equal(eng_detok_push(d, ids.ids[i], &out), -1);
            for (size_t k = 0, len; k < out.len; k += len)
                assert_int_equal(utf8_step(out.data + k, out.len - k, &len), UTF8_OK);
        }
        eng_detok_finish(d, &out);
        eng_tokenizer_decode(t, ids.ids, ids.n, round % 3 == 0, &whole);
        sanitize(&whole, &clean);
        assert_string_equal(buf_str(&out), buf_str(&clean));
        eng_detok_close(d);
        eng_tokens_free(&ids);
        buf_free(&whole);
        buf_free(&clean);
        buf_free(&out);
    }
}

static void one_by_one_equals_all_at_once(void **s)
{
    static const char *const texts[] = {"<unk>",  "<s>",    SP,         SP "a",   "a",
                                        "b",      "<0x0A>", "<0xC3>",   "<0xA9>", "<0xF0>",
                                        "<0x9F>", "<0x98>", "\xC3\xA9", SP SP,    NULL};
    const uint64_t seed = (uint64_t)clock_us();
    struct test_vocab v;
    struct eng_tokenizer *t = NULL;
    (void)s;
    printf("seed %llu\n", (unsigned long long)seed);
    check_random(tok, seed);
    test_vocab_texts(&v, "llama", texts);
    v.src.unk = 0, v.src.bos = 1;
    assert_int_equal(eng_tokenizer_open(&t, &v.src), OK);
    check_random(t, seed);
    eng_tokenizer_close(t);
    test_vocab_free(&v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_whole_characters_leave),
        cmocka_unit_test(stop_strings_are_held_back_and_cut),
        cmocka_unit_test(a_completed_stop_stays_completed),
        cmocka_unit_test(control_tokens_show_only_when_asked),
        cmocka_unit_test(one_by_one_equals_all_at_once),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
