/* pool.h: the hidden states of a prompt -> one vector: what embeddings are made of.
 *
 * Of the last token, or the mean of all; normed by the model's last norm, as its head reads them; not scaled to length 1, which is the
 * API's affair. Order: per value one chain of additions by position, from +0, then one division: however the prompt was cut in chunks. Private
 * to engine/. */
#ifndef ENGINE_POOL_H
#define ENGINE_POOL_H

#include "base/arena.h"
#include "engine/model/forward.h"
#include "engine/slots.h"

/* The item's positions are rows [row, row + n_in) of the batch. With the prompt's last position r->pooled is the vector, in `a`.
 * Err LINK_PROTOCOL: the slot pools nothing, or a mean whose positions do not come one after the other. */
MUST_USE enum err eng_pool_take(struct eng_model *m, struct eng_slot *s, const struct step_item *it, int32_t row, struct arena *a,
                                struct result_item *r);

#endif
