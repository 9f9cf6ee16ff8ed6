/* coll_hier.c: one group over several hosts, made of a group inside each host, one of the hosts' first ranks, and a flat one
 * for messages between any other two.
 *
 * all_reduce: the ranks of a host hand their subtrees to its first rank, which adds them as far as the host's leaves make
 * whole subtrees, and speaks for the host with the other first ranks; so each vector crosses the network once per host, not
 * once per rank. Additions are those of the tree whoever makes them: the bits do not change. */
#include "transport/coll_open.h"

#include "base/clock.h"
#include "transport/coll_hier.h"
#include "transport/coll_impl.h"
#include "transport/coll_reduce.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { PUSH_US = 50 };

struct hier {
    struct trn_coll base;
    struct trn_coll *local, *across, *flat;
    int32_t n_hosts, host;                      /* this rank's */
    int32_t first[COLL_MAX_RANKS + 1];          /* of each host's ranks */
    int32_t host_of[COLL_MAX_RANKS];
    float *parts, *nodes;                       /* of this host's ranks; of the host */
    int64_t parts_cap, nodes_cap;               /* floats */
};

static struct hier *of(struct trn_coll *c) { return (struct hier *)c; }
static bool leads(const struct hier *h) { return h->base.rank == h->first[h->host]; }
static int32_t locals(const struct hier *h) { return h->first[h->host + 1] - h->first[h->host]; }

static enum err reserve(float **p, int64_t *cap, int64_t floats)
{
    if (floats <= *cap) return OK;
    float *q = malloc((size_t)floats * sizeof *q);
    if (!q) return err_raise(ERR_NO_MEMORY, "hier all_reduce: no %lld bytes for the parts", (long long)floats * 4);
    free(*p);
    *p = q;
    *cap = floats;
    return OK;
}

/* ---- all_reduce ---- */

struct trn_hier_view trn_hier_view(struct trn_coll *c)
{
    const struct hier *h = of(c);
    return (struct trn_hier_view){.local = h->local, .across = h->across, .first = h->first, .n_hosts = h->n_hosts, .host = h->host};
}

void trn_hier_parts_of(struct trn_hier_parts *p, const struct trn_hier_view *v, const struct coll_cut *cut)
{
    int32_t r0 = v->first[v->host], r1 = v->first[v->host + 1];
    p->n_parts = 0;
    for (int32_t r = r0; r < r1; r++) {
        p->count[r - r0] = tree_maximal(cut->n_leaf, cut->bounds[r], cut->bounds[r + 1], p->parts + p->n_parts);
        p->n_parts += p->count[r - r0];
    }
    p->n_nodes = tree_maximal(cut->n_leaf, cut->bounds[r0], cut->bounds[r1], p->nodes);
}

int32_t trn_hier_node(struct trn_reduce *plan, const struct trn_hier_parts *p, int32_t i)
{
    int32_t at = 0, n = 0;
    while (p->parts[at].a < p->nodes[i].a) at++;
    while (at + n < p->n_parts && p->parts[at + n].b <= p->nodes[i].b) n++;
    trn_reduce_plan_node(plan, p->parts + at, n, p->nodes[i].a, p->nodes[i].b);
    return at;
}

void trn_hier_hosts_cut(struct coll_cut *out, const struct trn_hier_view *v, const struct coll_cut *cut)
{
    out->n_leaf = cut->n_leaf;
    for (int32_t i = 0; i <= v->n_hosts; i++) out->bounds[i] = cut->bounds[v->first[i]];
}

/* From the parts of the ranks to the subtrees of the host, n floats each, in h->nodes. */
static enum err add_host(struct hier *h, const struct trn_hier_parts *p, int64_t n)
{
    enum err rc = reserve(&h->nodes, &h->nodes_cap, p->n_nodes * n);
    for (int32_t i = 0; i < p->n_nodes && !rc; i++) {
        const float *part[TREE_MAX_LEAF];
        struct trn_reduce plan;
        int32_t at = trn_hier_node(&plan, p, i);
        for (int32_t k = 0; k < plan.n_parts; k++) part[k] = h->parts + (at + k) * n;
        trn_reduce_run(&plan, part, h->nodes + i * n, n);
    }
    return rc;
}

static enum err collect(struct hier *h, const int32_t count[], const float *mine, int64_t n, int64_t timeout_us)
{
    enum err rc = OK;
    float *to = h->parts;
    for (int32_t i = 0; i < locals(h); to += count[i++] * n) {
        if (!count[i] || !n) continue;
        if (i) TRY(trn_coll_recv(h->local, i, to, count[i] * n * (int64_t)sizeof *to, timeout_us));
        else memcpy(to, mine, (size_t)(count[i] * n) * sizeof *to);
    }
out:
    return rc;
}

static enum err hier_all_reduce(struct trn_coll *c, const struct coll_cut *cut, const float *mine, float *out, int64_t n, int64_t timeout_us)
{
    enum err rc = OK;
    struct hier *h = of(c);
    struct trn_hier_view v = trn_hier_view(c);
    struct trn_hier_parts p;
    int32_t me = c->rank - h->first[h->host];
    trn_hier_parts_of(&p, &v, cut);
    if (me) {
        if (p.count[me] && n) TRY(trn_coll_send(h->local, 0, mine, p.count[me] * n * (int64_t)sizeof *mine, timeout_us));
    } else {
        struct coll_cut hosts;
        trn_hier_hosts_cut(&hosts, &v, cut);
        TRY(reserve(&h->parts, &h->parts_cap, p.n_parts * n));
        TRY(collect(h, p.count, mine, n, timeout_us));
        TRY(add_host(h, &p, n));
        TRY(trn_coll_all_reduce(h->across, &hosts, h->nodes, out, n, timeout_us));
    }
    if (h->local) TRY(trn_coll_broadcast(h->local, out, n * (int64_t)sizeof *out, 0, timeout_us));
out:
    return rc;
}

/* ---- the others ---- */

static enum err hier_all_gather(struct trn_coll *c, const void *mine, const int64_t bytes[], void *all, int64_t timeout_us)
{
    enum err rc = OK;
    struct hier *h = of(c);
    int64_t host_bytes[COLL_MAX_RANKS] = {0}, before = 0, sum = 0;
    for (int32_t r = 0; r < c->size; r++) {
        host_bytes[h->host_of[r]] += bytes[r];
        sum += bytes[r];
        if (h->host_of[r] < h->host) before += bytes[r];
    }
    uint8_t *own = (uint8_t *)all + before;
    if (h->local) TRY(trn_coll_all_gather(h->local, mine, bytes + h->first[h->host], own, timeout_us));
    else if (own != mine && bytes[c->rank]) memcpy(own, mine, (size_t)bytes[c->rank]);
    if (leads(h)) TRY(trn_coll_all_gather(h->across, own, host_bytes, all, timeout_us));
    if (h->local) TRY(trn_coll_broadcast(h->local, all, sum, 0, timeout_us));
out:
    return rc;
}

static enum err hier_broadcast(struct trn_coll *c, void *data, int64_t bytes, int32_t root, int64_t timeout_us)
{
    return trn_coll_broadcast(of(c)->flat, data, bytes, root, timeout_us);
}

static struct trn_coll *path(struct hier *h, int32_t peer, int32_t *as)
{
    bool near = h->host_of[peer] == h->host;
    *as = near ? peer - h->first[h->host] : peer;
    return near ? h->local : h->flat;
}

static enum err hier_send(struct trn_coll *c, int32_t to, const void *data, int64_t bytes, int64_t timeout_us)
{
    int32_t as;
    struct trn_coll *p = path(of(c), to, &as);
    return trn_coll_send(p, as, data, bytes, timeout_us);
}

static bool hier_push(struct trn_coll *c) { return trn_coll_push(of(c)->flat); }

static enum err hier_recv(struct trn_coll *c, int32_t from, void *data, int64_t bytes, int64_t timeout_us)
{
    int32_t as;
    struct hier *h = of(c);
    struct trn_coll *p = path(h, from, &as);
    int64_t until_us = clock_us() + timeout_us;
    /* a wait in shared memory does nothing for what is on its way to other hosts, and they may be what the sender waits for */
    while (p == h->local && clock_us() < until_us && trn_coll_push(h->flat)) clock_sleep_us(PUSH_US);
    return trn_coll_recv(p, as, data, bytes, MAX(until_us - clock_us(), 0));
}

static enum err hier_barrier(struct trn_coll *c, int64_t timeout_us)
{
    enum err rc = OK;
    struct hier *h = of(c);
    if (h->local) TRY(trn_coll_barrier(h->local, timeout_us));
    if (leads(h)) TRY(trn_coll_barrier(h->across, timeout_us));
    if (h->local) TRY(trn_coll_barrier(h->local, timeout_us));
out:
    return rc;
}

static void hier_close(struct trn_coll *c)
{
    struct hier *h = of(c);
    trn_coll_close(h->local);
    trn_coll_close(h->across);
    trn_coll_close(h->flat);
    free(h->parts);
    free(h->nodes);
    free(h);
}

/* In this group's numbers, whichever of the three waits. */
static int32_t hier_waits_for(const struct trn_coll *c)
{
    const struct hier *h = (const struct hier *)c;
    int32_t r;
    if (h->local && (r = trn_coll_now(h->local).waiting_for) >= 0) return h->first[h->host] + r;
    if (h->across && (r = trn_coll_now(h->across).waiting_for) >= 0) return h->first[r];
    return trn_coll_now(h->flat).waiting_for;
}

static uint64_t hier_sent(const struct trn_coll *c)
{
    const struct hier *h = (const struct hier *)c;
    return (h->local ? h->local->stats.bytes_sent : 0) + (h->across ? h->across->stats.bytes_sent : 0) + h->flat->stats.bytes_sent;
}

static const struct trn_coll_ops hier_ops = {
    .name = "hier",
    .all_gather = hier_all_gather,
    .broadcast = hier_broadcast,
    .send = hier_send,
    .recv = hier_recv,
    .push = hier_push,
    .barrier = hier_barrier,
    .close = hier_close,
    .all_reduce = hier_all_reduce,
    .waits_for = hier_waits_for,
    .sent = hier_sent,
};

struct trn_coll *trn_coll_hier_local(struct trn_coll *c) { return c->ops == &hier_ops ? of(c)->local : NULL; }

enum err trn_coll_hier_open(struct trn_coll **out, int32_t rank, int32_t size, const int32_t hosts[], struct trn_coll *local, struct trn_coll *across,
                            struct trn_coll *flat)
{
    struct hier *h = xcalloc(1, sizeof *h);
    h->base = (struct trn_coll){.ops = &hier_ops, .rank = rank, .size = size, .now_rank = -1};
    h->local = local;
    h->across = across;
    h->flat = flat;
    for (int32_t r = 0; r < size; r++) {
        ASSERT(hosts[r] == (r ? hosts[r - 1] : 0) || hosts[r] == hosts[r - 1] + 1);
        h->host_of[r] = hosts[r];
        if (!r || hosts[r] != hosts[r - 1]) h->first[hosts[r]] = r;
    }
    h->host = hosts[rank];
    h->n_hosts = hosts[size - 1] + 1;
    h->first[h->n_hosts] = size;
    ASSERT(flat && !local == (locals(h) == 1) && !across == !leads(h));
    *out = &h->base;
    return OK;
}
