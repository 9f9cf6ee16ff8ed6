/* gateway.h: the HTTP face: one listener, one event-loop thread, connections that sleep until there is something to send.
 *
 * Only gateway/ sees the HTTP library (libmicrohttpd). Handlers are a table given by the caller; the gateway knows nothing of models.
 * Refuses duplicate Content-Length, Content-Length with Transfer-Encoding, bodies over the limit (413), headers over the limit (431), slow
 * headers and bodies (own deadline); sends an SSE comment while a stream is silent; notices a closed client. */
#ifndef COORDINATOR_GATEWAY_GATEWAY_H
#define COORDINATOR_GATEWAY_GATEWAY_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct gw_conf {
    const char *host;              /* "127.0.0.1" */
    int32_t port;                  /* 0: choose */
    int64_t max_body;              /* bytes */
    int32_t header_timeout_s, idle_timeout_s;
    int32_t ping_ms;               /* SSE comment while nothing is said */
    int32_t max_connections;
    const char *tls_cert, *tls_key; /* PEM files; NULL: plain HTTP */
    /* Optional: runs on the net thread at the time last asked for by gw_alarm. */
    void (*alarm)(void *user);
    const char *cors_origins;      /* "*", or origins separated by commas; NULL: browsers of other origins get nothing */
};

/* A request being answered. Handlers fill it on the net thread. */
struct gw_exchange;
struct gw_request {
    const char *method, *path, *query, *body;
    size_t n_body;
    const char *request_id;
    void *caller; /* what the gate made of it */
};
/* A header of the request, or NULL; valid while a handler or gate runs. */
const char *gw_header(struct gw_exchange *x, const char *name);

/* One-shot answer. extra_headers: "Name: value\n" lines or NULL. */
void gw_reply(struct gw_exchange *x, int32_t status, const char *content_type, const void *body, size_t n, const char *extra_headers);

/* A long answer: run() is called on the net thread whenever wake was called (and first at once); it appends bytes and says done. *status is set
 * before the first byte leaves; while it is 0 nothing is sent. A silent stream's run() is also called every ping_ms. closed() is called exactly
 * once at the end, also when the client left first. content_type and extra_headers are read when *status first becomes non-zero. */
struct gw_stream_ops {
    bool (*run)(void *self, struct buf *out, int32_t *status, const char **content_type, const char **extra_headers);
    void (*closed)(void *self, bool client_left);
};
void gw_stream(struct gw_exchange *x, const struct gw_stream_ops *ops, void *self);
/* From any thread; safe after the exchange has ended (a handle, not the exchange itself). */
struct gw_waker;
struct gw_waker *gw_exchange_waker(struct gw_exchange *x);   /* Own: caller; one per call */
void gw_wake(struct gw_waker *w);
void gw_waker_free(struct gw_waker *w);

struct gw;
struct gw *gw_of(struct gw_exchange *x);
/* Work on the net thread that belongs to no exchange: fn(user) runs there after each gw_wake of the handle (Own: caller), until it is
 * cancelled, on the net thread or after gw_close. */
struct gw_waker *gw_task(struct gw *g, void (*fn)(void *user), void *user);
void gw_task_cancel(struct gw_waker *w);
/* On the net thread: run conf.alarm at this time, instead of any asked for before. */
void gw_alarm(struct gw *g, int64_t at_us);

typedef void (*gw_handler)(void *user, struct gw_exchange *x, const struct gw_request *r);
/* Runs before every handler; may set r->caller. False: it has answered. */
typedef bool (*gw_gate)(void *user, struct gw_exchange *x, struct gw_request *r);
struct gw_route { const char *method, *path; gw_handler handler; };  /* exact paths; 404/405 are answered by `fallback` */

/* gate: NULL for none. Err SYSTEM: address in use, naming it and --port; IO, BAD_CONFIG: the certificate files. */
MUST_USE enum err gw_open(struct gw **out, const struct gw_conf *conf, const struct gw_route routes[], int32_t n_routes, gw_handler fallback,
                          gw_gate gate, void *user);
int32_t gw_port(const struct gw *g);
int64_t gw_opened_us(const struct gw *g); /* by clock_us() */
/* Append the HTTP layer's metrics (Prometheus' text): requests, seconds and bytes by handler. Thr: net. */
void gw_metrics(const struct gw *g, struct buf *out);
/* Handlers get this user from now on; once it returns none runs with the old one, but streams go on as they are. Not from a handler. */
void gw_set_user(struct gw *g, void *user);
/* Stop accepting; running exchanges go on. */
void gw_quiesce(struct gw *g);
int32_t gw_active(const struct gw *g);   /* exchanges not finished */
void gw_close(struct gw *g);

#endif
