/* route.c: see route.h.
 *
 * One table, direct-mapped by hash: a newer chain takes an older one's place. Cost of a replica = sequences open x ROUTE_SEQ_TOKENS + tokens
 * of the prompt that it does not hold. So a long common prefix outweighs a few more neighbours, and no prefix makes one replica a hot spot. */
#include "coordinator/replica/route.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

struct chain {
    uint32_t tag;     /* the hash's other half */
    uint32_t holders; /* one bit per replica; 0: free */
};

struct crd_route {
    struct chain chains[ROUTE_CHAINS];
    uint64_t given[ROUTE_REPLICAS]; /* when it was last chosen, in requests */
    uint64_t now;
};

struct crd_route *crd_route_open(void) { return xcalloc(1, sizeof(struct crd_route)); }
void crd_route_close(struct crd_route *r) { free(r); }

static uint64_t next_hash(uint64_t before, const int32_t ids[LIMIT_BLOCK_TOKENS])
{
    return XXH3_64bits_withSeed(ids, LIMIT_BLOCK_TOKENS * sizeof *ids, before);
}

static struct chain *at(struct crd_route *r, uint64_t hash) { return &r->chains[hash & (ROUTE_CHAINS - 1)]; }

/* The whole blocks of a prompt whose KV can be shared: its last token is always computed. */
static int32_t n_blocks(int32_t n_prompt) { return (n_prompt - 1) / LIMIT_BLOCK_TOKENS; }

/* held[i]: leading blocks of the prompt that replica i is thought to hold. */
static void match(struct crd_route *r, uint32_t usable, uint64_t salt, const int32_t *prompt, int32_t n, int32_t held[ROUTE_REPLICAS])
{
    uint64_t h = salt;
    uint32_t still = usable;
    for (int32_t b = 0; b < n && still; b++) {
        h = next_hash(h, prompt + b * LIMIT_BLOCK_TOKENS);
        const struct chain *c = at(r, h);
        still &= c->tag == (uint32_t)(h >> 32) ? c->holders : 0;
        for (int32_t i = 0; i < ROUTE_REPLICAS; i++) held[i] += still >> i & 1;
    }
}

static void remember(struct crd_route *r, int32_t replica, uint64_t salt, const int32_t *prompt, int32_t n)
{
    uint64_t h = salt;
    for (int32_t b = 0; b < n; b++) {
        h = next_hash(h, prompt + b * LIMIT_BLOCK_TOKENS);
        struct chain *c = at(r, h);
        if (c->tag != (uint32_t)(h >> 32)) *c = (struct chain){.tag = (uint32_t)(h >> 32)};
        c->holders |= UINT32_C(1) << replica;
    }
}

int32_t crd_route_pick(struct crd_route *r, uint32_t usable, const int32_t load[], uint64_t salt, const int32_t *prompt, int32_t n_prompt,
                       int32_t *n_cached)
{
    int32_t held[ROUTE_REPLICAS] = {0}, best = -1;
    int64_t least = INT64_MAX;
    ASSERT(usable && !(usable >> ROUTE_REPLICAS));
    match(r, usable, salt, prompt, n_blocks(n_prompt), held);
    for (int32_t i = 0; i < ROUTE_REPLICAS; i++) {
        if (!(usable >> i & 1)) continue;
        int64_t cost = (int64_t)load[i] * ROUTE_SEQ_TOKENS + n_prompt - (int64_t)held[i] * LIMIT_BLOCK_TOKENS;
        if (cost > least || (cost == least && r->given[i] > r->given[best])) continue;
        least = cost;
        best = i;
    }
    r->given[best] = ++r->now;
    if (n_cached) *n_cached = held[best] * LIMIT_BLOCK_TOKENS;
    remember(r, best, salt, prompt, n_blocks(n_prompt));
    return best;
}

void crd_route_forget(struct crd_route *r, int32_t replica)
{
    for (int32_t i = 0; i < ROUTE_CHAINS; i++) r->chains[i].holders &= ~(UINT32_C(1) << replica);
}
