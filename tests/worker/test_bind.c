/* bind: a rank knows which processors it may use, also where hwloc sees no cores. */
#include "worker/bind.h"

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>

enum { MOST = 512 };

/* Each of them allowed, none twice, and as many as the kernel allows or `most`. */
static void assert_allowed(const int32_t cpus[], int32_t n, int32_t most)
{
    cpu_set_t allowed, seen;
    CPU_ZERO(&seen);
    assert_int_equal(sched_getaffinity(0, sizeof allowed, &allowed), 0);
    assert_int_equal(n, MIN(CPU_COUNT(&allowed), most));
    for (int32_t i = 0; i < n; i++) {
        assert_true(CPU_ISSET(cpus[i], &allowed) && !CPU_ISSET(cpus[i], &seen));
        CPU_SET(cpus[i], &seen);
    }
}

static void as_many_as_may_be_used(void **state)
{
    int32_t cpus[MOST];
    (void)state;
    assert_allowed(cpus, wrk_bind_cpus(cpus, MOST), MOST);
    assert_allowed(cpus, wrk_bind_cpus(cpus, 1), 1);
}

/* Else every thread of every rank would be bound to processor 0. */
static void a_machine_without_cores_has_processors(void **state)
{
    int32_t cpus[MOST];
    (void)state;
    setenv("HWLOC_SYNTHETIC", "pu:4", 1);
    setenv("HWLOC_THISSYSTEM", "1", 1);
    int32_t n = wrk_bind_cpus(cpus, MOST);
    unsetenv("HWLOC_SYNTHETIC");
    unsetenv("HWLOC_THISSYSTEM");
    assert_allowed(cpus, n, MOST);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(as_many_as_may_be_used), cmocka_unit_test(a_machine_without_cores_has_processors)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
