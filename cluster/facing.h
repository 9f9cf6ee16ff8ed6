/* facing.h: which of this host's addresses do the hosts of a hostfile see? Not the first interface that is up, which may be a campus network, a VPN
 * or a container's bridge, but the one that the routing table takes towards them. */
#ifndef CLUSTER_FACING_H
#define CLUSTER_FACING_H

#include "cluster/hostfile.h"

enum { CLU_FACING = 46 };

/* The IPv4 address that this host sends from to every host of the file: a datagram socket is connected to each, which asks the routing table and
 * sends nothing. Lines that mean this host itself reach all of its addresses, so they count only where there is no other: its own address, else
 * loopback. Names that do not resolve here (aliases of ssh's) do not count. Err BAD_CONFIG: two hosts are reached from different addresses, all four
 * named; NOT_FOUND: nothing counts. Thr: any; waits for the resolver. */
MUST_USE enum err clu_facing(const struct clu_hostfile *f, char out[CLU_FACING]);

#endif
