/* pack_rows.h: rows of the file into tiles, by all threads of the team. */
#ifndef ENGINE_MODEL_PACK_ROWS_H
#define ENGINE_MODEL_PACK_ROWS_H

#include "engine/model/load.h"

/* n rows that lie in memory one after the other (the want's blocks of each), into the tiles from `tile` on; n is a
 * multiple of KRN_TILE unless they are the want's last. */
void eng_pack_rows(struct eng_team *team, const struct eng_want *w, int64_t tile, const uint8_t *data, int64_t n);

/* All rows of the want, each thread reading its own. Err IO, NO_MEMORY. */
MUST_USE enum err eng_pack_from_file(struct eng_team *team, const struct eng_model_file *f, const struct eng_want *w);

#endif
