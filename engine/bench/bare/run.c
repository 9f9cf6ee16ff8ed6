/* run.c: see cmocka.h here. */
#include <cmocka.h>

#include <fnmatch.h>
#include <stdlib.h>

jmp_buf bare_test_end;

/* Ends with what the test ended by; 0: it came to its end. */
static int run_one(const struct CMUnitTest *t)
{
    void *state = NULL;
    int how = setjmp(bare_test_end);
    if (how) return how;
    if (t->setup && t->setup(&state)) return BARE_FAILED;
    t->test(&state);
    return t->teardown && t->teardown(&state) ? BARE_FAILED : 0;
}

int bare_run(const char *group, const struct CMUnitTest tests[], size_t n, int (*setup)(void **))
{
    static const char *const word[] = {"ok", "FAILED", "skipped"};
    const char *filter = getenv("TEST_FILTER");
    int failed = 0;
    void *state = NULL;
    if (setup && setup(&state)) return (int)n;
    for (size_t i = 0; i < n; i++) {
        if (filter && fnmatch(filter, tests[i].name, 0)) continue;
        int how = run_one(&tests[i]);
        printf("%-8s %s: %s\n", word[how], group, tests[i].name);
        fflush(stdout);
        failed += how == BARE_FAILED;
    }
    return failed;
}
