/* kv_pool.h: the paged KV cache of one rank: blocks of 16 positions, each with a plane for every layer of the group that uses it
 * (proto/kv_groups.h).
 *
 * Layout per plane: krn_kv (engine/kernels/table.h). All memory is taken at load and zeroed, so a block never shows bytes that are not
 * numbers. Not here: who owns a block (the coordinator's scheduler). */
#ifndef ENGINE_KV_KV_POOL_H
#define ENGINE_KV_KV_POOL_H

#include "engine/backend/backend.h"

struct eng_kv_pool {
    int32_t n_planes, n_blocks;
    int64_t block_bytes;      /* of one plane's K, or V */
    struct krn_kv *planes;    /* [n_planes] */
    struct eng_backend *be;   /* borrowed: mem is its memory */
    uint8_t *mem;
    int64_t bytes;
};

/* A plane's heads and type are `as` says (krn_kv without its memory). Err NO_MEMORY naming the bytes and the flag that helps. */
MUST_USE enum err eng_kv_pool_open(struct eng_kv_pool **out, struct eng_backend *be, int32_t n_planes, int32_t n_blocks, const struct krn_kv *as);
void eng_kv_pool_close(struct eng_kv_pool *p);
/* Copy whole blocks, every plane. Err: the device's. */
MUST_USE enum err eng_kv_pool_copy(struct eng_kv_pool *p, int32_t src, int32_t dst);

#endif
