/* exchange.c: one request and its one-shot answer. */
#include "coordinator/gateway/net.h"
#include "base/clock.h"
#include "base/log.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

struct gw_exchange *crd_exchange_open(struct conn *c, const char *target)
{
    struct gw_exchange *x = xcalloc(1, sizeof *x);
    x->conn = c;
    x->since_us = clock_us();
    x->target = xstrdup(target);
    return x;
}

void crd_exchange_close(struct gw_exchange *x, bool client_left)
{
    if (!x) return;
    if (x->waker) {
        crd_waker_detach(x->waker);
        gw_waker_free(x->waker);
    }
    if (x->ops) x->ops->closed(x->self, client_left);
    crd_counts_add(x);
    if (x->active) atomic_fetch_sub(&x->conn->gw->n_active, 1);
    if (x->response) MHD_destroy_response(x->response);
    buf_free(&x->body);
    buf_free(&x->out);
    free(x->target);
    free(x);
}

void crd_exchange_add_headers(struct MHD_Response *r, const char *lines)
{
    for (const char *end; lines && *lines; lines = *end ? end + 1 : end) {
        end = strchrnul(lines, '\n');
        const char *colon = memchr(lines, ':', (size_t)(end - lines));
        if (!colon) continue;
        char *name = xstrndup(lines, (size_t)(colon - lines));
        const char *v = colon + 1 + strspn(colon + 1, " ");
        char *value = xstrndup(v, (size_t)(end - v));
        if (MHD_add_response_header(r, name, value) != MHD_YES)
            log_warn("gateway", "bad header \"%s\"", name);
        free(name);
        free(value);
    }
}

void gw_reply(struct gw_exchange *x, int32_t status, const char *content_type, const void *body,
              size_t n, const char *extra_headers)
{
    ASSERT(!x->response && !x->ops);
    x->status = (unsigned)status;
    x->n_answer = n;
    x->response = MHD_create_response_from_buffer(
        n, n ? (void *)(uintptr_t)body : (void *)(uintptr_t) "", MHD_RESPMEM_MUST_COPY);
    ASSERT(x->response);
    if (content_type)
        MHD_add_response_header(x->response, MHD_HTTP_HEADER_CONTENT_TYPE, content_type);
    crd_exchange_add_headers(x->response, extra_headers);
}

static void put_error(struct buf *out, const char *type, const char *message)
{
    buf_printf(out, "{\"error\":{\"message\":\"%s\",\"type\":\"%s\",\"param\":null,\"code\":null}}",
               message, type);
}

void crd_exchange_refuse(struct gw_exchange *x, unsigned status, const char *type,
                         const char *message)
{
    struct buf b = {0};
    put_error(&b, type, message);
    gw_reply(x, (int32_t)status, "application/json", b.data, b.len, NULL);
    buf_free(&b);
}

/* An empty socket takes so little at once. */
static void send_past(const struct conn *c, const char *text, size_t n)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(c->mhd, MHD_CONNECTION_INFO_GNUTLS_SESSION);
    ssize_t sent = c->gw->tls && info ? gnutls_record_send(info->tls_session, text, n)
                                      : send(c->fd, text, n, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent != (ssize_t)n) log_debug("gateway", "a client did not take its last answer");
}

/* What the client has sent must not lie unread when the socket closes: it would lose the answer. */
static void drain(const struct conn *c)
{
    char lost[4096];
    for (size_t n = 0; n < DRAIN_BYTES; n += sizeof lost)
        if (recv(c->fd, lost, sizeof lost, MSG_DONTWAIT) <= 0) break;
}

/* An answer past the library, the last on its connection. reason: as in the status line. */
static void answer_past(struct gw_exchange *x, unsigned status, const char *reason,
                        const char *type, const char *message)
{
    struct buf body = {0}, b = {0};
    put_error(&body, type, message);
    x->status = status;
    x->n_answer = body.len;
    crd_exchange_name(x);
    buf_printf(&b,
               "HTTP/1.1 %u %s\r\nContent-Type: application/json\r\n"
               "Content-Length: %zu\r\nX-Request-Id: %s\r\nConnection: close\r\n\r\n%s",
               status, reason, body.len, x->request_id, buf_str(&body));
    send_past(x->conn, buf_str(&b), b.len);
    drain(x->conn);
    buf_free(&body);
    buf_free(&b);
}

void crd_exchange_overflow(struct gw_exchange *x)
{
    x->overflowed = true;
    answer_past(x, MHD_HTTP_REQUEST_HEADER_FIELDS_TOO_LARGE, "Request Header Fields Too Large", "BadRequestError",
                "The request line and headers are larger than 28 KB (each header counts 80 bytes more).");
}

void crd_exchange_late(struct gw_exchange *x)
{
    answer_past(x, MHD_HTTP_REQUEST_TIMEOUT, "Request Timeout", "RequestTimeoutError",
                "The request did not come in time: its headers within --header-timeout, its body at 64 KB a second.");
}

struct gw_waker *gw_exchange_waker(struct gw_exchange *x)
{
    if (!x->waker) x->waker = crd_waker_open(x->conn->gw->hub, x);
    return crd_waker_ref(x->waker);
}

static void draw_request_id(char id[MAX_REQUEST_ID + 1])
{
    uint8_t r[16];
    ssize_t n = getrandom(r, sizeof r, 0);
    ASSERT(n == sizeof r);
    for (size_t i = 0; i < sizeof r; i++) {
        id[2 * i] = "0123456789abcdef"[r[i] >> 4];
        id[2 * i + 1] = "0123456789abcdef"[r[i] & 15];
    }
    id[2 * sizeof r] = 0;
}

/* The client's own, where it is something that may stand in a header, a log line and an id. */
void crd_exchange_name(struct gw_exchange *x)
{
    if (x->request_id[0]) return;
    const char *given = MHD_lookup_connection_value(x->conn->mhd, MHD_HEADER_KIND, "X-Request-Id");
    size_t n = given ? strlen(given) : 0;
    bool good = n && n <= MAX_REQUEST_ID;
    for (size_t i = 0; i < n && good; i++)
        good = given[i] > ' ' && given[i] < 0x7f && !strchr("\"\\", given[i]);
    if (good)
        memcpy(x->request_id, given, n + 1);
    else
        draw_request_id(x->request_id);
}

enum MHD_Result crd_exchange_send(struct gw_exchange *x)
{
    struct MHD_Response *r = x->response;
    crd_exchange_name(x);
    MHD_add_response_header(r, "X-Request-Id", x->request_id);
    MHD_add_response_header(r, "Request-Id", x->request_id); /* where Anthropic's clients look */
    crd_cors_headers(x, r);
    if (atomic_load(&x->conn->gw->want_quiesce))
        MHD_add_response_header(r, MHD_HTTP_HEADER_CONNECTION, "close");
    x->response = NULL;
    x->queued = true;
    enum MHD_Result ok = MHD_queue_response(x->conn->mhd, x->status, r);
    MHD_destroy_response(r);
    return ok;
}
