/* reach.c: see reach.h. */
#include "coordinator/replica/reach.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PORT = 22 }; /* where a host of a cluster listens, or refuses; a firewall that lets nothing else in lets this in */

/* "ipv4:A.B.C.D:PORT" or "ipv6:%5B...%5D:PORT", as gRPC says it. */
static bool parse(const char *address, struct sockaddr_storage *out, socklen_t *n)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(PORT)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(PORT)};
    char host[80];
    *out = (struct sockaddr_storage){0};
    if (sscanf(address, "ipv4:%79[0-9.]", host) == 1 && inet_pton(AF_INET, host, &v4.sin_addr) == 1) {
        memcpy(out, &v4, *n = sizeof v4);
        return true;
    }
    if (sscanf(address, "ipv6:%*[%5B[]%79[0-9a-fA-F:]", host) == 1 && inet_pton(AF_INET6, host, &v6.sin6_addr) == 1) {
        memcpy(out, &v6, *n = sizeof v6);
        return true;
    }
    return false;
}

/* The state letter of /proc/PID/stat; 0: it is gone. */
static char state_of(int32_t pid)
{
    char path[64], line[512], state = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *f = fopen(path, "r");
    if (f && fgets(line, sizeof line, f)) {
        const char *end = strrchr(line, ')'); /* the name before it may hold anything */
        if (end && strlen(end) > 2) state = end[2];
    }
    if (f) fclose(f);
    return state;
}

static void verdict_of(struct crd_reach *r, int e)
{
    if (!e || e == ECONNREFUSED) snprintf(r->said, sizeof r->said, "its host answers, so the process is stopped or starved, or its link to us alone is");
    else if (e == EHOSTUNREACH || e == ENETUNREACH || e == EHOSTDOWN || e == ENETDOWN)
        snprintf(r->said, sizeof r->said, "there is no way to its host (%s): a cable, a switch or an interface is down, or the host is off", strerror(e));
    else snprintf(r->said, sizeof r->said, "asking its host again: %s", strerror(e));
}

void crd_reach_ask(struct crd_reach *r, const char *address, int32_t pid, int64_t now_us)
{
    struct sockaddr_storage a;
    socklen_t n = 0;
    if (r->asked) return;
    *r = (struct crd_reach){.fd = -1, .asked = true, .since_us = now_us, .pid = pid};
    if (pid || !parse(address, &a, &n)) return;
    r->fd = socket(a.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (r->fd >= 0 && connect(r->fd, (struct sockaddr *)&a, n) && errno != EINPROGRESS) verdict_of(r, errno);
}

static void look_here(struct crd_reach *r)
{
    char s = state_of(r->pid);
    if (s == 'T' || s == 't')
        snprintf(r->said, sizeof r->said, "the process is stopped (%s): kill -CONT %d would have let it go on", s == 'T' ? "SIGSTOP" : "a debugger", r->pid);
    else if (s == 'D') snprintf(r->said, sizeof r->said, "the process waits for a disk or a device");
    else if (s == 'Z' || !s) snprintf(r->said, sizeof r->said, "the process has ended");
    else snprintf(r->said, sizeof r->said, "the process runs (state %c)", s);
}

const char *crd_reach_look(struct crd_reach *r, int64_t now_us)
{
    if (!r->asked) return "";
    if (r->pid) {
        look_here(r);
        return r->said;
    }
    struct pollfd p = {.fd = r->fd, .events = POLLOUT};
    int e = 0;
    socklen_t n = sizeof e;
    if (r->said[0] || r->fd < 0) return r->said;
    if (poll(&p, 1, 0) > 0 && !getsockopt(r->fd, SOL_SOCKET, SO_ERROR, &e, &n)) {
        verdict_of(r, e);
        return r->said;
    }
    if (now_us - r->since_us < 1000000) return "";
    static _Thread_local char text[160];
    snprintf(text, sizeof text, "nothing comes back from its host for %.1f s: packets vanish (a firewall, or a link that carries nothing)",
             (double)(now_us - r->since_us) / 1e6);
    return text;
}

void crd_reach_end(struct crd_reach *r)
{
    if (r->asked && r->fd >= 0) close(r->fd);
    *r = (struct crd_reach){.fd = -1};
}
