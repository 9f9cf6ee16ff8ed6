/* result.h: what a step produced -> events, and the step is over. Private to sched/. */
#ifndef COORDINATOR_SCHED_RESULT_H
#define COORDINATOR_SCHED_RESULT_H

#include "coordinator/sched/state.h"

/* crd_sched_on_result, at s->now_us. */
MUST_USE enum err crd_result_take(struct crd_sched *s, const struct step_result *r);

#endif
