/* links.c: see links.h.
 *
 * Pairs meet as in a tournament: with n hosts (one more that does not exist when n is odd) round r pairs all of them, so n - 1 rounds are enough
 * and no wire carries two measurements. Then, where there are more than two, all of them at once: a switch, or processors, that give each pair its due
 * may not give it to all. */
#include "worker/links.h"

#include "base/clock.h"
#include "base/log.h"
#include "transport/coll_open.h"

#include <stdlib.h>

enum {
    TAG = 300, /* of pairs, the next of all; groups.c takes fewer */
    WARM = 4, SMALL = 40, LARGE = 5, BLOCKS = 10, EACH = 4,
    SMALL_BYTES = 64,
    STEP_BYTES = 64 << 10,   /* as a step of some sequences sends */
    LARGE_BYTES = 512 << 10, /* above what a token bucket lets through at once */
    SLOW_US = 20000,                                 /* the first took longer: it says enough */
    TIMEOUT_US = 3000000
};

/* Whom host i meets in round r of n (even) hosts: the last stays, the others go round. */
static int32_t partner(int32_t i, int32_t r, int32_t n)
{
    int32_t m = n - 1;
    if (i == m) return r * (n / 2) % m; /* 2k = r modulo m */
    int32_t k = ((r - i) % m + m) % m;
    return k == i ? m : k;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Of n times one that few were shorter than: hosts are busy while a job starts, and that is not the link's. */
static double typical(double s[], int32_t n)
{
    qsort(s, (size_t)n, sizeof *s, by_value);
    return s[n / 8];
}

/* All go on with the longest of their times. */
static enum err agree(struct trn_coll *c, double *s)
{
    enum err rc;
    double mine = *s, theirs[COLL_MAX_RANKS];
    int64_t sizes[COLL_MAX_RANKS];
    for (int32_t r = 0; r < c->size; r++) sizes[r] = sizeof mine;
    TRY(trn_coll_all_gather(c, &mine, sizes, theirs, TIMEOUT_US));
    for (int32_t r = 0; r < c->size; r++) *s = MAX(*s, theirs[r]);
out:
    return rc;
}

/* Seconds of one way: half of there and back, timed where it begins. (Not of an exchange: what waits already takes no time.) */
static enum err ping(struct trn_coll *c, unsigned char *room, int32_t n, double *out)
{
    enum err rc = OK;
    double s[SMALL];
    for (int32_t i = 0; i < n; i++) {
        int64_t t0 = clock_us();
        TRY(trn_coll_broadcast(c, room, SMALL_BYTES, 0, TIMEOUT_US));
        TRY(trn_coll_broadcast(c, room, SMALL_BYTES, 1, TIMEOUT_US));
        s[i] = (double)MAX(clock_us() - t0, 1) / 2e6;
    }
    *out = c->rank == 0 ? typical(s, n) : 0;
    rc = agree(c, out);
out:
    return rc;
}

/* Seconds in which all give `bytes` to all, `each` times in a row: who comes to one of them late finds its messages there, but not to each. */
static enum err exchange(struct trn_coll *c, unsigned char *room, int64_t bytes, int32_t n, int32_t each, double *out)
{
    enum err rc = OK;
    double s[BLOCKS];
    int64_t all[COLL_MAX_RANKS];
    for (int32_t r = 0; r < c->size; r++) all[r] = bytes;
    for (int32_t i = 0; i < n; i++) {
        int64_t t0 = clock_us();
        for (int32_t k = 0; k < each; k++) TRY(trn_coll_all_gather(c, room + c->rank * bytes, all, room, TIMEOUT_US));
        s[i] = (double)MAX(clock_us() - t0, 1) / 1e6 / each;
    }
    *out = typical(s, n);
    rc = agree(c, out);
out:
    return rc;
}

/* Bytes per second that a rank gets of an exchange of as many, beyond what a small one takes. */
static double rate(double bytes, double s, double small) { return bytes / MAX(s - small, s / 4); }

/* The rate of messages as large as a step's, or of larger ones where that is lower. */
static enum err rates(struct trn_coll *c, unsigned char *room, double small, double *out)
{
    enum err rc;
    double s, others = c->size - 1;
    TRY(exchange(c, room, STEP_BYTES, 1, 1, &s));
    *out = rate(STEP_BYTES * others, s, small);
    if (s * 1e6 >= SLOW_US) goto out;
    TRY(exchange(c, room, STEP_BYTES, BLOCKS, EACH, &s));
    *out = rate(STEP_BYTES * others, s, small);
    if (c->size > 2) goto out;
    TRY(exchange(c, room, LARGE_BYTES, LARGE, 1, &s));
    *out = MIN(*out, rate(LARGE_BYTES, s, small));
out:
    return rc;
}

static enum err measure(struct trn_coll *c, struct msg_link *out)
{
    enum err rc;
    unsigned char *room = xcalloc(2, LARGE_BYTES);
    double small;
    TRY(ping(c, room, WARM, &small));
    TRY(ping(c, room, SMALL, &small));
    out->latency_s = small;
    TRY(rates(c, room, small, &out->bytes_s));
out:
    free(room);
    return rc;
}

/* All at once: what a small exchange takes, and the rate of one like a step's. */
static enum err measure_all(struct trn_coll *c, struct msg_link *out)
{
    enum err rc;
    unsigned char *room = xcalloc((size_t)c->size, STEP_BYTES);
    double small;
    TRY(exchange(c, room, SMALL_BYTES, 1, WARM, &small));
    TRY(exchange(c, room, SMALL_BYTES, BLOCKS, EACH, &small));
    out->latency_s = small;
    TRY(rates(c, room, small, &out->bytes_s));
out:
    free(room);
    return rc;
}

static void add(int32_t to, const int32_t members[], int32_t n_members, enum err (*what)(struct trn_coll *c, struct msg_link *out), struct msg_link links[],
                int32_t *n)
{
    struct trn_coll *c = NULL;
    struct msg_link l = {.rank = to};
    enum err e = trn_coll_mpi_open(&c, members, n_members, n_members == 2 ? TAG : TAG + 1);
    if (!e) e = what(c, &l);
    if (e) log_warn("worker", "the link to rank %d is not measured: %s", l.rank, err_text());
    else links[(*n)++] = l;
    trn_coll_close(c);
}

void wrk_links_measure(int32_t rank, int32_t size, struct msg_link links[], int32_t *n)
{
    int32_t hosts[COLL_MAX_RANKS], leader[COLL_MAX_RANKS], n_hosts = 0, me = -1;
    *n = 0;
    if (trn_mpi_env_hosts(hosts)) return;
    for (int32_t r = 0; r < size; r++) {
        if (hosts[r] != r) continue; /* not the first of its host */
        if (r == rank) me = n_hosts;
        leader[n_hosts++] = r;
    }
    int32_t even = n_hosts + n_hosts % 2;
    if (me < 0 || n_hosts < 2) return;
    for (int32_t r = 0; r < even - 1; r++) {
        int32_t other = partner(me, r, even);
        if (other >= n_hosts) continue;
        int32_t members[2] = {leader[MIN(me, other)], leader[MAX(me, other)]};
        add(leader[other], members, 2, measure, links, n);
    }
    if (n_hosts > 2) add(rank, leader, n_hosts, measure_all, links, n);
}
