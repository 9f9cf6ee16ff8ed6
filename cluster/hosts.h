/* hosts.h: the hosts of a hostfile: which replica uses which slots, which are spare, and which are set aside because they keep failing.
 *
 * A pure core: time is an argument. Thr: one at a time; whoever shares it locks. */
#ifndef CLUSTER_HOSTS_H
#define CLUSTER_HOSTS_H

#include "cluster/hostfile.h"

#include <stdbool.h>
#include <stddef.h>

enum { CLU_HOSTS_USERS = 16, CLU_HOSTS_LIST = LIMIT_RANKS * 72, CLU_HOSTS_TRIES = 3, CLU_HOSTS_DEVICE = 16 + LIMIT_RANKS * 4 };

struct clu_hosts {
    int32_t n;
    struct clu_hosts_one {
        char name[64], why[256];
        int32_t line;                         /* of the hostfile, where it is named first */
        int32_t slots, used[CLU_HOSTS_USERS]; /* by replica */
        int32_t first[CLU_HOSTS_USERS];       /* its slots are those from here on, which are nobody else's: so are the cards of that number */
        int32_t n_failed;                     /* in a row */
        int64_t aside_until_us;               /* 0: it may be used */
        int64_t pause_us;                     /* how long it was set aside last */
    } hosts[LIMIT_RANKS];
};

void clu_hosts_init(struct clu_hosts *h, const struct clu_hostfile *f);
/* Give `replica` n slots anew: of the hosts it has, then of the spare ones, in the hostfile's order, none that is set aside. When there are
 * fewer: those, if at least `least`. list: "a:2,b:1", as mpirun's --host wants it; *got: slots in it. Err UNAVAILABLE: how many are left, and
 * who is set aside why; the replica has none then. */
MUST_USE enum err clu_hosts_take(struct clu_hosts *h, int32_t replica, int32_t n, int32_t least, int64_t now_us, char list[CLU_HOSTS_LIST],
                                 int32_t *got);
/* --device for the replica's workers: `device` ("auto", "cuda") and, for each of its hosts in order, after how many cards its own begin: "auto+2,0";
 * any other device as it is, and so where all begin at the first. */
void clu_hosts_device(const struct clu_hosts *h, int32_t replica, const char *device, char out[CLU_HOSTS_DEVICE]);
/* The host of a replica's rank: mpirun deals ranks to slots in order. NULL: no such rank. */
struct clu_hosts_one *clu_hosts_of(struct clu_hosts *h, int32_t replica, int32_t rank);
/* Names of the replica's hosts of whose ranks none has joined, "a, b"; "" if there are none. joined[n] by rank; what does not fit is left out. */
void clu_hosts_absent(const struct clu_hosts *h, int32_t replica, const bool joined[], int32_t n, char out[], size_t size);
/* It failed: the CLU_HOSTS_TRIES-th time in a row, or at once when it is known to be gone, it is set aside: a minute, then twice as long
 * each time, ten minutes at most. True: just set aside. */
bool clu_hosts_failed(struct clu_hosts *h, struct clu_hosts_one *one, bool gone, const char *why, int64_t now_us);
/* The replica is whole: failures of its hosts are forgotten. */
void clu_hosts_good(struct clu_hosts *h, int32_t replica);

#endif
