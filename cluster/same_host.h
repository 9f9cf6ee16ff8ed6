/* same_host.h: do two words mean the same machine? A person writes an address in a hostfile, a name in a topology, and the machine calls itself
 * something else again. Names are resolved here, so a call may wait for the resolver. */
#ifndef CLUSTER_SAME_HOST_H
#define CLUSTER_SAME_HOST_H

#include <stdbool.h>
#include <stddef.h>

enum { CLU_ADDRESSES = 1024 };

/* This host's addresses, loopback and link-local ones left out: "10.0.0.7,fd00::7". */
void clu_own_addresses(char *out, size_t n);

/* "user@[host]" -> "host" */
void clu_bare_name(const char *name, char out[256]);

/* Is `name` (a name or an address, with or without user@ and brackets) what a host means that calls itself `host` and has these addresses
 * ("": not known)? By name first, then by what `name` resolves to. */
bool clu_same_host(const char *name, const char *host, const char *addresses);

/* Do two names as people write them mean one host? */
bool clu_same_name(const char *a, const char *b);

#endif
