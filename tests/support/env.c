/* env.c: see env.h. */
#include "tests/support/env.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

__attribute__((constructor)) static void filter(void)
{
    const char *pattern = getenv("TEST_FILTER");
    if (pattern) cmocka_set_test_filter(pattern);
}

uint64_t test_seed(void)
{
    const char *given = getenv("TEST_SEED");
    uint64_t seed = 1;
    if (given) seed = strcmp(given, "time") ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);
    printf("TEST_SEED=%llu\n", (unsigned long long)seed);
    return seed;
}
