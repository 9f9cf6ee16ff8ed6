/* hostfile.h: hostfiles in Open MPI's syntax: one host per line, "name slots=N max_slots=M", #
 * comments. A parser of outside bytes. */
#ifndef CLUSTER_HOSTFILE_H
#define CLUSTER_HOSTFILE_H

#include "base/err.h"
#include "proto/limits.h"

#include <stddef.h>
#include <stdint.h>

enum { CLU_HOSTFILE_BYTES = 64 << 10 };

struct clu_hostfile {
    int32_t n, n_slots;
    struct {
        char name[64];
        int32_t slots, line, again; /* again: the last line that names it too; 0: none does */
    } hosts[LIMIT_RANKS];
};

/* A host named again adds its slots to the first line's (hosts[].again). Err BAD_CONFIG naming the
 * line, what it says and what is needed. */
MUST_USE enum err clu_hostfile_parse(struct clu_hostfile *out, const char *text, size_t n);
/* Err as clu_hostfile_parse, IO; the file is named. */
MUST_USE enum err clu_hostfile_read(struct clu_hostfile *out, const char *path);
/* Warn of hosts that are named on several lines: for the one who acts on the file, once. */
void clu_hostfile_warn(const struct clu_hostfile *f);

#endif
