/* shm_seg.h: the shared memory of one group on one host: who is there, flags to wait on, slots and
 * rings of bytes.
 *
 * Knows nothing of collectives; coll_shm.c gives the bytes their meaning. */
#ifndef TRANSPORT_SHM_SEG_H
#define TRANSPORT_SHM_SEG_H

#include "base/err.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* A counter that one rank raises and others wait for. It may wrap: targets are at most 2^31 ahead.
 */
struct trn_shm_flag {
    _Alignas(64) _Atomic uint32_t value;
    _Atomic uint32_t sleepers;
};

struct trn_shm_seg;

/* Rank 0 creates "/tessera-<name>", the others attach; returns when all have, the name removed.
 * Err BAD_CONFIG (name, rank, another size), DEADLINE, PEER_LOST, SYSTEM. */
MUST_USE enum err trn_shm_seg_open(struct trn_shm_seg **out, const char *name, int32_t rank,
                                   int32_t size, int64_t timeout_us);
void trn_shm_seg_close(struct trn_shm_seg *s); /* wakes those who wait for this rank; NULL-safe */

int64_t trn_shm_seg_slot_bytes(const struct trn_shm_seg *s);
unsigned char *trn_shm_seg_slot(struct trn_shm_seg *s, int32_t rank, uint32_t parity);
struct trn_shm_flag *trn_shm_seg_step(struct trn_shm_seg *s, int32_t rank);
/* The ring from one rank to another: bytes written and read so far, and its memory; its size is a
 * power of two. */
struct trn_shm_flag *trn_shm_seg_written(struct trn_shm_seg *s, int32_t from, int32_t to);
struct trn_shm_flag *trn_shm_seg_read(struct trn_shm_seg *s, int32_t from, int32_t to);
unsigned char *trn_shm_seg_ring(struct trn_shm_seg *s, int32_t from, int32_t to);
uint32_t trn_shm_seg_ring_bytes(const struct trn_shm_seg *s);

/* A number of each rank's own, [size]; zero at first. */
_Atomic uint64_t *trn_shm_seg_board(struct trn_shm_seg *s);

/* Raise a flag of this rank; what was written before is seen by whoever sees the value. */
void trn_shm_seg_post(struct trn_shm_seg *s, struct trn_shm_flag *f, uint32_t value);
static inline bool trn_shm_flag_reached(struct trn_shm_flag *f, uint32_t target)
{
    return (int32_t)(atomic_load_explicit(&f->value, memory_order_acquire) - target) >= 0;
}

enum trn_shm_wait { SHM_REACHED, SHM_LATE, SHM_ENDED, SHM_LEFT };
/* Wait until the flag, raised by `rank`, reaches target: spin, then sleep. ENDED: the rank's
 * process is gone; LEFT: it has closed its segment. */
enum trn_shm_wait trn_shm_seg_wait(struct trn_shm_seg *s, struct trn_shm_flag *f, uint32_t target,
                                   int32_t rank, int64_t until_us);

#endif
