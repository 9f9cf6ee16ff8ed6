/* Where each rule cuts. The expected cuts were made with another implementation of regular
 * expressions from the expressions the models' tokenizers publish. */
#include "engine/text/pretoken.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* The pieces joined by '|'. */
static void expect(const char *rule, const char *text, const char *cuts)
{
    struct pretoken *p = NULL;
    struct pieces out = {0}, tmp = {0};
    struct buf b = {0};
    const struct pretoken_rule *r = pretoken_rule_find(rule);
    assert_non_null(r);
    if (pretoken_open(&p, r)) fail_msg("%s", err_text());
    pretoken_split(p, text, strlen(text), &out, &tmp);
    for (size_t i = 0; i < out.n; i++) {
        if (i) buf_putc(&b, '|');
        buf_put(&b, out.at[i].p, out.at[i].n);
    }
    if (strcmp(buf_str(&b), cuts)) fail_msg("%s: %s, not %s", rule, buf_str(&b), cuts);
    buf_free(&b);
    free(out.at);
    free(tmp.at);
    pretoken_close(p);
}

static void each_rule_cuts_as_its_models_tokenizer(void **s)
{
    (void)s;
    expect("gpt-2", "Hello  world's 1234!?\n\n x", "Hello| | world|'s| 1234|!?|\n\n| x");
    expect("llama-bpe", "Hello  world'S 1234!?\n\n x", "Hello| | world|'S| |123|4|!?\n\n| x");
    expect("qwen2", "a 12\r\n  b", "a| |1|2|\r\n| | b");
    expect("starcoder", "x=12 y", "x|=|1|2| y");
    expect("falcon", "f(x)=1234 `a`", "f|(|x|)=|123|4| |`|a|`");
    expect("deepseek-llm", "ab 12\xE4\xB8\x80 c.\n d  ", "ab| |1|2|\xE4\xB8\x80| c|.|\n| d|  ");
    expect("deepseek-coder", "ab 12. x", "ab| |1|2|.| x");
    expect("deepseek-v3", "x.foo 12345 bar", "x|.foo| |123|45| bar");
    expect("gpt-4o", "HelloWorld's ABc 1234/\n", "Hello|World's| ABc| |123|4|/\n");
    expect("tekken", "HelloWorld's 12", "Hello|World|'s| |1|2");
    expect("bloom", "Hi there, you.", "Hi| there|,| you|.");
    expect("viking", "Hi 12, x", "Hi| |1|2|,| x");
    expect("seed-coder", "a.\n\nb", "a|.|\n\n|b");
}

static void white_space_is_the_models_not_the_librarys(void **s)
{
    (void)s;
    expect("gpt-2",
           "a\xE1\xA0\x8E"
           "b",
           "a|\xE1\xA0\x8E|b"); /* U+180E is no blank */
    expect("gpt-2",
           "a \xC2\xA0"
           "b",
           "a| |\xC2\xA0|b"); /* U+00A0 is */
    expect("qwen2",
           "a\xE3\x80\x80"
           "b",
           "a|\xE3\x80\x80"
           "b"); /* U+3000 before a word */
}

static void broken_utf8_is_cut_out(void **s)
{
    (void)s;
    expect("gpt-2",
           "ab\xFF\xFE"
           "cd",
           "ab|\xFF\xFE|cd");
    expect("deepseek-llm", "a\xC3", "a|\xC3");
    expect("llama-bpe", "\xED\xA0\x80x", "\xED\xA0\x80|x");
    expect("gpt-2", "", "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_rule_cuts_as_its_models_tokenizer),
        cmocka_unit_test(white_space_is_the_models_not_the_librarys),
        cmocka_unit_test(broken_utf8_is_cut_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
