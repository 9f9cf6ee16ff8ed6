/* shm_impl.h: the layout of a segment, for shm_seg.c (life) and shm_flag.c (waiting) alone. */
#ifndef TRANSPORT_SHM_IMPL_H
#define TRANSPORT_SHM_IMPL_H

#include "transport/coll.h"
#include "transport/shm_seg.h"

#include <sched.h>

_Static_assert(ATOMIC_INT_LOCK_FREE == 2, "flags are shared between processes");

struct trn_shm_rank {
    struct trn_shm_flag step;
    struct trn_shm_flag present; /* 1: attached */
    _Atomic uint32_t left;
    _Atomic int32_t cpu; /* where it was at its last post */
    /* written before `present` */
    int32_t pid;
    uint64_t started, pid_ns;
    cpu_set_t cpus; /* it may run on these */
};

struct trn_shm_head {
    _Atomic uint32_t magic; /* set last by rank 0 */
    int32_t size;
    struct trn_shm_flag go; /* 1: all are attached */
    struct trn_shm_rank rank[COLL_MAX_RANKS];
    _Atomic uint64_t board[COLL_MAX_RANKS]; /* of coll.h */
};

struct trn_shm_seg {
    int32_t rank, size;
    bool may_spin, signed_in;
    int64_t slot_bytes, total_bytes;
    uint32_t ring_bytes;
    struct trn_shm_head *head;
    struct trn_shm_flag *ring_flags; /* [(from * size + to) * 2]: written, read */
    unsigned char *slots, *rings;
    char path[80];
};

/* The start time of a process in clock ticks after boot; 0: it is gone or a zombie; UINT64_MAX:
 * cannot be known. */
uint64_t trn_shm_start_of(int32_t pid);
/* The pid namespace of this process; 0: cannot be known. */
uint64_t trn_shm_pid_ns(void);
/* False only when the process that attached as r is known to be gone: pids of another namespace say
 * nothing. */
bool trn_shm_lives(const struct trn_shm_seg *s, int32_t r);
/* Wake whoever sleeps on a flag, without raising it. */
void trn_shm_flag_wake(struct trn_shm_flag *f);

#endif
