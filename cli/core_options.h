/* core_options.h: what the options decide of a coordinator: its configuration, and the address of its worker plane. */
#ifndef CLI_CORE_OPTIONS_H
#define CLI_CORE_OPTIONS_H

#include "cli/placement.h"
#include "coordinator/core.h"

/* Fill what cluster options decide of a core_conf. program: our own path, kept by the caller; p: opened, outlives *out. Err BAD_CONFIG. */
MUST_USE enum err core_options_fill(const struct common_options *o, struct placement *p, const char *program, struct core_conf *out);
/* An address for the worker plane: loopback when all ranks are local, with a hostfile the one that faces its hosts (cluster/facing.h), else this host's
 * first. Logged. Err BAD_CONFIG: hosts are reached from different addresses, or there is none. */
MUST_USE enum err core_options_listen(const struct common_options *o, bool local, char out[128]);

#endif
