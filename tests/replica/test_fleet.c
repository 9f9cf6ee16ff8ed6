/* fleet: who listens to a request is known by its id, so an id is one request's. */
#include "coordinator/replica/fleet.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

struct heard { int n; enum err err; char text[128]; };

static void listen_to(void *user, const struct token_event *e)
{
    struct heard *h = user;
    assert_int_equal(e->kind, EVENT_FINISH);
    h->n++;
    h->err = e->err;
    snprintf(h->text, sizeof h->text, "%s", e->text);
}

static void an_id_in_use_is_refused_at_once(void **state)
{
    static const int32_t prompt[] = {1, 2, 3};
    struct crd_fleet *f = crd_fleet_open();
    struct crd_replica *r;
    struct heard first = {0}, second = {0};
    const struct replica_conf conf = {.index = 0, .peers = crd_fleet_peers(f), .n_ranks = 1, .max_waiting = 4, .idle_us = 20000};
    const struct gen_request q = {.id = 7, .weight = 1, .n_prompt = 3, .prompt = prompt, .n = 1, .sampling = sampling_default()};
    (void)state;
    assert_int_equal(crd_replica_open(&r, &conf), OK);
    crd_fleet_add(f, r);
    crd_replica_hold(r, true); /* the first waits for workers */
    crd_fleet_submit(f, &q, listen_to, &first);
    crd_fleet_submit(f, &q, listen_to, &second);
    assert_int_equal(second.n, 1);
    assert_int_equal(second.err, ERR_BAD_REQUEST);
    assert_non_null(strstr(second.text, "request 7 is already running"));
    assert_int_equal(crd_fleet_load(f, 0), 1);
    crd_replica_stop(r, 0);
    crd_replica_close(r);
    assert_int_equal(first.n, 1); /* the server ended under it */
    assert_int_equal(first.err, ERR_UNAVAILABLE);
    crd_fleet_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(an_id_in_use_is_refused_at_once)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
