/* access.h: who may call which path, and the account of what they use. The gate of the gateway. */
#ifndef COORDINATOR_API_ACCESS_H
#define COORDINATOR_API_ACCESS_H

#include "coordinator/api/generation.h"
#include "coordinator/api/keys.h"
#include "coordinator/gateway/gateway.h"

/* For gw_open; `user` is a struct crd_api. 401 in the path's dialect when a key is needed and none,
 * or a wrong one, was given. Sets r->caller (struct crd_key; NULL: a public path, and no key or a wrong one). Paths below
 * /admin/ need an admin key instead, where there are any. */
bool crd_access_gate(void *api, struct gw_exchange *x, struct gw_request *r);

/* The key that came with a request, "Authorization: Bearer KEY" or "x-api-key: KEY"; NULL: none. */
const char *crd_access_secret(struct gw_exchange *x);

/* Begin a generation for this caller. False: it has been answered with 429. */
bool crd_access_begin(struct crd_api *api, struct gw_exchange *x, const struct gw_request *r);
/* So many tokens more than before. */
void crd_access_charge(struct crd_key *key, int64_t n_prompt, int64_t n_completion);
void crd_access_end(struct crd_key *key);

#endif
