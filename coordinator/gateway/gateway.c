/* gateway.c: opening, the loop of the net thread, closing. */
#include "coordinator/gateway/net.h"
#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

static void library_says(void *cls, const char *fmt, va_list ap)
    __attribute__((format(printf, 2, 0)));
static void library_says(void *cls, const char *fmt, va_list ap)
{
    char line[512];
    (void)cls;
    vsnprintf(line, sizeof line, fmt, ap);
    line[strcspn(line, "\n")] = 0;
    log_debug("gateway", "%s", line);
}

static enum err start_library(struct gw *g, int listen_fd)
{
    unsigned flags = MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG;
    if (g->tls) flags |= MHD_USE_TLS;
    g->mhd = MHD_start_daemon(
        flags, 0, NULL, NULL, crd_conn_request, g, MHD_OPTION_EXTERNAL_LOGGER, library_says,
        NULL, /* first: it is used while the others are read */
        MHD_OPTION_LISTEN_SOCKET, (MHD_socket)listen_fd, MHD_OPTION_CONNECTION_LIMIT,
        (unsigned)g->conf.max_connections, MHD_OPTION_CONNECTION_TIMEOUT,
        (unsigned)g->conf.idle_timeout_s, /* for a client that stops reading */
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONN_BYTES, MHD_OPTION_STRICT_FOR_CLIENT,
        1, MHD_OPTION_NOTIFY_CONNECTION, crd_conn_notify, g, MHD_OPTION_URI_LOG_CALLBACK,
        crd_conn_request_line, g, MHD_OPTION_NOTIFY_COMPLETED, crd_conn_completed, g,
        MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, /* blocked in the net thread */
        g->tls ? MHD_OPTION_HTTPS_CERT_CALLBACK : MHD_OPTION_END, crd_tls_pair, MHD_OPTION_END);
    if (!g->mhd) return err_raise(ERR_SYSTEM, "the HTTP library did not start on port %d", g->port);
    return OK;
}

/* nfds of the outer set: the library's own set (ptr NULL), the hub (ptr gw), every connection (ptr
 * conn). */
static enum err watch(struct gw *g)
{
    struct epoll_event lib = {.events = EPOLLIN, .data.ptr = NULL},
                       hub = {.events = EPOLLIN, .data.ptr = g};
    int lib_fd = MHD_get_daemon_info(g->mhd, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
    if (epoll_ctl(g->epoll_fd, EPOLL_CTL_ADD, lib_fd, &lib) ||
        epoll_ctl(g->epoll_fd, EPOLL_CTL_ADD, crd_waker_hub_fd(g->hub), &hub))
        return err_raise(ERR_SYSTEM, "cannot watch the gateway's sockets: %s", strerror(errno));
    return OK;
}

/* -1: for ever. */
static int wait_ms(struct gw *g)
{
    MHD_UNSIGNED_LONG_LONG lib;
    int64_t next = MIN(crd_timer_next(&g->timers), g->alarm_us), ms = INT64_MAX;
    if (next != INT64_MAX) ms = MAX((next - clock_us() + 999) / 1000, 0);
    if (MHD_get_timeout(g->mhd, &lib) == MHD_YES)
        ms = MIN(ms, (int64_t)MIN(lib, (unsigned long long)INT32_MAX));
    return ms == INT64_MAX ? -1 : (int)MIN(ms, INT32_MAX);
}

static void expire(struct gw *g)
{
    int64_t now = clock_us();
    for (struct timer *t; (t = crd_timer_expired(&g->timers, now));)
        crd_conn_expired((struct conn *)(void *)((char *)t - offsetof(struct conn, timer)), t->kind,
                         now);
}

static void ring(struct gw *g)
{
    if (clock_us() < g->alarm_us) return;
    g->alarm_us = INT64_MAX;
    g->conf.alarm(g->user);
}

void gw_alarm(struct gw *g, int64_t at_us)
{
    ASSERT(g->conf.alarm);
    g->alarm_us = at_us;
}

struct gw *gw_of(struct gw_exchange *x)
{
    return x->conn->gw;
}

struct gw_waker *gw_task(struct gw *g, void (*fn)(void *user), void *user)
{
    return crd_waker_task(g->hub, fn, user);
}

static void quiesce(struct gw *g)
{
    if (!g->quiesced && atomic_load(&g->want_quiesce)) {
        int fd = MHD_quiesce_daemon(g->mhd);
        if (fd >= 0) close(fd);
        pthread_mutex_lock(&g->lock);
        g->quiesced = true;
        pthread_cond_broadcast(&g->changed);
        pthread_mutex_unlock(&g->lock);
    }
}

static void change_user(struct gw *g)
{
    void *user = atomic_load(&g->want_user);
    if (!user) return;
    g->user = user;
    pthread_mutex_lock(&g->lock);
    atomic_store(&g->want_user, NULL);
    pthread_cond_broadcast(&g->changed);
    pthread_mutex_unlock(&g->lock);
}

/* Sleeping connections must be awake before the library may be stopped. */
static void abandon_all(struct gw *g)
{
    g->stopping = true;
    for (struct conn *c = g->conns; c; c = c->next)
        if (c->x) crd_stream_unpark(c->x);
    MHD_run(g->mhd);
}

static void *net_main(void *arg)
{
    struct gw *g = arg;
    struct epoll_event ev[64];
    crd_tls_enter(g);
    while (!atomic_load(&g->want_stop)) {
        int n = epoll_wait(g->epoll_fd, ev, COUNT_OF(ev), wait_ms(g));
        for (int i = 0; i < n;
             i++) { /* none of these frees a connection: that happens in MHD_run only */
            if (ev[i].data.ptr == g)
                crd_waker_hub_drain(g->hub, crd_stream_unpark);
            else if (ev[i].data.ptr)
                crd_conn_left(ev[i].data.ptr);
        }
        quiesce(g);
        change_user(g);
        expire(g);
        ring(g);
        MHD_run(g->mhd);
    }
    abandon_all(g);
    return NULL;
}

static enum err start_thread(struct gw *g)
{
    sigset_t all, before;
    sigfillset(&all); /* signals are the main thread's; a closed peer is an error code here */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int e = pthread_create(&g->thread, NULL, net_main, g);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (e) return err_raise(ERR_SYSTEM, "cannot start the gateway's thread: %s", strerror(e));
    return OK;
}

static void init_timers(struct gw *g)
{
    const struct gw_conf *c = &g->conf;
    int64_t after[TIMER_KINDS] = {
        [TIMER_HEADERS] = c->header_timeout_s * INT64_C(1000000),
        [TIMER_BODY] = c->header_timeout_s * INT64_C(1000000),
        [TIMER_IDLE] = c->idle_timeout_s * INT64_C(1000000),
        [TIMER_SILENT] = c->ping_ms * INT64_C(1000),
    };
    crd_timer_set_init(&g->timers, after);
}

static void dispose(struct gw *g, int listen_fd)
{
    if (g->mhd)
        MHD_stop_daemon(g->mhd); /* closes the listening socket unless quiesced */
    else if (listen_fd >= 0)
        close(listen_fd);
    if (g->epoll_fd >= 0) close(g->epoll_fd);
    crd_waker_hub_close(g->hub);
    pthread_mutex_destroy(&g->lock);
    pthread_cond_destroy(&g->changed);
    crd_tls_close(g);
    crd_counts_close(g->counts);
    free((void *)(uintptr_t)g->conf.host);
    free((void *)(uintptr_t)g->conf.cors_origins);
    free(g);
}

enum err gw_open(struct gw **out, const struct gw_conf *conf, const struct gw_route routes[],
                 int32_t n_routes, gw_handler fallback, gw_gate gate, void *user)
{
    enum err rc = OK;
    int listen_fd = -1;
    struct gw *g = xcalloc(1, sizeof *g);
    *g = (struct gw){.conf = *conf,
                     .routes = routes,
                     .n_routes = n_routes,
                     .fallback = fallback,
                     .gate = gate,
                     .user = user,
                     .alarm_us = INT64_MAX};
    g->conf.host = xstrdup(conf->host);
    g->conf.cors_origins = conf->cors_origins ? xstrdup(conf->cors_origins) : NULL;
    g->conf.max_connections = crd_listen_room(conf->max_connections);
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->changed, NULL);
    init_timers(g);
    g->counts = crd_counts_open(n_routes);
    g->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (g->epoll_fd < 0)
        rc = err_raise(ERR_SYSTEM, "cannot create an epoll set: %s", strerror(errno));
    if (rc) goto out;
    TRY(crd_tls_open(g));
    TRY(crd_waker_hub_open(&g->hub));
    TRY(crd_listen_open(conf->host, conf->port, &listen_fd));
    g->port = crd_listen_port(listen_fd);
    g->opened_us = clock_us();
    TRY(start_library(g, listen_fd));
    TRY(watch(g));
    TRY(start_thread(g));
    *out = g;
    g = NULL;
out:
    if (g) dispose(g, listen_fd);
    return rc;
}

int32_t gw_port(const struct gw *g)
{
    return g->port;
}
int64_t gw_opened_us(const struct gw *g)
{
    return g->opened_us;
}
int32_t gw_active(const struct gw *g)
{
    return atomic_load(&((struct gw *)(uintptr_t)g)->n_active);
}

void gw_set_user(struct gw *g, void *user)
{
    ASSERT(user && !pthread_equal(pthread_self(), g->thread));
    atomic_store(&g->want_user, user);
    crd_waker_hub_poke(g->hub);
    pthread_mutex_lock(&g->lock);
    while (atomic_load(&g->want_user)) pthread_cond_wait(&g->changed, &g->lock);
    pthread_mutex_unlock(&g->lock);
}

void gw_quiesce(struct gw *g)
{
    atomic_store(&g->want_quiesce, true);
    crd_waker_hub_poke(g->hub);
    if (pthread_equal(pthread_self(), g->thread))
        return; /* a handler asks: the loop does it next */
    pthread_mutex_lock(&g->lock);
    while (!g->quiesced) pthread_cond_wait(&g->changed, &g->lock);
    pthread_mutex_unlock(&g->lock);
}

void gw_close(struct gw *g)
{
    if (!g) return;
    atomic_store(&g->want_stop, true);
    crd_waker_hub_poke(g->hub);
    pthread_join(g->thread, NULL);
    dispose(g, -1);
}
