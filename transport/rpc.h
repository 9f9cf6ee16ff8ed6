/* rpc.h: the control plane over gRPC: one authenticated bidirectional stream per worker.
 *
 * Method /tessera.Control/Session; hello 1 and 2 of the handshake are initial metadata, hello 3 is the client's first message; every
 * later gRPC message is one sealed frame holding a control message, or a piece of one longer than 64 KB. See docs/protocol.md.
 * Only rpc_*.c see gRPC. Received messages and connection events arrive in a mailbox as struct rpc_event; sending is
 * thread-safe and never blocks (an unbounded queue, one gRPC write in flight). Keepalive: time and timeout from the conf. */
#ifndef TRANSPORT_RPC_H
#define TRANSPORT_RPC_H

#include "base/mailbox.h"
#include "proto/control.h"
#include "transport/auth.h"

enum rpc_event_kind { RPC_CONNECTED, RPC_MESSAGE, RPC_CLOSED };

struct rpc_peer;   /* one session; valid until its RPC_CLOSED event has been freed */

struct rpc_event {
    enum rpc_event_kind kind;
    struct rpc_peer *peer;
    struct control_msg *msg;   /* RPC_MESSAGE; Own: receiver */
    enum err err;              /* RPC_CLOSED: why */
    char text[400];            /* RPC_CLOSED: the sentence */
    bool orderly;              /* RPC_CLOSED: the other side meant it */
};
void rpc_event_free(struct rpc_event *e); /* the message too, unless taken (set e->msg = NULL); after RPC_CLOSED the peer is gone */

struct rpc_conf {
    const char *address;          /* "127.0.0.1:0": port 0 chooses one (server) */
    const struct auth_key *key;
    const char *identity;         /* <= 63 bytes, e.g. "coordinator" or "rank 1@host" */
    int32_t keepalive_ms, keepalive_timeout_ms;
    const char *tls_cert, *tls_key, *tls_ca; /* PEM files or NULL: plaintext. A server reads them again when they have changed */
    const char *key_file;         /* a server's `key` is from it and is read again when it has changed; NULL: it stays */
};

/* Peer operations, both sides. Thr: any. */
void rpc_peer_send(struct rpc_peer *p, const struct control_msg *m);  /* encodes now; queued */
void rpc_peer_close(struct rpc_peer *p);                              /* leads to RPC_CLOSED */
const char *rpc_peer_identity(const struct rpc_peer *p);
const char *rpc_peer_address(const struct rpc_peer *p);               /* as gRPC says it: "ipv4:10.0.0.3:40712" */
void rpc_peer_set_user(struct rpc_peer *p, void *user);               /* the mailbox owner's own pointer */
void *rpc_peer_user(const struct rpc_peer *p);

struct rpc_server;
/* Err SYSTEM (address in use, with the address), BAD_CONFIG. Events go to `events`. */
MUST_USE enum err rpc_server_open(struct rpc_server **out, const struct rpc_conf *conf, struct mailbox *events);
int32_t rpc_server_port(const struct rpc_server *s);
void rpc_server_close(struct rpc_server *s); /* cancels all sessions, joins its thread; remaining events stay in the mailbox */

struct rpc_client;
/* Connects and authenticates in the background; RPC_CONNECTED or RPC_CLOSED (refused, wrong key, no route: within timeout_ms). */
MUST_USE enum err rpc_client_open(struct rpc_client **out, const struct rpc_conf *conf, int32_t timeout_ms,
                                  struct mailbox *events);
void rpc_client_close(struct rpc_client *c);

#endif
