/* topo_ranks.h: the planner's view of ranks that run already: each says of itself how many processors, how much memory and which addresses it
 * has, and what it measured to other hosts (proto/control.h, Hello); a recorded topology says how fast a machine is. Ranks in order are the
 * devices; names are matched through same_host.h. */
#ifndef CLUSTER_TOPO_RANKS_H
#define CLUSTER_TOPO_RANKS_H

#include "cluster/topo.h"
#include "proto/control.h"

/* What is taken of a processor that no topology names. measured: on a machine like those, so that its figures may be compared with what
 * really happens. */
struct clu_guess {
    double read_bytes_s, ops_s;         /* of one processor */
    double host_read_bytes_s;           /* of all processors of a host together; 0: as many times one */
    int32_t machine;                    /* processors of the one machine that all hosts are namespaces or containers of; 0: each host is one */
    bool measured;
};

struct clu_ranks_known {
    bool speed; /* every processor's figures come from a topology, a card, or a measurement */
    bool links; /* so do those of every link between two hosts */
};

/* known: recorded machines, or NULL. What it says of a link goes before what was measured; where the two differ by more than twice, a warning
 * names them. n_threads: that each rank will use; 0: its share of the host's. */
void clu_topo_ranks(struct clu_topo *out, const struct msg_hello hellos[], int32_t n, const struct clu_topo *known, int32_t n_threads,
                    const struct clu_guess *guess, struct clu_ranks_known *what);

#endif
