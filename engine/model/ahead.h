/* ahead.h: reads the pieces that this rank is to read (deal.h), in their order, in a thread of its own, a few ahead of
 * the one that hands them out and packs them. */
#ifndef ENGINE_MODEL_AHEAD_H
#define ENGINE_MODEL_AHEAD_H

#include "engine/backend/team.h"
#include "engine/model/deal.h"

struct eng_ahead;
/* items[n]: the group's list; those whose reader is `rank` are read, beside the team. Borrowed. Err SYSTEM, NO_MEMORY. */
MUST_USE enum err eng_ahead_open(struct eng_ahead **out, const struct eng_model_file *f, const struct eng_deal_item items[],
                                 int32_t n, int32_t rank, const struct eng_team *team);
/* The next of them: its rows one after the other, blocks [b0,b1) of each; valid until the next call, which gives the one
 * before back. *data is NULL before the first call. Err as eng_model_file_read. */
MUST_USE enum err eng_ahead_next(struct eng_ahead *a, const uint8_t **data);
/* Bytes read so far. Thr: any. */
int64_t eng_ahead_bytes(struct eng_ahead *a);
void eng_ahead_close(struct eng_ahead *a); /* NULL-safe; also in the middle */

#endif
