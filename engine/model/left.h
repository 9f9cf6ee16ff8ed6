/* left.h: tokens that stay on the device until the next step, which takes its inputs from there, and the host gets a copy by the way. Nothing here waits
 * but eng_left_tokens.
 *
 * A rank alone with the model, or all ranks of the one stage, each on a device, whose devices sum by themselves (tp_dev). What each finds in its slice of
 * the vocabulary is told to all, which choose the same from it; an input's row of the embedding is one rank's, the others add zeros to it. What is told
 * depends on nothing but the arguments, which are the same on every rank, whenever a rank comes to tell it. Private to engine/. */
#ifndef ENGINE_MODEL_LEFT_H
#define ENGINE_MODEL_LEFT_H

#include "engine/model/forward.h"

/* m->left, where it can be had and TESSERA_AHEAD is not "off": on all ranks of the stage or on none. Collective over m->tp; m->tp_dev is open. */
MUST_USE enum err eng_left_open(struct eng_model *m, int32_t n_seqs);
void eng_left_close(struct eng_model *m);

/* x = the embedding, of a rank that shares the model. */
MUST_USE enum err eng_left_embed(struct eng_model *m, const struct eng_batch *b);
/* Of the rows of the last eng_forward_head a token each: it is number first + i there, and comes to the host by itself: the largest logit, or what
 * how[i] draws. */
MUST_USE enum err eng_left_choose(struct eng_model *m, int32_t n, const struct krn_noise how[], int32_t first, int32_t side);
/* Have those of `side` come; wait for them: *ids, until that side is used again. */
MUST_USE enum err eng_left_came(struct eng_model *m, int32_t side, bool *done);
MUST_USE enum err eng_left_tokens(struct eng_model *m, int32_t side, const int32_t **ids);

#endif
