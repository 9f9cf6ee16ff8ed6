/* coll_direct.c: collectives between the cards of one host without a library: each rank's kernel puts its values where the others' kernels read
 * them, and adds what it reads in the one tree (base/exchange.h). One kernel and one way across the bus, which for the sums of decoding is
 * all there is to wait for.
 *
 * By peers: rooms lie on the reader's card, and each rank writes to every other one's: flags are then polled at home. By host: a rank has one
 * room, in memory of the host that all cards map; any cards can do that, also two ranks on one. Long sums may go in two shots (exchange.h).
 *
 * I1  nothing is allocated after open.   I2  exact: the additions are those of any other implementation.
 * I3  a kernel that waits for a rank that does not come leaves when *stop is set: give_up. */
#include "transport/coll_open.h"

#include "base/clock.h"
#include "transport/coll_reduce.h"
#include "transport/coll_told.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = 64 << 10 }; /* of any system */

struct direct {
    struct trn_told told; /* first */
    struct exchange x;    /* what every exchange has in common */
    uint8_t *rooms;       /* by peers: [size] on this card, the rth filled by rank r */
    void *reached[EXCHANGE_RANKS]; /* the others' */
    struct trn_device_share shares[EXCHANGE_RANKS];
    uint8_t *shared;      /* by host: [size] rooms */
    bool mapped;
    uint32_t *stop;       /* a page of the host */
    int64_t two_from;     /* sums of so many values or more go in two shots */
    bool stop_mapped;
};

static struct direct *of(struct trn_coll *c) { return (struct direct *)c; }

static void give_up(struct trn_told *t) { __atomic_store_n(((struct direct *)t)->stop, 1, __ATOMIC_RELEASE); }

/* ---- operations ---- */

static enum err exchanged(struct direct *d, const char *op, const struct exchange *x, int64_t timeout_us)
{
    enum err rc;
    trn_told_begin(&d->told, op, timeout_us);
    TRY(d->told.dev->exchange(d->told.dev->user, x));
    rc = trn_told_end(&d->told);
out:
    return rc;
}

static enum err direct_all_reduce(struct trn_coll *c, const struct coll_cut *cut, const float *mine, float *out, int64_t n, int64_t timeout_us)
{
    struct trn_reduce plan;
    struct exchange x = of(c)->x;
    trn_reduce_plan(&plan, cut, c->size);
    ASSERT(plan.n_parts <= TRN_DEVICE_PARTS && plan.n_ops <= EXCHANGE_OPS);
    x.mine = mine, x.out = out, x.n = n, x.ops = plan.ops, x.n_ops = plan.n_ops, x.two_shots = n >= of(c)->two_from;
    for (int32_t r = 0; r <= c->size; r++) x.first[r] = plan.first[r];
    return exchanged(of(c), "all_reduce", &x, timeout_us);
}

/* Whole floats only: nobody gathers anything else between cards. */
static enum err gather(struct trn_coll *c, const char *op, const void *mine, const int64_t bytes[], void *all, int64_t timeout_us)
{
    struct exchange x = of(c)->x;
    x.mine = mine, x.out = all;
    for (int32_t r = 0; r < c->size; r++) {
        if (bytes[r] % (int64_t)sizeof(float))
            return err_raise(ERR_UNSUPPORTED, "direct %s: %lld bytes of rank %d are no whole numbers of four", op, (long long)bytes[r], r);
        x.len[r] = bytes[r] / (int64_t)sizeof(float);
        x.n = MAX(x.n, x.len[r]);
    }
    return exchanged(of(c), op, &x, timeout_us);
}

static enum err direct_all_gather(struct trn_coll *c, const void *mine, const int64_t bytes[], void *all, int64_t timeout_us)
{
    return gather(c, "all_gather", mine, bytes, all, timeout_us);
}

static enum err direct_broadcast(struct trn_coll *c, void *data, int64_t bytes, int32_t root, int64_t timeout_us)
{
    int64_t each[COLL_MAX_RANKS] = {0};
    each[root] = bytes;
    return gather(c, "broadcast", data, each, data, timeout_us);
}

/* ---- by peers ---- */

static enum err rooms_of_peers(struct direct *d)
{
    enum err rc;
    const struct trn_device *dev = d->told.dev;
    struct trn_device_share own;
    TRY(dev->alloc(dev->user, (void **)&d->rooms, d->x.size * (int64_t)EXCHANGE_ROOM));
    TRY(dev->share(dev->user, d->rooms, &own));
    TRY(dev->download(dev->user, &(uint32_t){0}, d->x.turns, sizeof(uint32_t))); /* they are clear before anybody writes there */
    d->shares[d->x.rank] = own;
out:
    return rc;
}

static enum err reach_peers(struct direct *d)
{
    enum err rc = OK;
    const struct trn_device *dev = d->told.dev;
    for (int32_t r = 0; r < d->x.size; r++) {
        d->x.from[r] = d->rooms + r * (int64_t)EXCHANGE_ROOM;
        if (r == d->x.rank) continue;
        TRY(dev->reach(dev->user, &d->shares[r], &d->reached[r]));
        d->x.reader[d->x.n_to] = r;
        d->x.to[d->x.n_to++] = (uint8_t *)d->reached[r] + d->x.rank * (int64_t)EXCHANGE_ROOM;
    }
out:
    return rc;
}

/* ---- by host ---- */

static int64_t shared_bytes(const struct direct *d) { return ROUND_UP(d->x.size * (int64_t)EXCHANGE_ROOM, (int64_t)PAGE); }

static enum err map_pages(int fd, int64_t bytes, int flags, void *out)
{
    void *p = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, flags, fd, 0);
    if (p == MAP_FAILED) return err_raise(ERR_UNSUPPORTED, "%lld bytes of shared memory cannot be mapped: %s", (long long)bytes, strerror(errno));
    *(void **)out = p;
    return OK;
}

static enum err map_shared(struct direct *d, const char *name, bool make)
{
    enum err rc;
    int fd = shm_open(name, O_RDWR | (make ? O_CREAT | O_EXCL : 0), 0600);
    if (fd < 0 || (make && ftruncate(fd, shared_bytes(d)))) {
        rc = err_raise(ERR_UNSUPPORTED, "shared memory %s cannot be had: %s", name, strerror(errno));
        goto out;
    }
    rc = map_pages(fd, shared_bytes(d), MAP_SHARED, &d->shared);
out:
    if (fd >= 0) close(fd);
    return rc;
}

static enum err map_rooms(struct direct *d)
{
    enum err rc;
    const struct trn_device *dev = d->told.dev;
    void *there;
    TRY(dev->map_host(dev->user, d->shared, shared_bytes(d), &there));
    d->mapped = true;
    for (int32_t r = 0; r < d->x.size; r++) d->x.from[r] = (uint8_t *)there + r * (int64_t)EXCHANGE_ROOM;
    d->x.reader[d->x.n_to] = -1;
    d->x.to[d->x.n_to++] = (uint8_t *)there + d->x.rank * (int64_t)EXCHANGE_ROOM;
out:
    return rc;
}

/* ---- open and close ---- */

static void direct_close(struct trn_coll *c)
{
    struct direct *d = of(c);
    const struct trn_device *dev = d->told.dev;
    if (d->stop) give_up(&d->told);
    if (d->stop_mapped) dev->unmap_host(dev->user, d->stop);
    if (d->mapped) dev->unmap_host(dev->user, d->shared);
    for (int32_t r = 0; r < d->x.size; r++)
        if (d->reached[r]) dev->unreach(dev->user, &d->shares[r], d->reached[r]);
    if (dev) dev->free(dev->user, d->x.turns);
    if (dev) dev->free(dev->user, d->rooms);
    if (d->shared) munmap(d->shared, (size_t)shared_bytes(d));
    if (d->stop) munmap(d->stop, PAGE);
    trn_told_close(&d->told);
    free(d);
}

static const struct trn_coll_ops direct_ops = {
    .name = "direct",
    .all_gather = direct_all_gather,
    .broadcast = direct_broadcast,
    .send = trn_told_send,
    .recv = trn_told_recv,
    .barrier = trn_told_barrier,
    .close = direct_close,
    .all_reduce = direct_all_reduce,
    .waits_for = trn_told_waits_for,
    .poll = trn_told_poll,
    .record = trn_told_record,
    .replayed = trn_told_replayed,
};

void trn_coll_direct_two_shots(struct trn_coll *c, int64_t from) { of(c)->two_from = from; }

/* What this rank alone needs. */
static enum err begin(struct direct *d)
{
    enum err rc;
    const struct trn_device *dev = d->told.dev;
    uint32_t zero[EXCHANGE_BLOCKS] = {0};
    void *there;
    TRY(map_pages(-1, PAGE, MAP_PRIVATE | MAP_ANONYMOUS, &d->stop));
    TRY(dev->map_host(dev->user, d->stop, PAGE, &there));
    d->stop_mapped = true;
    d->x.stop = there;
    TRY(dev->alloc(dev->user, (void **)&d->x.turns, sizeof zero));
    TRY(dev->upload(dev->user, d->x.turns, zero, sizeof zero));
out:
    return rc;
}

/* What each rank says of itself after a part of opening; "" : it can. */
struct word { char why[200]; struct trn_device_share share; };

/* Has every rank come so far? why: the first one's reason that has not. Takes everybody's share. */
static enum err meet(struct direct *d, enum err mine, char why[TRN_NCCL_WHY], int64_t timeout_us)
{
    struct word own = {.share = d->shares[d->x.rank]}, *all = xcalloc((size_t)d->x.size, sizeof *all);
    int64_t bytes[COLL_MAX_RANKS];
    if (mine) snprintf(own.why, sizeof own.why, "%s", err_text());
    for (int32_t r = 0; r < d->x.size; r++) bytes[r] = sizeof own;
    enum err rc = trn_coll_all_gather(d->told.host, &own, bytes, all, timeout_us);
    for (int32_t r = 0; r < d->x.size && !rc && !why[0]; r++)
        if (all[r].why[0]) snprintf(why, TRN_NCCL_WHY, "rank %d: %s", r, all[r].why);
    for (int32_t r = 0; r < d->x.size && !rc; r++) d->shares[r] = all[r].share;
    free(all);
    return rc;
}

/* The rooms by host: the first rank makes the memory, the others find it, then its name is gone. */
static enum err open_shared(struct direct *d, char why[TRN_NCCL_WHY], int64_t timeout_us)
{
    enum err rc;
    char name[64] = "";
    bool first = d->x.rank == 0;
    if (first) snprintf(name, sizeof name, "/tessera-direct-%d-%llx", (int)getpid(), (unsigned long long)clock_us());
    enum err mine = first ? map_shared(d, name, true) : OK;
    TRY(trn_coll_broadcast(d->told.host, name, sizeof name, 0, timeout_us));
    if (!first) mine = map_shared(d, name, false);
    if (!mine) mine = map_rooms(d);
    TRY(meet(d, mine, why, timeout_us));
out:
    if (first) (void)shm_unlink(name);
    return rc;
}

enum err trn_coll_direct_open(struct trn_coll **out, const struct trn_direct_conf *conf, char why[TRN_NCCL_WHY])
{
    enum err rc, mine;
    struct trn_coll *host = conf->host;
    const struct trn_device *dev = conf->device;
    struct direct *d = xcalloc(1, sizeof *d);
    d->told = (struct trn_told){.base = {.ops = &direct_ops, .rank = host->rank, .size = host->size, .now_rank = -1}, .host = host, .dev = dev,
                                .wait = conf->wait, .give_up = give_up};
    d->two_from = INT64_MAX;
    d->x = (struct exchange){.rank = host->rank, .size = MIN(host->size, EXCHANGE_RANKS)};
    *out = NULL;
    why[0] = 0;
    if (host->size > EXCHANGE_RANKS) {
        snprintf(why, TRN_NCCL_WHY, "%d ranks are more than the %d that exchange directly", host->size, EXCHANGE_RANKS);
        rc = OK;
        goto out;
    }
    if (!dev) mine = err_raise(ERR_UNSUPPORTED, "it computes on no card");
    else if (!dev->exchange) mine = err_raise(ERR_UNSUPPORTED, "its device shares no memory");
    else mine = begin(d);
    if (!mine && conf->by_peers) mine = rooms_of_peers(d);
    TRY(meet(d, mine, why, conf->timeout_us));
    if (!why[0] && conf->by_peers) TRY(meet(d, reach_peers(d), why, conf->timeout_us));
    else if (!why[0]) TRY(open_shared(d, why, conf->timeout_us));
    if (why[0]) goto out;
    TRY(trn_told_open(&d->told, conf->timeout_us));
    *out = &d->told.base, d = NULL;
out:
    if (d) direct_close(&d->told.base);
    return rc;
}
