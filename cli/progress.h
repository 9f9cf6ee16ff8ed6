/* progress.h: what a person sees while a model loads. */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

#include "coordinator/replica/replica.h"

/* replica_conf.on_change. Load progress, one line: how much, how fast, how long still, who is slowest; on a terminal redrawn, else every 5 s;
 * then what each rank holds. _brief, for commands that are soon over: not the latter, and nothing of the first second (five, without a terminal). */
void progress_brief(void *user, int32_t replica, enum replica_state state, const struct replica_rank ranks[], int32_t n, const char *text);
void progress_on_change(void *user, int32_t replica, enum replica_state state, const struct replica_rank ranks[], int32_t n, const char *text);

#endif
