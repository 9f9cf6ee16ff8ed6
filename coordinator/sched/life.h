/* life.h: how requests come and how their choices end. Private to sched/. */
#ifndef COORDINATOR_SCHED_LIFE_H
#define COORDINATOR_SCHED_LIFE_H

#include "coordinator/sched/state.h"

/* crd_sched_submit, _cancel and _fail_all, at s->now_us. */
MUST_USE enum err crd_life_submit(struct crd_sched *s, const struct gen_request *r);
void crd_life_cancel(struct crd_sched *s, uint64_t request);
void crd_life_fail_all(struct crd_sched *s, enum err err, const char *text);

/* The finishing event; then its blocks go back as soon as its last step has retired. `q` and its
 * group may be gone after. */
void crd_life_finish(struct crd_sched *s, struct crd_seq *q, enum seq_finish finish,
                        enum err err, const char *text);
/* It will be in no further step: its end record is due. */
void crd_life_end_slot(struct crd_sched *s, struct crd_seq *q);
/* Drop the references of its table. */
void crd_life_drop_blocks(struct crd_sched *s, struct crd_seq *q);
/* Nothing holds a finished sequence any more. Its group goes with the last one. */
void crd_life_gone(struct crd_sched *s, struct crd_seq *q);

/* From one scheduler to another, at a moment when nothing of the request is with a replica. */
void crd_life_release(struct crd_sched *s, struct crd_group *g);
void crd_life_adopt(struct crd_sched *s, struct crd_group *g);

#endif
