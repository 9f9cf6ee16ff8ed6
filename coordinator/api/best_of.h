/* best_of.h: more choices are generated than are shown: the best by log-probability per token. */
#ifndef COORDINATOR_API_BEST_OF_H
#define COORDINATOR_API_BEST_OF_H

#include "coordinator/api/choice.h"

/* Of the choices of each prompt the best come first, best first, all prompts' before the rest, and
 * get their numbers. Returns how many are shown. */
int32_t crd_best_of(const struct crd_request *r, struct crd_choice choices[], int32_t n);

#endif
