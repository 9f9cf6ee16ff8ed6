/* timer: lists of constant durations stay sorted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "coordinator/gateway/timer.h"

static struct timer_set set;

static void fresh(void)
{
    const int64_t after[TIMER_KINDS] = {
        [TIMER_HEADERS] = 10, [TIMER_BODY] = 20, [TIMER_IDLE] = 100, [TIMER_SILENT] = 5};
    crd_timer_set_init(&set, after);
}

static void nothing_is_due_when_nothing_runs(void **state)
{
    (void)state;
    fresh();
    assert_true(crd_timer_next(&set) == INT64_MAX);
    assert_null(crd_timer_expired(&set, INT64_MAX));
}

static void the_earliest_of_all_kinds_is_next(void **state)
{
    struct timer a = {0}, b = {0}, c = {0};
    (void)state;
    fresh();
    crd_timer_start(&set, &a, TIMER_IDLE, 0);
    crd_timer_start(&set, &b, TIMER_HEADERS, 3);
    crd_timer_start(&set, &c, TIMER_SILENT, 6);
    assert_int_equal(crd_timer_next(&set), 11);
    assert_null(crd_timer_expired(&set, 10));
    assert_ptr_equal(crd_timer_expired(&set, 11), &c);
    assert_int_equal(crd_timer_next(&set), 13);
}

static void restarting_moves_to_the_end(void **state)
{
    struct timer a = {0}, b = {0};
    (void)state;
    fresh();
    crd_timer_start(&set, &a, TIMER_SILENT, 0);
    crd_timer_start(&set, &b, TIMER_SILENT, 1);
    crd_timer_start(&set, &a, TIMER_SILENT, 2);
    assert_ptr_equal(crd_timer_expired(&set, 100), &b);
    assert_ptr_equal(crd_timer_expired(&set, 100), &a);
    assert_null(crd_timer_expired(&set, 100));
}

static void stopping_twice_is_fine(void **state)
{
    struct timer a = {0};
    (void)state;
    fresh();
    crd_timer_stop(&a);
    crd_timer_start(&set, &a, TIMER_BODY, 0);
    crd_timer_stop(&a);
    crd_timer_stop(&a);
    assert_true(crd_timer_next(&set) == INT64_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_due_when_nothing_runs),
        cmocka_unit_test(the_earliest_of_all_kinds_is_next),
        cmocka_unit_test(restarting_moves_to_the_end),
        cmocka_unit_test(stopping_twice_is_fine),
    };
    return cmocka_run_group_tests_name("timer", tests, NULL, NULL);
}
