/* team.h: the compute threads of one worker, run as one.
 *
 * eng_team_run calls fn(arg, i, n) on n threads (the caller is thread 0) and returns when all have returned.
 * Between calls threads spin for microseconds, then sleep on a futex: an idle team costs nothing.
 * Every thread asserts the float environment (no FTZ/DAZ, round to nearest). Thr: one caller at a time. */
#ifndef ENGINE_BACKEND_TEAM_H
#define ENGINE_BACKEND_TEAM_H

#include "base/err.h"

#include <stdint.h>

struct eng_team;
typedef void (*eng_team_fn)(void *arg, int32_t thread, int32_t n_threads);

/* n_threads >= 1. cpus: processors of their own to bind to, [n_threads], or NULL: unbound. The caller is bound to the first until close,
 * which is to be called by the same thread. */
MUST_USE enum err eng_team_open(struct eng_team **out, int32_t n_threads, const int32_t *cpus);
void eng_team_close(struct eng_team *t);
/* For a thread that the caller starts and that works beside the team: it may run where the caller could before it was bound. */
void eng_team_beside(const struct eng_team *t);
int32_t eng_team_size(const struct eng_team *t);
void eng_team_run(struct eng_team *t, eng_team_fn fn, void *arg);
/* A barrier between the threads of the running call; every thread must reach it. */
void eng_team_barrier(struct eng_team *t, int32_t thread);

/* [lo,hi) of n items for thread i of n_threads, in multiples of `grain`. */
static inline void eng_team_range(int64_t n, int64_t grain, int32_t i, int32_t n_threads, int64_t *lo, int64_t *hi)
{
    int64_t units = (n + grain - 1) / grain;
    *lo = units * i / n_threads * grain;
    *hi = units * (i + 1) / n_threads * grain;
    if (*hi > n) *hi = n;
    if (*lo > n) *lo = n;
}

#endif
