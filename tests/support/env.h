/* env.h: what a test program takes from the environment; linked into each of them.
 *
 *   TEST_FILTER='*name*'   run the tests that match
 *   TEST_SEED=N | time     what random tests begin with; without it always the same, so that continuous integration repeats itself and
 *                          tests/long.sh is where new ground is found */
#ifndef TESTS_SUPPORT_ENV_H
#define TESTS_SUPPORT_ENV_H

#include <stdint.h>

/* The seed of this run; printed, so that a failure can be had again. */
uint64_t test_seed(void);

#endif
