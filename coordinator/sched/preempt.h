/* preempt.h: what happens when the pool is full. Private to sched/. */
#ifndef COORDINATOR_SCHED_PREEMPT_H
#define COORDINATOR_SCHED_PREEMPT_H

#include "coordinator/sched/state.h"

enum crd_room {
    ROOM_OK,    /* its next position has its blocks */
    ROOM_LATER, /* blocks are on their way back: try again in a later step */
    ROOM_LEFT,  /* it has left the running ones itself (it may be gone) */
};

/* See to a block for the next position of a decoding sequence that is in no list. */
enum crd_room crd_preempt_room(struct crd_sched *s, struct crd_seq *q);
/* See to the positions before `end` of a decoding one that has room for its next, if the pool has more than the others may soon need. At most one row
 * of blocks more than it has. */
bool crd_preempt_spare(struct crd_sched *s, struct crd_seq *q, int32_t end);
/* See to windowed blocks for the next position of a prefilling one. */
enum crd_room crd_preempt_chunk(struct crd_sched *s, struct crd_seq *q);
/* The last step that names a sequence in LAST or PREEMPTING has retired: it ends, or goes back to
 * waiting. */
void crd_preempt_settle(struct crd_sched *s, struct crd_seq *q);
/* Back to waiting with its known tokens; it holds nothing any more. */
void crd_preempt_requeue(struct crd_sched *s, struct crd_seq *q);

#endif
