/* test_near.c: what a mistyped word was meant to be. */
#include "base/near.h"

#include "base/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <string.h>

#include <cmocka.h>

static void a_distance_counts_slips_of_the_hand(void **state)
{
    static const struct {
        const char *a, *b;
        int want;
    } cases[] = {{"", "", 0},         {"", "abc", 3},     {"abc", "", 3},        {"serve", "serve", 0}, {"serv", "serve", 1},
                 {"prot", "port", 1}, {"pull", "full", 1}, {"promt", "prompt", 1}, {"kitten", "sitting", 3}, {"ca", "abc", 3}};
    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        if (near_distance(cases[i].a, strlen(cases[i].a), cases[i].b) != cases[i].want)
            fail_msg("%s and %s: %d", cases[i].a, cases[i].b, near_distance(cases[i].a, strlen(cases[i].a), cases[i].b));
    char longer[200], other[200];
    memset(longer, 'a', 199), memset(other, 'a', 199);
    longer[199] = other[199] = 0;
    other[0] = 'b';
    other[150] = 'b'; /* past what is compared */
    assert_int_equal(near_distance(longer, 199, other), 1);
}

static const char *meant(const char *word)
{
    static const char *const words[] = {"host", "port", "port-timeout", "cors-origins", "max-n", "max-waiting", "tp", "pp"};
    struct near s = {.word = word, .n = strlen(word)};
    for (size_t i = 0; i < COUNT_OF(words); i++) near_see(&s, words[i]);
    return near_best(&s);
}

static void the_nearest_or_the_only_one_that_begins_so(void **state)
{
    (void)state;
    assert_string_equal(meant("prot"), "port");
    assert_string_equal(meant("ports"), "port");
    assert_string_equal(meant("cors"), "cors-origins");
    assert_string_equal(meant("cors-orgins"), "cors-origins");
    assert_string_equal(meant("port-t"), "port-timeout");
    assert_null(meant("max")); /* the beginning of two, near to none */
    assert_null(meant("gpu-layers"));
    assert_null(meant("c"));
}

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_distance_counts_slips_of_the_hand),
        cmocka_unit_test(the_nearest_or_the_only_one_that_begins_so),
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("near", tests, NULL, NULL);
}
