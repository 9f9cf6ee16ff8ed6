/* embeddings_in.h: the body of /v1/embeddings: texts or token ids, and how their vectors are wanted. */
#ifndef COORDINATOR_API_EMBEDDINGS_IN_H
#define COORDINATOR_API_EMBEDDINGS_IN_H

#include "coordinator/api/request.h"

/* Fill r's prompts, r->pool and r->vector from r->body. Err BAD_REQUEST, *e filled. */
MUST_USE enum err crd_embeddings_in(struct crd_request *r, const struct crd_api *api,
                                    struct crd_api_error *e);
/* After tokenizing: does every input fit into the context? Those that may be cut are. */
MUST_USE enum err crd_embeddings_fit(struct crd_request *r, const struct crd_api *api,
                                     struct crd_api_error *e);

#endif
