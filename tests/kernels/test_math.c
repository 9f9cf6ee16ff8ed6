/* test_math.c: claims about krn_exp and krn_log, measured against double precision. */
#include "base/base.h"
#include "base/rng.h"
#include "engine/kernels/math.h"
#include "engine/kernels/table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

enum { N_SAMPLES = 400000, SEED = 20260 };

/* Distance in units of the last place of the exact result (a normal number). */
static double ulps(float got, double exact)
{
    int e;
    frexp(exact, &e);
    return fabs((double)got - exact) / ldexp(1.0, e - 24);
}

static float between(uint64_t i, uint64_t stream, double lo, double hi)
{
    return (float)(lo + (hi - lo) * (double)rng_unit(rng_at(SEED, stream, i, 0)));
}

static void exp_is_within_two_ulp(void **state)
{
    (void)state;
    double worst = 0;
    for (uint64_t i = 0; i < N_SAMPLES; i++) {
        float x = i % 2 ? between(i, 1, -87.29, 88.69) : between(i, 2, -2, 2);
        worst = MAX(worst, ulps(krn_exp(x), exp((double)x)));
    }
    printf("exp: largest error %.3f ulp\n", worst);
    assert_true(worst <= 2.0);
}

static void log_is_within_two_ulp(void **state)
{
    (void)state;
    double worst = 0;
    for (uint64_t i = 0; i < N_SAMPLES; i++) {
        float x =
            i % 2 ? between(i, 3, 0.4, 3.0)
                  : krn_math_float(0x00800000u + (uint32_t)(rng_at(SEED, 4, i, 0) % 0x7f000000u));
        if (x == 1.0f) continue;
        worst = MAX(worst, ulps(krn_log(x), log((double)x)));
    }
    printf("log: largest error %.3f ulp\n", worst);
    assert_true(worst <= 2.0);
}

static void the_ends_are_as_promised(void **state)
{
    (void)state;
    assert_true(krn_exp(0.0f) == 1.0f && krn_exp(-0.0f) == 1.0f);
    assert_true(krn_exp(-87.4f) == 0.0f && krn_exp(-INFINITY) == 0.0f && krn_exp(-1e30f) == 0.0f);
    assert_true(krn_exp(-87.3f) >= 0x1p-126f);
    assert_true(krn_exp(1e30f) == krn_exp(88.7f) && isfinite(krn_exp(88.7f)) &&
                krn_exp(88.7f) > 3.3e38f);
    assert_true(krn_log(1.0f) == 0.0f);
}

static void exp_never_decreases(void **state)
{
    (void)state;
    float last = 0.0f;
    for (float x = -88.0f; x < 89.0f; x += 0.001f) {
        float y = krn_exp(x);
        assert_true(y >= last);
        last = y;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exp_is_within_two_ulp),
        cmocka_unit_test(log_is_within_two_ulp),
        cmocka_unit_test(the_ends_are_as_promised),
        cmocka_unit_test(exp_never_decreases),
    };
    return cmocka_run_group_tests_name("math", tests, NULL, NULL);
}
