/* prediction_in.h: OpenAI's `prediction`: what the answer may well say, from its beginning. A hint: no token depends on it. */
#ifndef COORDINATOR_API_PREDICTION_IN_H
#define COORDINATOR_API_PREDICTION_IN_H

#include "coordinator/api/request.h"

/* -> r->prediction's text. Err BAD_REQUEST, *e filled. */
MUST_USE enum err crd_prediction_in(struct crd_request *r, struct crd_api_error *e);
/* Its text to ids, as many as the answer may have. */
void crd_prediction_tokenize(struct crd_request *r, const struct crd_api *api);

#endif
