/* mask_ahead.h: the masks of a step's sequences, computed by a thread of their own while the model's pass runs. Private to engine/.
 *
 * From eng_mask_ahead_start to eng_mask_ahead_settle that thread owns every grammar and the states given; the step
 * thread touches none of them. What is already known wakes nobody. A mask is a function of its state, so nothing shows
 * but the time. Thr: the step thread's. */
#ifndef ENGINE_MASK_AHEAD_H
#define ENGINE_MASK_AHEAD_H

#include "engine/constraint.h"

struct eng_mask_ahead;
/* most: states of one step. The thread may run on any processor its caller may: opened before a team binds it. */
struct eng_mask_ahead *eng_mask_ahead_open(int32_t most);
void eng_mask_ahead_close(struct eng_mask_ahead *a); /* settles; no-op for NULL */
void eng_mask_ahead_add(struct eng_mask_ahead *a, struct eng_constraint *s); /* before start; NULL and what is known are left out */
void eng_mask_ahead_start(struct eng_mask_ahead *a);
void eng_mask_ahead_settle(struct eng_mask_ahead *a);

#endif
