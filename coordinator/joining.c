/* joining.c: a start whose ranks do not come says so: how many have, from which hosts none has, and where to look.
 *
 * A rank that cannot reach the worker plane (a firewall, another TLS) tries on for its --join-timeout without a word to us, and what TLS turns
 * away never becomes a session: that and a wrong key are named by transport/rpc_tls.c and rpc_server.c. Not here: a rank that is lost later. */
#include "coordinator/core_impl.h"

#include "base/clock.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>

enum { FIRST_US = 5000000, EVERY_US = 10000000, LONG_US = 60000000 };

static void absent(struct core_unit *u, const struct replica_rank ranks[], int32_t n, char out[400])
{
    struct crd_hosts *h = &u->core->hosts;
    bool joined[LIMIT_RANKS];
    out[0] = 0;
    if (!u->core->conf.share_hosts) return;
    for (int32_t i = 0; i < n; i++) joined[i] = ranks[i].joined;
    pthread_mutex_lock(&h->lock);
    clu_hosts_absent(&h->hosts, u->index, joined, n, out, 400);
    pthread_mutex_unlock(&h->lock);
}

static void say(struct core_unit *u, const struct replica_status *s, double waited_s)
{
    const struct core_conf *conf = &u->core->conf;
    struct replica_rank *ranks = xcalloc(LIMIT_RANKS, sizeof *ranks);
    char hosts[400], who[80] = "no rank has", which[24] = "";
    absent(u, ranks, crd_replica_ranks(u->replica, ranks), hosts);
    if (u->core->n_units > 1) snprintf(which, sizeof which, "replica %d: ", u->index);
    if (s->n_expected) snprintf(who, sizeof who, "%d of %d rank(s) have", s->n_joined, s->n_expected);
    log_warn("workers", "%s%s joined after %.0f s%s%s: do the others reach %s (address, port, a firewall), and is TLS the same on both sides? %s%s%s", which,
             who, waited_s, hosts[0] ? ", none from " : "", hosts, u->join,
             conf->hostfile ? "`tessera doctor --hostfile " : u->workers ? "`tessera doctor" : "They are started by `tessera worker --join ",
             conf->hostfile ? conf->hostfile : u->workers ? "" : u->join, conf->hostfile || u->workers ? "` finds out" : "`");
    free(ranks);
}

void crd_joining_look(struct core_unit *u, const struct replica_status *s, int64_t begun_us)
{
    int64_t now = clock_us();
    if (s->state != REPLICA_GATHERING) return;
    if (!u->say_us) u->say_us = begun_us + FIRST_US;
    if (now < u->say_us) return;
    say(u, s, (double)(now - begun_us) / 1e6);
    u->say_us = now + (now - begun_us < LONG_US ? EVERY_US : LONG_US);
}
