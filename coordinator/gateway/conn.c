/* conn.c: connections as the library reports them: headers checked, bodies bounded, deadlines of
 * our own.
 *
 * The library's own time-out counts from the last byte, so one byte a second keeps a connection for
 * ever; ours count from the beginning. It also takes two Content-Lengths, and a Content-Length
 * beside a Transfer-Encoding, on which a proxy before us may see another request than we do: both
 * are refused here. */
#include "coordinator/gateway/net.h"
#include "base/clock.h"
#include "base/log.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>

static struct conn *conn_of(struct MHD_Connection *mhd)
{
    return MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
}

static void start(struct conn *c, enum timer_kind kind)
{
    crd_timer_start(&c->gw->timers, &c->timer, kind, clock_us());
}

static void conn_open(struct gw *g, struct MHD_Connection *mhd, void **ctx)
{
    struct conn *c = xcalloc(1, sizeof *c);
    int one = 1;
    *c = (struct conn){.gw = g, .mhd = mhd, .next = g->conns};
    c->fd = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    if (g->conns) g->conns->prev = c;
    g->conns = c;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    /* Edge-triggered and for this one event: told once. */
    struct epoll_event ev = {.events = EPOLLRDHUP | EPOLLET, .data.ptr = c};
    epoll_ctl(g->epoll_fd, EPOLL_CTL_ADD, c->fd, &ev);
    start(c, TIMER_HEADERS);
    *ctx = c;
}

static void conn_close(struct conn *c)
{
    crd_timer_stop(&c->timer);
    crd_exchange_close(c->x, true);
    /* Closing would do only when nobody else holds the socket: a child of ours does until it has
     * become another program, and the set would tell of c when it is no more. */
    epoll_ctl(c->gw->epoll_fd, EPOLL_CTL_DEL, c->fd, NULL);
    if (c->prev)
        c->prev->next = c->next;
    else
        c->gw->conns = c->next;
    if (c->next) c->next->prev = c->prev;
    free(c);
}

void crd_conn_notify(void *gw, struct MHD_Connection *mhd, void **ctx,
                     enum MHD_ConnectionNotificationCode code)
{
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        conn_open(gw, mhd, ctx);
    } else if (*ctx) {
        conn_close(*ctx);
        *ctx = NULL;
    }
}

/* The library notes each header and each argument of the query in the same memory. */
static bool target_too_large(const char *target)
{
    const char *query = strchr(target, '?');
    size_t n_args = query != NULL;
    for (const char *p = query; p && (p = strchr(p, '&')); p++) n_args++;
    return n_args > MAX_ARGUMENTS || strlen(target) + n_args * NOTE_BYTES > MAX_HEADER_BYTES;
}

void *crd_conn_request_line(void *gw, const char *target, struct MHD_Connection *mhd)
{
    struct conn *c = conn_of(mhd);
    (void)gw;
    crd_exchange_close(c->x, true); /* only after a request whose end we were not told */
    c->x = crd_exchange_open(c, target);
    if (c->timer.kind == TIMER_IDLE) start(c, TIMER_HEADERS);
    if (target_too_large(target)) { /* the library would only close */
        crd_exchange_overflow(c->x);
        shutdown(c->fd, SHUT_WR); /* the rest of the head is still read: unread, it would cost the answer */
    }
    return c->x;
}

struct header_facts {
    int n_length, n_encoding;
    bool chunked, expects, coded;
    uint64_t length;
};

static enum MHD_Result see_header(void *cls, enum MHD_ValueKind kind, const char *name,
                                  const char *value)
{
    struct header_facts *f = cls;
    (void)kind;
    if (!strcasecmp(name, MHD_HTTP_HEADER_CONTENT_LENGTH)) {
        f->n_length++;
        f->length = strtoull(value ? value : "", NULL, 10);
    } else if (!strcasecmp(name, MHD_HTTP_HEADER_TRANSFER_ENCODING)) {
        f->n_encoding++;
        f->chunked = value && !strcasecmp(value, "chunked");
    } else if (!strcasecmp(name, MHD_HTTP_HEADER_EXPECT)) {
        f->expects = true;
    } else if (!strcasecmp(name, MHD_HTTP_HEADER_CONTENT_ENCODING)) {
        f->coded = value && *value && strcasecmp(value, "identity");
    }
    return MHD_YES;
}

static void refuse_too_large(struct gw_exchange *x)
{
    struct buf b = {0};
    buf_printf(&b, "The request body is larger than %lld bytes, which --max-body of the server allows.",
               (long long)x->conn->gw->conf.max_body);
    crd_exchange_refuse(x, MHD_HTTP_CONTENT_TOO_LARGE, "BadRequestError", buf_str(&b));
    buf_free(&b);
}

/* The headers are whole; true when the request is refused already. */
static bool refuse_headers(struct gw_exchange *x)
{
    struct header_facts f = {0};
    uint64_t limit = (uint64_t)x->conn->gw->conf.max_body;
    MHD_get_connection_values(x->conn->mhd, MHD_HEADER_KIND, see_header, &f);
    if (f.n_length > 1)
        crd_exchange_refuse(x, 400, "Bad Request",
                            "The request has more than one Content-Length header.");
    else if (f.n_length && f.n_encoding)
        crd_exchange_refuse(x, 400, "Bad Request",
                            "The request has both Content-Length and Transfer-Encoding.");
    else if (f.n_encoding > 1 || (f.n_encoding && !f.chunked))
        crd_exchange_refuse(x, 400, "Bad Request",
                            "The only Transfer-Encoding understood is chunked.");
    else if (f.coded)
        crd_exchange_refuse(x, MHD_HTTP_UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaTypeError",
                            "Bodies are taken as they are: send it without Content-Encoding.");
    else if (f.length > limit && (f.expects || f.length > limit + DRAIN_BYTES))
        refuse_too_large(x);
    return x->response != NULL;
}

static bool head_too_large(const struct conn *c)
{
    size_t bytes =
        MHD_get_connection_info(c->mhd, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE)->header_size;
    int n = MHD_get_connection_values(
        c->mhd, MHD_HEADER_KIND | MHD_COOKIE_KIND | MHD_GET_ARGUMENT_KIND, NULL, NULL);
    return bytes + (size_t)MAX(n, 0) * NOTE_BYTES > MAX_HEADER_BYTES;
}

static enum MHD_Result begin(struct gw_exchange *x)
{
    struct conn *c = x->conn;
    if (!x->overflowed && head_too_large(c)) crd_exchange_overflow(x);
    if (x->overflowed) return MHD_NO;
    if (refuse_headers(x)) {
        crd_timer_stop(&c->timer);
        return crd_exchange_send(x);
    }
    x->phase = PHASE_BODY;
    x->body_since_us = clock_us();
    start(c, TIMER_BODY);
    return MHD_YES;
}

static enum MHD_Result take_body(struct gw_exchange *x, const char *data, size_t n)
{
    int64_t limit = x->conn->gw->conf.max_body;
    if ((int64_t)(x->body.len + n) > limit) x->too_large = true;
    if (!x->too_large) {
        buf_put(&x->body, data, n);
        return MHD_YES;
    }
    if (x->body.data) buf_free(&x->body);
    x->sent += n; /* nothing is being sent yet: counts what was read and thrown away */
    return x->sent > DRAIN_BYTES + (size_t)limit ? MHD_NO : MHD_YES;
}

static void answer(struct gw_exchange *x, const char *method, const char *path)
{
    crd_timer_stop(&x->conn->timer);
    x->phase = PHASE_ANSWER;
    x->sent = 0;
    if (x->too_large) {
        refuse_too_large(x);
        return;
    }
    x->active = true;
    atomic_fetch_add(&x->conn->gw->n_active, 1);
    crd_exchange_name(x);
    crd_router_dispatch(x, method, path);
    buf_free(&x->body);
    if (!x->response && !x->ops)
        crd_exchange_refuse(x, 500, "InternalServerError", "No handler answered.");
}

enum MHD_Result crd_conn_request(void *gw, struct MHD_Connection *mhd, const char *path,
                                 const char *method, const char *version, const char *data,
                                 size_t *n, void **ctx)
{
    struct gw_exchange *x = *ctx;
    (void)gw, (void)mhd, (void)version;
    if (x->phase == PHASE_HEADERS) {
        snprintf(x->method, sizeof x->method, "%s", method);
        return begin(x);
    }
    if (*n) {
        x->n_body += *n;
        enum MHD_Result ok = take_body(x, data, *n);
        *n = 0;
        return ok;
    }
    if (x->phase == PHASE_BODY) answer(x, method, path);
    return x->ops ? crd_stream_advance(x) : crd_exchange_send(x);
}

void crd_conn_completed(void *gw, struct MHD_Connection *mhd, void **ctx,
                        enum MHD_RequestTerminationCode code)
{
    struct conn *c = conn_of(mhd);
    (void)gw;
    if (!c || !c->x) return;
    crd_exchange_close(c->x, code != MHD_REQUEST_TERMINATED_COMPLETED_OK);
    c->x = NULL;
    *ctx = NULL;
    start(c, TIMER_IDLE);
}

/* Who has begun a request is told; who has only connected is not. */
static void hang_up(struct conn *c, const char *why)
{
    log_debug("gateway", "closing a connection: %s", why);
    if (c->x && !c->x->overflowed) crd_exchange_late(c->x);
    shutdown(c->fd, SHUT_RDWR); /* the library sees the end of the stream and cleans up */
}

void crd_conn_expired(struct conn *c, enum timer_kind kind, int64_t now_us)
{
    struct gw_exchange *x = c->x;
    switch (kind) {
    case TIMER_HEADERS:
        hang_up(c, "the headers took too long");
        break;
    case TIMER_IDLE:
        hang_up(c, "idle");
        break;
    case TIMER_BODY: {
        int64_t got = (int64_t)(x->body.len + x->sent);
        int64_t spent = (now_us - x->body_since_us) / 1000000;
        if (got / BODY_BYTES_PER_S + c->gw->conf.header_timeout_s > spent)
            start(c, TIMER_BODY);
        else
            hang_up(c, "the body came too slowly");
        break;
    }
    case TIMER_SILENT:
        x->ping_due = true;
        crd_stream_unpark(x);
        break;
    case TIMER_KINDS:
        break;
    }
}

void crd_conn_left(struct conn *c)
{
    c->left = true;
    if (c->x) crd_stream_unpark(c->x);
}
