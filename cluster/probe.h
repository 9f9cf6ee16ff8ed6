/* probe.h: does a TCP connection between two hosts pass small and large messages, and how fast?
 *
 * A listener of our own on an ephemeral port answers whoever knows the token, for as long as the
 * doctor's helper lives; each connection has a deadline and moves a bounded number of bytes. It is
 * no benchmark: a tenth of a second per direction. Not here: who probes whom (survey.h). */
#ifndef CLUSTER_PROBE_H
#define CLUSTER_PROBE_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

enum { CLU_PROBE_TOKEN = 64 }; /* longest token and id, with their end */

enum clu_reach {
    REACH_UNKNOWN,     /* not tried */
    REACH_OK,
    REACH_REFUSED,     /* somebody said no */
    REACH_TIMEOUT,     /* nobody answered */
    REACH_UNREACHABLE, /* no route, or a link that is down */
    REACH_STRANGER,    /* somebody else has this address */
    REACH_STALLED,     /* small messages pass, large ones do not */
};
const char *clu_reach_name(enum clu_reach r); /* "ok", "refused", ... */
enum clu_reach clu_reach_parse(const char *name);  /* UNKNOWN for anything else */

struct clu_probe_result {
    enum clu_reach reach;
    double latency_us; /* one way */
    double bytes_s;    /* one direction, this host sending */
    char local[46];    /* the address of ours that was used */
};

struct clu_probe_server;
/* Listens on all addresses, in a thread of its own; *port out. id: what it calls itself.
 * Err SYSTEM. */
MUST_USE enum err clu_probe_open(struct clu_probe_server **out, const char *token, const char *id,
                                 int32_t *port);
void clu_probe_close(struct clu_probe_server *s); /* NULL-safe */

/* Connect to address:port, which must call itself `id`; every wait ends after timeout_us. */
void clu_probe_run(struct clu_probe_result *out, const char *address, int32_t port,
                   const char *token, const char *id, int64_t timeout_us);

#endif
