/* probe.c: see probe.h.
 *
 * The exchange: client "tessera-probe TOKEN\n", server "ID\n"; then operations of 8 bytes, a letter
 * and a length: 'p' is echoed, 'b' is followed by so many bytes that are thrown away, 'e' is
 * echoed and ends it. */
#include "cluster/probe.h"

#include "base/clock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PINGS = 31, CHUNK = 64 << 10, BULK_US = 100000, BULK_MAX = 256 << 20, SERVE_US = 8000000 };

struct op { uint32_t letter, bytes; };

struct clu_probe_server {
    int fd, stop[2];
    char hello[128], id[CLU_PROBE_TOKEN + 1];
    pthread_t thread;
};

static const char *const names[] = {"unknown", "ok", "refused", "timeout", "unreachable",
                                    "stranger", "stalled"};

const char *clu_reach_name(enum clu_reach r) { return names[r]; }

enum clu_reach clu_reach_parse(const char *name)
{
    for (size_t i = 0; i < COUNT_OF(names); i++)
        if (!strcmp(names[i], name)) return (enum clu_reach)i;
    return REACH_UNKNOWN;
}

/* ---- bytes with a deadline, over sockets that do not block ---- */

static bool wait_for(int fd, short events, int64_t until_us)
{
    struct pollfd p = {.fd = fd, .events = events};
    int64_t left = until_us - clock_us();
    int n;
    do n = poll(&p, 1, (int)CLAMP(DIV_UP(left, 1000), 0, 1000000));
    while (n < 0 && errno == EINTR);
    return n == 1;
}

static bool give(int fd, const void *data, size_t n, int64_t until_us)
{
    for (size_t done = 0; done < n;) {
        ssize_t k = send(fd, (const char *)data + done, n - done, MSG_NOSIGNAL);
        if (k > 0) done += (size_t)k;
        else if (k < 0 && errno != EAGAIN && errno != EINTR) return false;
        else if (!wait_for(fd, POLLOUT, until_us)) return false;
    }
    return true;
}

/* data NULL: throw them away */
static bool take(int fd, void *data, size_t n, int64_t until_us)
{
    static _Thread_local char waste[CHUNK];
    for (size_t done = 0; done < n;) {
        size_t want = data ? n - done : MIN(n - done, sizeof waste);
        ssize_t k = recv(fd, data ? (char *)data + done : waste, want, 0);
        if (k > 0) done += (size_t)k;
        else if (k == 0 || (errno != EAGAIN && errno != EINTR)) return false;
        else if (!wait_for(fd, POLLIN, until_us)) return false;
    }
    return true;
}

static void no_delay(int fd)
{
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

/* ---- the listener ---- */

static void serve(struct clu_probe_server *s, int fd)
{
    char hello[128];
    size_t n = strlen(s->hello);
    int64_t until = clock_us() + SERVE_US, total = 0;
    struct op op;
    no_delay(fd);
    /* a stranger gets half a second and no byte */
    if (!take(fd, hello, n, clock_us() + 500000) || memcmp(hello, s->hello, n)) return;
    if (!give(fd, s->id, strlen(s->id), until)) return;
    while (clock_us() < until && take(fd, &op, sizeof op, until)) {
        op.bytes = ntohl(op.bytes);
        total += op.bytes;
        if (op.bytes > CHUNK || total > BULK_MAX) return;
        if (op.letter == 'b') {
            if (!take(fd, NULL, op.bytes, until)) return;
        } else if (!give(fd, &op, sizeof op, until) || op.letter == 'e') {
            return;
        }
    }
}

static void *server_main(void *arg)
{
    struct clu_probe_server *s = arg;
    struct pollfd p[2] = {{.fd = s->fd, .events = POLLIN}, {.fd = s->stop[0], .events = POLLIN}};
    for (;;) {
        if (poll(p, 2, -1) < 0 && errno != EINTR) return NULL;
        if (p[1].revents) return NULL;
        int fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0) continue;
        serve(s, fd);
        close(fd);
    }
}

/* Both versions of IP where the kernel has the sixth, else the fourth. */
static int listen_anywhere(int32_t *port)
{
    struct sockaddr_in6 six = {.sin6_family = AF_INET6};
    struct sockaddr_in four = {.sin_family = AF_INET};
    struct sockaddr_storage got;
    socklen_t n = sizeof got;
    int off = 0, fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    if (fd < 0 || bind(fd, (struct sockaddr *)&six, sizeof six)) {
        if (fd >= 0) close(fd);
        fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd >= 0 && bind(fd, (struct sockaddr *)&four, sizeof four)) {
            close(fd);
            return -1;
        }
    }
    if (fd < 0) return -1;
    if (listen(fd, 16) || getsockname(fd, (struct sockaddr *)&got, &n)) {
        close(fd);
        return -1;
    }
    *port = ntohs(got.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&got)->sin6_port
                                            : ((struct sockaddr_in *)&got)->sin_port);
    return fd;
}

enum err clu_probe_open(struct clu_probe_server **out, const char *token, const char *id,
                        int32_t *port)
{
    struct clu_probe_server *s = xcalloc(1, sizeof *s);
    s->stop[0] = s->stop[1] = -1;
    snprintf(s->hello, sizeof s->hello, "tessera-probe %.*s\n", CLU_PROBE_TOKEN - 1, token);
    snprintf(s->id, sizeof s->id, "%.*s\n", CLU_PROBE_TOKEN - 1, id);
    s->fd = listen_anywhere(port);
    if (s->fd < 0 || pipe2(s->stop, O_CLOEXEC) ||
        pthread_create(&s->thread, NULL, server_main, s)) {
        enum err rc = err_raise(ERR_SYSTEM, "cannot listen for probes: %s", strerror(errno));
        if (s->fd >= 0) close(s->fd);
        for (int i = 0; i < 2; i++)
            if (s->stop[i] >= 0) close(s->stop[i]);
        free(s);
        return rc;
    }
    *out = s;
    return OK;
}

void clu_probe_close(struct clu_probe_server *s)
{
    if (!s) return;
    close(s->stop[1]);
    pthread_join(s->thread, NULL);
    close(s->stop[0]);
    close(s->fd);
    free(s);
}

/* ---- the client ---- */

static enum clu_reach reach_of(int e)
{
    if (e == ECONNREFUSED || e == ECONNRESET || e == EACCES || e == EPERM) return REACH_REFUSED;
    return e == ETIMEDOUT ? REACH_TIMEOUT : REACH_UNREACHABLE;
}

static int connect_to(const struct addrinfo *to, int64_t until_us, enum clu_reach *reach)
{
    int e = 0, fd = socket(to->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    socklen_t n = sizeof e;
    if (fd < 0 || (connect(fd, to->ai_addr, to->ai_addrlen) && errno != EINPROGRESS)) e = errno;
    else if (!wait_for(fd, POLLOUT, until_us)) e = ETIMEDOUT;
    else getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &n);
    if (!e) return fd;
    *reach = reach_of(e);
    if (fd >= 0) close(fd);
    return -1;
}

static void local_of(int fd, char out[46])
{
    struct sockaddr_storage a;
    socklen_t n = sizeof a;
    if (getsockname(fd, (struct sockaddr *)&a, &n) ||
        getnameinfo((struct sockaddr *)&a, n, out, 46, NULL, 0, NI_NUMERICHOST))
        out[0] = 0;
}

static int by_size(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static bool ping(int fd, char letter, int64_t until_us)
{
    struct op op = {.letter = (uint32_t)letter}, back;
    return give(fd, &op, sizeof op, until_us) && take(fd, &back, sizeof back, until_us) &&
           back.letter == op.letter;
}

static bool push(int fd, int64_t until_us)
{
    static const char zeros[CHUNK];
    struct op op = {.letter = 'b', .bytes = htonl(CHUNK)};
    return give(fd, &op, sizeof op, until_us) && give(fd, zeros, CHUNK, until_us);
}

static enum clu_reach measure(struct clu_probe_result *r, int fd, int64_t timeout_us)
{
    int64_t took[PINGS], start, bytes = 0;
    for (int i = 0; i < PINGS; i++) {
        start = clock_us();
        if (!ping(fd, 'p', start + timeout_us)) return REACH_TIMEOUT;
        took[i] = clock_us() - start;
    }
    qsort(took, PINGS, sizeof took[0], by_size);
    r->latency_us = (double)took[PINGS / 2] / 2;
    /* the first chunk alone: an MTU that does not pass shows here */
    start = clock_us();
    if (!push(fd, start + timeout_us) || !ping(fd, 'p', start + timeout_us)) return REACH_STALLED;
    start = clock_us();
    do bytes += CHUNK;
    while (push(fd, start + timeout_us) && clock_us() - start < BULK_US && bytes < BULK_MAX / 2);
    if (!ping(fd, 'e', start + timeout_us)) return REACH_STALLED;
    r->bytes_s = (double)bytes * 1e6 / (double)MAX(clock_us() - start, 1);
    return REACH_OK;
}

static enum clu_reach greet(int fd, const char *token, const char *id, int64_t until_us)
{
    char hello[128], want[CLU_PROBE_TOKEN + 1], got[CLU_PROBE_TOKEN + 1] = "";
    snprintf(hello, sizeof hello, "tessera-probe %.*s\n", CLU_PROBE_TOKEN - 1, token);
    snprintf(want, sizeof want, "%.*s\n", CLU_PROBE_TOKEN - 1, id);
    size_t n = 0;
    if (!give(fd, hello, strlen(hello), until_us)) return REACH_TIMEOUT;
    while (n < sizeof got - 1 && take(fd, got + n, 1, until_us))
        if (got[n++] == '\n') return strcmp(got, want) ? REACH_STRANGER : REACH_OK;
    return clock_us() >= until_us ? REACH_TIMEOUT : REACH_STRANGER;
}

void clu_probe_run(struct clu_probe_result *out, const char *address, int32_t port,
                   const char *token, const char *id, int64_t timeout_us)
{
    struct addrinfo hint = {.ai_socktype = SOCK_STREAM,
                            .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV}, *to = NULL;
    struct clu_probe_result r = {.reach = REACH_UNREACHABLE};
    int64_t until = clock_us() + timeout_us;
    char service[16];
    snprintf(service, sizeof service, "%d", port);
    int fd = getaddrinfo(address, service, &hint, &to) ? -1 : connect_to(to, until, &r.reach);
    if (fd >= 0) {
        no_delay(fd);
        local_of(fd, r.local);
        r.reach = greet(fd, token, id, until);
        if (r.reach == REACH_OK) r.reach = measure(&r, fd, timeout_us);
        close(fd);
    }
    if (to) freeaddrinfo(to);
    *out = r;
}
