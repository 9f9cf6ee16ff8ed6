/* coll_suite.h: what every implementation of transport/coll.h must do, as cases that each rank of a
 * group runs.
 *
 * A case is called once per rank (thread, process or MPI rank) with a fresh communicator and a
 * second one of the same ranks, `sync`, for what must still work when the first is broken; it
 * closes neither. It returns false after printing where and why. cmocka's asserts are not used:
 * they belong to one thread of one process. */
#ifndef TESTS_TRANSPORT_COLL_SUITE_H
#define TESTS_TRANSPORT_COLL_SUITE_H

#include "transport/coll.h"

#include <stdbool.h>

struct coll_case {
    const char *name; /* a claim */
    bool (*run)(struct trn_coll *c, struct trn_coll *sync, uint64_t seed);
    int32_t min_size;
    bool sees_loss; /* only for those who notice that a peer is gone: not mpi */
};

extern const struct coll_case coll_cases[];
extern const int coll_n_cases;

/* All-reduce and broadcast, 8 B to 4 MB: rank 0 prints the median and p99. Every rank calls it. */
bool coll_bench(struct trn_coll *c);

#endif
