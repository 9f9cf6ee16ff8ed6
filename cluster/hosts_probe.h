/* hosts_probe.h: which hosts can start a process now: mpirun with one harmless process on each of them, all at once, each with a deadline.
 * It takes the way that a start takes, so what it finds is what a start would meet. */
#ifndef CLUSTER_HOSTS_PROBE_H
#define CLUSTER_HOSTS_PROBE_H

#include "cluster/launch.h"

struct clu_probed {
    char host[64];
    bool good;
    char why[256]; /* not good: what mpirun or the process said */
};

/* conf: program and extra count. stop: polled; NULL for none. Thr: any. */
void clu_hosts_probe(struct clu_probed hosts[], int32_t n, const struct clu_launch_conf *conf, int64_t timeout_us, bool (*stop)(void *user), void *user);

#endif
