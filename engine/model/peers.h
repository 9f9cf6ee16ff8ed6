/* peers.h: the ranks of a replica as readers of the model's file: who has it, who sees the same one, and who brings it to
 * those who have none.
 *
 * Two ranks see the same file when kernel, device and inode agree, or, on a network file system, inode, size and time of
 * change. A rank without the file is served by the group of the rank that answers it fastest (a rank of its own host, if
 * there is one). It is given the file's headers, so that it can be opened like any other: tensors are then never read
 * from it. */
#ifndef ENGINE_MODEL_PEERS_H
#define ENGINE_MODEL_PEERS_H

#include "engine/file/model_file.h"
#include "proto/limits.h"
#include "transport/coll.h"

struct eng_peers {
    struct trn_coll *world;          /* borrowed; NULL or of one rank: alone */
    int32_t n;
    bool has_file[LIMIT_RANKS];
    int32_t group[LIMIT_RANKS];      /* lowest rank that sees this rank's file, or serves it */
    bool remote;                     /* this rank's file is on a network file system, or it has none */
    uint64_t model_id;               /* of the very file: size, time of change, sampled contents; the same for all of a group */
};

/* How long a rank waits for another while loading: not at all seriously. */
static const int64_t ENG_LOAD_WAIT_US = INT64_C(7) * 24 * 3600 * 1000000;

/* Open the model at `path`, here or by its headers from another rank. Collective over `world`. fingerprint: it must be
 * this one; 0: any. Err as eng_model_file_open; IO (no rank has it); BAD_FILE (another model). Own: caller closes *file. */
MUST_USE enum err eng_peers_open(struct eng_peers *out, struct eng_model_file **file, const char *path, uint64_t fingerprint,
                                 struct trn_coll *world);

#endif
