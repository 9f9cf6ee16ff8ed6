/* links.c: see links.h.
 *
 * Pairs meet as in a tournament: with n hosts (one more that does not exist when n is odd) round r pairs all of them, so n - 1 rounds are enough
 * and no wire carries two measurements. */
#include "worker/links.h"

#include "base/clock.h"
#include "base/log.h"
#include "transport/coll_open.h"

#include <stdlib.h>

enum {
    TAG = 300, /* of pairs; groups.c takes fewer */
    WARM = 4, SMALL = 40, LARGE = 5,
    SMALL_BYTES = 64,
    FIRST_BYTES = 64 << 10, LARGE_BYTES = 512 << 10, /* above what a token bucket lets through at once */
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

/* Both sides go on with the longer of their times. */
static enum err agree(struct trn_coll *c, double *s)
{
    enum err rc;
    double mine = *s, both[2];
    int64_t sizes[2] = {sizeof mine, sizeof mine};
    TRY(trn_coll_all_gather(c, &mine, sizes, both, TIMEOUT_US));
    *s = MAX(both[0], both[1]);
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

/* Seconds of an exchange of `bytes` both ways. */
static enum err exchange(struct trn_coll *c, unsigned char *room, int64_t bytes, int32_t n, double *out)
{
    enum err rc = OK;
    double s[LARGE];
    int64_t both[2] = {bytes, bytes};
    for (int32_t i = 0; i < n; i++) {
        int64_t t0 = clock_us();
        TRY(trn_coll_all_gather(c, room + c->rank * bytes, both, room, TIMEOUT_US));
        s[i] = (double)MAX(clock_us() - t0, 1) / 1e6;
    }
    *out = typical(s, n);
    rc = agree(c, out);
out:
    return rc;
}

static enum err measure(struct trn_coll *c, struct msg_link *out)
{
    enum err rc;
    unsigned char *room = xcalloc(2, LARGE_BYTES);
    int64_t bytes = FIRST_BYTES;
    double small, large;
    TRY(ping(c, room, WARM, &small));
    TRY(ping(c, room, SMALL, &small));
    TRY(exchange(c, room, FIRST_BYTES, 1, &large));
    if (large * 1e6 < SLOW_US) {
        bytes = LARGE_BYTES;
        TRY(exchange(c, room, bytes, LARGE, &large));
    }
    out->latency_s = small;
    out->bytes_s = (double)bytes / MAX(large - small, large / 4);
out:
    free(room);
    return rc;
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
    for (int32_t r = 0; r < even - 1 && me >= 0 && n_hosts > 1; r++) {
        int32_t other = partner(me, r, even);
        if (other >= n_hosts) continue;
        struct trn_coll *c = NULL;
        struct msg_link l = {.rank = leader[other]};
        int32_t members[2] = {leader[MIN(me, other)], leader[MAX(me, other)]};
        enum err e = trn_coll_mpi_open(&c, members, 2, TAG);
        if (!e) e = measure(c, &l);
        if (e) log_warn("worker", "the link to rank %d is not measured: %s", l.rank, err_text());
        else links[(*n)++] = l;
        trn_coll_close(c);
    }
}
