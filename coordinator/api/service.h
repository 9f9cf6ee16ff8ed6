/* service.h: what the API layer needs of the cluster, as a table of operations: the coordinator wires the real one (replicas), tests wire
 * a fake. */
#ifndef COORDINATOR_API_SERVICE_H
#define COORDINATOR_API_SERVICE_H

#include "base/buf.h"
#include "coordinator/sched/scheduler.h"
#include "proto/model_info.h"

enum service_state { SERVICE_LOADING, SERVICE_READY, SERVICE_DEGRADED, SERVICE_DRAINING };

struct service_status {
    enum service_state state;
    char text[512];              /* one sentence: why not READY */
    struct sched_stats sched;    /* summed over engines */
    int32_t n_engines;           /* replicas that schedule for themselves; 0: the service does not tell them apart */
    int32_t max_context;         /* positions a sequence may have */
};

struct crd_service_ops {
    /* Hand over a request; events arrive by on_event(user, ...) on a scheduler thread until the last choice's EVENT_FINISH. Never blocks.
     * A refusal also arrives as EVENT_FINISH (choice -1: all choices) with its error. The request is copied. */
    void (*submit)(void *self, const struct gen_request *r, token_event_fn on_event, void *user);
    /* Events may still arrive until EVENT_FINISH. */
    void (*cancel)(void *self, uint64_t request);
    void (*status)(void *self, struct service_status *out);
    /* Of one engine. NULL when n_engines is 0. */
    void (*engine)(void *self, int32_t i, struct sched_stats *out);
    /* Append the cluster's part of /health's body (a JSON object) and of /metrics (Prometheus lines with our own prefix "tessera:"). */
    void (*health_json)(void *self, struct buf *out);
    void (*metrics)(void *self, struct buf *out);
};

struct crd_service {
    const struct crd_service_ops *ops;
    void *self;
};

#endif
