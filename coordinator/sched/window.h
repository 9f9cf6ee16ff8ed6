/* window.h: blocks of windowed groups (proto/kv_groups.h) come chunk by chunk and go when they are
 * behind the window, so that a sequence never holds more than its window and the chunk it computes.
 * Private to sched/. Nothing happens here for a model without windows. */
#ifndef COORDINATOR_SCHED_WINDOW_H
#define COORDINATOR_SCHED_WINDOW_H

#include "coordinator/sched/state.h"

/* Positions from n_computed on for which a sequence has windowed blocks, or could take them now. */
int32_t crd_window_reach(const struct crd_sched *s, const struct crd_seq *q);
/* Take those up to position `end`, which is within reach. */
void crd_window_take(struct crd_sched *s, struct crd_seq *q, int32_t end);
/* The step with its last item is sent: drop what no later one reads. */
void crd_window_slide(struct crd_sched *s, struct crd_seq *q);

#endif
