/* Which replica a request goes to: the longest cached prefix, weighed against what is open there. */
#include "coordinator/replica/route.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { LEN = 320 };

static void fill(int32_t ids[LEN], int32_t seed)
{
    for (int32_t i = 0; i < LEN; i++) ids[i] = seed * 1000 + i;
}

static void equal_ones_take_turns(void **state)
{
    (void)state;
    struct crd_route *r = crd_route_open();
    const int32_t load[4] = {0};
    int32_t ids[LEN], count[4] = {0};
    for (int32_t k = 0; k < 40; k++) {
        fill(ids, k);
        count[crd_route_pick(r, 0xf, load, 0, ids, LEN, NULL)]++;
    }
    for (int32_t i = 0; i < 4; i++) assert_int_equal(count[i], 10);
    crd_route_close(r);
}

static void the_least_loaded_is_chosen(void **state)
{
    (void)state;
    struct crd_route *r = crd_route_open();
    const int32_t load[3] = {5, 2, 3};
    int32_t ids[LEN];
    for (int32_t k = 0; k < 10; k++) {
        fill(ids, k);
        assert_int_equal(crd_route_pick(r, 7, load, 0, ids, LEN, NULL), 1);
    }
    crd_route_close(r);
}

static void a_prefix_goes_back_to_its_holder_until_that_one_is_busy(void **state)
{
    (void)state;
    struct crd_route *r = crd_route_open();
    int32_t ids[LEN], cached, idle[2] = {0}, busy[2] = {0};
    fill(ids, 1);
    int32_t first = crd_route_pick(r, 3, idle, 0, ids, LEN, &cached);
    assert_int_equal(cached, 0);
    for (int32_t k = 0; k < 5; k++) {
        assert_int_equal(crd_route_pick(r, 3, idle, 0, ids, LEN, &cached), first);
        assert_int_equal(cached, LEN - LIMIT_BLOCK_TOKENS); /* its last token is always computed */
    }
    busy[first] = 1 + LEN / ROUTE_SEQ_TOKENS; /* waiting there costs more than computing it again */
    assert_int_equal(crd_route_pick(r, 3, busy, 0, ids, LEN, &cached), 1 - first);
    assert_int_equal(cached, 0);
    assert_int_equal(crd_route_pick(r, 3, busy, 0, ids, LEN, &cached), 1 - first);
    assert_int_equal(cached, LEN - LIMIT_BLOCK_TOKENS); /* now both hold it */
    crd_route_close(r);
}

static void the_longest_prefix_wins(void **state)
{
    (void)state;
    struct crd_route *r = crd_route_open();
    int32_t a[LEN], b[LEN], load[2] = {0}, cached;
    fill(a, 1);
    fill(b, 1);
    for (int32_t i = 160; i < LEN; i++) b[i] = -i; /* half of it is a's */
    int32_t of_a = crd_route_pick(r, 3, load, 0, a, LEN, NULL);
    load[of_a] = 10;
    assert_int_equal(crd_route_pick(r, 3, load, 0, b, LEN, NULL), 1 - of_a);
    load[of_a] = 0;
    assert_int_equal(crd_route_pick(r, 3, load, 0, a, LEN, &cached), of_a);
    assert_int_equal(crd_route_pick(r, 3, load, 0, b, LEN, &cached), 1 - of_a);
    assert_int_equal(cached, LEN - LIMIT_BLOCK_TOKENS);
    crd_route_close(r);
}

static void salts_do_not_share(void **state)
{
    (void)state;
    struct crd_route *r = crd_route_open();
    int32_t ids[LEN], load[2] = {0}, cached;
    fill(ids, 1);
    crd_route_pick(r, 3, load, 1, ids, LEN, NULL);
    crd_route_pick(r, 3, load, 2, ids, LEN, &cached);
    assert_int_equal(cached, 0);
    crd_route_close(r);
}

static void a_lost_one_holds_nothing_and_gets_nothing(void **state)
{
    (void)state;
    struct crd_route *r = crd_route_open();
    int32_t ids[LEN], load[2] = {0}, cached;
    fill(ids, 1);
    int32_t first = crd_route_pick(r, 3, load, 0, ids, LEN, NULL);
    crd_route_forget(r, first);
    assert_int_equal(crd_route_pick(r, 3 & ~(1 << first), load, 0, ids, LEN, NULL), 1 - first);
    assert_int_equal(crd_route_pick(r, 1 << first, load, 0, ids, LEN, &cached), first);
    assert_int_equal(cached, 0);
    crd_route_close(r);
}

static void short_prompts_are_no_trouble(void **state)
{
    (void)state;
    struct crd_route *r = crd_route_open();
    const int32_t load[1] = {0}, one[1] = {7};
    assert_int_equal(crd_route_pick(r, 1, load, 0, one, 1, NULL), 0);
    crd_route_close(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_ones_take_turns),
        cmocka_unit_test(the_least_loaded_is_chosen),
        cmocka_unit_test(a_prefix_goes_back_to_its_holder_until_that_one_is_busy),
        cmocka_unit_test(the_longest_prefix_wins),
        cmocka_unit_test(salts_do_not_share),
        cmocka_unit_test(a_lost_one_holds_nothing_and_gets_nothing),
        cmocka_unit_test(short_prompts_are_no_trouble),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
