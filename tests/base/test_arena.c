/* test_arena.c: zeroed, aligned, disjoint, and gone at once. */
#include "base/arena.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void pieces_are_zeroed_aligned_and_disjoint(void **state)
{
    (void)state;
    struct arena a = {0};
    unsigned char *p[400];
    size_t n[400];
    for (size_t i = 0; i < 400; i++) {
        n[i] = i * 7 % 1000 + (i % 50 == 0 ? 5000 : 0);
        p[i] = arena_alloc(&a, n[i]);
        assert_int_equal((uintptr_t)p[i] % 16, 0);
        for (size_t j = 0; j < n[i]; j++) assert_int_equal(p[i][j], 0);
        memset(p[i], (int)(i % 251 + 1), n[i]);
    }
    for (size_t i = 0; i < 400; i++)
        for (size_t j = 0; j < n[i]; j++)
            if (p[i][j] != i % 251 + 1) fail_msg("piece %zu was written by another", i);
    arena_free(&a);
}

static void empty_pieces_are_distinct(void **state)
{
    (void)state;
    struct arena a = {0};
    assert_ptr_not_equal(arena_alloc(&a, 0), arena_alloc(&a, 0));
    arena_free(&a);
}

static void strndup_copies_and_terminates(void **state)
{
    (void)state;
    struct arena a = {0};
    char *s = arena_strndup(&a, "hello world", 5);
    assert_string_equal(s, "hello");
    assert_string_equal(arena_strndup(&a, s, 0), "");
    arena_free(&a);
}

static void freed_arena_is_empty_and_usable(void **state)
{
    (void)state;
    struct arena a = {0};
    arena_free(&a);
    assert_non_null(arena_alloc(&a, 100));
    arena_free(&a);
    assert_null(a.head);
    unsigned char *p = arena_alloc(&a, 1 << 20);
    assert_int_equal(p[(1 << 20) - 1], 0);
    arena_free(&a);
}

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_are_zeroed_aligned_and_disjoint),
        cmocka_unit_test(empty_pieces_are_distinct),
        cmocka_unit_test(strndup_copies_and_terminates),
        cmocka_unit_test(freed_arena_is_empty_and_usable),
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("arena", tests, NULL, NULL);
}
