/* coll_open.h: constructors of communicators. The engine sees only coll.h; worker and tests choose here. */
#ifndef TRANSPORT_COLL_OPEN_H
#define TRANSPORT_COLL_OPEN_H

#include "transport/coll.h"
#include "transport/device.h"

/* One rank; every operation is a copy or nothing. */
MUST_USE enum err trn_coll_self_open(struct trn_coll **out);

/* n ranks that are threads of this process: fills out[n]; each is used by one thread and closed by it. */
MUST_USE enum err trn_coll_local_open(struct trn_coll *out[], int32_t n);

/* Ranks of one host over POSIX shared memory "/tessera-<name>" (0600). Rank 0 creates, the others attach within the
 * deadline, then the name is unlinked at once, so nothing is left behind whatever dies. name: unique per group and epoch,
 * [A-Za-z0-9_-]{1,64}. Err DEADLINE (a rank did not come), SYSTEM. */
MUST_USE enum err trn_coll_shm_open(struct trn_coll **out, const char *name, int32_t rank, int32_t size,
                                    int64_t timeout_us);

/* Ranks of several hosts, hosts[rank]: the number of each rank's host, ascending from 0: the ranks of a host speak to each other by
 * `local` (in their order; NULL where a host has one rank of the group), the first of each host by `across` (in the hosts' order; NULL
 * elsewhere), any other two by `flat`. The same bits as any other implementation. Own: *out owns all three, also on failure. */
MUST_USE enum err trn_coll_hier_open(struct trn_coll **out, int32_t rank, int32_t size, const int32_t hosts[], struct trn_coll *local,
                                     struct trn_coll *across, struct trn_coll *flat);

/* `hier`, which has several ranks on this host, as its ranks with devices see it: vectors are device memory, and inside the host they go from
 * device to device by `local` (nccl, of this host's ranks in their order). Hosts decide each for itself. hier is borrowed until close.
 * scratch_bytes: on the device; 0: 32 MiB. Own: *out owns local, also on failure. */
MUST_USE enum err trn_coll_hier_cards_open(struct trn_coll **out, struct trn_coll *hier, struct trn_coll *local, const struct trn_device *dev,
                                           int64_t scratch_bytes);
/* The ranks of this host in a group over several; NULL: c is no such group, or this rank is alone here. */
struct trn_coll *trn_coll_hier_local(struct trn_coll *c);

/* Ranks that compute on devices, each on one of its own, by NVIDIA's library: vectors are device memory. */
enum { TRN_NCCL_WHY = 256 };
struct trn_nccl_conf {
    struct trn_coll *host;           /* the same ranks; borrowed until close: what they agree on, barriers, and messages go over it */
    const struct trn_device *device; /* borrowed; NULL: this rank has none */
    bool exact;                      /* the bits of the tree; else all_reduce is the library's own */
    bool wait;                       /* operations return when they are over, not when the device has been told */
    int64_t scratch_bytes;           /* on the device; 0: 32 MiB */
    int64_t timeout_us;              /* of opening */
};
/* Collective over conf->host. *out NULL and OK: some rank cannot, and why[] says the same on every rank: no device, no library, two ranks
 * share a card, it could not be begun. Err: those of `host`, which is broken then. */
MUST_USE enum err trn_coll_nccl_open(struct trn_coll **out, const struct trn_nccl_conf *conf, char why[TRN_NCCL_WHY]);

/* The same without a library, up to 8 ranks: each one's kernel reads what the others' wrote, and adds it in the one tree. by_peers: on each other's
 * cards, where those reach each other; else in the host's memory, which any cards can. */
struct trn_direct_conf {
    struct trn_coll *host;           /* as of trn_nccl_conf, all of these */
    const struct trn_device *device;
    bool by_peers, wait;
    int64_t timeout_us;
};
MUST_USE enum err trn_coll_direct_open(struct trn_coll **out, const struct trn_direct_conf *conf, char why[TRN_NCCL_WHY]);
/* Sums of `from` values or more go in two shots (base/exchange.h) from now on, on every rank; none do before. */
void trn_coll_direct_two_shots(struct trn_coll *c, int64_t from);
/* Of the same ranks: sums of less than 256 KiB and all of a recording go by `small`, everything else by `large`; it records where `small` does. Own: both
 * are its from now on. */
struct trn_coll *trn_coll_by_size(struct trn_coll *small, struct trn_coll *large);

/* The fastest of these, by measurement: for short sums and for long ones. Collective. *out NULL and OK: no way, or none faster than downloads and
 * `host`. said: "by NCCL", how they sum, for the log. */
struct trn_cards_conf {
    struct trn_coll *host;
    const struct trn_device *device;
    bool exact;
    int64_t timeout_us;
};
MUST_USE enum err trn_coll_cards_open(struct trn_coll **out, const struct trn_cards_conf *conf, char said[TRN_NCCL_WHY]);

/* How the vectors of an all_reduce travel. */
enum trn_wire_type { TRN_WIRE_F32, TRN_WIRE_F16, TRN_WIRE_Q8, TRN_WIRE_TYPES };
extern const char *const trn_wire_name[TRN_WIRE_TYPES]; /* "f32" */
/* Bytes that n values take. q8: blocks of 32 with a scale. */
int64_t trn_wire_bytes(enum trn_wire_type t, int64_t n);

/* `inner` with the sums of all_reduce as f16 or q8: added in f32, in the order of ranks, the same bits on every rank, but not those of
 * another cut. An error of at most 2^-11 of a value (f16, up to 65504) or of 1/254 of the largest of 32 neighbours (q8), once for each
 * rank's part and once for the sum when it is large enough to travel in slices. Everything else goes through `inner`, whose messages
 * must be buffered (mpi, local). Own: *out owns inner, also on failure. */
MUST_USE enum err trn_coll_packed_open(struct trn_coll **out, struct trn_coll *inner, enum trn_wire_type t);
/* Until it is lent NULL, mine and out of c's all_reduce lie in the memory of dev, which packs; room: there too, of trn_coll_packed_room(c) bytes. What
 * travels, and every bit, is the same. Borrowed. room: 0 where c is no packed one. */
int64_t trn_coll_packed_room(const struct trn_coll *c);
void trn_coll_packed_lend(struct trn_coll *c, const struct trn_device *dev, void *room);

/* The MPI environment of this process; all MPI calls from one thread. init is needed before coll_mpi; after a failure
 * do not finalize: abandon (leaves without waiting for peers). */
MUST_USE enum err trn_mpi_env_init(int32_t *rank, int32_t *size);
void trn_mpi_env_finalize(void);
/* Is this process started by mpirun or srun (without initialising MPI)? Gives rank and size from the environment. */
int32_t trn_mpi_env_detect(int32_t *rank, int32_t *size);
/* The lowest world rank on the host of each world rank, out[size]. */
MUST_USE enum err trn_mpi_env_hosts(int32_t out[]);
/* The ranks of world that share this host: *host_rank, *host_size, and *host_first (lowest world rank here). Collective. */
MUST_USE enum err trn_mpi_env_host(int32_t *host_rank, int32_t *host_size, int32_t *host_first);

/* A communicator of the world ranks members[size] (this rank among them), rank i = members[i]; the same list and tag on
 * each. Opening exchanges nothing. tag: one per group among groups that share two ranks, also over time after a failure.
 * Messages travel by Isend/Irecv with own deadlines: MPI never reports a lost peer. Err BAD_CONFIG, MPI. */
MUST_USE enum err trn_coll_mpi_open(struct trn_coll **out, const int32_t members[], int32_t size, int32_t tag);

#endif
