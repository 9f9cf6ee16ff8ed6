/* measure.h: an importance matrix out of a text: the engine computes the text, and of every matrix the squares of its inputs
 * are summed column by column. Each chunk of tokens is a sequence of its own. Experts count the tokens that came to them. */
#ifndef ENGINE_CONVERT_MEASURE_H
#define ENGINE_CONVERT_MEASURE_H

#include "engine/convert/imatrix.h"

struct eng_measure_conf {
    const char *path;             /* of the model */
    const int32_t *ids;           /* [n_ids] */
    int64_t n_ids;
    int32_t chunk, n_threads;
    /* Called after each chunk; may be NULL. Returns false to stop: what was measured so far is the result. */
    bool (*progress)(void *user, int64_t done, int64_t total);
    void *user;
};

/* Whole chunks are measured; a text shorter than one is a chunk. Err as eng_engine_open, eng_engine_step; BAD_CONFIG (no token). */
MUST_USE enum err eng_measure(const struct eng_measure_conf *c, struct eng_imatrix **out);

#endif
