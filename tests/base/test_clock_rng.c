/* test_clock_rng.c: the clock goes forward; randomness is a pure function with the range it claims.
 */
#include "base/clock.h"
#include "base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void clock_never_goes_back_and_sleep_sleeps(void **state)
{
    (void)state;
    int64_t a = clock_us();
    for (int i = 0; i < 10000; i++) {
        int64_t b = clock_us();
        assert_true(b >= a);
        a = b;
    }
    clock_sleep_us(5000);
    assert_true(clock_us() - a >= 5000);
}

static void mix_is_splitmix64(void **state)
{
    (void)state;
    assert_true(rng_mix(0) == 0xe220a8397b1dcdafu); /* first output of the reference with seed 0 */
    assert_true(rng_mix(0x9e3779b97f4a7c15u) == 0x6e789e6aa1b965f4u); /* and the second */
}

static void every_counter_matters(void **state)
{
    (void)state;
    uint64_t x = rng_at(1, 2, 3, 4);
    assert_true(x == rng_at(1, 2, 3, 4));
    assert_true(x != rng_at(2, 2, 3, 4) && x != rng_at(1, 3, 3, 4) && x != rng_at(1, 2, 4, 4) &&
                x != rng_at(1, 2, 3, 5));
    assert_true(x != rng_at(1, 3, 2, 4) && x != rng_at(1, 4, 3, 2)); /* and its place */
}

static void unit_lies_strictly_inside_0_and_1(void **state)
{
    (void)state;
    assert_true(rng_unit(0) > 0);
    assert_true(rng_unit(UINT64_MAX) < 1);
    double sum = 0;
    for (uint64_t i = 0; i < 100000; i++) {
        float u = rng_unit(rng_at(7, i, 0, 0));
        assert_true(u > 0 && u < 1);
        sum += (double)u;
    }
    assert_true(sum / 100000 > 0.495 && sum / 100000 < 0.505);
}

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(clock_never_goes_back_and_sleep_sleeps),
        cmocka_unit_test(mix_is_splitmix64),
        cmocka_unit_test(every_counter_matters),
        cmocka_unit_test(unit_lies_strictly_inside_0_and_1),
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("clock_rng", tests, NULL, NULL);
}
