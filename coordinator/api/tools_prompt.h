/* tools_prompt.h: tools for models whose template does not know them: told in words, in the form
 * most models have seen (Hermes'). */
#ifndef COORDINATOR_API_TOOLS_PROMPT_H
#define COORDINATOR_API_TOOLS_PROMPT_H

#include "coordinator/api/request.h"

/* Change r->messages: the tools described in the system message, or the first of the user's; calls
 * and results of earlier turns as text. */
void crd_tools_prompt(struct crd_request *r);

#endif
