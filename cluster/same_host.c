/* same_host.c: see same_host.h. */
#include "cluster/same_host.h"

#include "base/err.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

/* An address as text; false: of no use between hosts. */
static bool text_of(const struct sockaddr *a, char out[INET6_ADDRSTRLEN])
{
    if (a && a->sa_family == AF_INET) {
        const struct in_addr *in = &((const struct sockaddr_in *)(const void *)a)->sin_addr;
        return (ntohl(in->s_addr) >> 24) != 127 && inet_ntop(AF_INET, in, out, INET6_ADDRSTRLEN);
    }
    if (a && a->sa_family == AF_INET6) {
        const struct in6_addr *in = &((const struct sockaddr_in6 *)(const void *)a)->sin6_addr;
        return !IN6_IS_ADDR_LOOPBACK(in) && !IN6_IS_ADDR_LINKLOCAL(in) && inet_ntop(AF_INET6, in, out, INET6_ADDRSTRLEN);
    }
    return false;
}

/* What has no room is left out. */
static void append(char *list, size_t n, const char *one)
{
    size_t at = strlen(list);
    if (at + strlen(one) + 2 <= n) snprintf(list + at, n - at, "%s%s", at ? "," : "", one);
}

void clu_own_addresses(char *out, size_t n)
{
    struct ifaddrs *all = NULL;
    char one[INET6_ADDRSTRLEN];
    out[0] = 0;
    if (getifaddrs(&all)) return;
    for (const struct ifaddrs *a = all; a; a = a->ifa_next)
        if ((a->ifa_flags & IFF_UP) && !(a->ifa_flags & IFF_LOOPBACK) && text_of(a->ifa_addr, one)) append(out, n, one);
    freeifaddrs(all);
}

void clu_bare_name(const char *name, char out[256])
{
    const char *at = strrchr(name, '@');
    name = at ? at + 1 : name;
    size_t n = strlen(name);
    if (n > 1 && name[0] == '[' && name[n - 1] == ']') name++, n -= 2;
    snprintf(out, 256, "%.*s", (int)MIN(n, 255), name);
}

static bool is_address(const char *s)
{
    unsigned char room[16];
    return inet_pton(AF_INET, s, room) == 1 || inet_pton(AF_INET6, s, room) == 1;
}

/* "box1" is "box1.lab"; an address is nothing but itself. */
static bool equal_names(const char *a, const char *b)
{
    size_t n = strcspn(a, "."), m = strcspn(b, ".");
    if (!strcasecmp(a, b)) return true;
    if (is_address(a) || is_address(b)) return false;
    return n && n == m && !strncasecmp(a, b, n) && (!a[n] || !b[m]);
}

/* Of a bare name: what it resolves to; of our own also what our interfaces have. */
static void resolve(const char *name, char *out, size_t n)
{
    struct addrinfo hint = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    char one[INET6_ADDRSTRLEN], own[256] = "";
    out[0] = 0;
    if (!gethostname(own, sizeof own - 1) && equal_names(name, own)) clu_own_addresses(out, n);
    if (getaddrinfo(name, NULL, &hint, &found)) return;
    for (const struct addrinfo *a = found; a; a = a->ai_next)
        if (text_of(a->ai_addr, one)) append(out, n, one);
    freeaddrinfo(found);
}

static bool share_one(const char *a, const char *b)
{
    for (size_t n; *a; a += n + (a[n] == ',')) {
        n = strcspn(a, ",");
        for (size_t m, k = 0; n && b[k]; k += m + (b[k + m] == ',')) {
            m = strcspn(b + k, ",");
            if (n == m && !strncmp(a, b + k, n)) return true;
        }
    }
    return false;
}

bool clu_same_host(const char *name, const char *host, const char *addresses)
{
    char word[256], found[CLU_ADDRESSES];
    clu_bare_name(name, word);
    if (equal_names(word, host)) return true;
    if (!addresses[0]) return false;
    resolve(word, found, sizeof found);
    return share_one(found, addresses);
}

bool clu_same_name(const char *a, const char *b)
{
    char x[256], y[256], found[CLU_ADDRESSES];
    clu_bare_name(a, x);
    clu_bare_name(b, y);
    if (equal_names(x, y)) return true;
    resolve(y, found, sizeof found);
    return clu_same_host(x, y, found);
}
