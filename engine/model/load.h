/* load.h: brings the tensors of one rank into memory: from the cache of packed tiles what lies there, the rest from the
 * file, each byte read once by one of the ranks that share it and handed on (deal.h), and packs it.
 *
 * All ranks of the replica call it at the same time. Nothing here is under a collective's time-out: a slow disk is no dead
 * peer. Who loads for ever is ended by the coordinator (--load-timeout), who is left behind by a lost peer by its stream. */
#ifndef ENGINE_MODEL_LOAD_H
#define ENGINE_MODEL_LOAD_H

#include "engine/backend/team.h"
#include "engine/file/model_file.h"
#include "engine/model/peers.h"

/* Rows [row0,row1), columns [k0,k1) of a tensor (as eng_need of deal.h), wanted packed in tiles, or as f32 (a vector). */
struct eng_want {
    const struct model_tensor *t;
    int64_t row0, row1, k0, k1;
    uint8_t *tiles;          /* or NULL; zeroed or not */
    int64_t tile_bytes;
    float *floats;           /* [k1-k0]; or NULL */
    bool pages;              /* tiles begin at a page of their own and end on one: a file may be mapped there */
    bool mapped;             /* Out: it was (shard_cache.h) */
};

typedef void (*eng_progress_fn)(void *user, int64_t bytes_done, int64_t bytes_total);

struct eng_backend;
struct eng_shard_cache;
struct eng_load_conf {
    const struct eng_model_file *file;
    struct eng_team *team;
    const struct eng_peers *peers;     /* NULL: alone */
    struct eng_shard_cache *cache;     /* NULL: none */
    struct eng_backend *made_on;       /* not NULL: nothing is read; weights are made from the seed in its memory (made.h) */
    uint64_t made_seed;
    eng_progress_fn progress;          /* bytes of the file, this rank's; may be NULL */
    void *user;
};

/* Bytes of the file's tensors, and how they came. read: by this rank, for itself and others; mapped: those of cached. */
struct eng_load_stats { int64_t read, received, sent, cached, mapped; };

/* The bytes of the file that a want stands for: whole blocks. */
int64_t eng_want_bytes(const struct eng_want *w);

/* Err IO, NO_MEMORY, those of a lost peer, LINK_PROTOCOL (ranks that disagree). wants[] is put into the file's order. */
MUST_USE enum err eng_load(const struct eng_load_conf *conf, struct eng_want wants[], int32_t n, struct eng_load_stats *out);

#endif
