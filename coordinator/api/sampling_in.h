/* sampling_in.h: every field of a request but its prompt: one table of names, types, ranges and
 * refusals. */
#ifndef COORDINATOR_API_SAMPLING_IN_H
#define COORDINATOR_API_SAMPLING_IN_H

#include "coordinator/api/request.h"

/* Fill r's fields from r->body. Err BAD_REQUEST, *e filled. */
MUST_USE enum err crd_sampling_in(struct crd_request *r, const struct crd_api *api,
                                  struct crd_api_error *e);
/* Its parts in files of their own: lists_in.c, bans_in.c, options_in.c,
 * grammar_in.c. */
MUST_USE enum err crd_lists_in(struct crd_request *r, const struct crd_api *api,
                               struct crd_api_error *e);
MUST_USE enum err crd_bans_in(struct crd_request *r, const struct crd_api *api,
                              struct crd_api_error *e);
/* best_of.c: n becomes best_of, where that is more. */
MUST_USE enum err crd_best_of_in(struct crd_request *r, const struct crd_api *api,
                                 struct crd_api_error *e);
/* After rendering: whether the prompt has opened the thoughts is known. */
void crd_thinking_in(struct crd_request *r, const struct crd_api *api);
MUST_USE enum err crd_options_in(struct crd_request *r, const struct crd_api *api, struct crd_api_error *e);
/* cache_salt alone. */
MUST_USE enum err crd_salt_in(struct crd_request *r, struct crd_api_error *e);
bool crd_options_known(const char *name);
MUST_USE enum err crd_grammar_in(struct crd_request *r, const struct crd_api *api, struct crd_api_error *e);
bool crd_grammar_known(const char *name);
/* After tokenizing: settle max_tokens and what depends on it. n_prompt: the longest prompt.
 * Err TOO_LONG or BAD_REQUEST, *e filled with the sentence clients look for. */
MUST_USE enum err crd_sampling_fit(struct crd_request *r, const struct crd_api *api,
                                   int64_t n_prompt, struct crd_api_error *e);

#endif
