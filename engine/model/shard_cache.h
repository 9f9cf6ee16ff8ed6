/* shard_cache.h: packed tiles kept on a local disk, so that a later start reads them from there instead of fetching the
 * model's file again.
 *
 * Named by content, not by rank: model (its size, time of change, sampled bytes), layout of tiles, tensor, rows and
 * columns. A later cut takes from it whatever rows it finds with the columns it needs; the rest is loaded as if there were
 * no cache. Files are written beside their place and moved into it whole, every megabyte carries a checksum, and one that
 * is damaged is removed and loaded anew: a crash or a full disk costs nothing but the saving. The directory is kept below
 * a size by removing what was not used for longest. Ranks and replicas may share a directory.
 * A file that holds exactly what is wanted is mapped where the kernels will read it, and moved into huge pages beside the first steps (huge.h);
 * anything else, and on a host with several memories everything, is read. See docs/decisions. */
#ifndef ENGINE_MODEL_SHARD_CACHE_H
#define ENGINE_MODEL_SHARD_CACHE_H

#include "engine/model/load.h"

struct eng_shard_cache;

/* The directory is made when it is not there. max_bytes 0: a quarter of what is free. Err IO naming the directory.
 * Own: caller closes. */
MUST_USE enum err eng_shard_cache_open(struct eng_shard_cache **out, const char *dir, int64_t max_bytes, uint64_t model_id);
/* Waits for the writing thread to end its present file, at most: what was not written is not kept. NULL-safe. */
void eng_shard_cache_close(struct eng_shard_cache *c);

/* What eng_shard_cache_take says, want by want in their order: of each the bytes of the model's file that were found (0: none), after
 * missing() for each range of rows that is not there; a range begins at a tile of the want. */
struct eng_shard_taker {
    void (*missing)(void *user, const struct eng_want *w, int64_t row0, int64_t row1);
    void (*found)(void *user, const struct eng_want *w, int64_t bytes);
    void *user;
};
/* Fill the wants from the cache, `mapped` of each included. Wants without tiles are missing. */
void eng_shard_cache_take(struct eng_shard_cache *c, struct eng_team *team, struct eng_want wants[], int32_t n, const struct eng_shard_taker *to);

/* Begin to write these wants, which are complete and stay so until close, from a thread of low priority. Once. */
void eng_shard_cache_keep(struct eng_shard_cache *c, struct eng_team *team, const struct eng_want wants[], int32_t n);
/* Wait until all is written (for tests and tools). Bytes written. */
int64_t eng_shard_cache_settle(struct eng_shard_cache *c);

/* "~/.cache/tessera" as the environment says it (XDG_CACHE_HOME, HOME), when it is on a local disk; else NULL. Own: free(). */
char *eng_shard_cache_default(void);

#endif
