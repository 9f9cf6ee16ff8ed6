/* coll_impl.h: what the implementations of coll.h share: the standard sentences of a wait that
 * failed. Not for users of collectives. */
#ifndef TRANSPORT_COLL_IMPL_H
#define TRANSPORT_COLL_IMPL_H

#include "transport/coll.h"

/* One turn of a spinning wait. */
static inline void trn_coll_pause(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Say whom c waits for now (trn_coll_now shows it). */
static inline void trn_coll_waiting(struct trn_coll *c, int32_t rank)
{
    atomic_store_explicit(&c->now_rank, rank, memory_order_relaxed);
}

/* "shm all_reduce #48213: rank 2 has not arrived within 10 s". Returns DEADLINE. */
enum err trn_coll_late(struct trn_coll *c, int32_t rank, int64_t timeout_us);
/* "shm all_reduce #48213: rank 2 is lost (its process ended)". Returns PEER_LOST. */
enum err trn_coll_lost(struct trn_coll *c, int32_t rank, const char *how);
/* "mpi recv #17: rank 2 sent 40 bytes where 64 were expected"; seen -1: unknown, but longer.
 * Returns LINK_PROTOCOL. */
enum err trn_coll_wrong_length(struct trn_coll *c, int32_t rank, int64_t seen, int64_t expected);

#endif
