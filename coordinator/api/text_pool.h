/* text_pool.h: threads for work too long for the net thread: parsing large bodies, templates,
 * tokenizing.
 *
 * Pure jobs: in by a mailbox, out by whatever the job does at its end. */
#ifndef COORDINATOR_API_TEXT_POOL_H
#define COORDINATOR_API_TEXT_POOL_H

#include "base/err.h"

struct crd_text_pool;
/* Err SYSTEM: a thread did not start. */
MUST_USE enum err crd_text_pool_open(struct crd_text_pool **out, int32_t n_threads);
/* Runs every job already given, then ends the threads. NULL-safe. */
void crd_text_pool_close(struct crd_text_pool *p);
/* work(user) runs soon on one of the threads; with p NULL: now, here. Thr any. */
void crd_text_pool_run(struct crd_text_pool *p, void (*work)(void *user), void *user);

#endif
