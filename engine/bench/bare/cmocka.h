/* cmocka.h: stands in for the library of that name in the bare build (CMakeLists.txt here): as much of it as the checks use. A
 * failed assertion ends the test by longjmp; the program goes on with the next and returns how many failed. */
#ifndef ENGINE_BENCH_BARE_CMOCKA_H
#define ENGINE_BENCH_BARE_CMOCKA_H

#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

struct CMUnitTest {
    const char *name;
    void (*test)(void **state);
    int (*setup)(void **state), (*teardown)(void **state);
};
#define cmocka_unit_test(f) {#f, f, NULL, NULL}
#define cmocka_unit_test_setup_teardown(f, s, t) {#f, f, s, t}

extern jmp_buf bare_test_end;
enum { BARE_FAILED = 1, BARE_SKIPPED = 2 };

#define fail_msg(...)                                                                              \
    do {                                                                                           \
        printf("%s:%d: ", __FILE__, __LINE__);                                                     \
        printf(__VA_ARGS__);                                                                       \
        printf("\n");                                                                              \
        longjmp(bare_test_end, BARE_FAILED);                                                       \
    } while (0)
#define skip() longjmp(bare_test_end, BARE_SKIPPED)
#define assert_true(x)                                                                             \
    do {                                                                                           \
        if (!(x)) fail_msg("%s is not so", #x);                                                    \
    } while (0)
#define assert_false(x) assert_true(!(x))
#define assert_non_null(x) assert_true((x) != NULL)
#define assert_null(x) assert_true((x) == NULL)
#define assert_ptr_equal(a, b) assert_true((const void *)(a) == (const void *)(b))
#define assert_int_equal(a, b)                                                                     \
    do {                                                                                           \
        long long bare_a = (long long)(a), bare_b = (long long)(b);                                \
        if (bare_a != bare_b) fail_msg("%s is %lld, not %lld", #a, bare_a, bare_b);                \
    } while (0)
#define assert_string_equal(a, b)                                                                  \
    do {                                                                                           \
        const char *bare_s = (a), *bare_t = (b);                                                   \
        if (strcmp(bare_s, bare_t) != 0) fail_msg("%s is \"%s\", not \"%s\"", #a, bare_s, bare_t); \
    } while (0)
#define assert_memory_equal(a, b, n)                                                               \
    do {                                                                                           \
        if (memcmp(a, b, n) != 0) fail_msg("%s and %s differ", #a, #b);                            \
    } while (0)
#define assert_memory_not_equal(a, b, n)                                                           \
    do {                                                                                           \
        if (memcmp(a, b, n) == 0) fail_msg("%s and %s are the same", #a, #b);                      \
    } while (0)

/* setup: before the first test, or NULL. TEST_FILTER in the environment: only tests whose name matches. */
int bare_run(const char *group, const struct CMUnitTest tests[], size_t n, int (*setup)(void **));
#define cmocka_run_group_tests_name(group, tests, setup, teardown)                                 \
    bare_run(group, tests, sizeof(tests) / sizeof((tests)[0]), setup)
#define _cmocka_run_group_tests(group, tests, n, setup, teardown) bare_run(group, tests, n, setup)
#define cmocka_run_group_tests(tests, setup, teardown) cmocka_run_group_tests_name(__FILE__, tests, setup, teardown)

#endif
