/* hosts_topo.h: a hostfile's hosts as the planner sees them, and the order of them that is best. */
#ifndef CLI_HOSTS_TOPO_H
#define CLI_HOSTS_TOPO_H

#include "cli/placement.h"
#include "cluster/hostfile.h"
#include "cluster/topo.h"

/* This machine, by hwloc, its bandwidth and peak measured by the engine in a second or two. Err SYSTEM. */
MUST_USE enum err hosts_this_machine(struct clu_topo *t);
/* The same and its cards, one rank's each. */
MUST_USE enum err hosts_this_machine_and_cards(struct clu_topo *t);
/* Write machines to a file, as --topo reads them. Err IO naming it. */
MUST_USE enum err hosts_record(const struct clu_topo *t, const char *path);

/* *t becomes the hosts of the file, in its order: each as the host of its name in *t (known), else like the first one there. Links
 * between hosts that *t knows are kept. Slots are ranks: as many of the host's cards, what is left over shares its processors. Err BAD_CONFIG naming
 * the line, IO. */
MUST_USE enum err hosts_topo(struct clu_topo *t, const char *hostfile, bool known);

/* Hosts that mpirun starts ranks on are numbered by the hostfile. Where --topo says how the machines differ, and another order of
 * them, or fewer, would be clearly faster, *out is that order and *better true. Planner's choice only: not with --tp or --pp. */
void hosts_order(const struct placement *p, struct clu_hostfile *out, bool *better);

#endif
