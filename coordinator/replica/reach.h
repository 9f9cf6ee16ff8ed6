/* reach.h: does the host of a silent rank answer at all? A TCP connect to it that nobody waits for: a refusal is an answer too.
 *
 * Told apart: the host answers (so the process is stopped, starved or dead, not the network), there is no way to it (a cable, a switch, an
 * interface that is down), or nothing comes back at all (packets vanish: a firewall, or a link that is up and carries nothing).
 * A process of this host is looked at instead. Thr: one. */
#ifndef COORDINATOR_REPLICA_REACH_H
#define COORDINATOR_REPLICA_REACH_H

#include "base/base.h"

#include <stdbool.h>

struct crd_reach {
    int fd;            /* of the connect under way */
    bool asked;
    int64_t since_us;
    int32_t pid;       /* of this host: 0 elsewhere */
    char address[64];
    char said[160];    /* the verdict so far; "" none */
};

/* Begin to ask. address: as gRPC names a peer, "ipv4:10.0.0.3:40712"; pid: when the process is this host's, else 0. */
void crd_reach_ask(struct crd_reach *r, const char *address, int32_t pid, int64_t now_us);
/* What is known by now, as the end of a sentence: "its host answers: ..."; "" when nothing was asked. Never waits. */
const char *crd_reach_look(struct crd_reach *r, int64_t now_us);
void crd_reach_end(struct crd_reach *r); /* forgets; also of one that was never asked, zeroed */

#endif
