/* links.h: what lies between this rank's host and the others, measured over MPI before the coordinator is told of this rank: so its planner
 * knows the links that are there, not those that somebody assumed. */
#ifndef WORKER_LINKS_H
#define WORKER_LINKS_H

#include "proto/control.h"

/* Collective over all ranks of the job; only the first rank of each host measures, pair after pair, no host in two pairs at once: some 20 ms a
 * pair on gigabit Ethernet, and all at once afterwards. Latency: half of a small message's way there and back; bandwidth: of 64 KiB or half a megabyte,
 * the slower, that both sides send at once, as an all-reduce does. A pair that does not answer within seconds is left out, with a warning.
 * Out  links[LIMIT_RANKS], *n: to the first rank of every other host, and where there are more than two hosts to this rank itself: what an exchange of
 *      all hosts at once takes; 0 on other ranks and where all share a host */
void wrk_links_measure(int32_t rank, int32_t size, struct msg_link links[], int32_t *n);

#endif
