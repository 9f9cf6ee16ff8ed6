/* bind.h: which processors a rank's compute threads use (hwloc): one per core first, siblings after. */
#ifndef WORKER_BIND_H
#define WORKER_BIND_H

#include "base/err.h"

#include <stdint.h>

/* Processors this process may use, cores first. Returns how many (<= max); 0 when hwloc cannot tell. */
int32_t wrk_bind_cpus(int32_t cpus[], int32_t max);
/* Memory of this host in bytes. */
void wrk_bind_memory(int64_t *total, int64_t *available);

#endif
