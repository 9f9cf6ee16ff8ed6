/* A replica whose thread cannot be started is an error with a sentence. */
#include "coordinator/replica/replica.h"

#include "tests/support/refuse_thread.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void a_thread_that_cannot_be_started_is_an_error(void **state)
{
    (void)state;
    struct crd_replica *r = NULL;
    const struct replica_conf conf = {.index = 3, .n_ranks = 1, .max_waiting = 4, .idle_us = 20000};
    refuse_thread_after(0);
    assert_int_equal(crd_replica_open(&r, &conf), ERR_SYSTEM);
    assert_non_null(strstr(err_text(), "the thread of replica 3"));
    assert_null(r);
    assert_int_equal(crd_replica_open(&r, &conf), OK);
    crd_replica_stop(r, 0);
    crd_replica_close(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_thread_that_cannot_be_started_is_an_error)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
