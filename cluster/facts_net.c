/* facts_net.c: see facts.h. The addresses that other hosts may use to reach this one. */
#include "cluster/facts.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int64_t number_of(const char *nic, const char *what)
{
    char path[96], line[32];
    int64_t v = CLU_FACTS_UNKNOWN;
    snprintf(path, sizeof path, "/sys/class/net/%.15s/%.16s", nic, what);
    FILE *f = fopen(path, "r");
    if (f && fgets(line, sizeof line, f)) v = atoll(line);
    if (f) fclose(f);
    return v < 0 ? CLU_FACTS_UNKNOWN : v;
}

static int64_t prefix_of(const void *mask, size_t n)
{
    int64_t bits = 0;
    for (size_t i = 0; mask && i < n; i++)
        bits += __builtin_popcount(((const unsigned char *)mask)[i]);
    return bits;
}

static const void *bytes_of(const struct sockaddr *a, size_t *n)
{
    if (!a) return NULL;
    *n = a->sa_family == AF_INET ? 4 : 16;
    if (a->sa_family == AF_INET) return &((const struct sockaddr_in *)(const void *)a)->sin_addr;
    if (a->sa_family == AF_INET6)
        return &((const struct sockaddr_in6 *)(const void *)a)->sin6_addr;
    return NULL;
}

static void add(struct clu_facts *f, const struct ifaddrs *a)
{
    size_t n = 0, n_mask = 0;
    const void *address = bytes_of(a->ifa_addr, &n);
    if (!address || !(a->ifa_flags & IFF_UP) || (a->ifa_flags & IFF_LOOPBACK)) return;
    if (n == 16 && IN6_IS_ADDR_LINKLOCAL((const struct in6_addr *)address)) return;
    if (f->n_nics == CLU_FACTS_NICS) return;
    struct clu_facts_nic *nic = &f->nics[f->n_nics++];
    /* the mask's family is not always set */
    const void *mask = a->ifa_netmask ? bytes_of(a->ifa_netmask, &n_mask) : NULL;
    snprintf(nic->name, sizeof nic->name, "%.15s", a->ifa_name);
    inet_ntop(n == 4 ? AF_INET : AF_INET6, address, nic->address, sizeof nic->address);
    nic->prefix = prefix_of(mask, n);
    nic->mtu = number_of(nic->name, "mtu");
    nic->speed_mbit = number_of(nic->name, "speed");
}

static void own_name(struct clu_facts *f)
{
    struct addrinfo hint = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    size_t n = 0;
    if (getaddrinfo(f->host, NULL, &hint, &found)) return;
    const void *address = bytes_of(found->ai_addr, &n);
    if (address)
        inet_ntop(found->ai_family, address, f->resolves, sizeof f->resolves);
    freeaddrinfo(found);
}

void clu_facts_net(struct clu_facts *f)
{
    struct ifaddrs *all = NULL;
    if (getifaddrs(&all)) return;
    for (int family = 0; family < 2; family++) /* the fourth version first: MPI uses it */
        for (struct ifaddrs *a = all; a; a = a->ifa_next)
            if (a->ifa_addr && a->ifa_addr->sa_family == (family ? AF_INET6 : AF_INET)) add(f, a);
    freeifaddrs(all);
    own_name(f);
}
