/* api.h: the endpoints as a table for the gateway. The one place where api/ and gateway/ meet. */
#ifndef COORDINATOR_API_API_H
#define COORDINATOR_API_API_H

#include "coordinator/api/generation.h"
#include "coordinator/gateway/gateway.h"

/* For gw_open, beside crd_access_gate; `user` is a struct crd_api. */
extern const struct gw_route crd_api_routes[];
extern const int32_t crd_api_n_routes;
/* gw_conf.alarm. */
void crd_api_alarm(void *user);
/* Everything else: /v1/models/{id}, /v1/requests/{id}, 404 and 405. */
void crd_api_fallback(void *user, struct gw_exchange *x, const struct gw_request *r);

#endif
