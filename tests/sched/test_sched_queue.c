/* The bounded queue: no key can fill it. */
#include "tests/sched/rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

/* How many requests of one token a tenant gets into the queue before it is turned away; *why: how. */
static int32_t fill(struct rig *b, uint64_t tenant, uint64_t *id, enum err *why)
{
    int32_t n = 0;
    for (;; n++) {
        struct gen_request r = rig_request(++*id, 4, 1);
        r.tenant = tenant;
        *why = crd_sched_submit(b->s, &r, 0);
        if (*why) return n;
    }
}

static void no_key_fills_the_queue(void **state)
{
    (void)state;
    struct sched_conf c = rig_plain();
    c.max_waiting = 90;
    struct rig *b = rig_setup(c);
    uint64_t id = 0;
    enum err why;
    assert_int_equal(fill(b, 7, &id, &why), 80); /* 8 of 9 places */
    assert_int_equal(why, ERR_SHARE_FULL);
    int32_t second = fill(b, 8, &id, &why);
    assert_true(second >= 8 && second <= 9); /* of the 10 that are left */
    assert_int_equal(why, ERR_SHARE_FULL);
    assert_true(fill(b, 9, &id, &why) >= 1); /* and still one for a third */
    crd_sched_check(b->s);
    rig_run_out(b);
    rig_teardown(b);
}

static void without_keys_the_queue_is_one_for_all(void **state)
{
    (void)state;
    struct sched_conf c = rig_plain();
    c.max_waiting = 50;
    struct rig *b = rig_setup(c);
    uint64_t id = 0;
    enum err why;
    assert_int_equal(fill(b, 0, &id, &why), 50);
    assert_int_equal(why, ERR_QUEUE_FULL);
    rig_run_out(b);
    rig_teardown(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_key_fills_the_queue),
        cmocka_unit_test(without_keys_the_queue_is_one_for_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
