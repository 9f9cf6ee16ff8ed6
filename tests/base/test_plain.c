/* test_plain.c: what reaches a terminal cannot steer it. */
#include "base/plain.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void is(const char *text, size_t n, const char *line)
{
    char out[200];
    assert_string_equal(plain(out, sizeof out, text, n), line);
}
#define IS(text, line) is(text, sizeof text - 1, line)

static void what_steers_is_written_as_bytes(void **state)
{
    (void)state;
    IS("", "");
    IS("abc \xc3\xa9 \xe4\xbd\xa0 \xf0\x9f\x98\x80 \\x", "abc \xc3\xa9 \xe4\xbd\xa0 \xf0\x9f\x98\x80 \\x");
    IS("\x1b[31mred\x07\x7f", "\\x1b[31mred\\x07\\x7f");
    IS("a\nb\rc\td\0e", "a\\nb\\rc\\td\\x00e");
    IS("\xc2\x9b"
       "31m",
       "\\xc2\\x9b31m");
    IS("\xe2\x80\xae\xe2\x81\xa6\xe2\x80\xa8", "\\xe2\\x80\\xae\\xe2\\x81\\xa6\\xe2\\x80\\xa8");
    IS("\xff \xc0\xaf \xed\xa0\x80 \xf4\x90\x80\x80 \xe2\x82", "\\xff \\xc0\\xaf \\xed\\xa0\\x80 \\xf4\\x90\\x80\\x80 \\xe2\\x82");
}

static void a_line_is_cut_between_pieces(void **state)
{
    (void)state;
    for (size_t cap = 1; cap < 12; cap++) {
        char out[12];
        memset(out, '#', sizeof out);
        plain(out, cap, "a\x1b\xc3\xa9", 4);
        assert_string_equal(out, cap < 2 ? "" : cap < 6 ? "a" : cap < 8 ? "a\\x1b" : "a\\x1b\xc3\xa9");
        for (size_t i = cap; i < sizeof out; i++) assert_int_equal(out[i], '#');
    }
}

static void lines_stay_lines(void **state)
{
    (void)state;
    char *got = NULL;
    size_t n;
    FILE *f = open_memstream(&got, &n);
    plain_write(f, "a\n\tb\r\x1b\xff\n", 8);
    fclose(f);
    assert_string_equal(got, "a\n\tb\\x0d\\x1b\\xff\n");
    free(got);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_steers_is_written_as_bytes),
        cmocka_unit_test(a_line_is_cut_between_pieces),
        cmocka_unit_test(lines_stay_lines),
    };
    return cmocka_run_group_tests_name("plain", tests, NULL, NULL);
}
