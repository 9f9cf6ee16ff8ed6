/* own_cluster.h: the cluster of a command that is soon over: its coordinator in this process, without a gateway. */
#ifndef CLI_OWN_CLUSTER_H
#define CLI_OWN_CLUSTER_H

#include "cli/placement.h"
#include "coordinator/core.h"

/* Between _open and _start the caller may change .core_conf; own_cluster_close takes a zeroed one, too. */
struct own_cluster {
    struct placement place;
    struct core_conf core_conf;
    struct crd_core *core; /* NULL until started */
    char listen[128], program[4096];
};
MUST_USE enum err own_cluster_open(struct own_cluster *c, const struct common_options *o, const char *model);
MUST_USE enum err own_cluster_start(struct own_cluster *c);
void own_cluster_close(struct own_cluster *c);

#endif
