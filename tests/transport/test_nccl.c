/* test_nccl.c: coll_nccl against a library that stands in for NVIDIA's (tests/nccl_stub), on a device whose memory is the host's: the suite of
 * all collectives, what makes ranks go on without it, and what happens when a rank or the library fails. TESSERA_NCCL names the stub. */
#include "tests/transport/coll_suite.h"
#include "tests/transport/fake_device.h"

#include "base/clock.h"
#include "base/rng.h"
#include "tests/support/env.h"
#include "transport/coll_open.h"

#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { OPEN_US = 20000000, LONG_US = 30000000, MOST = 4 };

static uint64_t seed;

/* ---- a group of threads, each with a device ---- */

struct rank {
    struct trn_coll *host, *sync, *c; /* c NULL: without */
    struct fake_device *dev;
    struct trn_nccl_conf conf;
    char why[TRN_NCCL_WHY], text[1024];
    enum err err;
    bool (*body)(struct rank *r);
    const struct coll_case *what;
    bool ok;
};

static void *rank_main(void *arg)
{
    struct rank *r = arg;
    r->err = trn_coll_nccl_open(&r->c, &r->conf, r->why);
    if (r->err) snprintf(r->text, sizeof r->text, "%s", err_text());
    r->ok = r->body(r);
    if (!r->ok) fprintf(stderr, "rank %d: %s; why: %s\n", r->host->rank, err_text(), r->why);
    trn_coll_close(r->c);
    r->ok &= fake_device_held(r->dev) == 0;
    trn_coll_close(r->host);
    trn_coll_close(r->sync);
    return NULL;
}

struct how {
    int32_t n;
    bool async, fast;
    uint32_t without, shared; /* bits: has no device; is on rank 0's card */
    int64_t scratch_bytes, timeout_us;
};

static bool run(const struct how *h, bool (*body)(struct rank *r), const struct coll_case *what, struct rank out[])
{
    struct trn_coll *host[MOST], *sync[MOST];
    pthread_t t[MOST];
    bool ok = true;
    assert_int_equal(trn_coll_local_open(host, h->n), OK);
    assert_int_equal(trn_coll_local_open(sync, h->n), OK);
    for (int32_t r = 0; r < h->n; r++) {
        char where[32];
        snprintf(where, sizeof where, "0000:%02x:00.0", h->shared >> r & 1 ? 1 : r + 1);
        struct fake_device *dev = fake_device_open(where);
        out[r] = (struct rank){.host = host[r], .sync = sync[r], .dev = dev, .body = body, .what = what,
                               .conf = {.host = host[r], .device = h->without >> r & 1 ? NULL : fake_device_ops(dev), .exact = !h->fast,
                                        .wait = !h->async, .scratch_bytes = h->scratch_bytes, .timeout_us = h->timeout_us ? h->timeout_us : OPEN_US}};
    }
    for (int32_t r = 0; r < h->n; r++) pthread_create(&t[r], NULL, rank_main, &out[r]);
    for (int32_t r = 0; r < h->n; r++) {
        pthread_join(t[r], NULL);
        ok &= out[r].ok;
    }
    for (int32_t r = 0; r < h->n; r++) fake_device_close(out[r].dev);
    return ok;
}

/* ---- the suite ---- */

static bool suite_body(struct rank *r)
{
    return r->c && r->what->run(r->c, r->sync, seed) && trn_coll_barrier(r->sync, LONG_US) == OK;
}

struct cell { struct how how; const struct coll_case *what; char name[120]; };

static void suite_case(void **state)
{
    const struct cell *x = *state;
    struct rank ranks[MOST];
    assert_true(run(&x->how, suite_body, x->what, ranks));
}

/* ---- over several hosts ---- */

/* Ranks as on hosts of two, one and one: the first two have cards that sum by the library, the others take part by their hosts. The vectors
 * of fake devices are the host's, so the suite's own cases run on both kinds. */
struct member { struct trn_coll *hier, *near, *c, *sync; struct fake_device *dev; const struct coll_case *what; bool ok; };

static void *member_main(void *arg)
{
    struct member *m = arg;
    char why[TRN_NCCL_WHY];
    struct trn_coll *cards = NULL;
    struct trn_nccl_conf conf = {.host = m->near, .device = fake_device_ops(m->dev), .exact = true, .wait = true, .timeout_us = OPEN_US};
    m->ok = !m->near || (!trn_coll_nccl_open(&cards, &conf, why) && cards);
    if (cards) m->ok = !trn_coll_hier_cards_open(&m->c, m->hier, cards, fake_device_ops(m->dev), 100 << 10);
    m->ok = m->ok && (m->near != NULL) == (m->c != NULL) && m->what->run(m->c ? m->c : m->hier, m->sync, seed) && !trn_coll_barrier(m->sync, LONG_US);
    trn_coll_close(m->c);
    m->ok &= fake_device_held(m->dev) == 0;
    trn_coll_close(m->hier);
    trn_coll_close(m->sync);
    return NULL;
}

static void hosts_case(void **state)
{
    enum { N_HOSTS = 3 };
    static const int32_t hosts[MOST] = {0, 0, 1, 2};
    const struct coll_case *what = *state;
    struct trn_coll *flat[MOST], *sync[MOST], *near[2], *across[N_HOSTS];
    struct member m[MOST] = {0};
    pthread_t t[MOST];
    assert_false(trn_coll_local_open(flat, MOST) || trn_coll_local_open(sync, MOST) || trn_coll_local_open(near, 2) || trn_coll_local_open(across, N_HOSTS));
    for (int32_t r = 0; r < MOST; r++) {
        struct trn_coll *to_hosts = r == 1 ? NULL : across[hosts[r]];
        m[r] = (struct member){.near = r < 2 ? near[r] : NULL, .sync = sync[r], .dev = fake_device_open(r ? "0000:02:00.0" : "0000:01:00.0"), .what = what};
        assert_int_equal(trn_coll_hier_open(&m[r].hier, r, MOST, hosts, m[r].near, to_hosts, flat[r]), OK);
        assert_ptr_equal(trn_coll_hier_local(m[r].hier), m[r].near);
    }
    for (int32_t r = 0; r < MOST; r++) pthread_create(&t[r], NULL, member_main, &m[r]);
    for (int32_t r = 0; r < MOST; r++) pthread_join(t[r], NULL);
    for (int32_t r = 0; r < MOST; r++) fake_device_close(m[r].dev);
    for (int32_t r = 0; r < MOST; r++) assert_true(m[r].ok);
}

/* The same hosts, whose sums travel as q8 or f16: packed by the first host's cards, or, without cards, by that host; the same bits. n: also more
 * than cards keep beside each other, which then go by the host. */
enum { PACKED_LEAVES = 12, PACKED_MOST = 40000 };
struct packer { struct trn_coll *hier, *near, *across; struct fake_device *dev; bool cards; int64_t n; float *out; bool ok; };

static void *packer_main(void *arg)
{
    struct packer *m = arg;
    char why[TRN_NCCL_WHY];
    struct trn_coll *cards = NULL, *c = NULL;
    struct coll_cut cut = {.n_leaf = PACKED_LEAVES, .bounds = {0, 3, 5, 8, PACKED_LEAVES}};
    struct tree_node nodes[TREE_MAX_NODES];
    int32_t rank = m->hier->rank, k = tree_maximal(PACKED_LEAVES, cut.bounds[rank], cut.bounds[rank + 1], nodes);
    float *mine = xmalloc((size_t)(k * m->n) * sizeof *mine);
    for (int64_t i = 0; i < k * m->n; i++) mine[i] = (float)(rng_at(seed, (uint64_t)rank, (uint64_t)i, 3) >> 44) * 0x1p-10f - 500.0f;
    struct trn_nccl_conf conf = {.host = m->near, .device = fake_device_ops(m->dev), .exact = true, .wait = true, .timeout_us = OPEN_US};
    m->ok = !m->near || !m->cards || (!trn_coll_nccl_open(&cards, &conf, why) && cards);
    if (cards) m->ok = !trn_coll_hier_cards_open(&c, m->hier, cards, fake_device_ops(m->dev), 300 << 10);
    m->ok = m->ok && !trn_coll_all_reduce(c ? c : m->hier, &cut, mine, m->out, m->n, LONG_US);
    if (c) m->ok = m->ok && !fake_device_ops(m->dev)->download(m->dev, NULL, NULL, 0);
    trn_coll_close(c);
    m->ok &= fake_device_held(m->dev) == 0;
    trn_coll_close(m->hier);
    free(mine);
    return NULL;
}

static void packed_sum(int64_t n, enum trn_wire_type type, bool cards, float out[MOST][PACKED_MOST])
{
    enum { N_HOSTS = 3 };
    static const int32_t hosts[MOST] = {0, 0, 1, 2};
    struct trn_coll *flat[MOST], *near[2], *across[N_HOSTS];
    struct packer m[MOST] = {0};
    pthread_t t[MOST];
    assert_false(trn_coll_local_open(flat, MOST) || trn_coll_local_open(near, 2) || trn_coll_local_open(across, N_HOSTS));
    for (int32_t h = 0; h < N_HOSTS; h++) assert_int_equal(trn_coll_packed_open(&across[h], across[h], type), OK);
    for (int32_t r = 0; r < MOST; r++) {
        m[r] = (struct packer){.near = r < 2 ? near[r] : NULL, .dev = fake_device_open(r ? "0000:02:00.0" : "0000:01:00.0"), .cards = cards,
                               .n = n, .out = out[r]};
        assert_int_equal(trn_coll_hier_open(&m[r].hier, r, MOST, hosts, m[r].near, r == 1 ? NULL : across[hosts[r]], flat[r]), OK);
    }
    for (int32_t r = 0; r < MOST; r++) pthread_create(&t[r], NULL, packer_main, &m[r]);
    for (int32_t r = 0; r < MOST; r++) pthread_join(t[r], NULL);
    for (int32_t r = 0; r < MOST; r++) fake_device_close(m[r].dev);
    for (int32_t r = 0; r < MOST; r++) assert_true(m[r].ok);
}

static void cards_pack_what_leaves_their_host(void **state)
{
    (void)state;
    static const int64_t lengths[] = {1, 70, 5000, PACKED_MOST};
    static float want[MOST][PACKED_MOST], got[MOST][PACKED_MOST];
    for (int t = TRN_WIRE_F16; t < TRN_WIRE_TYPES; t++)
        for (size_t i = 0; i < COUNT_OF(lengths); i++) {
            packed_sum(lengths[i], (enum trn_wire_type)t, false, want);
            packed_sum(lengths[i], (enum trn_wire_type)t, true, got);
            for (int32_t r = 0; r < MOST; r++) {
                assert_memory_equal(want[0], want[r], (size_t)lengths[i] * sizeof(float));
                assert_memory_equal(want[0], got[r], (size_t)lengths[i] * sizeof(float));
            }
        }
}

/* ---- going on without ---- */

static bool nothing_opened(struct rank *r)
{
    return !r->err && !r->c && r->why[0] && trn_coll_barrier(r->host, LONG_US) == OK; /* the host's is whole */
}

static void all_refuse(const struct how *h, const char *order, const char *sentence)
{
    struct rank ranks[MOST];
    if (order) setenv("NCCL_STUB", order, 1);
    bool ok = run(h, nothing_opened, NULL, ranks);
    unsetenv("NCCL_STUB");
    assert_true(ok);
    for (int32_t r = 0; r < h->n; r++) {
        if (!strstr(ranks[r].why, sentence)) fail_msg("rank %d says: %s", r, ranks[r].why);
        assert_string_equal(ranks[r].why, ranks[0].why);
    }
}

static void without_the_library_all_go_on(void **state)
{
    (void)state;
    char *stub = strdup(getenv("TESSERA_NCCL"));
    setenv("TESSERA_NCCL", "/nowhere/libnccl.so.2", 1);
    all_refuse(&(struct how){.n = 2}, NULL, "rank 0: NCCL cannot be loaded: /nowhere/libnccl.so.2");
    setenv("TESSERA_NCCL", "libm.so.6", 1);
    all_refuse(&(struct how){.n = 2}, NULL, "libm.so.6 is no NCCL that can be used: it has no ncclGetVersion");
    setenv("TESSERA_NCCL", stub, 1);
    setenv("NCCL_STUB_VERSION", "2708", 1);
    all_refuse(&(struct how){.n = 2}, NULL, "is NCCL 2.7, 2.14 or newer is needed");
    unsetenv("NCCL_STUB_VERSION");
    free(stub);
}

static void ranks_that_cannot_are_named(void **state)
{
    (void)state;
    all_refuse(&(struct how){.n = 3, .without = 2}, NULL, "rank 1: it computes on no card");
    all_refuse(&(struct how){.n = 3, .shared = 5}, NULL, "ranks 0 and 2 share one card (0000:01:00.0), which NCCL refuses");
}

static void a_beginning_that_fails_is_no_harm(void **state)
{
    (void)state;
    all_refuse(&(struct how){.n = 3}, "fail_id", "rank 0: no NCCL id: unhandled system error");
    all_refuse(&(struct how){.n = 3, .timeout_us = 200000}, "fail_init:1", "unhandled system error");
    int64_t t = clock_us();
    all_refuse(&(struct how){.n = 3, .timeout_us = 200000}, "hang_init:2", "has not arrived within 0.2 s");
    all_refuse(&(struct how){.n = 3, .timeout_us = 200000}, "fail:1:2", "all_gather failed: unhandled system error");
    all_refuse(&(struct how){.n = 3, .timeout_us = 200000, .async = true}, "hang:2:3", "has not arrived within 0.2 s");
    assert_true(clock_us() - t < 10000000);
}

/* ---- asynchronous use ---- */

enum { N = 1000, OPS = 3 * TRN_DEVICE_MARKS };

/* Two leaves a rank: one subtree each where their number is a power of two. */
static void cut_of(const struct trn_coll *c, struct coll_cut *cut)
{
    *cut = (struct coll_cut){.n_leaf = 2 * c->size};
    for (int32_t r = 0; r <= c->size; r++) cut->bounds[r] = 2 * r;
}

static float value(int32_t leaf, int64_t i, int32_t op) { return (float)(rng_mix((uint64_t)(leaf * 131 + op) ^ (uint64_t)i << 20) >> 40) * 0x1p-12f - 2000.0f; }

static float tree(int32_t a, int32_t b, int64_t i, int32_t op)
{
    if (b - a == 1) return value(a, i, op);
    int32_t m = tree_split(a, b);
    float left = tree(a, m, i, op);
    return left + tree(m, b, i, op);
}

static bool poll_until_idle(struct rank *r)
{
    int64_t until = clock_us() + LONG_US;
    do
        if (trn_coll_poll(r->c)) return false;
    while (trn_coll_now(r->c).op && clock_us() < until);
    return !trn_coll_now(r->c).op;
}

/* More operations than marks in flight, each rank beginning when it likes; the sums are the tree's. */
static bool many_in_flight(struct rank *r)
{
    struct coll_cut cut;
    float *x = xmalloc(OPS * N * sizeof *x), *y = xmalloc(OPS * N * sizeof *y);
    bool ok = r->c != NULL;
    if (!ok) return false;
    cut_of(r->c, &cut);
    clock_sleep_us(20000 * r->c->rank);
    for (int32_t k = 0; k < OPS && ok; k++) {
        for (int64_t i = 0; i < N; i++) x[k * N + i] = tree(2 * r->c->rank, 2 * r->c->rank + 2, i, k);
        ok = trn_coll_all_reduce(r->c, &cut, x + k * N, y + k * N, N, LONG_US) == OK;
    }
    ok = ok && poll_until_idle(r);
    for (int32_t k = 0; k < OPS && ok; k++)
        for (int64_t i = 0; i < N && ok; i += 7) ok = y[k * N + i] == tree(0, cut.n_leaf, i, k);
    ok = ok && trn_coll_barrier(r->host, LONG_US) == OK;
    free(x);
    free(y);
    return ok;
}

static void what_is_told_is_done_later_in_order(void **state)
{
    (void)state;
    struct rank ranks[MOST];
    assert_true(run(&(struct how){.n = 4, .async = true}, many_in_flight, NULL, ranks));
}

/* The last rank stops coming: the others learn it by polling, in time, and what their device waits in ends. */
static bool the_last_stays_away(struct rank *r)
{
    struct coll_cut cut;
    float x[2] = {1, 2}, y[2];
    if (!r->c) return false;
    cut_of(r->c, &cut);
    if (trn_coll_all_reduce(r->c, &cut, x, y, 2, 300000) || !poll_until_idle(r)) return false;
    enum err rc = OK;
    if (r->c->rank < r->c->size - 1) {
        int64_t t = clock_us();
        rc = trn_coll_all_reduce(r->c, &cut, x, y, 2, 300000);
        if (rc || clock_us() - t > 200000) return false; /* told, not waited for */
        while (!rc && clock_us() - t < LONG_US) rc = trn_coll_poll(r->c);
        char who[32];
        snprintf(who, sizeof who, "rank %d has not", r->c->size - 1);
        if (rc != ERR_DEADLINE || !strstr(err_text(), who) || !strstr(err_text(), "nccl all_reduce #2")) return false;
        if (clock_us() - t < 300000 || clock_us() - t > 10000000) return false;
        if (r->conf.device->download(r->conf.device->user, y, x, sizeof y)) return false; /* the device is free */
        if (trn_coll_all_reduce(r->c, &cut, x, y, 2, 300000) != ERR_DEADLINE || !strstr(err_text(), "refused")) return false;
    }
    return trn_coll_barrier(r->host, LONG_US) == OK;
}

static void a_rank_that_stays_away_is_given_up_in_time(void **state)
{
    (void)state;
    struct rank ranks[MOST];
    assert_true(run(&(struct how){.n = 4, .async = true}, the_last_stays_away, NULL, ranks));
}

/* Nobody has looked since an operation was done, and its mark has been replaced: the time until now is nobody's to answer for. */
static bool a_burst_after_a_rest(struct rank *r)
{
    struct coll_cut cut;
    float x[2] = {1, 2}, y[2];
    const struct trn_device *dev = r->conf.device;
    if (!r->c) return false;
    cut_of(r->c, &cut);
    bool ok = !trn_coll_all_reduce(r->c, &cut, x, y, 2, 300000) && !dev->download(dev->user, y, y, sizeof y);
    clock_sleep_us(400000);
    ok = ok && !trn_coll_barrier(r->host, LONG_US);
    for (int32_t k = 0; k < 2 * TRN_DEVICE_MARKS && r->c->rank == 0 && ok; k++) ok = !trn_coll_all_reduce(r->c, &cut, x, y, 2, 300000);
    ok = ok && (r->c->rank || !trn_coll_poll(r->c)) && !trn_coll_barrier(r->host, LONG_US); /* the others come late, but in time */
    for (int32_t k = 0; k < 2 * TRN_DEVICE_MARKS && r->c->rank && ok; k++) ok = !trn_coll_all_reduce(r->c, &cut, x, y, 2, 300000);
    return ok && poll_until_idle(r) && trn_coll_barrier(r->host, LONG_US) == OK;
}

static void a_rest_is_no_wait(void **state)
{
    (void)state;
    struct rank ranks[MOST];
    assert_true(run(&(struct how){.n = 2, .async = true}, a_burst_after_a_rest, NULL, ranks));
}

/* ---- recorded ---- */

/* A step's sums: short ones, and long ones that go in two shots; by gathering where all ranks have as many parts, else by messages. */
enum { STEP_SUMS = 4, STEP_MOST = 40000 };
static const int64_t step_lengths[STEP_SUMS] = {1, N, STEP_MOST, 77};
struct step { float *x[STEP_SUMS], *y[STEP_SUMS]; };

static void step_cut(const struct trn_coll *c, int32_t s, struct coll_cut *cut)
{
    cut_of(c, cut);
    if (s % 2) cut->bounds[1] = 1; /* the next one has a leaf more */
}

static enum err tell_step(struct rank *r, const struct step *s)
{
    enum err rc = OK;
    for (int32_t i = 0; i < STEP_SUMS && !rc; i++) {
        struct coll_cut cut;
        step_cut(r->c, i, &cut);
        rc = trn_coll_all_reduce(r->c, &cut, s->x[i], s->y[i], step_lengths[i], 300000);
    }
    return rc;
}

/* The parts of step k; or, sums: are they the tree's? */
static bool fill(struct rank *r, const struct step *s, int32_t k, bool sums)
{
    bool ok = true;
    for (int32_t i = 0; i < STEP_SUMS; i++) {
        struct coll_cut cut;
        struct tree_node nodes[TREE_MAX_NODES];
        step_cut(r->c, i, &cut);
        int32_t parts = tree_maximal(cut.n_leaf, cut.bounds[r->c->rank], cut.bounds[r->c->rank + 1], nodes);
        for (int64_t e = 0; e < step_lengths[i]; e++) {
            if (sums) ok &= s->y[i][e] == tree(0, cut.n_leaf, e, k + i);
            for (int32_t p = 0; p < parts && !sums; p++) s->x[i][p * step_lengths[i] + e] = tree(nodes[p].a, nodes[p].b, e, k + i);
        }
    }
    return ok;
}

/* Steps, each a replay of one recording, with a sum that is told by itself between them. */
static bool replays(struct rank *r, const struct step *s, const struct coll_stats *sums)
{
    bool ok = true;
    struct coll_cut cut;
    cut_of(r->c, &cut);
    for (int32_t k = 0; k < 3 && ok; k++) {
        float x[4] = {0}, y[2]; /* two parts where ranks are three */
        fill(r, s, 10 * k, false);
        fake_device_replay(r->dev);
        ok = !trn_coll_replayed(r->c, sums, LONG_US) && poll_until_idle(r) && fill(r, s, 10 * k, true);
        if (k == 1) ok = ok && !trn_coll_all_reduce(r->c, &cut, x, y, 2, LONG_US);
    }
    return ok && r->c->stats.n_ops == 3 * sums->n_ops + 1 && r->c->seq == r->c->stats.n_ops;
}

/* Told, not waited for; given up in time, with the words of a sum that is told by itself; the device is free. */
static bool nobody_comes(struct rank *r, const struct coll_stats *sums)
{
    char who[64];
    enum err rc = OK;
    int64_t t = clock_us();
    fake_device_replay(r->dev);
    if (trn_coll_replayed(r->c, sums, 300000) || clock_us() - t > 200000) return false;
    while (!rc && clock_us() - t < LONG_US) rc = trn_coll_poll(r->c);
    snprintf(who, sizeof who, "rank %d has not arrived within 0.3 s", r->c->size - 1);
    if (rc != ERR_DEADLINE || !strstr(err_text(), who) || !strstr(err_text(), "nccl all_reduce #17")) return false;
    if (clock_us() - t < 300000 || clock_us() - t > 10000000) return false;
    if (r->conf.device->download(r->conf.device->user, NULL, NULL, 0)) return false;
    fake_device_replay(r->dev); /* it is forgotten */
    return trn_coll_replayed(r->c, sums, 300000) == ERR_DEADLINE && strstr(err_text(), "refused");
}

static bool steps_until_the_last_stays_away(struct rank *r)
{
    struct coll_stats sums;
    struct step s;
    if (!r->c || !trn_coll_records(r->c)) return false;
    for (int32_t i = 0; i < STEP_SUMS; i++) {
        s.x[i] = xcalloc((size_t)(4 * step_lengths[i]), sizeof(float));
        s.y[i] = xcalloc((size_t)step_lengths[i], sizeof(float));
    }
    trn_coll_record_begin(r->c);
    fake_device_record(r->dev);
    bool ok = !tell_step(r, &s);
    fake_device_keep(r->dev);
    trn_coll_record_end(r->c, &sums);
    ok = ok && sums.n_ops == STEP_SUMS && !r->c->stats.n_ops && !r->c->seq && poll_until_idle(r);
    ok = ok && replays(r, &s, &sums) && poll_until_idle(r);
    if (r->c->rank < r->c->size - 1) ok = ok && nobody_comes(r, &sums);
    ok = ok && trn_coll_barrier(r->host, LONG_US) == OK;
    if (!ok) fprintf(stderr, "rank %d\n", r->c->rank);
    trn_coll_close(r->c); /* what it was recorded in is forgotten first: the library would wait for it */
    r->c = NULL;
    for (int32_t i = 0; i < STEP_SUMS; i++) free(s.x[i]), free(s.y[i]);
    return ok;
}

static void sums_are_recorded_and_replayed(void **state)
{
    (void)state;
    struct rank ranks[MOST];
    for (int32_t n = 2; n <= MOST; n++) assert_true(run(&(struct how){.n = n, .async = true}, steps_until_the_last_stays_away, NULL, ranks));
}

/* ---- a library that fails ---- */

static const char *said_by_1;

static bool fails_at_1(struct rank *r)
{
    struct coll_cut cut;
    float x[2] = {1, 2}, y[2];
    enum err rc = OK;
    if (!r->c) return false;
    cut_of(r->c, &cut);
    for (int32_t k = 0; k < 5 && !rc; k++) {
        rc = trn_coll_all_reduce(r->c, &cut, x, y, 2, 300000);
        int64_t t = clock_us();
        if (!rc) rc = trn_coll_poll(r->c);
        while (!rc && trn_coll_now(r->c).op && clock_us() - t < LONG_US) rc = trn_coll_poll(r->c);
    }
    if (r->conf.device->download(r->conf.device->user, y, x, sizeof y)) return false; /* nothing works on y any more */
    if (r->c->rank == 1 && (rc != ERR_PEER_LOST || !strstr(err_text(), said_by_1) || !strstr(err_text(), "as the test ordered"))) return false;
    if (r->c->rank != 1 && rc != ERR_DEADLINE) return false; /* nobody told them */
    return trn_coll_barrier(r->host, LONG_US) == OK;
}

static void the_librarys_failures_end_the_group(void **state)
{
    (void)state;
    struct rank ranks[MOST];
    for (int async = 0; async < 2; async++) {
        setenv("NCCL_STUB", "fail:1:6", 1); /* three at open */
        said_by_1 = "all_reduce failed: unhandled system error";
        assert_true(run(&(struct how){.n = 4, .async = async}, fails_at_1, NULL, ranks));
        setenv("NCCL_STUB", "async:1:5", 1);
        said_by_1 = "all_reduce failed: remote process exited";
        assert_true(run(&(struct how){.n = 4, .async = async}, fails_at_1, NULL, ranks));
        unsetenv("NCCL_STUB");
    }
}

/* ---- not exact ---- */

static bool sums_nearly(struct rank *r)
{
    enum { LARGE = 20000 };
    struct coll_cut cut;
    if (!r->c) return false;
    cut_of(r->c, &cut);
    cut.bounds[1] = 1; /* one subtree, and several */
    struct tree_node nodes[TREE_MAX_NODES];
    int32_t k = tree_maximal(cut.n_leaf, cut.bounds[r->c->rank], cut.bounds[r->c->rank + 1], nodes);
    float *x = xmalloc((size_t)k * LARGE * sizeof *x), *y = xmalloc(LARGE * sizeof *y), *first = xmalloc(LARGE * sizeof *y);
    for (int32_t p = 0; p < k; p++)
        for (int64_t i = 0; i < LARGE; i++) x[p * LARGE + i] = tree(nodes[p].a, nodes[p].b, i, 0);
    bool ok = trn_coll_all_reduce(r->c, &cut, x, y, LARGE, LONG_US) == OK, other = false;
    for (int64_t i = 0; i < LARGE && ok; i++) {
        float want = tree(0, cut.n_leaf, i, 0);
        other |= y[i] != want;
        ok = fabsf(y[i] - want) < 0.01f;
    }
    memcpy(first, y, LARGE * sizeof *y);
    ok = ok && other && trn_coll_broadcast(r->host, first, LARGE * sizeof *y, 0, LONG_US) == OK && !memcmp(first, y, LARGE * sizeof *y);
    free(x);
    free(y);
    free(first);
    return ok;
}

static void not_exact_is_the_librarys_own_sum(void **state)
{
    (void)state;
    struct rank ranks[MOST];
    assert_true(run(&(struct how){.n = 3, .fast = true, .scratch_bytes = 16 << 10}, sums_nearly, NULL, ranks));
}

/* ---- processes ---- */

static int process(const char *name, int32_t rank, int32_t n)
{
    struct rank r = {.dev = fake_device_open(rank ? "0000:02:00.0" : "0000:01:00.0"), .body = many_in_flight};
    alarm(100);
    if (trn_coll_shm_open(&r.host, name, rank, n, OPEN_US)) return 1;
    r.conf = (struct trn_nccl_conf){.host = r.host, .device = fake_device_ops(r.dev), .exact = true, .timeout_us = OPEN_US};
    rank_main(&r);
    fake_device_close(r.dev);
    return r.ok ? 0 : 1;
}

static void ranks_may_be_processes(void **state)
{
    (void)state;
    char name[64];
    int status;
    pid_t pid[2];
    snprintf(name, sizeof name, "test%d-nccl", (int)getpid());
    fflush(NULL);
    for (int32_t r = 0; r < 2; r++)
        if (!(pid[r] = fork())) _exit(process(name, r, 2));
    for (int32_t r = 0; r < 2; r++) {
        assert_int_equal(waitpid(pid[r], &status, 0), pid[r]);
        assert_true(WIFEXITED(status) && !WEXITSTATUS(status));
    }
}

/* ---- main ---- */

static struct cell cells[256];
static struct CMUnitTest tests[300];
static size_t n_tests;

static void add_suite(struct how how, const char *name)
{
    for (int i = 0; i < coll_n_cases; i++) {
        if (how.n < coll_cases[i].min_size || coll_cases[i].sees_loss) continue;
        struct cell *x = &cells[n_tests];
        *x = (struct cell){.how = how, .what = &coll_cases[i]};
        snprintf(x->name, sizeof x->name, "%s n=%d: %s", name, how.n, coll_cases[i].name);
        tests[n_tests++] = (struct CMUnitTest){x->name, suite_case, NULL, NULL, x};
    }
}

int main(int argc, char **argv)
{
    static const struct CMUnitTest own[] = {
        cmocka_unit_test(without_the_library_all_go_on), /* before it is open */
        cmocka_unit_test(ranks_may_be_processes),
        cmocka_unit_test(ranks_that_cannot_are_named),
        cmocka_unit_test(a_beginning_that_fails_is_no_harm),
        cmocka_unit_test(cards_pack_what_leaves_their_host),
        cmocka_unit_test(what_is_told_is_done_later_in_order),
        cmocka_unit_test(a_rank_that_stays_away_is_given_up_in_time), cmocka_unit_test(a_rest_is_no_wait),
        cmocka_unit_test(sums_are_recorded_and_replayed),
        cmocka_unit_test(the_librarys_failures_end_the_group),
        cmocka_unit_test(not_exact_is_the_librarys_own_sum),
    };
    seed = test_seed();
    for (size_t i = 0; i < COUNT_OF(own); i++) tests[n_tests++] = own[i];
    for (int32_t n = 2; n <= MOST; n++) add_suite((struct how){.n = n}, "nccl");
    add_suite((struct how){.n = 3, .scratch_bytes = 64 << 10}, "nccl, 64 KiB of room");
    for (int i = 0; i < coll_n_cases; i++) { /* sums alone go by the cards */
        static char names[64][100];
        if (strncmp(coll_cases[i].name, "reduce_", 7)) continue;
        snprintf(names[i], sizeof names[i], "over hosts: %s", coll_cases[i].name);
        tests[n_tests++] = (struct CMUnitTest){names[i], hosts_case, NULL, NULL, (void *)(uintptr_t)&coll_cases[i]};
    }
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return _cmocka_run_group_tests("nccl", tests, n_tests, NULL, NULL);
}
