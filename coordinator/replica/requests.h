/* requests.h: who listens to which request: id -> callback, until the last choice has finished. Private to replica/. Thr: [sched]. */
#ifndef COORDINATOR_REPLICA_REQUESTS_H
#define COORDINATOR_REPLICA_REQUESTS_H

#include "coordinator/sched/scheduler.h"

struct crd_requests;
struct crd_requests *crd_requests_open(void);
void crd_requests_close(struct crd_requests *q);
void crd_requests_add(struct crd_requests *q, uint64_t id, int32_t n_choices, token_event_fn fn, void *user);
void crd_requests_drop(struct crd_requests *q, uint64_t id);
/* Drop it, for whoever listens through another replica from now on (crd_requests_add with n_left choices). False: unknown. */
bool crd_requests_take(struct crd_requests *q, uint64_t id, int32_t *n_left, token_event_fn *fn, void **user);
/* Deliver to the listener; a choice's EVENT_FINISH counts down. Unknown ids are dropped. */
void crd_requests_event(struct crd_requests *q, const struct token_event *e);

#endif
