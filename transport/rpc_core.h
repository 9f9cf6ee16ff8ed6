/* rpc_core.h: what server and client of the control plane share: one gRPC call as a session.
 * Private to rpc_*.c.
 *
 * One completion queue and one thread per server or client. Every batch posted on a call carries an
 * rpc_tag; `pending` counts them, and a call is over when its stream has ended and nothing is
 * pending: only then is it released, and only then is RPC_CLOSED put into the mailbox, as the last
 * thing anyone here does with the peer. So the peer needs no reference count.
 *
 * Hello 1 and 2 travel as initial metadata, which gRPC bounds (8 KB), hello 3 as the first message.
 * A RECV_MESSAGE is posted only for a peer whose hello has proved the key: gRPC 1.51 takes in a
 * message whole, up to 2 GB, before it looks at the limit.
 *
 *     HANDSHAKE --both proofs--> CONNECTED --rpc_peer_close, queue empty--> (half closed)
 *         |                          |                                           |
 *         | wrong proof, too late,   | refused frame,                            | stream ended,
 *         v rpc_peer_close           v connection lost                           v nothing pending
 *     (cancelled) ----------------------------------------------------------> ENDED
 */
#ifndef TRANSPORT_RPC_CORE_H
#define TRANSPORT_RPC_CORE_H

#include "transport/rpc.h"

#include <grpc/byte_buffer.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>

#include <pthread.h>

enum {
    RPC_PIECE_BYTES = 64 << 10,  /* of a control message in one frame */
    RPC_MESSAGE_BYTES = RPC_PIECE_BYTES + 256,
    RPC_AUTH_US = 5000000,       /* a session without proof ends after this */
    RPC_STRANGERS = 256,         /* sessions without proof at once */
    RPC_FLUSH_US = 1000000,      /* how long a close waits for queued messages to leave */
    RPC_ADDRESS_BYTES = 128,
};
#define RPC_METHOD "/tessera.Control/Session"
#define RPC_HELLO_KEY "tessera-hello-bin"

/* What a finished batch calls, on the rpc thread. */
struct rpc_tag {
    void (*fn)(struct rpc_tag *t, bool ok);
    void *owner;
};

struct rpc_out { struct rpc_out *next; grpc_byte_buffer *bytes; };

struct rpc_core;

struct rpc_peer {
    /* [init] */
    struct rpc_core *core;
    void *user;
    char address[RPC_ADDRESS_BYTES];
    struct rpc_tag t_start, t_hello, t_recv, t_send, t_finish, t_end;
    /* [lock] */
    pthread_mutex_t lock;
    grpc_call *call;                 /* NULL: not begun, or over */
    struct trn_auth *auth;
    struct rpc_out *head, **tail;    /* sealed messages waiting for the one in flight */
    int pending;
    bool orderly; /* it was ended by the other side, not lost */
    bool sending, connected, closing, finished, ended, cancelled_here;
    enum err err;                    /* why it ended; the first reason stays */
    char text[400];
    /* [rpc] */
    grpc_byte_buffer *incoming;
    struct buf joined;               /* pieces of a long message */
    bool reading;                    /* a RECV_MESSAGE is posted, or will be again */
    bool refused;                    /* it broke the rules: only the end is awaited */
    int64_t since_us;
    int cancelled;                   /* server */
    grpc_status_code status;         /* client */
    grpc_slice details;
    grpc_metadata_array initial_md, trailing_md;
    grpc_metadata hello;             /* our hello 1 or 2, until the call is over */
    struct rpc_peer *next;           /* [core lock] in core->peers */
};

/* The half that differs. Thr: rpc. */
struct rpc_role {
    bool server;
    /* Post what begins a call: our initial metadata (p->hello), and the batch whose end (t_end) is
     * the end of the stream. p->lock held. */
    void (*begin)(struct rpc_peer *p);
    /* Post what ends a session in order, all queued messages having left: status or half-close.
     * p->lock held. */
    void (*finish)(struct rpc_peer *p);
    /* Nothing pending and the call released: retire the peer, or (client) try again later. */
    void (*over)(struct rpc_peer *p);
    /* Look at clocks and at the end; returns when to be called again, in us, or INT64_MAX. Called
     * after every event. */
    int64_t (*tick)(struct rpc_core *c, int64_t now);
};

struct rpc_core {
    /* [init] */
    const struct rpc_role *role;
    struct auth_key key;
    char identity[AUTH_ID_BYTES], address[RPC_ADDRESS_BYTES];
    int32_t keepalive_ms, keepalive_timeout_ms;
    struct mailbox *events;
    grpc_completion_queue *cq;
    pthread_t thread;
    void *owner;                     /* struct rpc_server or rpc_client */
    /* [lock] */
    pthread_mutex_t lock;
    pthread_cond_t fewer;
    struct rpc_peer *peers;
    int n_peers;
};

/* ---- core (rpc_core.c) ---- */
void rpc_core_open(struct rpc_core *c, const struct rpc_role *role, const struct rpc_conf *conf,
                   struct mailbox *events);
MUST_USE enum err rpc_core_start(struct rpc_core *c);     /* its thread */
/* Wait until no peer is left, at most timeout_us; false: some are. Thr: any but rpc. */
bool rpc_core_wait(struct rpc_core *c, int64_t timeout_us);
void rpc_core_join(struct rpc_core *c);                   /* after the queue has been shut down */
void rpc_core_close(struct rpc_core *c);

/* ---- a peer (rpc_peer.c) ---- */
struct rpc_peer *rpc_peer_new(struct rpc_core *c, const char *address); /* listed in core->peers */
/* Attach a call and begin: client hello 1, server (which has the peer's hello 1: theirs, n)
 * hello 2. Err LINK_AUTH: nothing was posted, the call is the caller's still. */
MUST_USE enum err rpc_peer_begin(struct rpc_peer *p, grpc_call *call, const void *theirs, size_t n);
/* The next handshake message came (client: hello 2, server: hello 3).
 * A refusal ends the session. */
void rpc_peer_hello(struct rpc_peer *p, const void *theirs, size_t n);
/* Start to read messages: the peer's hello has proved the key. */
void rpc_peer_read(struct rpc_peer *p);
/* The hello among metadata; NULL: none. */
const grpc_slice *rpc_find_hello(const grpc_metadata_array *md);
/* Post ops; p->lock held. */
void rpc_peer_batch(struct rpc_peer *p, const grpc_op *ops, size_t n, struct rpc_tag *tag);
/* One batch less; when nothing is pending and the stream has ended, the end. May free p. */
void rpc_peer_done(struct rpc_peer *p);
/* The last that is done with a peer: unlisted, then RPC_CLOSED to the owner (tell) or freed. */
void rpc_peer_retire(struct rpc_peer *p, bool tell);
/* The first reason stays. */
void rpc_peer_reason(struct rpc_peer *p, enum err err, const char *fmt, ...) PRINTF(3, 4);
/* Cancel the call; the peer learns `why` when it is not NULL. Thr: any. */
void rpc_peer_cancel(struct rpc_peer *p, grpc_status_code code, const char *why);
const char *rpc_peer_name(const struct rpc_peer *p);      /* identity, else address */

/* ---- gRPC's arguments and credentials (rpc_conf.c) ---- */
struct rpc_args { grpc_arg args[24]; grpc_channel_args all; };
void rpc_args_server(struct rpc_args *a, const struct rpc_conf *conf);
void rpc_args_client(struct rpc_args *a, const struct rpc_conf *conf);
struct rpc_pems { char *ca, *cert, *key; }; /* Own: rpc_pems_free */
MUST_USE enum err rpc_pems_read(const struct rpc_conf *conf, struct rpc_pems *p);
void rpc_pems_free(struct rpc_pems *p);
struct rpc_reload;
/* r outlives the server. */
MUST_USE enum err rpc_creds_server(const struct rpc_conf *conf, struct rpc_reload *r, grpc_server_credentials **out);
MUST_USE enum err rpc_creds_client(const struct rpc_conf *conf, grpc_channel_credentials **out);
/* ---- files that may change (rpc_reload.c) ---- */
struct rpc_reload *rpc_reload_open(const struct rpc_conf *conf);
void rpc_reload_close(struct rpc_reload *r); /* NULL-safe */
/* The cluster key, if its file has changed since the last time. */
bool rpc_reload_key(struct rpc_reload *r, struct auth_key *key);
/* A grpc_ssl_server_certificate_config_callback. */
grpc_ssl_certificate_config_reload_status rpc_reload_certificates(void *reload, grpc_ssl_server_certificate_config **out);

/* ---- TLS that does not come about (rpc_tls.c) ---- */
/* What a call's status says of it, as a sentence with its remedy; NULL: it is not TLS's doing. tls: this side speaks it. */
const char *rpc_tls_client_why(const char *said, bool tls);
/* A server's handshake failed: warn, once a minute of each cause. Thr: any. */
void rpc_tls_server_failed(const char *said);

void rpc_quiet(void);                                     /* gRPC's own chatter goes to log_debug */
void rpc_hear_tls(void);                                  /* from now on failed handshakes of servers too, to rpc_tls_server_failed */
/* The connection to this peer's address ended because a keepalive went unanswered; says so once. Thr: any. */
bool rpc_keepalive_failed(const char *address);
/* Printable ASCII only, and no longer than cap. */
void rpc_printable(char *out, size_t cap, const char *text, size_t n);

#endif
