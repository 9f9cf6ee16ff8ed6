/* net.h: what the files of gateway/ share: the loop, a connection, an exchange. Private to gateway.
 *
 * One thread, the net thread, runs everything here: our own epoll set holds the HTTP library's
 * descriptor, the wakers' eventfd, and every connection's socket once more for one event only: the
 * peer has left. The library looks at no socket while a connection sleeps; we do. I1  a parked
 * exchange is suspended in the library and has TIMER_SILENT running; nothing else is ever
 * suspended. I2  a connection has at most one timer running, and one exchange. I3  closed() of a
 * stream runs exactly once, when its exchange is freed. */
#ifndef COORDINATOR_GATEWAY_NET_H
#define COORDINATOR_GATEWAY_NET_H

#include "coordinator/gateway/gateway.h"
#include "coordinator/gateway/timer.h"
#include "coordinator/gateway/waker.h"

#include <gnutls/abstract.h>
#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>

enum {
    MAX_HEADER_BYTES = 28 << 10, /* request line and headers of one request; beyond: 431 */
    NOTE_BYTES = 80,             /* what each header, cookie and argument counts besides */
    MAX_ARGUMENTS = 100,         /* of the query; nothing here reads any */
    CONN_BYTES = 56 << 10, /* the library's memory of a connection: these, a copy of the cookies among
                              them and its notes, and an answer's headers */
    MAX_REQUEST_ID = 128,
    BODY_BYTES_PER_S = 64 << 10, /* a body slower than this over header_timeout_s is closed */
    DRAIN_BYTES =
        16 << 20, /* of a body over the limit we read this much more, so that the 413 is seen */
};

struct gw {
    /* [init] written before the thread starts */
    struct gw_conf conf;
    const struct gw_route *routes;
    int32_t n_routes;
    gw_handler fallback;
    gw_gate gate;
    void *user;
    struct crd_tls *tls; /* NULL: plain HTTP */
    struct crd_counts *counts;
    struct MHD_Daemon *mhd;
    struct waker_hub *hub;
    int epoll_fd;
    int32_t port;
    int64_t opened_us;
    pthread_t thread;
    /* [net] */
    struct timer_set timers;
    struct conn *conns;
    int64_t alarm_us; /* INT64_MAX: none */
    bool stopping;
    bool cors_said; /* that a web page asked and may not */
    /* [any] */
    _Atomic int32_t n_active;
    _Atomic bool want_quiesce, want_stop;
    void *_Atomic want_user; /* handed over on the net thread; NULL: nothing to hand over */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool quiesced; /* under lock */
};

struct conn {
    struct gw *gw;
    struct MHD_Connection *mhd;
    struct gw_exchange *x; /* Own; NULL between requests */
    int fd;
    bool left; /* the peer closed, or closed its sending side */
    struct timer timer;
    struct conn *prev, *next;
};

enum exchange_phase { PHASE_HEADERS, PHASE_BODY, PHASE_ANSWER };

struct gw_exchange {
    struct conn *conn;
    enum exchange_phase phase;
    char *target; /* as sent: path and query */
    struct buf body;
    int64_t body_since_us;
    bool too_large, active;
    bool overflowed; /* answered with 431, past the library */
    char request_id[MAX_REQUEST_ID + 1];
    struct gw_waker *waker; /* Own; NULL until asked for */
    /* what is counted of it */
    char method[16];
    int32_t handler; /* index of its route + 1; 0: none has it */
    int64_t since_us;
    uint64_t n_body, n_answer;
    /* the answer */
    struct MHD_Response *response; /* Own until queued */
    unsigned status;
    bool queued;
    /* a long answer */
    const struct gw_stream_ops *ops;
    void *self;
    struct buf out;
    size_t sent; /* of out */
    bool done, parked, is_sse, ping_due;
};

/* listen.c */
MUST_USE enum err crd_listen_open(const char *host, int32_t port, int *fd);
int32_t crd_listen_port(int fd);
/* Raise the limit of open files for this many connections; returns how many there is room for. */
int32_t crd_listen_room(int32_t wanted);

/* conn.c: the library's callbacks */
void crd_conn_notify(void *gw, struct MHD_Connection *mhd, void **ctx,
                     enum MHD_ConnectionNotificationCode code);
void *crd_conn_request_line(void *gw, const char *target, struct MHD_Connection *mhd);
enum MHD_Result crd_conn_request(void *gw, struct MHD_Connection *mhd, const char *path,
                                 const char *method, const char *version, const char *data,
                                 size_t *n, void **ctx);
void crd_conn_completed(void *gw, struct MHD_Connection *mhd, void **ctx,
                        enum MHD_RequestTerminationCode code);
/* A deadline passed. */
void crd_conn_expired(struct conn *c, enum timer_kind kind, int64_t now_us);
void crd_conn_left(struct conn *c);

/* exchange.c */
struct gw_exchange *crd_exchange_open(struct conn *c, const char *target);
void crd_exchange_close(struct gw_exchange *x, bool client_left);
/* Settle its request id: the client's or a fresh one. */
void crd_exchange_name(struct gw_exchange *x);
/* An error in the API's shape, before any handler has run. */
void crd_exchange_refuse(struct gw_exchange *x, unsigned status, const char *type,
                         const char *message);
/* 431, written past the library, whose memory of the connection may be too full for an answer's
 * headers; the connection is to be closed. */
void crd_exchange_overflow(struct gw_exchange *x);
/* 408, likewise: it came too slowly. */
void crd_exchange_late(struct gw_exchange *x);
/* Hand the prepared answer to the library. */
enum MHD_Result crd_exchange_send(struct gw_exchange *x);
void crd_exchange_add_headers(struct MHD_Response *r, const char *lines);

/* tls.c: read the certificate files into g->tls, which stays NULL where there are none. */
MUST_USE enum err crd_tls_open(struct gw *g);
void crd_tls_close(struct gw *g);
/* The thread that calls it is asked for g's certificates from now on: */
void crd_tls_enter(struct gw *g);
/* a gnutls_certificate_retrieve_function2 */
int crd_tls_pair(gnutls_session_t session, const gnutls_datum_t *issuers, int n_issuers,
                 const gnutls_pk_algorithm_t *algorithms, int n_algorithms, gnutls_pcert_st **certs,
                 unsigned *n_certs, gnutls_privkey_t *key);

/* counts.c */
struct crd_counts *crd_counts_open(int32_t n_routes);
void crd_counts_close(struct crd_counts *c);
void crd_counts_add(struct gw_exchange *x); /* it is over */

/* cors.c: answer a browser's question before its request; true: it was one. */
bool crd_cors_preflight(struct gw_exchange *x, const char *method);
/* What every answer to another origin needs. */
void crd_cors_headers(struct gw_exchange *x, struct MHD_Response *r);

/* router.c: find the handler and call it. */
void crd_router_dispatch(struct gw_exchange *x, const char *method, const char *path);

/* sse.c: long answers */
enum MHD_Result crd_stream_advance(struct gw_exchange *x);
void crd_stream_unpark(struct gw_exchange *x);

#endif
