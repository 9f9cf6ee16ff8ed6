/* filter.c: TEST_FILTER='*name*' runs those tests of a program that match; linked into each of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

__attribute__((constructor)) static void filter(void)
{
    const char *pattern = getenv("TEST_FILTER");
    if (pattern) cmocka_set_test_filter(pattern);
}
