/* rpc_pair.h: a server and its clients over loopback, for tests of the control plane. */
#ifndef TESTS_TRANSPORT_RPC_PAIR_H
#define TESTS_TRANSPORT_RPC_PAIR_H

#include "transport/rpc.h"

enum { PATIENCE_US = 20000000 };

struct rpc_conf conf_of(const char *address, const char *identity, const struct auth_key *key);
struct auth_key test_key(const char *text);

/* The next event of that kind; anything else fails the test. Own: caller, rpc_event_free. */
struct rpc_event *expect_event(struct mailbox *m, enum rpc_event_kind kind);
/* The next event, RPC_MESSAGE of that type, as its message. Own: caller, control_msg_free. */
struct control_msg *expect_message(struct mailbox *m, enum control_type type);
/* The next event is RPC_CLOSED with that error and those words. */
void expect_closed(struct mailbox *m, enum err err, const char *words);

struct served { struct rpc_server *server; struct mailbox *events; char address[64]; };
struct served serve(const struct auth_key *key);
void serve_end(struct served *s);           /* events left are dropped */

struct joined {
    struct rpc_client *client;
    struct mailbox *events;
    struct rpc_peer *coordinator, *worker;
};
/* A client that is connected on both sides. */
struct joined join(struct served *s, const struct auth_key *key, const char *identity);
void join_end(struct joined *j);            /* closes the client; its events are dropped */
void drop_events(struct mailbox *m);

/* A message of n bytes whose first four are `number`. */
void send_numbered(struct rpc_peer *p, enum control_type type, uint32_t number, size_t n);

#endif
