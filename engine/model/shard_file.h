/* shard_file.h: one file of the cache of packed tiles: a header, checksums, tiles. For shard_cache.c and its tests.
 *
 *   0   "TSRTILE1"      8  u32 element type   12  u32 tiles of a chunk   16  u64 bytes of a tile
 *   24  u64 tiles       32 u64 model id       40  u64 tensor (hash of its name)
 *   48  u64 row0, row1  64 u64 k0, k1         80  XXH3 of bytes 0..79 and of the checksums that follow
 *   88  u64 checksum of each chunk            then, from the next multiple of 4096, the tiles */
#ifndef ENGINE_MODEL_SHARD_FILE_H
#define ENGINE_MODEL_SHARD_FILE_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct eng_shard_file {
    uint32_t type, chunk_tiles;
    uint64_t tile_bytes, tiles, model, tensor, row0, row1, k0, k1;
    uint64_t *sums;       /* [chunks]; Own */
};

enum { SHARD_HEAD = 88, SHARD_ALIGN = 4096, SHARD_CHUNK_BYTES = 1 << 20 };

static inline int64_t eng_shard_chunks(const struct eng_shard_file *s)
{
    return (int64_t)((s->tiles + s->chunk_tiles - 1) / s->chunk_tiles);
}
/* Tiles that share a checksum: about a megabyte of them. */
static inline uint32_t eng_shard_chunk_tiles(uint64_t tile_bytes, uint64_t tiles)
{
    uint64_t n = SHARD_CHUNK_BYTES / tile_bytes;
    return (uint32_t)(n < 1 ? 1 : n < tiles ? n : tiles);
}
/* The checksum of a chunk: XXH3, 64 bits. */
uint64_t eng_shard_sum(const void *p, int64_t bytes);
/* Where the tiles begin. */
int64_t eng_shard_data_at(const struct eng_shard_file *s);

/* The bytes before the tiles: [eng_shard_data_at]. */
void eng_shard_head(const struct eng_shard_file *s, uint8_t *out);
/* Can a file of `file_bytes` be a whole one for this content? Then eng_shard_data_at is within it, and no sum overflows: to be asked before
 * memory is taken for a header whose size comes from a file's name. */
bool eng_shard_fits(const struct eng_shard_file *s, int64_t file_bytes);
/* Is `head` (n bytes from the start of a file of `file_bytes`) that of a whole file for exactly this content? *s has everything but
 * the sums, which are filled in. Reads nothing past n. */
bool eng_shard_check(struct eng_shard_file *s, const uint8_t *head, int64_t n, int64_t file_bytes);

#endif
