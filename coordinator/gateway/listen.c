/* listen.c: the listening socket, made here rather than by the HTTP library so that what is wrong
 * can be said. */
#include "coordinator/gateway/net.h"
#include "base/log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BACKLOG = 4096 };

static enum err bind_one(const struct addrinfo *a, int *out)
{
    int one = 1, fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return ERR_SYSTEM;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, a->ai_addr, a->ai_addrlen) || listen(fd, BACKLOG)) {
        int e = errno;
        close(fd);
        errno = e;
        return ERR_SYSTEM;
    }
    *out = fd;
    return OK;
}

enum err crd_listen_open(const char *host, int32_t port, int *out)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV},
                    *list = NULL;
    char service[16];
    snprintf(service, sizeof service, "%d", port);
    int e = getaddrinfo(host, service, &hints, &list);
    if (e)
        return err_raise(ERR_SYSTEM,
                         "cannot listen on \"%s\": %s; give an address of this machine with --host",
                         host, gai_strerror(e));
    enum err rc = ERR_SYSTEM;
    for (struct addrinfo *a = list; a && rc; a = a->ai_next) rc = bind_one(a, out);
    int why = errno;
    freeaddrinfo(list);
    if (!rc) return OK;
    if (why == EADDRINUSE)
        return err_raise(
            rc,
            "cannot listen on %s port %d: the port is in use; choose another with --port, or 0 for "
            "any free one",
            host, port);
    if (why == EADDRNOTAVAIL)
        return err_raise(
            rc,
            "cannot listen on %s: no interface of this machine has that address; choose another "
            "with --host",
            host);
    return err_raise(rc, "cannot listen on %s port %d: %s; choose another with --port", host, port,
                     strerror(why));
}

int32_t crd_listen_port(int fd)
{
    struct sockaddr_storage a = {0};
    socklen_t n = sizeof a;
    if (getsockname(fd, (struct sockaddr *)&a, &n)) return 0;
    if (a.ss_family == AF_INET6) return ntohs(((struct sockaddr_in6 *)(void *)&a)->sin6_port);
    return ntohs(((struct sockaddr_in *)(void *)&a)->sin_port);
}

/* A connection needs a descriptor; the customary soft limit of 1024 is fewer than the streams we
 * promise. */
int32_t crd_listen_room(int32_t wanted)
{
    enum { OTHERS = 128 }; /* model files, links, logs */
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r)) return wanted;
    rlim_t need = (rlim_t)wanted + OTHERS;
    if (r.rlim_cur < need) {
        r.rlim_cur = MIN(need, r.rlim_max);
        if (setrlimit(RLIMIT_NOFILE, &r)) getrlimit(RLIMIT_NOFILE, &r);
    }
    if (r.rlim_cur >= need) return wanted;
    int32_t room = r.rlim_cur > 2 * OTHERS ? (int32_t)r.rlim_cur - OTHERS : (int32_t)r.rlim_cur / 2;
    log_warn("gateway",
             "at most %d connections at once instead of %d: this process may open %lu files (raise "
             "`ulimit -n`)",
             room, wanted, (unsigned long)r.rlim_cur);
    return room;
}
