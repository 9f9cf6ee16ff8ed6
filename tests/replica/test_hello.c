/* Who says Hello: a worker is one rank, and a session that would be two is refused with a sentence, whatever comes of the first. */
#include "coordinator/replica/replica.h"

#include "base/clock.h"
#include "proto/version.h"
#include "tests/transport/rpc_pair.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void say_hello(struct rpc_peer *p, int32_t rank)
{
    struct control_msg m = {.type = MSG_HELLO,
                            .hello = {.version = TESSERA_VERSION, .job = "j", .host = "box", .rank = rank, .size = 2, .host_rank = rank, .host_size = 2,
                                      .pid = 77, .n_cpus = 1, .mem_total = 1 << 30, .mem_available = 1 << 30, .addresses = "",
                                      .device = "cpu", .mem_ranks = 1}};
    rpc_peer_send(p, &m);
}

/* The next message is a Shutdown that says so. */
static void expect_refusal(struct mailbox *m, const char *words)
{
    struct control_msg *no = expect_message(m, MSG_SHUTDOWN);
    if (!strstr(no->shutdown.reason, words)) fail_msg("'%s' does not say '%s'", no->shutdown.reason, words);
    control_msg_free(no);
}

static void a_session_is_one_rank(void **state)
{
    (void)state;
    struct auth_key key = test_key("the cluster key of this test");
    struct crd_replica *r;
    struct rpc_server *server;
    struct rpc_client *client;
    struct mailbox *events = mailbox_open();
    const struct replica_conf conf = {.n_ranks = 2, .max_waiting = 4, .idle_us = 20000};
    char address[64];
    assert_int_equal(crd_replica_open(&r, &conf), OK);
    struct rpc_conf c = conf_of("127.0.0.1:0", "coordinator", &key);
    if (rpc_server_open(&server, &c, crd_replica_mailbox(r))) fail_msg("%s", err_text());
    snprintf(address, sizeof address, "127.0.0.1:%d", rpc_server_port(server));
    c = conf_of(address, "rank 0@box", &key);
    assert_int_equal(rpc_client_open(&client, &c, 10000, events), OK);
    struct rpc_event *e = expect_event(events, RPC_CONNECTED);
    say_hello(e->peer, 0);
    say_hello(e->peer, 1);
    expect_refusal(events, "the session of rank 0 on box says a second hello, as rank 1 on box: a worker is one rank");
    say_hello(e->peer, 0);
    expect_refusal(events, "says a second hello, as rank 0 on box");
    struct replica_rank ranks[LIMIT_RANKS];
    assert_int_equal(crd_replica_ranks(r, ranks), 2);
    assert_true(ranks[0].joined);
    assert_false(ranks[1].joined);
    rpc_event_free(e);
    rpc_client_close(client);
    crd_replica_stop(r, 5000000);
    rpc_server_close(server);
    crd_replica_close(r);
    drop_events(events);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_session_is_one_rank)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
