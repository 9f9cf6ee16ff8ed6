/* test_direct.c: cards that exchange without a library (coll_direct.c), each rank a thread with a device of its own, or sharing one: sums have the
 * tree's bits for every cut and length, by peers' memory and by the host's; what is gathered; ranks that cannot; a rank that stays away;
 * recordings. TESSERA_CUDA_PLUGIN says which plug-in: the emulated one (tests/cuda_emu), whose kernels of several threads run side by side, or
 * the real one (label gpu); without a device the test is skipped with the reason. */
#include "base/clock.h"
#include "base/rng.h"
#include "engine/backend/backend.h"
#include "transport/coll_open.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MOST = 8, LONG_US = 60000000 };

struct rank {
    int32_t rank, size;
    struct trn_coll *host, *c;
    struct eng_backend *be;
    struct trn_device dev;
    bool peers, without, twice; /* twice: in two shots */
    char why[TRN_NCCL_WHY];
    bool (*body)(struct rank *r);
    bool ok;
};

static uint64_t seed = 1;
static int32_t n_devices;

static void *rank_main(void *arg)
{
    struct rank *r = arg;
    char name[24];
    snprintf(name, sizeof name, "cuda:%d", r->rank % n_devices);
    r->ok = !eng_backend_open(&r->be, name, "ref") && !eng_backend_device(r->be, &r->dev);
    struct trn_direct_conf conf = {.host = r->host, .device = r->without ? NULL : &r->dev, .by_peers = r->peers, .timeout_us = LONG_US};
    r->ok = r->ok && !trn_coll_direct_open(&r->c, &conf, r->why);
    if (r->c && r->twice) trn_coll_direct_two_shots(r->c, 0);
    r->ok = r->ok && r->body(r);
    if (!r->ok) fprintf(stderr, "rank %d: %s; why: %s\n", r->rank, err_text(), r->why);
    trn_coll_close(r->c);
    eng_backend_close(r->be);
    trn_coll_close(r->host);
    return NULL;
}

static void run_by(int32_t n, bool peers, bool two_shots, int32_t without, bool (*body)(struct rank *r), struct rank out[MOST])
{
    struct trn_coll *host[MOST];
    pthread_t t[MOST];
    bool ok = true;
    assert_int_equal(trn_coll_local_open(host, n), OK);
    for (int32_t r = 0; r < n; r++) {
        out[r] = (struct rank){.rank = r, .size = n, .host = host[r], .peers = peers, .twice = two_shots, .without = r == without, .body = body};
        pthread_create(&t[r], NULL, rank_main, &out[r]);
    }
    for (int32_t r = 0; r < n; r++) {
        pthread_join(t[r], NULL);
        ok &= out[r].ok;
    }
    assert_true(ok);
}

static void run(int32_t n, bool peers, int32_t without, bool (*body)(struct rank *r), struct rank out[MOST]) { run_by(n, peers, false, without, body, out); }

/* ---- sums ---- */

/* A cut of n_leaf leaves that all ranks draw alike; some ranks may have none. */
static struct coll_cut cut_of(const struct rank *r, int32_t n_leaf, uint64_t key)
{
    struct coll_cut cut = {.n_leaf = n_leaf};
    for (int32_t i = 1; i < r->size; i++) {
        int32_t even = n_leaf * i / r->size;
        cut.bounds[i] = key ? MAX(cut.bounds[i - 1], MIN(n_leaf, even + (int32_t)(rng_at(key, (uint64_t)i, 0, 0) % 5) - 2)) : even;
    }
    cut.bounds[r->size] = n_leaf;
    return cut;
}

/* One sum of n values: the bits of the host's own. in_place: out is mine. */
static bool sum_is_the_trees(struct rank *r, const struct coll_cut *cut, int64_t n, uint64_t key, bool in_place)
{
    struct tree_node nodes[TREE_MAX_NODES];
    int32_t k = tree_maximal(cut->n_leaf, cut->bounds[r->rank], cut->bounds[r->rank + 1], nodes);
    size_t bytes = (size_t)(MAX(k, 1) * n) * sizeof(float);
    float *mine = xmalloc(bytes), *want = xmalloc((size_t)n * sizeof(float)), *got = xmalloc((size_t)n * sizeof(float));
    void *dmine, *dout;
    for (int64_t i = 0; i < MAX(k, 1) * n; i++) mine[i] = (float)(rng_at(key, (uint64_t)r->rank, (uint64_t)i, 1) >> 40) * 0x1p-12f - 2000.0f;
    bool ok = !trn_coll_all_reduce(r->host, cut, mine, want, n, LONG_US);
    ok = ok && !eng_backend_alloc(r->be, ENG_MEMORY_STEP, &dmine, (int64_t)bytes) && !eng_backend_alloc(r->be, ENG_MEMORY_STEP, &dout, n * 4);
    if (ok && in_place && k == 1) dout = dmine;
    ok = ok && !eng_backend_upload(r->be, dmine, mine, (int64_t)bytes) && !trn_coll_all_reduce(r->c, cut, dmine, dout, n, LONG_US);
    ok = ok && !eng_backend_download(r->be, got, dout, n * 4) && !memcmp(got, want, (size_t)n * sizeof(float));
    if (!ok) fprintf(stderr, "rank %d of %d: n %lld, %d leaves\n", r->rank, r->size, (long long)n, cut->n_leaf);
    free(mine);
    free(want);
    free(got);
    return ok;
}

static bool sums(struct rank *r)
{
    static const int64_t lengths[] = {1, 3, 255, 1024, 1025, 5000, EXCHANGE_VALUES * EXCHANGE_BLOCKS + 77};
    static const int32_t leaves[] = {8, 16, 24, 57, 128};
    bool ok = r->c != NULL;
    for (size_t i = 0; i < COUNT_OF(lengths) && ok; i++)
        for (size_t k = 0; k < COUNT_OF(leaves) && ok; k++) {
            if (lengths[i] > 10000 && k % 3) continue;
            uint64_t key = seed ^ (i << 8 | k);
            struct coll_cut even = cut_of(r, leaves[k], 0), other = cut_of(r, leaves[k], key);
            ok = sum_is_the_trees(r, &even, lengths[i], key, k == 0) && sum_is_the_trees(r, &other, lengths[i], key + 1, false);
        }
    return ok && !trn_coll_barrier(r->c, LONG_US);
}

static void sums_have_the_trees_bits(void **state)
{
    static const int32_t sizes[] = {2, 3, 4, 8};
    (void)state;
    struct rank ranks[MOST];
    for (size_t i = 0; i < COUNT_OF(sizes) && sizes[i] <= MAX(n_devices, 4); i++) /* on one card the blocks of more do not fit at once */
        for (int way = 0; way < 4; way++) run_by(sizes[i], way % 2, way / 2, -1, sums, ranks);
}

/* Many without a wait, each rank beginning when it likes: no turn overtakes another. */
static bool many_in_flight(struct rank *r)
{
    enum { OPS = 3 * TRN_DEVICE_MARKS, N = 70 };
    float x[N], y[N];
    void *d, *out[OPS];
    struct coll_cut cut = {.n_leaf = r->size};
    bool ok = r->c != NULL;
    for (int32_t i = 0; i <= r->size; i++) cut.bounds[i] = i;
    for (int32_t k = 0; k < OPS && ok; k++) {
        for (int32_t i = 0; i < N; i++) x[i] = (float)(r->rank * 1000 + k * 3 + i);
        ok = !eng_backend_alloc(r->be, ENG_MEMORY_STEP, &d, sizeof x) && !eng_backend_alloc(r->be, ENG_MEMORY_STEP, &out[k], sizeof y) &&
             !eng_backend_upload(r->be, d, x, sizeof x) && !trn_coll_all_reduce(r->c, &cut, d, out[k], k % N + 1, LONG_US);
        if (k % 50 == r->rank) clock_sleep_us(3000);
    }
    for (int32_t k = 0; k < OPS && ok; k++) {
        ok = !eng_backend_download(r->be, y, out[k], (k % N + 1) * (int64_t)sizeof *y);
        for (int32_t i = 0; i <= k % N && ok; i++) ok = y[i] == (float)(500 * r->size * (r->size - 1) + r->size * (k * 3 + i));
    }
    return ok && !trn_coll_poll(r->c) && !trn_coll_now(r->c).op;
}

static void sums_need_not_be_waited_for(void **state)
{
    (void)state;
    struct rank ranks[MOST];
    run(3, true, -1, many_in_flight, ranks);
    run(3, false, -1, many_in_flight, ranks);
    run_by(4, true, true, -1, many_in_flight, ranks);
    run_by(3, false, true, -1, many_in_flight, ranks);
}

/* ---- the rest ---- */

static bool gathers(struct rank *r)
{
    static const int64_t lens[][4] = {{5, 5, 5, 5}, {0, 3000, 1, 1024}, {70000, 0, 0, 2}};
    bool ok = r->c != NULL;
    for (size_t k = 0; k < COUNT_OF(lens) && ok; k++) {
        int64_t bytes[COLL_MAX_RANKS], sum = 0, at = 0;
        for (int32_t i = 0; i < r->size; i++) {
            if (i < r->rank) at += lens[k][i];
            sum += lens[k][i], bytes[i] = lens[k][i] * 4;
        }
        float *x = xmalloc((size_t)sum * 4), *y = xmalloc((size_t)sum * 4);
        void *dx, *dy;
        for (int64_t i = 0; i < sum; i++) x[i] = (float)(i * 7);
        ok = !eng_backend_alloc(r->be, ENG_MEMORY_STEP, &dx, sum * 4) && !eng_backend_alloc(r->be, ENG_MEMORY_STEP, &dy, sum * 4) &&
             !eng_backend_upload(r->be, dx, x + at, bytes[r->rank]) && !trn_coll_all_gather(r->c, dx, bytes, dy, LONG_US) &&
             !eng_backend_download(r->be, y, dy, sum * 4) && !memcmp(x, y, (size_t)sum * 4);
        if (ok && r->rank == 1) ok = !eng_backend_upload(r->be, dy, x, 20);
        ok = ok && !trn_coll_broadcast(r->c, dy, 20, 1, LONG_US) && !eng_backend_download(r->be, y, dy, 20) && !memcmp(x, y, 20);
        free(x);
        free(y);
    }
    return ok;
}

static void values_are_gathered(void **state)
{
    (void)state;
    struct rank ranks[MOST];
    run(4, true, -1, gathers, ranks);
    run(4, false, -1, gathers, ranks);
}

static bool nothing_opened(struct rank *r) { return !r->c && r->why[0] && !trn_coll_barrier(r->host, LONG_US); }

static void ranks_that_cannot_are_named(void **state)
{
    (void)state;
    struct rank ranks[MOST];
    run(3, true, 1, nothing_opened, ranks);
    for (int32_t r = 0; r < 3; r++) assert_string_equal(ranks[r].why, "rank 1: it computes on no card");
    if (!strstr(getenv("TESSERA_CUDA_PLUGIN"), "emu")) return; /* only there cards can be told not to reach each other */
    setenv("CUDA_EMU_APART", "1", 1);
    run(2, true, -1, nothing_opened, ranks);
    run(2, false, -1, gathers, ranks); /* the host's memory they reach all the same */
    unsetenv("CUDA_EMU_APART");
}

/* The last rank stops coming. The emulated kernel is run by who tells it: so it is another thread that looks, as the watch of a real wait is. */
static void *poll_main(void *arg)
{
    struct rank *r = arg;
    enum err e = OK;
    for (int64_t t = clock_us(); !e && clock_us() - t < LONG_US; clock_sleep_us(1000)) e = trn_coll_poll(r->c);
    return e == ERR_DEADLINE && strstr(err_text(), "has not arrived within 0.3 s") ? r : NULL;
}

static bool the_last_stays_away(struct rank *r)
{
    struct coll_cut cut = cut_of(r, 2 * r->size, 0);
    pthread_t t;
    void *d, *saw = r;
    bool ok = r->c && !eng_backend_alloc(r->be, ENG_MEMORY_STEP, &d, 64);
    if (ok && r->rank < r->size - 1) {
        pthread_create(&t, NULL, poll_main, r);
        enum err left = trn_coll_all_reduce(r->c, &cut, d, d, 8, 300000); /* comes back: the kernel has left */
        pthread_join(t, &saw);
        ok = !left && saw && trn_coll_all_reduce(r->c, &cut, d, d, 8, 300000) == ERR_DEADLINE && strstr(err_text(), "refused");
    }
    return ok && !trn_coll_barrier(r->host, LONG_US);
}

static void a_rank_that_stays_away_is_given_up_in_time(void **state)
{
    (void)state;
    struct rank ranks[MOST];
    run(3, false, -1, the_last_stays_away, ranks);
}

/* Sums of one shot and of two take turns in the same rooms. */
static bool both_in_turn(struct rank *r)
{
    bool ok = r->c != NULL;
    for (int32_t k = 0; k < 12 && ok; k++) {
        struct coll_cut cut = cut_of(r, 16, 0);
        trn_coll_direct_two_shots(r->c, k % 3 ? 0 : INT64_MAX);
        ok = sum_is_the_trees(r, &cut, 1 + 700 * (k % 5), seed + (uint64_t)k, false);
    }
    return ok;
}

static void one_and_two_shots_share_their_rooms(void **state)
{
    (void)state;
    struct rank ranks[MOST];
    run(4, true, -1, both_in_turn, ranks);
    run(4, false, -1, both_in_turn, ranks);
}

/* A recording of two sums, told three times: each time they are of what lies there then. */
static bool replays(struct rank *r)
{
    enum { N = 1500 };
    struct coll_cut cut = {.n_leaf = r->size};
    struct coll_stats part;
    float x[N], y[N];
    void *a, *b;
    int32_t n_kept;
    bool ok = r->c && trn_coll_records(r->c), done;
    for (int32_t i = 0; i <= r->size; i++) cut.bounds[i] = i;
    ok = ok && !eng_backend_alloc(r->be, ENG_MEMORY_STEP, &a, sizeof x) && !eng_backend_alloc(r->be, ENG_MEMORY_STEP, &b, sizeof x);
    if (!ok || !eng_backend_record(r->be)) return false;
    trn_coll_record_begin(r->c);
    ok = !trn_coll_all_reduce(r->c, &cut, a, b, N, LONG_US) && !trn_coll_all_reduce(r->c, &cut, b, a, N, LONG_US);
    trn_coll_record_end(r->c, &part);
    ok = ok && eng_backend_keep(r->be, 5, &n_kept) && n_kept >= 2 && part.n_ops == 2 && part.bytes_sent == 2 * sizeof x && !r->c->stats.n_ops && !r->c->seq;
    for (int32_t k = 0; k < 3 && ok; k++) {
        for (int32_t i = 0; i < N; i++) x[i] = (float)(i + k + r->rank);
        ok = !eng_backend_upload(r->be, a, x, sizeof x) && !eng_backend_replay(r->be, 5, &done) && done && !trn_coll_replayed(r->c, &part, LONG_US) &&
             !eng_backend_download(r->be, y, a, sizeof y) && !trn_coll_poll(r->c) && !trn_coll_now(r->c).op;
        for (int32_t i = 0; i < N && ok; i++) ok = y[i] == (float)(r->size * (r->size * (i + k) + r->size * (r->size - 1) / 2));
    }
    return ok && r->c->seq == 6 && r->c->stats.n_ops == 6;
}

static void sums_are_recorded_and_told_again(void **state)
{
    (void)state;
    struct rank ranks[MOST];
    run(2, true, -1, replays, ranks);
    run(4, false, -1, replays, ranks);
    run_by(4, true, true, -1, replays, ranks);
}

/* Two communicators in one, by size: a recording has only the small one's operations, gathers and long sums among them, and a replay counts as
 * theirs; what is told by itself goes by the length. */
static bool sized(struct rank *r)
{
    enum { N = 700, L = 70000, KEY = 6 };
    struct trn_coll *small = r->c, *large = NULL;
    struct trn_direct_conf conf = {.host = r->host, .device = &r->dev, .timeout_us = LONG_US};
    struct coll_cut cut = {.n_leaf = r->size};
    struct coll_stats part;
    int64_t bytes[COLL_MAX_RANKS], all_bytes = 0, each[] = {20, 4 * N, 4};
    int32_t n_kept;
    float *x = xcalloc(L, 4), *y = xcalloc(L, 4);
    void *a, *b, *all;
    bool done, ok = small && !trn_coll_direct_open(&large, &conf, r->why) && large;
    for (int32_t i = 0; i < r->size; i++) cut.bounds[i + 1] = i + 1, bytes[i] = each[i], all_bytes += each[i];
    if (ok) r->c = trn_coll_by_size(small, large);
    ok = ok && trn_coll_records(r->c) && !eng_backend_alloc(r->be, ENG_MEMORY_STEP, &a, 4 * L) && !eng_backend_alloc(r->be, ENG_MEMORY_STEP, &b, 4 * L) &&
         !eng_backend_alloc(r->be, ENG_MEMORY_STEP, &all, all_bytes) && eng_backend_record(r->be);
    if (ok) {
        trn_coll_record_begin(r->c);
        ok = !trn_coll_all_reduce(r->c, &cut, a, b, L, LONG_US) && !trn_coll_all_gather(r->c, b, bytes, all, LONG_US);
        trn_coll_record_end(r->c, &part);
        ok = ok && eng_backend_keep(r->be, KEY, &n_kept) && part.n_ops == 2 && !small->seq && !large->seq;
    }
    for (int32_t k = 0; k < 3 && ok; k++) {
        for (int32_t i = 0; i < L; i++) x[i] = (float)(i % 1000 + k + r->rank);
        ok = !eng_backend_upload(r->be, a, x, 4 * L) && !eng_backend_replay(r->be, KEY, &done) && done && !trn_coll_replayed(r->c, &part, LONG_US) &&
             !eng_backend_download(r->be, y, b, 4 * L) && !trn_coll_poll(r->c) && !trn_coll_now(r->c).op;
        for (int32_t i = 0; i < L; i++) x[i] = (float)(r->size * (i % 1000 + k) + r->size * (r->size - 1) / 2);
        ok = ok && !memcmp(x, y, 4 * L) && !eng_backend_download(r->be, y, all, all_bytes);
        for (int32_t i = 0, to = 0; i < r->size && ok; to += (int32_t)bytes[i++]) ok = !memcmp((char *)y + to, x, (size_t)bytes[i]);
    }
    ok = ok && small->seq == 6 && !large->seq && r->c->seq == 6;
    ok = ok && !trn_coll_all_gather(r->c, b, bytes, all, LONG_US) && small->seq == 7 && !trn_coll_all_reduce(r->c, &cut, a, b, N, LONG_US) && small->seq == 8 &&
         !trn_coll_all_reduce(r->c, &cut, a, b, L, LONG_US) && large->seq == 1 && !eng_backend_download(r->be, y, all, all_bytes);
    for (int32_t i = 0, to = 0; i < r->size && ok; to += (int32_t)bytes[i++]) ok = !memcmp((char *)y + to, x, (size_t)bytes[i]);
    free(x);
    free(y);
    return ok;
}

static void a_choice_by_size_records_the_small_one_alone(void **state)
{
    (void)state;
    struct rank ranks[MOST];
    run(3, true, -1, sized, ranks);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_have_the_trees_bits),
        cmocka_unit_test(sums_need_not_be_waited_for),
        cmocka_unit_test(one_and_two_shots_share_their_rooms),
        cmocka_unit_test(values_are_gathered),
        cmocka_unit_test(ranks_that_cannot_are_named),
        cmocka_unit_test(a_rank_that_stays_away_is_given_up_in_time),
        cmocka_unit_test(sums_are_recorded_and_told_again),
        cmocka_unit_test(a_choice_by_size_records_the_small_one_alone),
    };
    struct plugin_device_info info[MOST];
    char why[PLUGIN_TEXT];
    eng_backend_devices(info, MOST, &n_devices, why);
    if (!n_devices) {
        printf("SKIP: %s\n", why);
        return 77;
    }
    if (getenv("TEST_SEED")) seed = strtoull(getenv("TEST_SEED"), NULL, 0);
    return cmocka_run_group_tests_name("direct", tests, NULL, NULL);
}
