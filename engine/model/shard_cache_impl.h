/* shard_cache_impl.h: what the files of the cache of packed tiles share: shard_cache.c finds, shard_take.c reads and maps,
 * shard_keep.c writes and makes room. */
#ifndef ENGINE_MODEL_SHARD_CACHE_IMPL_H
#define ENGINE_MODEL_SHARD_CACHE_IMPL_H

#include "engine/model/shard_cache.h"
#include "engine/model/shard_file.h"

#include <pthread.h>
#include <stdatomic.h>

/* A file of this model in the directory. */
struct shard_entry {
    uint64_t tensor;
    int64_t row0, row1, k0, k1;
};

struct eng_shard_cache {
    char *dir;
    int64_t max_bytes;
    uint64_t model;
    int64_t opened_s;             /* seconds since 1970 */
    struct shard_entry *entries;  /* [init] sorted by tensor, columns, rows */
    int32_t n_entries;
    bool may_map;                 /* [init] */
    /* [keep] the writing thread */
    pthread_t thread;
    struct eng_team *team;        /* it works beside it; Borrowed */
    bool runs;
    _Atomic bool stop;
    struct eng_want *wants;
    int32_t n_wants;
    _Atomic int64_t written;
};

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22 /* Linux 5.14 */
#endif

/* What a name in the directory stands for; false: it is no file of this model's. */
bool eng_shard_entry_of(const char *name, uint64_t model, struct shard_entry *out);
struct eng_shard_file eng_shard_of_want(const struct eng_shard_cache *c, const struct eng_want *w, int64_t row0, int64_t row1);
char *eng_shard_path(const struct eng_shard_cache *c, const struct shard_entry *e); /* Own: free() */
/* By tensor, columns, rows; of those that begin in the same row the longest comes first. For qsort. */
int eng_shard_compare(const void *a, const void *b);
uint64_t eng_shard_tensor(const struct model_tensor *t);

#endif
