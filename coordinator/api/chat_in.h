/* chat_in.h: messages in, one text for the model out. */
#ifndef COORDINATOR_API_CHAT_IN_H
#define COORDINATOR_API_CHAT_IN_H

#include "coordinator/api/request.h"

/* Check messages and tools of r->body; r->messages is what the template sees: every content one
 * string, arguments of tool calls as objects. Err BAD_REQUEST, *e filled. */
MUST_USE enum err crd_chat_in(struct crd_request *r, const struct crd_api *api,
                               struct crd_api_error *e);
/* Render r->messages with the model's template into r->prompts[0].text. now_unix: for templates
 * that print the date. Err BAD_REQUEST, TOO_LONG, UNSUPPORTED (no template), *e filled. */
MUST_USE enum err crd_chat_render(struct crd_request *r, const struct crd_api *api,
                                  int64_t now_unix, struct crd_api_error *e);

#endif
