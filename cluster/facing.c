/* facing.c: see facing.h. */
#include "cluster/facing.h"

#include "cluster/same_host.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static bool is_loopback(struct in_addr a) { return ntohl(a.s_addr) >> 24 == 127; }

/* What a host's name resolves to, and the source address towards it. */
static bool towards(const char *name, struct in_addr *to, struct in_addr *from)
{
    struct addrinfo hint = {.ai_family = AF_INET, .ai_socktype = SOCK_DGRAM}, *found = NULL;
    struct sockaddr_in own = {.sin_family = AF_INET};
    socklen_t n = sizeof own;
    char bare[256];
    clu_bare_name(name, bare);
    if (getaddrinfo(bare, "9", &hint, &found)) return false;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool known = fd >= 0 && !connect(fd, found->ai_addr, found->ai_addrlen) && !getsockname(fd, (struct sockaddr *)&own, &n);
    if (fd >= 0) close(fd);
    *to = ((const struct sockaddr_in *)(const void *)found->ai_addr)->sin_addr;
    *from = own.sin_addr;
    freeaddrinfo(found);
    return known;
}

/* How much a line counts: 3 another host, 2 an outward address of this one, 1 its loopback. */
static int weight(struct in_addr to, struct in_addr from)
{
    return is_loopback(to) || is_loopback(from) ? 1 : to.s_addr == from.s_addr ? 2 : 3;
}

enum err clu_facing(const struct clu_hostfile *f, char out[CLU_FACING])
{
    struct in_addr best = {0}, to, from;
    int32_t by = -1;
    int most = 0;
    for (int32_t i = 0; i < f->n; i++) {
        if (!towards(f->hosts[i].name, &to, &from)) continue;
        int w = weight(to, from);
        if (w == 3 && most == 3 && from.s_addr != best.s_addr) {
            char a[INET_ADDRSTRLEN], b[INET_ADDRSTRLEN];
            inet_ntop(AF_INET, &best, a, sizeof a);
            inet_ntop(AF_INET, &from, b, sizeof b);
            return err_raise(ERR_BAD_CONFIG,
                             "this host reaches %s from its address %s, and %s from %s: name the one that every host reaches, with --listen %s:0 "
                             "or --listen %s:0", f->hosts[by].name, a, f->hosts[i].name, b, a, b);
        }
        if (w <= most) continue;
        most = w;
        best = from;
        by = i;
    }
    if (!most) return err_raise(ERR_NOT_FOUND, "no name of the hostfile resolves to an IPv4 address that there is a route to");
    inet_ntop(AF_INET, &best, out, CLU_FACING);
    return OK;
}
