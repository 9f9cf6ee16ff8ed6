/* bind.h: which processors a rank's compute threads use: one per core first, siblings after; and how much memory the host has. */
#ifndef WORKER_BIND_H
#define WORKER_BIND_H

#include "base/err.h"

#include <stdint.h>

/* Processors this process may use, as the kernel numbers them: of each core the first, by hwloc; where it sees no cores, in the order of their
 * numbers. Returns how many (<= max); 0: not even the kernel says. */
int32_t wrk_bind_cpus(int32_t cpus[], int32_t max);
/* Memory of this host in bytes; 0: /proc/meminfo does not say. */
void wrk_bind_memory(int64_t *total, int64_t *available);

#endif
