/* tools_in.h: the fields that offer functions to the model: tools, tool_choice,
 * parallel_tool_calls; and include_reasoning, which like them says what the answer is taken apart
 * into. */
#ifndef COORDINATOR_API_TOOLS_IN_H
#define COORDINATOR_API_TOOLS_IN_H

#include "coordinator/api/request.h"

enum { TOOLS_MAX = 512 };

/* Fill r->tools and r->reply's calls. Err BAD_REQUEST, *e filled. */
MUST_USE enum err crd_tools_in(struct crd_request *r, const struct crd_api *api,
                               struct crd_api_error *e);

#endif
