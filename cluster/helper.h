/* helper.h: the process that the doctor starts on each host: it prints the facts of that host, then
 * obeys lines on its stdin until that ends. Each answer is one line of JSON.
 *
 *   clock                                    {"unix_us": N}
 *   machine                                  {"machine": TEXT}: this host as topo_text.c reads it,
 *                                             measured in a second or two; "" when that fails
 *   listen TOKEN ID                          {"port": N}
 *   probe ADDRESS PORT TOKEN ID TIMEOUT_US   {"reach": "ok", "latency_us": N, "bytes_s": N,
 *                                             "local": ADDRESS}
 *
 * The token comes over stdin, so that it is in no command line. */
#ifndef CLUSTER_HELPER_H
#define CLUSTER_HELPER_H

#include "cluster/topo.h"

/* model: path or NULL. measure: this host as the planner wants it (the engine measures, which this
 * layer does not see). Ends after 15 minutes whatever happens. Returns the exit code. */
int clu_helper_run(const char *model, enum err (*measure)(struct clu_topo *out));

#endif
