/* rpc_server.c: the coordinator's side: one listening port, many sessions. See rpc_core.h.
 *
 * Who comes without a hello under the cluster key is turned away at once. A stranger is a session
 * whose hello was right but could be a recorded one: a hello seen before is refused, and the proof
 * over our nonce must come within RPC_AUTH_US; at most RPC_STRANGERS of them at once. The owner
 * never hears of either, the log does, a few times a minute. */
#include "transport/rpc_core.h"

#include "base/clock.h"
#include "base/log.h"

#include <grpc/slice.h>
#include <grpc/support/alloc.h>

#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define C "rpc"

enum { LOGS_PER_MINUTE = 20, MINUTE_US = 60000000, SEEN_HELLOS = 1024 };

struct rpc_server {
    struct rpc_core core;
    grpc_server *grpc;
    int port;
    struct rpc_reload *reload;
    /* [rpc] */
    struct rpc_tag t_new, t_shutdown;
    grpc_call *call;                 /* the next one, being awaited */
    grpc_call_details details;
    grpc_metadata_array metadata;
    bool shut;                       /* gRPC has nothing more to tell */
    int64_t minute_us;
    int n_logged;
    uint8_t seen[SEEN_HELLOS][AUTH_TAG_BYTES]; /* tags of the last good first hellos, a ring */
    size_t n_seen;
};

/* ---- the role ---- */

static void on_close(struct rpc_tag *t, bool ok)
{
    struct rpc_peer *p = t->owner;
    (void)ok;
    if (!p->connected)
        rpc_peer_reason(p, ERR_LINK_AUTH, "it left before proving the cluster key");
    else if (p->cancelled && rpc_keepalive_failed(p->address))
        rpc_peer_reason(p, ERR_LINK_CLOSED, "%s was lost: a keepalive went unanswered for %" PRId32 " ms", rpc_peer_name(p),
                        p->core->keepalive_timeout_ms);
    else if (p->cancelled)
        rpc_peer_reason(p, ERR_LINK_CLOSED, "%s was lost: its connection broke", rpc_peer_name(p));
    else
        rpc_peer_reason(p, ERR_LINK_CLOSED, "%s closed the connection", rpc_peer_name(p));
    pthread_mutex_lock(&p->lock);
    p->ended = true;
    pthread_mutex_unlock(&p->lock);
    rpc_peer_done(p);
}

static void server_begin(struct rpc_peer *p)
{
    grpc_op end = {.op = GRPC_OP_RECV_CLOSE_ON_SERVER},
            start = {.op = GRPC_OP_SEND_INITIAL_METADATA};
    end.data.recv_close_on_server.cancelled = &p->cancelled;
    start.data.send_initial_metadata.count = 1;
    start.data.send_initial_metadata.metadata = &p->hello;
    p->t_end = (struct rpc_tag){on_close, p};
    rpc_peer_batch(p, &end, 1, &p->t_end); /* first: nothing else tells of a cancelled call */
    rpc_peer_batch(p, &start, 1, &p->t_start);
}

static void server_finish(struct rpc_peer *p)
{
    grpc_op op = {.op = GRPC_OP_SEND_STATUS_FROM_SERVER};
    op.data.send_status_from_server.status = GRPC_STATUS_OK;
    rpc_peer_batch(p, &op, 1, &p->t_finish);
}

static void log_refusal(struct rpc_server *s, const char *address, const char *text)
{
    int64_t now = clock_us();
    if (now - s->minute_us > MINUTE_US) {
        s->minute_us = now;
        s->n_logged = 0;
    }
    if (s->n_logged++ < LOGS_PER_MINUTE)
        log_warn(C, "refused a session from %s: %s", address, text);
}

static void server_over(struct rpc_peer *p)
{
    if (!p->connected) log_refusal(p->core->owner, p->address, p->text);
    rpc_peer_retire(p, p->connected);
}

/* Strangers at hand; those over their time are cut off. */
static int strangers(struct rpc_core *c, int64_t now, int64_t *next)
{
    int n = 0;
    pthread_mutex_lock(&c->lock);
    for (struct rpc_peer *p = c->peers; p; p = p->next) {
        if (p->connected || p->refused) continue;
        n++;
        if (now < p->since_us + RPC_AUTH_US) {
            *next = MIN(*next, p->since_us + RPC_AUTH_US);
            continue;
        }
        p->refused = true;
        rpc_peer_reason(p, ERR_LINK_AUTH, "no proof of the cluster key within %d s",
                        RPC_AUTH_US / 1000000);
        rpc_peer_cancel(p, GRPC_STATUS_UNAUTHENTICATED, "no proof of the cluster key came in time");
    }
    pthread_mutex_unlock(&c->lock);
    return n;
}

static int64_t server_tick(struct rpc_core *c, int64_t now)
{
    struct rpc_server *s = c->owner;
    int64_t next = INT64_MAX;
    (void)strangers(c, now, &next);
    if (s->shut && s->grpc && !c->n_peers) { /* n_peers changes on this thread only */
        grpc_server_destroy(s->grpc);
        s->grpc = NULL;
        grpc_completion_queue_shutdown(c->cq);
    }
    return next;
}

static const struct rpc_role server_role = {.server = true,
                                            .begin = server_begin,
                                            .finish = server_finish,
                                            .over = server_over,
                                            .tick = server_tick};

/* ---- new sessions ---- */

static void await_call(struct rpc_server *s)
{
    grpc_call_details_init(&s->details);
    grpc_metadata_array_init(&s->metadata);
    s->call = NULL;
    grpc_call_error e = grpc_server_request_call(s->grpc, &s->call, &s->details, &s->metadata,
                                                 s->core.cq, s->core.cq, &s->t_new);
    ASSERT(e == GRPC_CALL_OK);
}

static bool seen_before(const struct rpc_server *s, const uint8_t *tag)
{
    for (size_t i = 0; i < MIN(s->n_seen, (size_t)SEEN_HELLOS); i++)
        if (!memcmp(s->seen[i], tag, AUTH_TAG_BYTES)) return true;
    return false;
}

/* Post the first batches of a session, or say in err_text() why not. */
static enum err begin_session(struct rpc_server *s, struct rpc_peer *p, grpc_call *call,
                              const grpc_slice *hello)
{
    if (!hello || GRPC_SLICE_LENGTH(*hello) != AUTH_HELLO_BYTES)
        return err_raise(ERR_LINK_AUTH, "it came without a handshake message");
    const uint8_t *theirs = GRPC_SLICE_START_PTR(*hello),
                  *tag = theirs + AUTH_HELLO_BYTES - AUTH_TAG_BYTES;
    if (seen_before(s, tag))
        return err_raise(ERR_LINK_AUTH, "its first handshake message was used before");
    (void)rpc_reload_key(s->reload, &s->core.key);
    enum err rc = rpc_peer_begin(p, call, theirs, AUTH_HELLO_BYTES);
    if (rc) return rc;
    memcpy(s->seen[s->n_seen++ % SEEN_HELLOS], tag, AUTH_TAG_BYTES);
    rpc_peer_read(p);
    return OK;
}

static void accept_call(struct rpc_server *s, grpc_call *call, bool known_method,
                        const grpc_slice *hello)
{
    int64_t now = clock_us(), next = INT64_MAX;
    grpc_status_code code = GRPC_STATUS_UNAUTHENTICATED;
    enum err rc = OK;
    char *address = grpc_call_get_peer(call);
    struct rpc_peer *p = rpc_peer_new(&s->core, address);
    gpr_free(address);
    p->since_us = now;
    if (!known_method) {
        code = GRPC_STATUS_UNIMPLEMENTED;
        rc = err_raise(ERR_LINK_PROTOCOL, "this port speaks " RPC_METHOD " only");
    } else if (strangers(&s->core, now, &next) > RPC_STRANGERS) {
        code = GRPC_STATUS_RESOURCE_EXHAUSTED;
        rc = err_raise(ERR_LINK_AUTH, "more than %d sessions wait for a proof of the cluster key",
                       RPC_STRANGERS);
    } else {
        rc = begin_session(s, p, call, hello);
    }
    if (!rc) return;
    log_refusal(s, p->address, err_text());
    (void)grpc_call_cancel_with_status(call, code, err_text(), NULL);
    grpc_call_unref(call);
    rpc_peer_retire(p, false);
}

static void on_new(struct rpc_tag *t, bool ok)
{
    struct rpc_server *s = t->owner;
    if (ok) {
        bool known = !grpc_slice_str_cmp(s->details.method, RPC_METHOD);
        accept_call(s, s->call, known, rpc_find_hello(&s->metadata));
    }
    grpc_call_details_destroy(&s->details);
    grpc_metadata_array_destroy(&s->metadata);
    if (ok) await_call(s); /* else shutting down */
}

static void on_shutdown(struct rpc_tag *t, bool ok)
{
    struct rpc_server *s = t->owner;
    (void)ok;
    s->shut = true;
}

/* ---- open, close ---- */

/* gRPC says only "no": bind once more ourselves to learn why. */
static enum err why_not(const struct rpc_conf *conf)
{
    const char *address = conf->address;
    char host[RPC_ADDRESS_BYTES];
    struct addrinfo hint = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *at = NULL;
    snprintf(host, sizeof host, "%s", address);
    char *colon = strrchr(host, ':');
    if (!colon) return err_raise(ERR_BAD_CONFIG, "cannot listen on %s: needed HOST:PORT", address);
    *colon = 0;
    char *name = host[0] == '[' ? host + 1 : host;
    name[strcspn(name, "]")] = 0;
    int e = getaddrinfo(name, colon + 1, &hint, &at);
    if (e) return err_raise(ERR_BAD_CONFIG, "cannot listen on %s: %s", address, gai_strerror(e));
    int fd = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    e = bind(fd, at->ai_addr, at->ai_addrlen) || listen(fd, 1) ? errno : 0;
    close(fd);
    freeaddrinfo(at);
    return err_raise(
        ERR_SYSTEM, "cannot listen on %s: %s%s", address,
        e ? strerror(e)
        : conf->tls_cert ? "TLS refused it: are --tls-cert, --tls-key and --tls-ca PEM, and do certificate and key belong together?"
                         : "gRPC refused it",
        e == EADDRINUSE ? "; choose another port, or end the process that holds it" : "");
}

static enum err listen_on(struct rpc_server *s, const struct rpc_conf *conf)
{
    enum err rc = OK;
    struct rpc_args args;
    grpc_server_credentials *creds = NULL;
    rpc_args_server(&args, conf);
    TRY(rpc_creds_server(conf, s->reload, &creds));
    if (conf->tls_cert) rpc_hear_tls();
    s->grpc = grpc_server_create(&args.all, NULL);
    grpc_server_register_completion_queue(s->grpc, s->core.cq, NULL);
    s->port = grpc_server_add_http2_port(s->grpc, conf->address, creds);
    grpc_server_credentials_release(creds);
    if (!s->port) TRY(why_not(conf));
out:
    return rc;
}

enum err rpc_server_open(struct rpc_server **out, const struct rpc_conf *conf,
                         struct mailbox *events)
{
    struct rpc_server *s = xcalloc(1, sizeof *s);
    s->t_new = (struct rpc_tag){on_new, s};
    s->t_shutdown = (struct rpc_tag){on_shutdown, s};
    s->core.owner = s;
    rpc_core_open(&s->core, &server_role, conf, events);
    s->reload = rpc_reload_open(conf);
    enum err rc = listen_on(s, conf);
    if (!rc) {
        grpc_server_start(s->grpc);
        await_call(s);
        rc = rpc_core_start(&s->core);
        ASSERT(!rc); /* no way back from a started server without its thread */
        *out = s;
        return OK;
    }
    if (s->grpc) grpc_server_destroy(s->grpc);
    grpc_completion_queue_shutdown(s->core.cq);
    rpc_core_close(&s->core);
    rpc_reload_close(s->reload);
    free(s);
    return rc;
}

int32_t rpc_server_port(const struct rpc_server *s) { return s->port; }

void rpc_server_close(struct rpc_server *s)
{
    if (!s) return;
    grpc_server *grpc = s->grpc; /* the thread destroys it only after the notification below */
    pthread_mutex_lock(&s->core.lock);
    for (struct rpc_peer *p = s->core.peers; p; p = p->next) rpc_peer_close(p);
    pthread_mutex_unlock(&s->core.lock);
    (void)rpc_core_wait(&s->core, RPC_FLUSH_US);
    grpc_server_shutdown_and_notify(grpc, s->core.cq, &s->t_shutdown);
    grpc_server_cancel_all_calls(grpc);
    rpc_core_join(&s->core);
    rpc_core_close(&s->core);
    rpc_reload_close(s->reload);
    free(s);
}
