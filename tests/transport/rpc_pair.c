/* rpc_pair.c: see rpc_pair.h. */
#include "tests/transport/rpc_pair.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct auth_key test_key(const char *text)
{
    struct auth_key k;
    assert_int_equal(trn_auth_key_of_text(&k, text), OK);
    return k;
}

struct rpc_conf conf_of(const char *address, const char *identity, const struct auth_key *key)
{
    return (struct rpc_conf){.address = address,
                             .identity = identity,
                             .key = key,
                             .keepalive_ms = 1000,
                             .keepalive_timeout_ms = 1000};
}

struct rpc_event *expect_event(struct mailbox *m, enum rpc_event_kind kind)
{
    struct rpc_event *e = mailbox_get(m, PATIENCE_US);
    if (!e) fail_msg("no event came within %d s", PATIENCE_US / 1000000);
    if (e->kind != kind) fail_msg("event %d (%s) where %d was expected", e->kind, e->text, kind);
    return e;
}

struct control_msg *expect_message(struct mailbox *m, enum control_type type)
{
    struct rpc_event *e = expect_event(m, RPC_MESSAGE);
    struct control_msg *msg = e->msg;
    assert_int_equal(msg->type, type);
    e->msg = NULL;
    rpc_event_free(e);
    return msg;
}

void expect_closed(struct mailbox *m, enum err err, const char *words)
{
    struct rpc_event *e = expect_event(m, RPC_CLOSED);
    if (e->err != err || !strstr(e->text, words))
        fail_msg("closed by %s (%s), expected %s (%s)", err_name(e->err), e->text, err_name(err),
                 words);
    rpc_event_free(e);
}

struct served serve(const struct auth_key *key)
{
    struct served s = {.events = mailbox_open()};
    struct rpc_conf c = conf_of("127.0.0.1:0", "coordinator", key);
    if (rpc_server_open(&s.server, &c, s.events)) fail_msg("%s", err_text());
    snprintf(s.address, sizeof s.address, "127.0.0.1:%d", rpc_server_port(s.server));
    return s;
}

void drop_events(struct mailbox *m)
{
    for (struct rpc_event *e; (e = mailbox_get(m, 0));) rpc_event_free(e);
    mailbox_close(m);
}

void serve_end(struct served *s)
{
    rpc_server_close(s->server);
    drop_events(s->events);
}

struct joined join(struct served *s, const struct auth_key *key, const char *identity)
{
    struct joined j = {.events = mailbox_open()};
    struct rpc_conf c = conf_of(s->address, identity, key);
    assert_int_equal(rpc_client_open(&j.client, &c, 10000, j.events), OK);
    struct rpc_event *mine = expect_event(j.events, RPC_CONNECTED),
                     *theirs = expect_event(s->events, RPC_CONNECTED);
    j.coordinator = mine->peer;
    j.worker = theirs->peer;
    rpc_event_free(mine);
    rpc_event_free(theirs);
    return j;
}

void join_end(struct joined *j)
{
    rpc_client_close(j->client);
    drop_events(j->events);
}

void send_numbered(struct rpc_peer *p, enum control_type type, uint32_t number, size_t n)
{
    uint8_t *bytes = malloc(n);
    for (size_t i = 0; i < n; i++) bytes[i] = (uint8_t)(i * 31 + number);
    memcpy(bytes, &number, sizeof number);
    struct control_msg m = {.type = type, .bytes = {bytes, n}};
    rpc_peer_send(p, &m);
    free(bytes);
}
