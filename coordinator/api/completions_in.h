/* completions_in.h: the four shapes a prompt may have. */
#ifndef COORDINATOR_API_COMPLETIONS_IN_H
#define COORDINATOR_API_COMPLETIONS_IN_H

#include "coordinator/api/request.h"

/* "text", ["text", ...], [ids], [[ids], ...] -> r->prompts. Err BAD_REQUEST, *e filled. */
MUST_USE enum err crd_completions_in(struct crd_request *r, const struct crd_api *api,
                                     struct crd_api_error *e);
/* The same of another field, at most so many. */
MUST_USE enum err crd_prompts_in(struct crd_request *r, const struct crd_api *api, const char *field,
                                 size_t most, struct crd_api_error *e);
/* Text to ids for every prompt of either endpoint (ids as given stay), truncated as asked. Err
 * BAD_REQUEST (a prompt without tokens), *e filled. */
MUST_USE enum err crd_prompts_tokenize(struct crd_request *r, const struct crd_api *api,
                                       struct crd_api_error *e);

#endif
