/* route.h: which replica gets a request: the one that will be through with it first.
 *
 * What a replica must compute is the part of the prompt that its prefix cache does not hold, after what it has open already. Which prefixes
 * a replica holds is remembered here, from what it was given: chains of hashes over whole blocks, as sched/prefix.c keeps them. A memory of
 * fixed size that forgets the oldest; when it is wrong a prompt is computed once more, never a token wrong.
 *
 * A pure core: no clock, no lock. Thr: one at a time. */
#ifndef COORDINATOR_REPLICA_ROUTE_H
#define COORDINATOR_REPLICA_ROUTE_H

#include "base/base.h"
#include "proto/limits.h"

#include <stdbool.h>

enum {
    ROUTE_REPLICAS = 16,     /* most replicas of one coordinator */
    ROUTE_CHAINS = 1 << 16,  /* blocks remembered: a million tokens */
    ROUTE_SEQ_TOKENS = 64,   /* an open sequence delays a newcomer about as much as so many tokens of a prompt: it takes a share of every step */
};

struct crd_route;
struct crd_route *crd_route_open(void);
void crd_route_close(struct crd_route *r); /* NULL-safe */

/* Choose among the replicas whose bit is set in `usable` (at least one). load[i]: sequences open there. Equal ones take turns. The choice is
 * remembered as the holder of this prompt. *n_cached (NULL-safe): tokens that it is thought to hold already. */
int32_t crd_route_pick(struct crd_route *r, uint32_t usable, const int32_t load[], uint64_t salt, const int32_t *prompt, int32_t n_prompt,
                       int32_t *n_cached);
/* It holds nothing any more. */
void crd_route_forget(struct crd_route *r, int32_t replica);

#endif
