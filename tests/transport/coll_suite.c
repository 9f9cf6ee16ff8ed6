/* coll_suite.c: see coll_suite.h. */
#include "tests/transport/coll_suite.h"

#include "base/clock.h"
#include "base/rng.h"
#include "transport/coll_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LONG_US = 30000000 };

#define CHECK(x)                                                                                   \
    do {                                                                                           \
        if (!(x)) {                                                                                \
            fprintf(stderr, "%s:%d: rank %d of %d (%s): not so: %s; last sentence: %s\n",          \
                    __FILE__, __LINE__, c->rank, c->size, c->ops->name, #x, err_text());           \
            return false;                                                                          \
        }                                                                                          \
    } while (0)

/* ---- all_reduce ---- */

/* Values whose sums depend on the order: magnitudes spread over 2^-12..2^11. */
static float leaf_value(uint64_t seed, int32_t leaf, int64_t i)
{
    uint64_t x = rng_mix(seed ^ ((uint64_t)leaf << 40) ^ (uint64_t)i);
    float m = 1.0f + (float)(x >> 41) * 0x1p-23f;
    float scale = (float)(1 << (x & 15)) * ((x & 16) ? 0x1p-8f : 0x1p-12f);
    return (x & 32) ? m * scale : -m * scale;
}

static float node_value(uint64_t seed, int32_t a, int32_t b, int64_t i)
{
    if (b - a == 1) return leaf_value(seed, a, i);
    int32_t m = tree_split(a, b);
    return node_value(seed, a, m, i) + node_value(seed, m, b, i);
}

static void random_cut(struct coll_cut *cut, int32_t size, int32_t n_leaf, uint64_t seed,
                       bool aligned)
{
    cut->n_leaf = n_leaf;
    for (int32_t r = 0; r <= size; r++)
        cut->bounds[r] = aligned
                             ? (int32_t)((int64_t)n_leaf * r / size)
                             : (int32_t)(rng_at(seed, 1, (uint64_t)r, 0) % ((uint64_t)n_leaf + 1));
    cut->bounds[0] = 0;
    cut->bounds[size] = n_leaf;
    for (int32_t i = 1; i < size;
         i++) /* sort the inner bounds; equal ones leave a rank without leaves */
        for (int32_t j = i; j > 1 && cut->bounds[j - 1] > cut->bounds[j]; j--) {
            int32_t t = cut->bounds[j];
            cut->bounds[j] = cut->bounds[j - 1];
            cut->bounds[j - 1] = t;
        }
}

static bool one_reduce(struct trn_coll *c, const struct coll_cut *cut, int64_t n, uint64_t seed,
                       bool in_place)
{
    struct tree_node nodes[TREE_MAX_NODES];
    int32_t k = tree_maximal(cut->n_leaf, cut->bounds[c->rank], cut->bounds[c->rank + 1], nodes);
    float *mine = xmalloc((size_t)(k * n) * 4 + 1),
          *out = k == 1 && in_place ? mine : xmalloc((size_t)n * 4 + 1);
    float *copy = xmalloc((size_t)(k * n) * 4 + 1);
    int64_t stride =
        cut->n_leaf * n > 100000 ? 61 : 1; /* large ones: judge a sample, serial sums are slow */
    for (int32_t p = 0; p < k; p++)
        for (int64_t i = 0; i < n; i++)
            mine[p * n + i] = i % stride ? (float)i : node_value(seed, nodes[p].a, nodes[p].b, i);
    memcpy(copy, mine, (size_t)(k * n) * 4);
    bool ok = trn_coll_all_reduce(c, cut, mine, out, n, LONG_US) == OK;
    for (int64_t i = 0; ok && i < n; i += stride) {
        float want = node_value(seed, 0, cut->n_leaf, i);
        ok = !memcmp(&want, &out[i], 4);
        if (!ok)
            fprintf(stderr,
                    "rank %d of %d (%s): n %lld leaves %d, element %lld is %a, the tree gives %a\n",
                    c->rank, c->size, c->ops->name, (long long)n, cut->n_leaf, (long long)i,
                    (double)out[i], (double)want);
    }
    if (ok && out != mine) ok = !memcmp(copy, mine, (size_t)(k * n) * 4);
    if (out != mine) free(out);
    free(mine);
    free(copy);
    return ok;
}

static bool reduce_is_the_tree_for_random_cuts(struct trn_coll *c, struct trn_coll *sync,
                                               uint64_t seed)
{
    (void)sync;
    for (uint64_t i = 0; i < 60; i++) {
        uint64_t x = rng_at(seed, 2, i, 0);
        struct coll_cut cut;
        random_cut(&cut, c->size, 1 + (int32_t)(x % 130), x, i % 3 == 0);
        CHECK(one_reduce(c, &cut, 1 + (int64_t)(rng_mix(x) % 1000), x, i % 2));
    }
    return true;
}

static bool reduce_is_the_tree_for_large_vectors(struct trn_coll *c, struct trn_coll *sync,
                                                 uint64_t seed)
{
    (void)sync;
    static const int64_t sizes[] = {4095, 16384, 16385, 65537, 131072, 300001};
    for (size_t i = 0; i < COUNT_OF(sizes); i++)
        for (uint64_t k = 0; k < 4; k++) {
            uint64_t x = rng_at(seed, 3, i, k);
            struct coll_cut cut;
            random_cut(&cut, c->size, k == 3 ? c->size : 16, x, k % 2 == 0);
            CHECK(one_reduce(c, &cut, sizes[i], x, k >= 2));
        }
    return true;
}

static bool reduce_of_nothing_is_nothing(struct trn_coll *c, struct trn_coll *sync, uint64_t seed)
{
    (void)sync;
    struct coll_cut cut;
    random_cut(&cut, c->size, 4, seed, true);
    CHECK(one_reduce(c, &cut, 0, seed, false));
    CHECK(one_reduce(c, &cut, 1, seed, false));
    return true;
}

static bool reduce_equals_reduce_parts(struct trn_coll *c, struct trn_coll *sync, uint64_t seed)
{
    (void)sync;
    enum { N = 333 };
    struct coll_cut cut;
    random_cut(&cut, c->size, 37, seed, false);
    struct tree_node nodes[TREE_MAX_NODES];
    float *parts = xmalloc(37 * N * 4), *want = xmalloc(N * 4), *out = xmalloc(N * 4), *at = parts,
          *mine = parts;
    for (int32_t r = 0; r < c->size; r++) {
        int32_t k = tree_maximal(cut.n_leaf, cut.bounds[r], cut.bounds[r + 1], nodes);
        if (r == c->rank) mine = at;
        for (int32_t p = 0; p < k; p++, at += N)
            for (int64_t i = 0; i < N; i++) at[i] = node_value(seed, nodes[p].a, nodes[p].b, i);
    }
    trn_coll_reduce_parts(&cut, c->size, parts, want, N);
    enum err rc = trn_coll_all_reduce(c, &cut, mine, out, N, LONG_US);
    bool same = !rc && !memcmp(want, out, N * 4);
    free(parts);
    free(want);
    free(out);
    CHECK(same);
    return true;
}

/* ---- the other collectives ---- */

static unsigned char byte_at(uint64_t seed, int32_t rank, int64_t i)
{
    return (unsigned char)(rng_mix(seed + (uint64_t)rank * 7919 + ((uint64_t)i >> 3)) >>
                           (8 * (i & 7)));
}

static void fill(unsigned char *p, uint64_t seed, int32_t rank, int64_t n)
{
    for (int64_t i = 0; i < n; i++) p[i] = byte_at(seed, rank, i);
}

static bool is_filled(const unsigned char *p, uint64_t seed, int32_t rank, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (p[i] != byte_at(seed, rank, i)) return false;
    return true;
}

static bool gather_takes_unequal_and_empty_shares(struct trn_coll *c, struct trn_coll *sync,
                                                  uint64_t seed)
{
    (void)sync;
    for (uint64_t k = 0; k < 40; k++) {
        int64_t bytes[COLL_MAX_RANKS], total = 0, max = k % 10 == 9 ? 700000 : 3000;
        for (int32_t r = 0; r < c->size; r++) {
            uint64_t x = rng_at(seed, 4, k, (uint64_t)r);
            bytes[r] = x % 4 ? (int64_t)(rng_mix(x) % (uint64_t)max) : 0;
            total += bytes[r];
        }
        unsigned char *mine = xmalloc((size_t)bytes[c->rank] + 1),
                      *all = xmalloc((size_t)total + 1), *at = all;
        fill(mine, seed + k, c->rank, bytes[c->rank]);
        bool ok = trn_coll_all_gather(c, mine, bytes, all, LONG_US) == OK;
        for (int32_t r = 0; ok && r < c->size; at += bytes[r++])
            ok = is_filled(at, seed + k, r, bytes[r]);
        free(mine);
        free(all);
        CHECK(ok);
    }
    return true;
}

static bool gather_may_be_in_place(struct trn_coll *c, struct trn_coll *sync, uint64_t seed)
{
    (void)sync;
    int64_t bytes[COLL_MAX_RANKS];
    unsigned char *all = xmalloc(1000 * (size_t)c->size);
    for (int32_t r = 0; r < c->size; r++) bytes[r] = 1000;
    fill(all + 1000 * c->rank, seed, c->rank, 1000);
    bool ok = trn_coll_all_gather(c, all + 1000 * c->rank, bytes, all, LONG_US) == OK;
    for (int32_t r = 0; ok && r < c->size; r++) ok = is_filled(all + 1000 * r, seed, r, 1000);
    free(all);
    CHECK(ok);
    return true;
}

static bool broadcast_reaches_all_from_every_root(struct trn_coll *c, struct trn_coll *sync,
                                                  uint64_t seed)
{
    (void)sync;
    static const int64_t sizes[] = {0, 1, 100, 5000, 70000, 1500000};
    for (size_t s = 0; s < COUNT_OF(sizes); s++)
        for (int32_t root = 0; root < c->size; root++) {
            unsigned char *data = xcalloc((size_t)sizes[s] + 1, 1);
            if (root == c->rank) fill(data, seed + s, root, sizes[s]);
            bool ok = trn_coll_broadcast(c, data, sizes[s], root, LONG_US) == OK;
            ok = ok && is_filled(data, seed + s, root, sizes[s]);
            free(data);
            CHECK(ok);
        }
    return true;
}

/* Nobody leaves before the last has come: by one clock, which all ranks of a host share, so that it
 * does not matter when any of them is given a core. */
static bool barrier_holds_until_the_last(struct trn_coll *c, struct trn_coll *sync, uint64_t seed)
{
    (void)seed;
    for (int32_t last = 0; last < c->size; last++) {
        int64_t came = 0, left;
        CHECK(trn_coll_barrier(c, LONG_US) == OK);
        if (c->rank == last) {
            clock_sleep_us(20000);
            came = clock_us();
        }
        CHECK(trn_coll_barrier(c, LONG_US) == OK);
        left = clock_us();
        CHECK(trn_coll_broadcast(sync, &came, sizeof came, last, LONG_US) == OK);
        CHECK(left >= came);
    }
    return true;
}

static bool mixed_operations_keep_their_order(struct trn_coll *c, struct trn_coll *sync,
                                              uint64_t seed)
{
    (void)sync;
    for (uint64_t k = 0; k < 300; k++) {
        uint64_t x = rng_at(seed, 5, k, 0);
        struct coll_cut cut;
        unsigned char data[64];
        switch (x % 4) {
        case 0:
            random_cut(&cut, c->size, 1 + (int32_t)(rng_mix(x) % 20), x, false);
            CHECK(one_reduce(c, &cut, 1 + (int64_t)(rng_mix(x + 1) % 50), x, true));
            break;
        case 1:
            CHECK(trn_coll_barrier(c, LONG_US) == OK);
            break;
        case 2:
            fill(data, c->rank == (int32_t)(rng_mix(x) % (uint64_t)c->size) ? x : 0, 3, 64);
            CHECK(trn_coll_broadcast(c, data, 64, (int32_t)(rng_mix(x) % (uint64_t)c->size),
                                     LONG_US) == OK);
            CHECK(is_filled(data, x, 3, 64));
            break;
        default:
            if (c->size == 1) break;
            fill(data, x, c->rank, 64);
            CHECK(trn_coll_send(c, (c->rank + 1) % c->size, data, 64, LONG_US) == OK);
            CHECK(trn_coll_recv(c, (c->rank + c->size - 1) % c->size, data, 64, LONG_US) == OK);
            CHECK(is_filled(data, x, (c->rank + c->size - 1) % c->size, 64));
        }
    }
    return true;
}

/* ---- messages ---- */

static bool messages_arrive_in_order(struct trn_coll *c, struct trn_coll *sync, uint64_t seed)
{
    (void)sync;
    unsigned char data[2048];
    for (int32_t to = 1; to < c->size;
         to++) /* rank 0 speaks to each; nobody listens until it has spoken */
        for (uint64_t k = 0; c->rank == 0 && k < 20; k++) {
            int64_t n = (int64_t)(rng_at(seed, 6, k, 0) % sizeof data);
            fill(data, seed + k, to, n);
            CHECK(trn_coll_send(c, to, data, n, LONG_US) == OK);
        }
    CHECK(trn_coll_barrier(c, LONG_US) == OK);
    for (uint64_t k = 0; c->rank && k < 20; k++) {
        int64_t n = (int64_t)(rng_at(seed, 6, k, 0) % sizeof data);
        CHECK(trn_coll_recv(c, 0, data, n, LONG_US) == OK);
        CHECK(is_filled(data, seed + k, c->rank, n));
    }
    return true;
}

static bool messages_larger_than_any_buffer_pass(struct trn_coll *c, struct trn_coll *sync,
                                                 uint64_t seed)
{
    (void)sync;
    enum { BIG = 5000001 };
    unsigned char *data = xmalloc(BIG);
    bool ok = true;
    for (int round = 0; round < 2 && ok; round++) { /* down the ranks like stages of a pipeline */
        if (c->rank)
            ok = trn_coll_recv(c, c->rank - 1, data, BIG, LONG_US) == OK &&
                 is_filled(data, seed, round, BIG);
        else
            fill(data, seed, round, BIG);
        if (ok && c->rank + 1 < c->size)
            ok = trn_coll_send(c, c->rank + 1, data, BIG, LONG_US) == OK;
    }
    free(data);
    CHECK(ok);
    return true;
}

/* Long ones of a few pieces, one after the other, to a rank that waits: pieces arrive in the midst
 * of its looking for them. */
static bool many_messages_of_pieces_pass(struct trn_coll *c, struct trn_coll *sync, uint64_t seed)
{
    enum { LONG = 61441, ROUNDS = 4000 };
    unsigned char *data = xcalloc(1, LONG);
    bool ok = true;
    if (!c->rank) fill(data, seed, 0, LONG);
    for (uint64_t k = 0; k < ROUNDS && ok && c->rank < 2; k++) {
        if (!c->rank) ok = trn_coll_send(c, 1, data, LONG, LONG_US) == OK;
        else ok = trn_coll_recv(c, 0, data, LONG, LONG_US) == OK;
        if (k % 16 == 15) { /* together again: the receiver is to wait, not to find */
            if (c->rank) ok = ok && trn_coll_send(c, 0, data, 1, LONG_US) == OK;
            else ok = ok && trn_coll_recv(c, 1, data, 1, LONG_US) == OK;
        }
    }
    ok = ok && (c->rank > 1 || is_filled(data, seed, 0, LONG));
    free(data);
    CHECK(ok);
    CHECK(trn_coll_barrier(sync, LONG_US) == OK);
    return true;
}

static bool crossing_messages_do_not_lock(struct trn_coll *c, struct trn_coll *sync, uint64_t seed)
{
    (void)sync;
    unsigned char *data = xmalloc(4096);
    for (uint64_t k = 0; k < 200; k++) {
        int64_t n = 1 + (int64_t)(rng_at(seed, 7, k, 0) % 4096);
        for (int32_t i = 1; i < c->size; i++) {
            fill(data, seed + k, c->rank, n);
            CHECK(trn_coll_send(c, (c->rank + i) % c->size, data, n, LONG_US) == OK);
        }
        for (int32_t i = 1; i < c->size; i++) {
            int32_t from = (c->rank + c->size - i) % c->size;
            CHECK(trn_coll_recv(c, from, data, n, LONG_US) == OK);
            CHECK(is_filled(data, seed + k, from, n));
        }
    }
    free(data);
    return true;
}

static bool empty_messages_count_as_messages(struct trn_coll *c, struct trn_coll *sync,
                                             uint64_t seed)
{
    (void)sync;
    unsigned char x = (unsigned char)seed;
    (void)seed;
    if (c->rank == 0) {
        CHECK(trn_coll_send(c, 1, NULL, 0, LONG_US) == OK);
        CHECK(trn_coll_send(c, 1, &x, 1, LONG_US) == OK);
    } else if (c->rank == 1) {
        unsigned char y = (unsigned char)~x;
        while (c->ops->has && !trn_coll_has(c, 0)) clock_sleep_us(10);
        CHECK(trn_coll_recv(c, 0, NULL, 0, LONG_US) == OK);
        while (c->ops->has && !trn_coll_has(c, 0)) clock_sleep_us(10);
        CHECK(trn_coll_recv(c, 0, &y, 1, LONG_US) == OK);
        CHECK(!trn_coll_has(c, 0));
        CHECK(x == y);
    }
    return true;
}

static bool wrong_length_is_a_protocol_error(struct trn_coll *c, struct trn_coll *sync,
                                             uint64_t seed)
{
    (void)sync;
    unsigned char data[64] = {(unsigned char)seed};
    if (c->rank == 0) CHECK(trn_coll_send(c, 1, data, 40, LONG_US) == OK);
    CHECK(trn_coll_barrier(c, LONG_US) == OK);
    if (c->rank == 1) {
        CHECK(trn_coll_recv(c, 0, data, 64, LONG_US) == ERR_LINK_PROTOCOL);
        CHECK(strstr(err_text(), "sent 40 bytes where 64"));
        CHECK(trn_coll_barrier(c, LONG_US) == ERR_LINK_PROTOCOL);
    }
    return true;
}

/* Lengths at which an implementation may cut a message in pieces: 60 KiB and a multiple. */
static bool wrong_length(struct trn_coll *c, struct trn_coll *sync, int64_t sent, int64_t expected)
{
    unsigned char *data = xcalloc(200000, 1);
    enum err rc = OK;
    if (c->rank == 0) rc = trn_coll_send(c, 1, data, sent, LONG_US);
    if (c->rank == 1) rc = trn_coll_recv(c, 0, data, expected, LONG_US);
    free(data);
    CHECK(rc == (c->rank == 1 ? ERR_LINK_PROTOCOL : OK));
    CHECK(trn_coll_barrier(sync, LONG_US) == OK);
    return true;
}

static bool longer_message_is_not_cut_short(struct trn_coll *c, struct trn_coll *sync,
                                            uint64_t seed)
{
    (void)seed;
    return wrong_length(c, sync, 100000, 61440);
}

static bool shorter_message_is_not_waited_out(struct trn_coll *c, struct trn_coll *sync,
                                              uint64_t seed)
{
    (void)seed;
    return wrong_length(c, sync, 61440, 122880);
}

/* ---- arguments and failures ---- */

static bool bad_arguments_are_refused_and_harmless(struct trn_coll *c, struct trn_coll *sync,
                                                   uint64_t seed)
{
    (void)sync;
    float x[4] = {(float)seed}, y[4];
    int64_t bytes[COLL_MAX_RANKS] = {0};
    struct coll_cut cut = {.n_leaf = 4};
    uint64_t n_ops = c->stats.n_ops;
    for (int32_t r = 0; r <= c->size; r++) cut.bounds[r] = r ? 4 : 0;
    CHECK(trn_coll_send(c, c->rank, x, 4, LONG_US) == ERR_BAD_CONFIG);
    CHECK(trn_coll_recv(c, c->size, x, 4, LONG_US) == ERR_BAD_CONFIG);
    CHECK(trn_coll_recv(c, -1, x, 4, LONG_US) == ERR_BAD_CONFIG);
    CHECK(trn_coll_broadcast(c, x, 4, c->size, LONG_US) == ERR_BAD_CONFIG);
    CHECK(trn_coll_broadcast(c, x, -4, 0, LONG_US) == ERR_BAD_CONFIG);
    bytes[0] = -1;
    CHECK(trn_coll_all_gather(c, x, bytes, y, LONG_US) == ERR_BAD_CONFIG);
    CHECK(trn_coll_all_reduce(c, &cut, x, y, -1, LONG_US) == ERR_BAD_CONFIG);
    cut.bounds[c->size] = 3;
    CHECK(trn_coll_all_reduce(c, &cut, x, y, 1, LONG_US) == ERR_BAD_CONFIG);
    cut.bounds[c->size] = 4;
    cut.bounds[0] = 1;
    CHECK(trn_coll_all_reduce(c, &cut, x, y, 1, LONG_US) == ERR_BAD_CONFIG);
    cut.n_leaf = 0;
    CHECK(trn_coll_all_reduce(c, &cut, x, y, 1, LONG_US) == ERR_BAD_CONFIG);
    CHECK(c->stats.n_ops == n_ops);
    CHECK(trn_coll_barrier(c, LONG_US) == OK);
    return true;
}

static bool counts_what_it_did(struct trn_coll *c, struct trn_coll *sync, uint64_t seed)
{
    (void)sync;
    struct coll_cut cut;
    random_cut(&cut, c->size, c->size, seed, true);
    struct coll_stats was = c->stats;
    uint64_t seq = c->seq;
    CHECK(one_reduce(c, &cut, 100, seed, false));
    CHECK(trn_coll_barrier(c, LONG_US) == OK);
    CHECK(c->stats.n_ops == was.n_ops + 2 && c->seq == seq + 2);
    if (c->ops->sent) CHECK(c->stats.bytes_sent >= was.bytes_sent); /* that of its parts */
    else CHECK(c->stats.bytes_sent == was.bytes_sent + (c->size > 1 ? 400 : 0));
    CHECK(trn_coll_now(c).op == NULL && trn_coll_now(c).waiting_for == -1);
    return true;
}

/* The last rank does not come: the others return DEADLINE in time, name it, and refuse what
 * follows. One made of others names the rank that it waits for itself, which may be waiting in its
 * turn. */
static bool check_late(struct trn_coll *c, struct trn_coll *sync, enum err rc, int64_t since_us,
                       const char *op)
{
    char name[48], who[64];
    snprintf(name, sizeof name, "%s %s #", c->ops->name, op);
    struct trn_coll_now now = trn_coll_now(c);
    snprintf(who, sizeof who, "rank %d has not arrived within 0.1 s", c->size - 1);
    if (c->ops->waits_for) snprintf(who, sizeof who, ", rank %d: ", now.waiting_for);
    CHECK(rc == ERR_DEADLINE);
    CHECK(strstr(err_text(), name) && strstr(err_text(), who));
    CHECK(clock_us() - since_us >= 100000 && clock_us() - since_us < 10000000);
    CHECK(now.op && !strcmp(now.op, op) && now.since_us >= since_us);
    CHECK(c->ops->waits_for ? now.waiting_for >= 0 && now.waiting_for != c->rank : now.waiting_for == c->size - 1);
    CHECK(trn_coll_barrier(c, LONG_US) == ERR_DEADLINE);
    CHECK(strstr(err_text(), "refused") && strstr(err_text(), who));
    CHECK(trn_coll_barrier(sync, LONG_US) == OK); /* stay: leaving is another error */
    return true;
}

#define DEADLINE_CASE(op, call)                                                                    \
    static bool op##_has_a_deadline(struct trn_coll *c, struct trn_coll *sync, uint64_t seed)      \
    {                                                                                              \
        struct coll_cut cut;                                                                       \
        float x[2 * TREE_MAX_NODES] = {1}, y[2 * COLL_MAX_RANKS];                                  \
        int64_t bytes[COLL_MAX_RANKS];                                                             \
        random_cut(&cut, c->size, c->size, seed, true);                                            \
        for (int32_t r = 0; r < c->size; r++) bytes[r] = 8;                                        \
        CHECK(trn_coll_barrier(c, LONG_US) == OK);                                                 \
        if (c->rank == c->size - 1) {                                                              \
            CHECK(trn_coll_barrier(sync, LONG_US) == OK);                                          \
            return true;                                                                           \
        }                                                                                          \
        int64_t t = clock_us();                                                                    \
        (void)x, (void)y, (void)bytes;                                                             \
        return check_late(c, sync, call, t, #op);                                                  \
    }
DEADLINE_CASE(all_reduce, trn_coll_all_reduce(c, &cut, x, y, 2, 100000))
DEADLINE_CASE(all_gather, trn_coll_all_gather(c, x, bytes, y, 100000))
DEADLINE_CASE(broadcast, trn_coll_broadcast(c, x, 8, c->size - 1, 100000))
DEADLINE_CASE(barrier, trn_coll_barrier(c, 100000))
DEADLINE_CASE(recv, trn_coll_recv(c, c->size - 1, x, 8, 100000))

/* The last rank leaves: whoever waits for it learns so at once. */
static bool leaving_is_noticed(struct trn_coll *c, struct trn_coll *sync, uint64_t seed)
{
    (void)sync, (void)seed;
    CHECK(trn_coll_barrier(c, LONG_US) == OK);
    if (c->rank == c->size - 1) return true;
    int64_t t = clock_us();
    CHECK(trn_coll_barrier(c, LONG_US) == ERR_PEER_LOST);
    CHECK(strstr(err_text(), "closed its communicator"));
    CHECK(clock_us() - t < LONG_US / 2);
    return true;
}

const struct coll_case coll_cases[] = {
    {"reduce_is_the_tree_for_random_cuts", reduce_is_the_tree_for_random_cuts, 1, false},
    {"reduce_is_the_tree_for_large_vectors", reduce_is_the_tree_for_large_vectors, 1, false},
    {"reduce_of_nothing_is_nothing", reduce_of_nothing_is_nothing, 1, false},
    {"reduce_equals_reduce_parts", reduce_equals_reduce_parts, 1, false},
    {"gather_takes_unequal_and_empty_shares", gather_takes_unequal_and_empty_shares, 1, false},
    {"gather_may_be_in_place", gather_may_be_in_place, 1, false},
    {"broadcast_reaches_all_from_every_root", broadcast_reaches_all_from_every_root, 1, false},
    {"barrier_holds_until_the_last", barrier_holds_until_the_last, 1, false},
    {"mixed_operations_keep_their_order", mixed_operations_keep_their_order, 1, false},
    {"messages_arrive_in_order", messages_arrive_in_order, 2, false},
    {"messages_larger_than_any_buffer_pass", messages_larger_than_any_buffer_pass, 2, false},
    {"many_messages_of_pieces_pass", many_messages_of_pieces_pass, 2, false},
    {"crossing_messages_do_not_lock", crossing_messages_do_not_lock, 2, false},
    {"empty_messages_count_as_messages", empty_messages_count_as_messages, 2, false},
    {"wrong_length_is_a_protocol_error", wrong_length_is_a_protocol_error, 2, false},
    {"longer_message_is_not_cut_short", longer_message_is_not_cut_short, 2, false},
    {"shorter_message_is_not_waited_out", shorter_message_is_not_waited_out, 2, false},
    {"bad_arguments_are_refused_and_harmless", bad_arguments_are_refused_and_harmless, 1, false},
    {"counts_what_it_did", counts_what_it_did, 1, false},
    {"all_reduce_has_a_deadline", all_reduce_has_a_deadline, 2, false},
    {"all_gather_has_a_deadline", all_gather_has_a_deadline, 2, false},
    {"broadcast_has_a_deadline", broadcast_has_a_deadline, 2, false},
    {"barrier_has_a_deadline", barrier_has_a_deadline, 2, false},
    {"recv_has_a_deadline", recv_has_a_deadline, 2, false},
    {"leaving_is_noticed", leaving_is_noticed, 2, true},
};
const int coll_n_cases = COUNT_OF(coll_cases);

/* ---- bench ---- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static bool bench_one(struct trn_coll *c, int64_t bytes, int n_run, double us[2])
{
    struct coll_cut cut = {.n_leaf = c->size};
    float *x = xcalloc((size_t)bytes, 1), *y = xcalloc((size_t)bytes, 1);
    double *t = xmalloc((size_t)n_run * sizeof *t);
    struct timespec a, b;
    bool ok = true;
    for (int32_t r = 0; r <= c->size; r++) cut.bounds[r] = r;
    for (int i = -n_run / 10; i < n_run && ok; i++) {
        if (i % 16 == 0) ok = trn_coll_barrier(c, LONG_US) == OK;
        clock_gettime(CLOCK_MONOTONIC, &a);
        ok = ok && trn_coll_all_reduce(c, &cut, x, y, bytes / 4, LONG_US) == OK;
        clock_gettime(CLOCK_MONOTONIC, &b);
        if (i >= 0)
            t[i] = (double)(b.tv_sec - a.tv_sec) * 1e6 + (double)(b.tv_nsec - a.tv_nsec) / 1e3;
    }
    qsort(t, (size_t)n_run, sizeof *t, by_value);
    us[0] = t[n_run / 2];
    us[1] = t[n_run * 99 / 100];
    free(x);
    free(y);
    free(t);
    return ok;
}

bool coll_bench(struct trn_coll *c)
{
    static const int64_t sizes[] = {8, 512, 4096, 16384, 32768, 65536, 262144, 1 << 20, 4 << 20};
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        double us[2];
        CHECK(bench_one(c, sizes[i],
                        sizes[i] <= 65536       ? 2000
                        : sizes[i] <= (1 << 20) ? 300
                                                : 60,
                        us));
        if (!c->rank)
            printf("%-6s n %d  all_reduce %8lld B  p50 %9.2f us  p99 %9.2f us\n", c->ops->name,
                   c->size, (long long)sizes[i], us[0], us[1]);
    }
    return true;
}
