/* fleet.h: the replicas as one: who gets a request, and who goes on with it when its replica is lost.
 *
 * Every open request has an entry here that says where it is, so that a cancel finds it also while it moves. A lost replica's requests go at
 * once to those that serve, with their known tokens; when none serves they wait where they are, and the first replica that comes back takes
 * them all. Since results do not depend on the replica, streams go on with the same bytes.
 *
 * Not here: the choice itself (route.h), starting processes. Thr: any; one lock, never held while a listener runs. */
#ifndef COORDINATOR_REPLICA_FLEET_H
#define COORDINATOR_REPLICA_FLEET_H

#include "coordinator/replica/replica.h"
#include "coordinator/replica/route.h"

struct crd_fleet;
struct crd_fleet *crd_fleet_open(void);
void crd_fleet_close(struct crd_fleet *f); /* NULL-safe; after its replicas are closed */

/* What the next replica is told of the others: into its conf, before it is opened. */
struct replica_peers crd_fleet_peers(struct crd_fleet *f);
/* In the order of their indices, 0 first; at most ROUTE_REPLICAS, before requests come. */
void crd_fleet_add(struct crd_fleet *f, struct crd_replica *r);

/* As crd_service_ops. An id that is in use is refused before this returns (EVENT_FINISH, BAD_REQUEST). */
void crd_fleet_submit(struct crd_fleet *f, const struct gen_request *q, token_event_fn on_event, void *user);
void crd_fleet_cancel(struct crd_fleet *f, uint64_t request);
/* Choices open at a replica. */
int32_t crd_fleet_load(struct crd_fleet *f, int32_t replica);
/* Requests that went from a lost replica to another, so far. */
uint64_t crd_fleet_moved(struct crd_fleet *f);

#endif
