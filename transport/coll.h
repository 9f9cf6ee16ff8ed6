/* coll.h: collectives and point-to-point between the ranks of one group, as a table of operations.
 *
 * Implementations: self (one rank), local (threads of one process: tests), shm (ranks of one host), mpi (anything), two
 * made of others: hier (shm inside each host, mpi between hosts) and packed (sums travel as f16 or q8: not exact); and nccl, whose
 * vectors lie in device memory, and whose operations return when the device has been told (trn_coll_poll).
 * Every blocking call has a deadline in microseconds from now and returns DEADLINE naming operation, sequence number and
 * the rank waited for, or PEER_LOST; afterwards the communicator is unusable. After such an error mpi may still write into `all`, `data` or `out` and
 * read `mine` and `data`, whenever the late message comes: where more than 64 KiB are received (all_gather: from all together; all_reduce: always) they
 * must live as long as the process, so they lie on no stack and are not freed on the way out. Less lands in the
 * communicator's own memory. Waits spin for microseconds, then sleep.
 * Every rank calls the same collectives in the same order; messages between two ranks arrive in order.
 * Thr: one thread per communicator (for mpi: the one thread that does all MPI). */
#ifndef TRANSPORT_COLL_H
#define TRANSPORT_COLL_H

#include "base/err.h"
#include "base/tree.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { COLL_MAX_RANKS = 64 };

/* Who holds which leaves of a reduction: rank r holds [bounds[r], bounds[r+1]) of tree(n_leaf). */
struct coll_cut {
    int32_t n_leaf;
    int32_t bounds[COLL_MAX_RANKS + 1];
};

/* What a group did, for metrics: counted by the wrapper functions below. bytes_sent: what this rank offered to the
 * others, each byte once; wait_us: time inside operations. */
struct coll_stats { uint64_t n_ops, bytes_sent, wait_us; };

/* The operation a communicator is in, for heartbeats and stall reports. op NULL: none. seq: the collective's number, or
 * for send and recv the count of operations; waiting_for -1: nobody. */
struct trn_coll_now {
    const char *op;
    uint64_t seq;
    int64_t since_us; /* clock_us() at entry */
    int32_t waiting_for;
};

struct trn_coll;

struct trn_coll_ops {
    const char *name; /* "self" | "local" | "shm" | "mpi" | "hier" | "f16" | "q8" | "nccl" | "direct" | "by size" | "cards" */
    /* all required */
    enum err (*all_gather)(struct trn_coll *c, const void *mine, const int64_t bytes[], void *all, int64_t timeout_us);
    enum err (*broadcast)(struct trn_coll *c, void *data, int64_t bytes, int32_t root, int64_t timeout_us);
    enum err (*send)(struct trn_coll *c, int32_t to, const void *data, int64_t bytes, int64_t timeout_us);
    enum err (*recv)(struct trn_coll *c, int32_t from, void *data, int64_t bytes, int64_t timeout_us);
    enum err (*barrier)(struct trn_coll *c, int64_t timeout_us);
    void (*close)(struct trn_coll *c);
    /* optional; NULL: built from all_gather by coll.c */
    enum err (*all_reduce)(struct trn_coll *c, const struct coll_cut *cut, const float *mine, float *out, int64_t n,
                           int64_t timeout_us);
    /* optional, of implementations made of others: the rank that one of them waits for now, or -1; and the bytes they have
     * offered so far, which then count instead of the wrapper's own sum */
    int32_t (*waits_for)(const struct trn_coll *c);
    uint64_t (*sent)(const struct trn_coll *c);
    /* optional, of those that only tell a device what to do: how far it has come */
    enum err (*poll)(struct trn_coll *c);
    /* both or none, of the same: operations are recorded by the device from on until off; it was told a recording of so many once more */
    void (*record)(struct trn_coll *c, bool on);
    enum err (*replayed)(struct trn_coll *c, uint64_t n_ops, int64_t timeout_us);
    /* optional, of those whose sends may still wait for their peer's room when they return: give out what there is room for; more? */
    bool (*push)(struct trn_coll *c);
    /* optional: has some of a message from that rank arrived? Never waits */
    bool (*has)(struct trn_coll *c, int32_t from);
    /* optional, of ranks that share memory: [size] numbers, each written by its rank and read by all; their meaning is the user's */
    _Atomic uint64_t *(*board)(struct trn_coll *c);
};

struct trn_coll {
    const struct trn_coll_ops *ops;
    int32_t rank, size;
    uint64_t seq;             /* collectives entered so far */
    struct coll_stats stats;
    void *scratch;            /* Own: coll.c, for the generic all_reduce */
    int64_t scratch_bytes;
    struct coll_stats recorded; /* before a recording */
    enum err broken;          /* set by the first failed operation, with its sentence: all later ones are refused */
    char why[256];
    /* [any] relaxed, read by trn_coll_now: a report, orders nothing */
    _Atomic(const char *) now_op;
    _Atomic uint64_t now_seq;
    _Atomic int64_t now_since_us;
    _Atomic int32_t now_rank;
};

/* Sum in the fixed tree: mine = this rank's maximal subtrees (tree_maximal(n_leaf, bounds[rank], bounds[rank+1])), n floats
 * each, left to right; out[n] = the root, the same bits on every rank whatever the cut. out may be mine when the rank has one
 * subtree. A rank without leaves contributes nothing. */
MUST_USE enum err trn_coll_all_reduce(struct trn_coll *c, const struct coll_cut *cut, const float *mine, float *out,
                                      int64_t n, int64_t timeout_us);
/* bytes[r] from each rank, concatenated in rank order into all; bytes known to all. */
MUST_USE enum err trn_coll_all_gather(struct trn_coll *c, const void *mine, const int64_t bytes[], void *all,
                                      int64_t timeout_us);
MUST_USE enum err trn_coll_broadcast(struct trn_coll *c, void *data, int64_t bytes, int32_t root, int64_t timeout_us);
/* Buffered: returns once `data` may be reused; may wait while the peer's buffer is full. What it took may leave only while this rank is in some
 * operation, or in trn_coll_push: to be called between two pieces of work, and while waiting for something else than a rank. */
MUST_USE enum err trn_coll_send(struct trn_coll *c, int32_t to, const void *data, int64_t bytes, int64_t timeout_us);
/* Exactly `bytes` of the next message from that rank; another length is LINK_PROTOCOL. */
MUST_USE enum err trn_coll_recv(struct trn_coll *c, int32_t from, void *data, int64_t bytes, int64_t timeout_us);
MUST_USE enum err trn_coll_barrier(struct trn_coll *c, int64_t timeout_us);
/* Called now and then by who waits for the device that c's operations were told to (nccl): has another rank been lost, or been late for
 * the time-out of its operation? Then that is given up, so that the wait ends. Nothing to do for the others. Err PEER_LOST, DEADLINE. */
MUST_USE enum err trn_coll_poll(struct trn_coll *c);
/* Where operations are told to a device that records what it is told (a graph): those between begin and end are not begun; *r is what a replay
 * amounts to. replayed: the device has been told the recording once more. Ranks record the same in the same order, and replay the same. false: c's
 * operations cannot be recorded. */
bool trn_coll_records(const struct trn_coll *c);
void trn_coll_record_begin(struct trn_coll *c);
void trn_coll_record_end(struct trn_coll *c, struct coll_stats *r);
MUST_USE enum err trn_coll_replayed(struct trn_coll *c, const struct coll_stats *r, int64_t timeout_us);
/* Go on with what send took. True: some of it is still here. A failure shows in the next operation. */
bool trn_coll_push(struct trn_coll *c);
/* Is a message from that rank on its way, so that recv would soon have it? Never waits. false too where c cannot tell. */
bool trn_coll_has(struct trn_coll *c, int32_t from);
/* The group's board, zeroed at open; NULL: it has none. */
_Atomic uint64_t *trn_coll_board(struct trn_coll *c);
void trn_coll_close(struct trn_coll *c); /* NULL-safe */

/* What c is doing at this moment; fields may stem from neighbouring operations. Thr: any, while c is open. */
struct trn_coll_now trn_coll_now(struct trn_coll *c);

/* The tree of all_reduce over parts already gathered: parts[] = every rank's subtrees in leaf order, n floats each. */
void trn_coll_reduce_parts(const struct coll_cut *cut, int32_t size, const float *parts, float *out, int64_t n);

#endif
