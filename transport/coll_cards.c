/* coll_cards.c: how the cards of one host sum. Every way there is is opened and timed by all ranks together; the fastest stays: one for the sums of
 * decoding, and one for long ones. The bits are the same by every way, so a choice is a matter of speed alone.
 *
 * TESSERA_SUMS names the one way to be tried: peers, host (in one shot), peers2, host2 (in two), nccl or memory. */
#include "transport/coll_open.h"

#include "base/clock.h"
#include "transport/coll_impl.h"
#include "transport/coll_pass.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHORT = 8192, LONG = 256 << 10, LIMIT_BYTES = 256 << 10 }; /* values; from so many bytes on a sum is long */

/* ---- two of them, by the length of a sum ---- */

struct by_size {
    struct trn_pass pass; /* first; inner: of long sums, and of everything else */
    struct trn_coll *small;
    bool recording;
};

static struct by_size *of(struct trn_coll *c) { return (struct by_size *)c; }

/* A recording has operations of one of them only, so that a replay knows whose it repeats. */
static enum err sized_all_reduce(struct trn_coll *c, const struct coll_cut *cut, const float *mine, float *out, int64_t n, int64_t timeout_us)
{
    struct by_size *b = of(c);
    bool small = b->recording || n * (int64_t)sizeof *out < LIMIT_BYTES;
    return trn_coll_all_reduce(small ? b->small : b->pass.inner, cut, mine, out, n, timeout_us);
}

static enum err sized_all_gather(struct trn_coll *c, const void *mine, const int64_t bytes[], void *all, int64_t timeout_us)
{
    bool small = true;
    for (int32_t r = 0; r < c->size; r++) small &= bytes[r] < LIMIT_BYTES;
    return trn_coll_all_gather(small || of(c)->recording ? of(c)->small : of(c)->pass.inner, mine, bytes, all, timeout_us);
}

static enum err sized_barrier(struct trn_coll *c, int64_t timeout_us)
{
    enum err e = trn_coll_barrier(of(c)->small, timeout_us);
    return e ? e : trn_coll_barrier(of(c)->pass.inner, timeout_us);
}

static enum err sized_poll(struct trn_coll *c)
{
    enum err e = trn_coll_poll(of(c)->small);
    if (!e) e = trn_coll_poll(of(c)->pass.inner);
    struct trn_coll_now s = trn_coll_now(of(c)->small), now = s.op ? s : trn_coll_now(of(c)->pass.inner);
    atomic_store_explicit(&c->now_seq, now.seq, memory_order_relaxed);
    atomic_store_explicit(&c->now_since_us, now.since_us, memory_order_relaxed);
    atomic_store_explicit(&c->now_op, now.op, memory_order_relaxed);
    return e;
}

static int32_t sized_waits_for(const struct trn_coll *c)
{
    int32_t r = trn_coll_now(((const struct by_size *)c)->small).waiting_for;
    return r >= 0 ? r : trn_coll_now(((const struct by_size *)c)->pass.inner).waiting_for;
}

static void sized_record(struct trn_coll *c, bool on)
{
    struct coll_stats recorded;
    of(c)->recording = on;
    if (on) trn_coll_record_begin(of(c)->small);
    else trn_coll_record_end(of(c)->small, &recorded); /* so that its operations are counted when they are done */
}

static enum err sized_replayed(struct trn_coll *c, uint64_t n_ops, int64_t timeout_us)
{
    return trn_coll_replayed(of(c)->small, &(struct coll_stats){.n_ops = n_ops}, timeout_us);
}

static void sized_close(struct trn_coll *c)
{
    trn_coll_close(of(c)->small);
    trn_coll_close(of(c)->pass.inner);
    free(c);
}

#define SIZED                                                                                                                               \
    .name = "by size", .all_gather = sized_all_gather, .broadcast = trn_pass_broadcast, .send = trn_pass_send, .recv = trn_pass_recv, \
    .barrier = sized_barrier, .close = sized_close, .all_reduce = sized_all_reduce, .waits_for = sized_waits_for, .poll = sized_poll
static const struct trn_coll_ops sized_ops = {SIZED}, sized_ops_recorded = {SIZED, .record = sized_record, .replayed = sized_replayed};

struct trn_coll *trn_coll_by_size(struct trn_coll *small, struct trn_coll *large)
{
    struct by_size *b = xcalloc(1, sizeof *b);
    b->pass.base = (struct trn_coll){.ops = trn_coll_records(small) ? &sized_ops_recorded : &sized_ops, .rank = small->rank, .size = small->size,
                                     .now_rank = -1};
    b->small = small;
    b->pass.inner = large;
    return &b->pass.base;
}

/* ---- the ways ---- */

/* The way after one by exchange is the same communicator's in two shots. */
enum way { PEERS, PEERS_TWICE, HOST, HOST_TWICE, NCCL, MEMORY, WAYS };
static const char *const names[WAYS] = {"peers", "peers2", "host", "host2", "nccl", "memory"};
static const char *const sentences[WAYS] = {"by exchange in each other's memory", "by exchange in each other's memory in two shots",
                                            "by exchange in the host's memory", "by exchange in the host's memory in two shots", "by NCCL",
                                            "by way of the host's memory"};

static bool twice(enum way w) { return w == PEERS_TWICE || w == HOST_TWICE; }
static bool direct(enum way w) { return w < NCCL; }

struct choice {
    const struct trn_cards_conf *conf;
    struct trn_coll *c[WAYS]; /* of MEMORY: NULL; of two shots: that of one */
    float *mine, *out;        /* on the device, LONG values */
    float *back, *there;      /* the host's, as MEMORY needs them */
    double us[WAYS][2];       /* a short sum, a long one; INFINITY: not to be had */
};

/* One sum of n values that is waited for. */
static enum err sum(struct choice *h, enum way w, const struct coll_cut *cut, int64_t n)
{
    enum err rc;
    const struct trn_device *dev = h->conf->device;
    int64_t bytes = n * (int64_t)sizeof(float), timeout = h->conf->timeout_us;
    if (w == MEMORY) {
        TRY(dev->download(dev->user, h->back, h->mine, bytes));
        TRY(trn_coll_all_reduce(h->conf->host, cut, h->back, h->there, n, timeout));
        TRY(dev->upload(dev->user, h->out, h->there, bytes));
        TRY(dev->download(dev->user, h->back, h->out, sizeof(float)));
    } else {
        TRY(trn_coll_all_reduce(h->c[w], cut, h->mine, h->out, n, timeout));
        do TRY(trn_coll_poll(h->c[w]));
        while (trn_coll_now(h->c[w]).op);
    }
out:
    return rc;
}

static enum err time_way(struct choice *h, enum way w, int64_t n, int32_t times, double *us)
{
    enum err rc;
    struct coll_cut cut = {.n_leaf = h->conf->host->size};
    for (int32_t r = 0; r <= cut.n_leaf; r++) cut.bounds[r] = r;
    if (direct(w)) trn_coll_direct_two_shots(h->c[w], twice(w) ? 0 : INT64_MAX);
    TRY(sum(h, w, &cut, n));
    TRY(trn_coll_barrier(h->conf->host, h->conf->timeout_us));
    int64_t since = clock_us();
    for (int32_t i = 0; i < times; i++) TRY(sum(h, w, &cut, n));
    *us = (double)(clock_us() - since) / times;
out:
    return rc;
}

/* A way is as fast as its slowest rank. */
static enum err agree(struct choice *h)
{
    int64_t bytes[COLL_MAX_RANKS];
    int32_t size = h->conf->host->size;
    double (*all)[WAYS][2] = xcalloc((size_t)size, sizeof *all);
    for (int32_t r = 0; r < size; r++) bytes[r] = sizeof *all;
    enum err rc = trn_coll_all_gather(h->conf->host, h->us, bytes, all, h->conf->timeout_us);
    for (int32_t r = 0; r < size && !rc; r++)
        for (int32_t w = 0; w < WAYS; w++)
            for (int k = 0; k < 2; k++) h->us[w][k] = MAX(h->us[w][k], all[r][w][k]);
    free(all);
    return rc;
}

static enum err time_all(struct choice *h)
{
    enum err rc;
    const struct trn_device *dev = h->conf->device;
    enum { BYTES = LONG * sizeof(float) };
    h->back = xcalloc(LONG, sizeof *h->back);
    h->there = xcalloc(LONG, sizeof *h->there);
    TRY(dev->alloc(dev->user, (void **)&h->mine, BYTES));
    TRY(dev->alloc(dev->user, (void **)&h->out, BYTES));
    TRY(dev->upload(dev->user, h->mine, h->back, BYTES));
    for (enum way w = 0; w < WAYS; w++) {
        if (w != MEMORY && !h->c[w]) continue;
        TRY(time_way(h, w, SHORT, 16, &h->us[w][0]));
        if (w != MEMORY) TRY(time_way(h, w, LONG, 4, &h->us[w][1]));
    }
    rc = agree(h);
out:
    return rc;
}

static enum way fastest(const struct choice *h, int k)
{
    enum way best = MEMORY;
    for (enum way w = 0; w < WAYS; w++)
        if (h->us[w][k] < h->us[best][k]) best = w;
    return best;
}

/* why: of the last way that could not be opened. */
static enum err open_way(struct choice *h, enum way w, char why[TRN_NCCL_WHY])
{
    const struct trn_cards_conf *c = h->conf;
    if (w == NCCL)
        return trn_coll_nccl_open(&h->c[w], &(struct trn_nccl_conf){.host = c->host, .device = c->device, .exact = c->exact, .timeout_us = c->timeout_us}, why);
    struct trn_direct_conf d = {.host = c->host, .device = c->device, .by_peers = w <= PEERS_TWICE, .timeout_us = c->timeout_us};
    return trn_coll_direct_open(&h->c[w], &d, why);
}

static enum way only(void)
{
    const char *said = getenv("TESSERA_SUMS");
    enum way w = 0;
    while (w < WAYS && (!said || strcmp(said, names[w]))) w++;
    return w;
}

/* From how many values on an exchange takes two shots. */
static int64_t two_shots_from(const struct choice *h, enum way small, enum way large)
{
    if (twice(small)) return 0;
    bool both = h->c[small] == h->c[large]; /* one communicator, which is to change its way with the length */
    return both && twice(large) ? LIMIT_BYTES / (int64_t)sizeof(float) : INT64_MAX;
}

/* The communicator of both, which is no longer h's. */
static struct trn_coll *take(struct choice *h, enum way small, enum way large)
{
    struct trn_coll *a = h->c[small], *b = h->c[large];
    if (small == MEMORY) return NULL;
    if (direct(small)) trn_coll_direct_two_shots(a, two_shots_from(h, small, large));
    else if (direct(large)) trn_coll_direct_two_shots(b, twice(large) ? 0 : INT64_MAX);
    for (enum way w = 0; w < WAYS; w++)
        if (h->c[w] == a || h->c[w] == b) h->c[w] = NULL;
    return a == b ? a : trn_coll_by_size(a, b);
}

enum err trn_coll_cards_open(struct trn_coll **out, const struct trn_cards_conf *conf, char said[TRN_NCCL_WHY])
{
    enum err rc = OK;
    struct choice h = {.conf = conf};
    char why[TRN_NCCL_WHY] = "";
    enum way one = only(), small = MEMORY, large = MEMORY;
    int32_t n = 0;
    *out = NULL;
    said[0] = 0;
    for (enum way w = 0; w < WAYS; w++) h.us[w][0] = h.us[w][1] = INFINITY;
    for (enum way w = 0; w < MEMORY; w++) {
        if ((one < WAYS && w != one) || (direct(w) && w >= HOST && h.c[PEERS])) continue;
        if (twice(w) && one == WAYS) h.c[w] = h.c[w - 1];
        else TRY(open_way(&h, w, why));
        if (h.c[w]) n++, small = large = w;
    }
    if (n && one == WAYS) {
        TRY(time_all(&h));
        small = fastest(&h, 0);
        large = small == MEMORY ? MEMORY : fastest(&h, 1);
    }
    if (!n && one != MEMORY) snprintf(said, TRN_NCCL_WHY, "by way of its memory: %.220s", why);
    else if (one < WAYS) snprintf(said, TRN_NCCL_WHY, "%s", sentences[small]);
    else snprintf(said, TRN_NCCL_WHY, "%s, %.0f us for 32 kB%s%s", sentences[small], h.us[small][0], small == large ? "" : "; long ones ",
                  small == large ? "" : sentences[large]);
    *out = take(&h, small, large);
out:
    for (enum way w = 0; w < WAYS; w++)
        if (!twice(w) || one == w) trn_coll_close(h.c[w]);
    if (conf->device) conf->device->free(conf->device->user, h.mine);
    if (conf->device) conf->device->free(conf->device->user, h.out);
    free(h.back);
    free(h.there);
    return rc;
}
