/* admission.h: who may come in: the bounded queue, who is first in line, and what one needs to
 * start. Private to sched/. */
#ifndef COORDINATOR_SCHED_ADMISSION_H
#define COORDINATOR_SCHED_ADMISSION_H

#include "coordinator/sched/state.h"

/* Would it ever run, and is there room in the queue? Err BAD_REQUEST, TOO_LONG, QUEUE_FULL with the
 * numbers. */
MUST_USE enum err crd_admission_check(const struct crd_sched *s, const struct gen_request *r);
/* A new request: its first choice waits, the others are held until the prompt they share is
 * computed. */
void crd_admission_add(struct crd_sched *s, struct crd_group *g);
/* The choice that was computing the shared prompt has done so, or never will. */
void crd_admission_release_held(struct crd_sched *s, struct crd_group *g);

/* Into the line and out of it; state WAITING. */
void crd_admission_wait(struct crd_sched *s, struct crd_seq *q);
void crd_admission_unwait(struct crd_sched *s, struct crd_seq *q);
/* First in line: resumed ones before new ones. NULL: nobody. */
struct crd_seq *crd_admission_first(const struct crd_sched *s);
/* Give the first in line a slot and blocks for all its known tokens, and its start record. False:
 * there is no room now. */
bool crd_admission_start(struct crd_sched *s, struct crd_seq *q);

#endif
