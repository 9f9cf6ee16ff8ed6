/* staging.h: what goes between a rank's memory and the host's during a pass. Private to engine.
 *
 * Collectives, the ends of a step and everybody who reads numbers work in the host's memory. Where the backend's memory is the host's
 * own these functions give the pointers they were given; elsewhere they copy. */
#ifndef ENGINE_MODEL_STAGING_H
#define ENGINE_MODEL_STAGING_H

#include "engine/model/forward.h"

struct eng_staging;

/* Sizes: the shard's and max_tok of m; tables of up to n_seqs sequences of `context` positions. On the host: nothing to do. */
MUST_USE enum err eng_staging_open(struct eng_model *m, int32_t n_seqs, int32_t context);
void eng_staging_close(struct eng_model *m);

/* m->in = the batch as the kernels read it. m->cs is set. */
MUST_USE enum err eng_staging_batch(struct eng_model *m, const struct eng_batch *b);
/* m->in = where a batch of so many rows will lie. On a device. */
void eng_staging_rows(struct eng_model *m, int32_t n_tok);
/* Of ids[n], below 0 as in eng_batch, the rows of this rank's embedding as the kernels read them, until the next call; where ranks share the model, and on a
 * device: -1 for those that are another's. */
MUST_USE enum err eng_staging_ids(struct eng_model *m, const int32_t ids[], int32_t n, const int32_t **out);

/* *host = x[n], to be read by the host until the next call. */
MUST_USE enum err eng_staging_get(struct eng_model *m, const float *x, int64_t n, const float **host);
/* Room for every rank's rows of an embedding, as the host gathers them. */
float *eng_staging_all(struct eng_model *m);
/* Where the host puts what is to become x: x itself, or a buffer that eng_staging_put then brings there. */
float *eng_staging_room(struct eng_model *m, float *x);
MUST_USE enum err eng_staging_put(struct eng_model *m, float *x, int64_t n);

#endif
