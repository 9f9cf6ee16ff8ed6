/* made.h: weights that are made up instead of read, for benchmarks: right in every byte's meaning, without sense.
 *
 * One tile per tensor is made from the seed and copied over the tensor in the backend's own memory, so that 40 GB on a card take a second
 * and no file. Norms are 1, biases small. */
#ifndef ENGINE_MODEL_MADE_H
#define ENGINE_MODEL_MADE_H

#include "engine/backend/backend.h"
#include "engine/model/load.h"

/* Fill the wants; their memory is be's. The same seed gives the same bytes. Err: be's. */
MUST_USE enum err eng_made_fill(struct eng_backend *be, const struct eng_want wants[], int32_t n, uint64_t seed);

#endif
