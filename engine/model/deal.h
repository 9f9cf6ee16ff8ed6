/* deal.h: who reads which bytes of a model, when several ranks read the same file. Pure.
 *
 * Every rank says which rectangles of which tensors it needs. Ranks that see the same file (one host's, or a shared file
 * system's) form a group, and a rank that has no file belongs to the group that will serve it. Within a group each byte is
 * read once: a tensor whose rows go to one rank each is read by those ranks themselves; any other is cut into pieces of
 * whole rows, contiguous in the file, each read by one rank and handed on to those who need it. All ranks of a group
 * compute the same list from the same needs, so nobody has to be told.
 * Not here: reading, sending, packing (load.c). */
#ifndef ENGINE_MODEL_DEAL_H
#define ENGINE_MODEL_DEAL_H

#include "engine/file/model_file.h"
#include "proto/limits.h"

/* Rows [row0,row1), columns [k0,k1) of a tensor, by its number in the file. A tensor of more than two dimensions counts
 * its rows through; a vector is one row. A rank's needs are in the order of tensors, then rows, and do not overlap. */
struct eng_need { int32_t tensor, row0, row1, k0, k1; };

struct eng_deal_rank {
    bool has_file;
    int32_t group;
    const struct eng_need *needs;
    int32_t n_needs;
};

/* Blocks [b0,b1) of rows [row0,row1). reader: the rank that reads it for all who need it; ENG_DEAL_OWN: each who needs
 * rows of this tensor reads its own, now. */
enum { ENG_DEAL_OWN = -1 };
struct eng_deal_item { int32_t tensor, row0, row1, b0, b1, reader; };

/* The list of one group, in the order of the file. Own: caller, free(). piece_bytes: most that one item reads (one row
 * may be more). */
int32_t eng_deal(const struct eng_model_file *f, const struct eng_deal_rank ranks[], int32_t n_ranks, int32_t group,
                 int64_t piece_bytes, struct eng_deal_item **out);

/* The need of a rank that covers an item, or NULL. *cursor: 0 at first; items come in the order of the list. */
const struct eng_need *eng_deal_need(const struct eng_deal_rank *r, const struct eng_deal_item *x, int32_t *cursor);

#endif
