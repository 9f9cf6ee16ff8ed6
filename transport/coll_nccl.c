/* coll_nccl.c: collectives between devices by NVIDIA's library. Vectors lie in device memory, and an operation is told to the device, not
 * waited for: whoever waits for the device calls trn_coll_poll meanwhile.
 *
 *   opening -> ready -> closed        by the library's own finalize and destroy
 *         \       \-> aborted         a peer is late or lost, or the library failed: its kernels leave the device, nothing more is begun
 *          \-> none                   some rank cannot: all ranks learn it and why, and go on without
 *
 * I1  no call blocks: the communicator is a non-blocking one, and every "in progress" is polled with a deadline. A rank that is gone shows
 *     only as silence; then ncclCommAbort ends what the device waits in.
 * I2  exact: parts are gathered and added in the one tree by our own kernel, so the bits are those of any other implementation.
 * I3  nothing is allocated after open but the host's room for messages, which steps do not send through here.
 * I4  sums can be recorded. The library issues from a thread of its own, so a recording must let any thread issue, and an operation is settled
 *     before the next one or the end of the recording. What it sets up at a first use is set up at open. Its communicator is in the graphs: those
 *     are forgotten before it is ended or given up, since both wait for that. It may set up something with the other ranks in a recording:
 *     all ranks record and replay the same.
 *
 * The id goes from the group's first rank to the others over `host`, as everything does that ranks must agree on. How far a device has come
 * and who is late: coll_told.h.
 * Not here: ranks that share a card (NCCL refuses them; the opener is told). */
#include "transport/coll_open.h"

#include "base/clock.h"
#include "base/rng.h"
#include "transport/coll_told.h"
#include "transport/nccl_lib.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SCRATCH_BYTES = 32 << 20,
    ONE_SHOT_BYTES = 256 << 10, /* all parts together; above, each rank adds a slice */
    CLOSE_US = 2000000,
};

struct nccl {
    struct trn_told told; /* first */
    const struct trn_nccl_lib *lib;
    trn_nccl_comm comm; /* NULL: aborted */
    bool exact;
    float *scratch;
    int64_t scratch_floats;
};

static struct nccl *of(struct trn_coll *c) { return (struct nccl *)c; }
static const struct trn_device *dev_of(const struct nccl *n) { return n->told.dev; }

/* ---- waiting ---- */

static void give_up(struct trn_told *t)
{
    struct nccl *n = (struct nccl *)t;
    if (n->comm) dev_of(n)->forget(dev_of(n)->user);
    if (n->comm) (void)n->lib->abort(n->comm);
    n->comm = NULL;
}

static enum err failed(struct nccl *n, const char *what, int result)
{
    const char *more = n->lib->last_error(n->comm);
    enum err e = err_raise(ERR_PEER_LOST, "nccl: %s failed: %s%s%s", what, n->lib->error_string(result), more && *more ? ": " : "", more ? more : "");
    give_up(&n->told);
    return e;
}

static enum err state_of(struct nccl *n, const char *what, bool *busy)
{
    int state = TRN_NCCL_SUCCESS, r = n->lib->get_async_error(n->comm, &state);
    *busy = !r && state == TRN_NCCL_IN_PROGRESS;
    if (r || (state && !*busy)) return failed(n, what, r ? r : state);
    return OK;
}

static enum err state(struct trn_told *t, const char *what)
{
    bool busy;
    return state_of((struct nccl *)t, what, &busy);
}

/* The library has taken what it was told. */
static enum err settle(struct nccl *n, const char *what, int result, int64_t until_us, int64_t timeout_us)
{
    int64_t since = clock_us();
    bool busy = result == TRN_NCCL_IN_PROGRESS;
    if (result && !busy) return failed(n, what, result);
    while (busy) {
        enum err e = state_of(n, what, &busy);
        if (e) return e;
        if (busy && clock_us() >= until_us) return trn_told_late(&n->told, timeout_us);
        if (busy) trn_told_rest(since);
    }
    return OK;
}

/* ---- one operation ---- */

/* What the device is told between begin and end is one operation of the library. */
struct telling {
    struct nccl *n;
    const char *what;
    int64_t until_us, timeout_us;
    int result; /* the first that was no success */
};

static struct telling begin(struct trn_coll *c, const char *what, int64_t timeout_us)
{
    trn_told_begin(&of(c)->told, what, timeout_us);
    return (struct telling){.n = of(c), .what = what, .until_us = clock_us() + timeout_us, .timeout_us = timeout_us};
}

static void open_group(struct telling *t) { t->result = t->n->lib->group_start(); }

static void said(struct telling *t, int result)
{
    if (!t->result && result != TRN_NCCL_IN_PROGRESS) t->result = result;
}

static void say_send(struct telling *t, const void *p, int64_t bytes, int32_t to)
{
    if (bytes && !t->result) said(t, t->n->lib->send(p, (size_t)bytes, TRN_NCCL_UINT8, to, t->n->comm, dev_of(t->n)->stream));
}

static void say_recv(struct telling *t, void *p, int64_t bytes, int32_t from)
{
    if (bytes && !t->result) said(t, t->n->lib->recv(p, (size_t)bytes, TRN_NCCL_UINT8, from, t->n->comm, dev_of(t->n)->stream));
}

static enum err close_group(struct telling *t)
{
    int end = t->n->lib->group_end();
    if (t->result) return failed(t->n, t->what, t->result);
    return settle(t->n, t->what, end, t->until_us, t->timeout_us);
}

static enum err one_call(struct telling *t, int result) { return settle(t->n, t->what, result, t->until_us, t->timeout_us); }

/* ---- all_gather, broadcast ---- */

static enum err nccl_all_gather(struct trn_coll *c, const void *mine, const int64_t bytes[], void *all, int64_t timeout_us)
{
    enum err rc = OK;
    struct nccl *n = of(c);
    struct telling t = begin(c, "all_gather", timeout_us);
    int64_t at[COLL_MAX_RANKS] = {0};
    bool equal = true;
    for (int32_t r = 1; r < c->size; r++) {
        at[r] = at[r - 1] + bytes[r - 1];
        equal &= bytes[r] == bytes[0];
    }
    char *to = all;
    if (equal && bytes[0]) {
        TRY(one_call(&t, n->lib->all_gather(mine, all, (size_t)bytes[0], TRN_NCCL_UINT8, n->comm, dev_of(n)->stream)));
    } else if (!equal) {
        open_group(&t);
        for (int32_t i = 1; i < c->size; i++) {
            int32_t to_rank = (c->rank + i) % c->size, from = (c->rank + c->size - i) % c->size;
            say_send(&t, mine, bytes[c->rank], to_rank);
            say_recv(&t, to + at[from], bytes[from], from);
        }
        TRY(close_group(&t));
        if (to + at[c->rank] != mine) TRY(dev_of(n)->copy(dev_of(n)->user, to + at[c->rank], mine, bytes[c->rank]));
    }
    rc = trn_told_end(&n->told);
out:
    return rc;
}

static enum err nccl_broadcast(struct trn_coll *c, void *data, int64_t bytes, int32_t root, int64_t timeout_us)
{
    enum err rc = OK;
    struct nccl *n = of(c);
    struct telling t = begin(c, "broadcast", timeout_us);
    if (bytes) TRY(one_call(&t, n->lib->broadcast(data, data, (size_t)bytes, TRN_NCCL_UINT8, root, n->comm, dev_of(n)->stream)));
    rc = trn_told_end(&n->told);
out:
    return rc;
}

/* ---- all_reduce ---- */

struct reduction {
    struct telling t;
    const struct trn_reduce *plan;
    const float *mine;
    float *out;
    int64_t n;
};

static int64_t floats(int64_t n) { return n * (int64_t)sizeof(float); }

/* This rank's parts of elements [lo, lo + len), to one rank; whole parts lie side by side. */
static void send_parts(struct reduction *x, int32_t to, int64_t lo, int64_t len)
{
    int32_t k = trn_reduce_count(x->plan, x->t.n->told.base.rank);
    if (len == x->n) say_send(&x->t, x->mine, floats(k * len), to);
    for (int32_t p = 0; p < k && len != x->n; p++) say_send(&x->t, x->mine + p * x->n + lo, floats(len), to);
}

/* Its parts into scratch, part i at i * len: received if they are another's, else copied. */
static enum err recv_parts(struct reduction *x, int32_t from, int64_t len)
{
    struct nccl *n = x->t.n;
    int32_t first = x->plan->first[from], k = trn_reduce_count(x->plan, from);
    if (len == x->n) say_recv(&x->t, n->scratch + first * len, floats(k * len), from);
    for (int32_t p = first; p < first + k && len != x->n; p++) say_recv(&x->t, n->scratch + p * len, floats(len), from);
    return OK;
}

static enum err own_parts(struct reduction *x, int64_t lo, int64_t len)
{
    enum err rc = OK;
    struct nccl *n = x->t.n;
    int32_t first = x->plan->first[n->told.base.rank], k = trn_reduce_count(x->plan, n->told.base.rank);
    for (int32_t p = 0; p < k && len && !rc; p++)
        rc = dev_of(n)->copy(dev_of(n)->user, n->scratch + (first + p) * len, x->mine + p * x->n + lo, floats(len));
    return rc;
}

static bool equal_counts(const struct trn_reduce *plan, int32_t size)
{
    for (int32_t r = 1; r < size; r++)
        if (trn_reduce_count(plan, r) != trn_reduce_count(plan, 0)) return false;
    return true;
}

/* Everybody gets everything and adds it all. */
static enum err one_shot(struct reduction *x, int64_t lo, int64_t len)
{
    enum err rc;
    struct nccl *n = x->t.n;
    int32_t size = n->told.base.size, k = trn_reduce_count(x->plan, n->told.base.rank);
    if (len == x->n && equal_counts(x->plan, size)) {
        TRY(one_call(&x->t, n->lib->all_gather(x->mine, n->scratch, (size_t)(k * len), TRN_NCCL_FLOAT32, n->comm, dev_of(n)->stream)));
    } else {
        open_group(&x->t);
        for (int32_t i = 1; i < size; i++) {
            send_parts(x, (n->told.base.rank + i) % size, lo, len);
            TRY(recv_parts(x, (n->told.base.rank + size - i) % size, len));
        }
        TRY(close_group(&x->t));
        TRY(own_parts(x, lo, len));
    }
    rc = dev_of(n)->reduce(dev_of(n)->user, x->plan, n->scratch, len, x->out + lo, len);
out:
    return rc;
}

struct slice { int64_t lo, len; };
static struct slice slice_of(int64_t lo, int64_t len, int64_t w, int32_t r)
{
    int64_t a = MIN(r * w, len), b = MIN((r + 1) * w, len);
    return (struct slice){lo + a, b - a};
}

/* Each rank gets its slice of every part, adds it, and gives the sum to all: the same additions per element. */
static enum err two_shots(struct reduction *x, int64_t lo, int64_t len, int64_t w)
{
    enum err rc;
    struct nccl *n = x->t.n;
    int32_t size = n->told.base.size, me = n->told.base.rank;
    struct slice own = slice_of(lo, len, w, me);
    open_group(&x->t);
    for (int32_t i = 1; i < size; i++) {
        struct slice his = slice_of(lo, len, w, (me + i) % size);
        send_parts(x, (me + i) % size, his.lo, his.len);
        TRY(recv_parts(x, (me + size - i) % size, own.len));
    }
    TRY(close_group(&x->t));
    TRY(own_parts(x, own.lo, own.len));
    if (own.len) TRY(dev_of(n)->reduce(dev_of(n)->user, x->plan, n->scratch, own.len, x->out + own.lo, own.len));
    open_group(&x->t);
    for (int32_t i = 1; i < size; i++) {
        int32_t from = (me + size - i) % size;
        struct slice his = slice_of(lo, len, w, from);
        say_send(&x->t, x->out + own.lo, floats(own.len), (me + i) % size);
        say_recv(&x->t, x->out + his.lo, floats(his.len), from);
    }
    rc = close_group(&x->t);
out:
    return rc;
}

static enum err exact_sum(struct reduction *x)
{
    enum err rc = OK;
    struct nccl *n = x->t.n;
    int32_t size = n->told.base.size, parts = x->plan->n_parts;
    bool pair = size == 2 && parts == 2; /* the same bytes either way: a slice would only add a latency */
    for (int64_t lo = 0, len; lo < x->n && !rc; lo += len) {
        int64_t left = x->n - lo, most = n->scratch_floats / parts, w;
        if (pair || floats(parts * left) <= ONE_SHOT_BYTES) {
            len = MIN(left, most);
            rc = one_shot(x, lo, len);
        } else {
            w = MIN(ROUND_UP(DIV_UP(left, size), 16), most / 16 * 16);
            len = MIN(left, w * size);
            rc = two_shots(x, lo, len, w);
        }
    }
    return rc;
}

/* Not exact: this rank's parts are added, then the library's own sum, in an order of its choosing. */
static enum err vendors_sum(struct reduction *x)
{
    enum err rc = OK;
    struct nccl *n = x->t.n;
    struct trn_reduce own = {.n_parts = trn_reduce_count(x->plan, n->told.base.rank)};
    for (int32_t p = 0; p < own.n_parts; p++) {
        own.ops[own.n_ops++] = (int16_t)p;
        if (p) own.ops[own.n_ops++] = -1;
    }
    for (int64_t lo = 0, len; lo < x->n; lo += len) {
        const float *from = x->mine + lo;
        len = x->n - lo;
        if (own.n_parts > 1) {
            len = MIN(len, n->scratch_floats);
            TRY(dev_of(n)->reduce(dev_of(n)->user, &own, from, x->n, n->scratch, len));
            from = n->scratch;
        }
        TRY(one_call(&x->t, n->lib->all_reduce(from, x->out + lo, (size_t)len, TRN_NCCL_FLOAT32, TRN_NCCL_SUM, n->comm, dev_of(n)->stream)));
    }
out:
    return rc;
}

static enum err nccl_all_reduce(struct trn_coll *c, const struct coll_cut *cut, const float *mine, float *out, int64_t n, int64_t timeout_us)
{
    enum err rc = OK;
    struct trn_reduce plan;
    trn_reduce_plan(&plan, cut, c->size);
    struct reduction x = {.t = begin(c, "all_reduce", timeout_us), .plan = &plan, .mine = mine, .out = out, .n = n};
    bool all_add = true;
    for (int32_t r = 0; r < c->size; r++) all_add &= trn_reduce_count(&plan, r) > 0;
    if (n) TRY(of(c)->exact || !all_add ? exact_sum(&x) : vendors_sum(&x));
    rc = trn_told_end(&of(c)->told);
out:
    return rc;
}

/* ---- open and close ---- */

static void nccl_close(struct trn_coll *c)
{
    struct nccl *n = of(c);
    bool gone = !n->comm || c->broken;
    if (!gone) dev_of(n)->forget(dev_of(n)->user);
    if (!gone) gone = settle(n, "finalize", n->lib->finalize(n->comm), clock_us() + CLOSE_US, CLOSE_US) != OK;
    if (!gone) (void)n->lib->destroy(n->comm);
    else give_up(&n->told);
    dev_of(n)->free(dev_of(n)->user, n->scratch);
    trn_told_close(&n->told);
    free(n);
}

static const struct trn_coll_ops nccl_ops = {
    .name = "nccl",
    .all_gather = nccl_all_gather,
    .broadcast = nccl_broadcast,
    .send = trn_told_send,
    .recv = trn_told_recv,
    .barrier = trn_told_barrier,
    .close = nccl_close,
    .all_reduce = nccl_all_reduce,
    .waits_for = trn_told_waits_for,
    .poll = trn_told_poll,
    .record = trn_told_record,
    .replayed = trn_told_replayed,
};

/* What each rank says of itself before anybody begins. */
struct hello {
    uint64_t host;
    int32_t version;
    bool waited; /* why: it waited for others, who may know better */
    char where[32], why[200]; /* why not; "" */
};

static uint64_t this_host(void)
{
    char id[64] = "";
    uint64_t h = 1;
    FILE *f = fopen("/proc/sys/kernel/random/boot_id", "r");
    if (f && !fgets(id, sizeof id, f)) id[0] = 0;
    if (f) fclose(f);
    for (const char *p = id; *p; p++) h = rng_mix(h ^ (uint8_t)*p);
    return h;
}

/* Why these ranks cannot: the same sentence on each, or "". */
static void judge(const struct hello h[], int32_t size, char why[TRN_NCCL_WHY])
{
    why[0] = 0;
    for (int32_t r = 0; r < size && !why[0]; r++)
        if (h[r].why[0] && !h[r].waited) snprintf(why, TRN_NCCL_WHY, "rank %d: %s", r, h[r].why);
    for (int32_t r = 0; r < size && !why[0]; r++) {
        if (h[r].why[0]) snprintf(why, TRN_NCCL_WHY, "rank %d: %s", r, h[r].why);
        for (int32_t s = 0; s < r && !why[0]; s++) {
            if (h[s].host == h[r].host && !strcmp(h[s].where, h[r].where))
                snprintf(why, TRN_NCCL_WHY, "ranks %d and %d share one card (%s), which NCCL refuses", s, r, h[r].where);
            else if (h[s].version != h[r].version)
                snprintf(why, TRN_NCCL_WHY, "ranks %d and %d have different versions of NCCL (%d, %d)", s, r, h[s].version, h[r].version);
        }
    }
}

/* Everybody's hello; *why: what keeps them from it. */
static enum err meet(struct trn_coll *host, const struct hello *mine, char why[TRN_NCCL_WHY], int64_t timeout_us)
{
    struct hello *all = xcalloc((size_t)host->size, sizeof *all);
    int64_t bytes[COLL_MAX_RANKS];
    for (int32_t r = 0; r < host->size; r++) bytes[r] = sizeof *mine;
    enum err rc = trn_coll_all_gather(host, mine, bytes, all, timeout_us);
    if (!rc) judge(all, host->size, why);
    free(all);
    return rc;
}

/* Each operation that a recording may have, waited for: the gathering of short and of long parts, messages with everybody, the library's own sum. */
static enum err first_uses(struct nccl *n, int64_t timeout_us)
{
    enum err rc = OK;
    struct trn_coll *c = &n->told.base;
    int64_t bytes[COLL_MAX_RANKS], most = MIN(ONE_SHOT_BYTES, floats(n->scratch_floats) / 2) / c->size / 16 * 16;
    struct coll_cut cut = {.n_leaf = c->size};
    char *all = (char *)n->scratch, *own = all + floats(n->scratch_floats) / 2;
    bool wait = n->told.wait;
    n->told.wait = true;
    for (int32_t r = 0; r < c->size; r++) cut.bounds[r + 1] = r + 1, bytes[r] = 4;
    TRY(trn_coll_all_gather(c, own, bytes, all, timeout_us));
    for (int32_t r = 0; r < c->size; r++) bytes[r] = most;
    TRY(trn_coll_all_gather(c, own, bytes, all, timeout_us));
    bytes[0] = most / 2; /* not all as much: by messages */
    TRY(trn_coll_all_gather(c, own, bytes, all, timeout_us));
    if (!n->exact) TRY(trn_coll_all_reduce(c, &cut, (float *)(void *)own, n->scratch, 1, timeout_us));
    c->seq = 0;
    c->stats = (struct coll_stats){0};
out:
    n->told.wait = wait;
    return rc;
}

static enum err start(struct nccl *n, struct hello *h, char why[TRN_NCCL_WHY], int64_t timeout_us)
{
    enum err rc;
    struct { int32_t result; trn_nccl_id id; } first = {0};
    struct trn_nccl_config config = TRN_NCCL_CONFIG;
    if (!n->told.base.rank) first.result = n->lib->get_unique_id(&first.id);
    TRY(trn_coll_broadcast(n->told.host, &first, sizeof first, 0, timeout_us));
    if (first.result) {
        snprintf(why, TRN_NCCL_WHY, "rank 0: no NCCL id: %s", n->lib->error_string(first.result));
        return OK;
    }
    int result = n->lib->init_rank_config(&n->comm, n->told.base.size, first.id, n->told.base.rank, &config);
    enum err e = !n->comm ? err_raise(ERR_PEER_LOST, "%s", n->lib->error_string(result))
                          : settle(n, "opening the communicator", result, clock_us() + timeout_us, timeout_us);
    if (!e) e = dev_of(n)->alloc(dev_of(n)->user, (void **)&n->scratch, n->scratch_floats * (int64_t)sizeof(float));
    h->waited = e == ERR_DEADLINE;
    if (e) snprintf(h->why, sizeof h->why, "%s", err_text());
    TRY(meet(n->told.host, h, why, 2 * timeout_us)); /* who waited longest comes last */
out:
    return rc;
}

enum err trn_coll_nccl_open(struct trn_coll **out, const struct trn_nccl_conf *conf, char why[TRN_NCCL_WHY])
{
    enum err rc;
    struct trn_coll *host = conf->host;
    struct hello h = {.host = this_host()};
    struct nccl *n = xcalloc(1, sizeof *n);
    n->told = (struct trn_told){.base = {.ops = &nccl_ops, .rank = host->rank, .size = host->size, .now_rank = -1}, .host = host,
                                .dev = conf->device, .wait = conf->wait, .state = state, .give_up = give_up};
    n->exact = conf->exact;
    n->scratch_floats = (conf->scratch_bytes ? conf->scratch_bytes : SCRATCH_BYTES) / (int64_t)sizeof(float);
    *out = NULL;
    if (!n->told.dev) snprintf(h.why, sizeof h.why, "it computes on no card");
    else if (trn_nccl_lib_open(&n->lib)) snprintf(h.why, sizeof h.why, "%s", err_text());
    else h.version = n->lib->version, snprintf(h.where, sizeof h.where, "%s", n->told.dev->where);
    TRY(meet(host, &h, why, conf->timeout_us));
    if (!why[0]) TRY(start(n, &h, why, conf->timeout_us));
    if (!why[0]) TRY(trn_told_open(&n->told, conf->timeout_us));
    if (!why[0]) {
        enum err e = first_uses(n, conf->timeout_us);
        h.waited = e == ERR_DEADLINE;
        if (e) snprintf(h.why, sizeof h.why, "%s", err_text());
        TRY(meet(host, &h, why, 2 * conf->timeout_us));
    }
    if (!why[0]) *out = &n->told.base, n = NULL;
out:
    if (n && n->lib) give_up(&n->told);
    if (n && n->told.dev) dev_of(n)->free(dev_of(n)->user, n->scratch);
    free(n);
    return rc;
}
