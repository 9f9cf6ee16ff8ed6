/* batch.h: records -> step_plan, and the note of what was asked that a result is read against.
 * Private to sched/. */
#ifndef COORDINATOR_SCHED_BATCH_H
#define COORDINATOR_SCHED_BATCH_H

#include "coordinator/sched/state.h"

void crd_batch_open(struct crd_batch *b, const struct sched_conf *conf);
void crd_batch_close(struct crd_batch *b);

/* Begin the next plan. End records due go in first, so their slots can be given away in this very
 * plan. */
void crd_batch_begin(struct crd_sched *s, struct arena *a);
/* Nothing to do after all: the end records stay due. */
void crd_batch_abandon(struct crd_sched *s);
/* The plan as views of the arena; the step counts as sent. */
void crd_batch_finish(struct crd_sched *s, struct step_plan *out);

bool crd_batch_full(const struct crd_batch *b);
/* Room in the packed plan for one more start record (its history may be long)? */
bool crd_batch_has_room_to_start(const struct crd_batch *b, const struct crd_seq *q);
/* Start record and whole table. */
void crd_batch_start(struct crd_batch *b, const struct crd_seq *q);
/* The last n blocks of a table are new. */
void crd_batch_extend(struct crd_batch *b, const struct crd_seq *q, int32_t n);

/* The next item of a prefilling or decoding sequence as far as the plan has room; moves it to the
 * list it belongs to after. False: no room for even one position (rows of logits are short),
 * nothing was added. */
bool crd_batch_item(struct crd_sched *s, struct crd_seq *q);
/* Its tenant pays for positions up to `end`, as far as they are computed the first time. */
void crd_batch_charge(struct crd_sched *s, struct crd_seq *q, int32_t end);

#endif
