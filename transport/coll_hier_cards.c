/* coll_hier_cards.c: a group over several hosts, as a rank sees it whose vectors lie on a card beside others of its host: sums inside the host
 * go from card to card, and only the host's own subtrees leave it.
 *
 * all_reduce: the cards gather the parts of their host; the first rank's adds them as far as the host's leaves make whole subtrees, hands
 * those to the group of first ranks (host memory: MPI, and fewer bytes under --exact off), and gives the sum to the other cards. What crosses
 * the network, and every addition, is as in coll_hier.c: hosts whose cards cannot do this, or which have one rank, take part in that way.
 *
 * Where bytes between hosts are packed the card packs what leaves and adds what came, if the host's subtrees fit beside each other on it.
 *
 * I1  on the device nothing is allocated after open: long vectors go in pieces that fit. */
#include "transport/coll_open.h"

#include "transport/coll_hier.h"
#include "transport/coll_impl.h"

#include <stdlib.h>
#include <string.h>

enum { SCRATCH_BYTES = 32 << 20 };

struct cards {
    struct trn_coll base;
    struct trn_coll *hier;  /* borrowed */
    struct trn_coll *local; /* of the host's cards; Own */
    const struct trn_device *dev;
    struct trn_hier_view v;
    float *scratch;
    int64_t scratch_floats;
    float *nodes;          /* the host's subtrees, as many floats; NULL: nothing is packed here */
    void *packing;         /* room of trn_coll_packed_lend */
    void *host[2]; /* room of the host's: there and back */
    int64_t host_bytes[2];
};

static struct cards *of(struct trn_coll *c) { return (struct cards *)c; }
static int64_t floats(int64_t n) { return n * (int64_t)sizeof(float); }

static enum err room(struct cards *k, int i, int64_t bytes)
{
    if (bytes <= k->host_bytes[i]) return OK;
    void *p = malloc((size_t)bytes);
    if (!p) return err_raise(ERR_NO_MEMORY, "cards: no %lld bytes for what leaves the host", (long long)bytes);
    free(k->host[i]);
    k->host[i] = p;
    k->host_bytes[i] = bytes;
    return OK;
}

/* ---- all_reduce ---- */

struct job {
    struct cards *k;
    struct trn_hier_parts p;
    const float *mine;
    int64_t n, timeout_us;
    bool there; /* the subtrees stay on the device */
};

/* Elements [lo, lo + len) of the host's subtrees, on the first rank into its host's memory. In scratch: this rank's parts, everybody's, subtrees. */
static enum err gather_piece(const struct job *j, int64_t lo, int64_t len)
{
    enum err rc = OK;
    struct cards *k = j->k;
    const struct trn_device *dev = k->dev;
    int32_t me = k->local->rank, own = j->p.count[me];
    float *mine = k->scratch, *all = mine + own * len, *nodes = all + j->p.n_parts * len;
    int64_t bytes[COLL_MAX_RANKS];
    for (int32_t i = 0; i < k->local->size; i++) bytes[i] = floats(j->p.count[i] * len);
    for (int32_t i = 0; i < own; i++) TRY(dev->copy(dev->user, mine + i * len, j->mine + i * j->n + lo, floats(len)));
    TRY(trn_coll_all_gather(k->local, mine, bytes, all, j->timeout_us));
    for (int32_t i = 0; i < j->p.n_nodes && !me; i++) {
        struct trn_reduce plan;
        int32_t at = trn_hier_node(&plan, &j->p, i);
        TRY(dev->reduce(dev->user, &plan, all + at * len, len, j->there ? k->nodes + i * j->n + lo : nodes + i * len, len));
        if (!j->there) TRY(dev->download(dev->user, (float *)k->host[0] + i * j->n + lo, nodes + i * len, floats(len)));
    }
out:
    return rc;
}

static enum err across_from_there(struct cards *k, const struct coll_cut *hosts, float *out, int64_t n, int64_t timeout_us)
{
    trn_coll_packed_lend(k->v.across, k->dev, k->packing);
    enum err e = trn_coll_all_reduce(k->v.across, hosts, k->nodes, out, n, timeout_us);
    trn_coll_packed_lend(k->v.across, NULL, NULL);
    return e;
}

static enum err cards_all_reduce(struct trn_coll *c, const struct coll_cut *cut, const float *mine, float *out, int64_t n, int64_t timeout_us)
{
    enum err rc = OK;
    struct cards *k = of(c);
    struct job j = {.k = k, .mine = mine, .n = n, .timeout_us = timeout_us};
    trn_hier_parts_of(&j.p, &k->v, cut);
    int64_t most = k->scratch_floats / MAX(2 * j.p.n_parts + j.p.n_nodes, 1); /* the same on every rank */
    j.there = k->nodes && j.p.n_nodes * n <= k->scratch_floats;
    if (k->v.across && !j.there) TRY(room(k, 0, floats(j.p.n_nodes * n)));
    if (k->v.across && !j.there) TRY(room(k, 1, floats(n)));
    for (int64_t lo = 0; lo < n; lo += most) TRY(gather_piece(&j, lo, MIN(n - lo, most)));
    if (k->v.across) {
        struct coll_cut hosts;
        trn_hier_hosts_cut(&hosts, &k->v, cut);
        if (j.there) TRY(across_from_there(k, &hosts, out, n, timeout_us));
        else TRY(trn_coll_all_reduce(k->v.across, &hosts, k->host[0], k->host[1], n, timeout_us));
        if (n && !j.there) TRY(k->dev->upload(k->dev->user, out, k->host[1], floats(n)));
    }
    rc = trn_coll_broadcast(k->local, out, floats(n), 0, timeout_us);
out:
    return rc;
}

/* ---- the others, by the host ---- */

static int64_t sum_of(const int64_t bytes[], int32_t n)
{
    int64_t sum = 0;
    for (int32_t r = 0; r < n; r++) sum += bytes[r];
    return sum;
}

static enum err cards_all_gather(struct trn_coll *c, const void *mine, const int64_t bytes[], void *all, int64_t timeout_us)
{
    enum err rc;
    struct cards *k = of(c);
    int64_t own = bytes[c->rank], sum = sum_of(bytes, c->size);
    TRY(room(k, 0, own));
    TRY(room(k, 1, sum));
    if (own) TRY(k->dev->download(k->dev->user, k->host[0], mine, own));
    TRY(trn_coll_all_gather(k->hier, k->host[0], bytes, k->host[1], timeout_us));
    if (sum) TRY(k->dev->upload(k->dev->user, all, k->host[1], sum));
out:
    return rc;
}

static enum err cards_broadcast(struct trn_coll *c, void *data, int64_t bytes, int32_t root, int64_t timeout_us)
{
    enum err rc;
    struct cards *k = of(c);
    TRY(room(k, 0, bytes));
    if (bytes && root == c->rank) TRY(k->dev->download(k->dev->user, k->host[0], data, bytes));
    TRY(trn_coll_broadcast(k->hier, k->host[0], bytes, root, timeout_us));
    if (bytes && root != c->rank) TRY(k->dev->upload(k->dev->user, data, k->host[0], bytes));
out:
    return rc;
}

static enum err cards_send(struct trn_coll *c, int32_t to, const void *data, int64_t bytes, int64_t timeout_us)
{
    enum err rc;
    struct cards *k = of(c);
    TRY(room(k, 0, bytes));
    if (bytes) TRY(k->dev->download(k->dev->user, k->host[0], data, bytes));
    TRY(trn_coll_send(k->hier, to, k->host[0], bytes, timeout_us));
out:
    return rc;
}

static enum err cards_recv(struct trn_coll *c, int32_t from, void *data, int64_t bytes, int64_t timeout_us)
{
    enum err rc;
    struct cards *k = of(c);
    TRY(room(k, 1, bytes));
    TRY(trn_coll_recv(k->hier, from, k->host[1], bytes, timeout_us));
    if (bytes) TRY(k->dev->upload(k->dev->user, data, k->host[1], bytes));
out:
    return rc;
}

static enum err cards_barrier(struct trn_coll *c, int64_t timeout_us) { return trn_coll_barrier(of(c)->hier, timeout_us); }
static enum err cards_poll(struct trn_coll *c) { return trn_coll_poll(of(c)->local); }

static int32_t cards_waits_for(const struct trn_coll *c)
{
    const struct cards *k = (const struct cards *)c;
    int32_t r = trn_coll_now(k->local).waiting_for;
    return r >= 0 ? k->v.first[k->v.host] + r : trn_coll_now(k->hier).waiting_for;
}

static uint64_t cards_sent(const struct trn_coll *c)
{
    const struct cards *k = (const struct cards *)c;
    return k->local->stats.bytes_sent + (k->v.across ? k->v.across->stats.bytes_sent : 0);
}

static void cards_close(struct trn_coll *c)
{
    struct cards *k = of(c);
    trn_coll_close(k->local);
    k->dev->free(k->dev->user, k->scratch);
    k->dev->free(k->dev->user, k->nodes);
    k->dev->free(k->dev->user, k->packing);
    free(k->host[0]);
    free(k->host[1]);
    free(k);
}

static const struct trn_coll_ops cards_ops = {
    .name = "cards",
    .all_gather = cards_all_gather,
    .broadcast = cards_broadcast,
    .send = cards_send,
    .recv = cards_recv,
    .barrier = cards_barrier,
    .close = cards_close,
    .all_reduce = cards_all_reduce,
    .waits_for = cards_waits_for,
    .sent = cards_sent,
    .poll = cards_poll,
};

enum err trn_coll_hier_cards_open(struct trn_coll **out, struct trn_coll *hier, struct trn_coll *local, const struct trn_device *dev, int64_t scratch_bytes)
{
    enum err rc;
    struct cards *k = xcalloc(1, sizeof *k);
    k->base = (struct trn_coll){.ops = &cards_ops, .rank = hier->rank, .size = hier->size, .now_rank = -1};
    k->hier = hier;
    k->local = local;
    k->dev = dev;
    k->v = trn_hier_view(hier);
    k->scratch_floats = (scratch_bytes ? scratch_bytes : SCRATCH_BYTES) / (int64_t)sizeof(float);
    int64_t packing = dev->pack ? trn_coll_packed_room(k->v.across) : 0;
    TRY(dev->alloc(dev->user, (void **)&k->scratch, floats(k->scratch_floats)));
    if (packing) TRY(dev->alloc(dev->user, &k->packing, packing));
    if (packing) TRY(dev->alloc(dev->user, (void **)&k->nodes, floats(k->scratch_floats)));
    *out = &k->base, k = NULL;
out:
    if (k) cards_close(&k->base);
    return rc;
}
