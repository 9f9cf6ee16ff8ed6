/* random_plan.h: step plans and results drawn from a seed, and their comparison; shared by tests
 * and fuzz seeds. */
#ifndef TESTS_PROTO_RANDOM_PLAN_H
#define TESTS_PROTO_RANDOM_PLAN_H

#include "proto/step_plan.h"
#include "proto/step_result.h"

#include <stdbool.h>

struct dice { uint64_t seed, n; };
uint64_t dice_u64(struct dice *d);
int32_t dice_in(struct dice *d, int32_t lo, int32_t hi);   /* both allowed */

/* A plan inside the bounds with at most `most` records of each kind; arrays in the arena. */
struct step_plan random_plan(struct dice *d, const struct step_bounds *b, int32_t most,
                             struct arena *a);
struct step_result random_result(struct dice *d, int32_t most, struct arena *a);

bool plan_equal(const struct step_plan *x, const struct step_plan *y);
bool result_equal(const struct step_result *x, const struct step_result *y);

#endif
