/* watch.c: is the replica alive, or does it only look so? The evidence is in the ranks' heartbeats: step, layer, and the collective
 * each waits in, with the rank it waits for.
 *
 * A verdict falls when steps are in flight and no rank's step or layer has moved for stall_us: a slow prefill moves its layer counter, so it
 * is no hang. The sentence names the rank that is silent, or else the one that the others wait for. */
#include "coordinator/replica/state.h"

#include "base/clock.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { SILENT_US = 3000000 }; /* heartbeats come every second */

void crd_watch_start(struct crd_replica *r)
{
    int64_t now = clock_us();
    pthread_mutex_lock(&r->lock);
    for (int32_t i = 0; i < r->n_ranks; i++) r->ranks[i].moved_us = r->ranks[i].info.seen_us = now;
    pthread_mutex_unlock(&r->lock);
}

void crd_watch_heartbeat(struct crd_replica *r, struct rank *k, const struct msg_telemetry *t)
{
    crd_reach_end(&k->reach);
    crd_pace_heartbeat(r, k, t);
    if (t->step != k->step || t->layer != k->layer) k->moved_us = clock_us();
    k->step = t->step;
    k->layer = t->layer;
    k->op_seq = t->op_seq;
    k->op_rank = t->op_rank;
    k->op_waited_us = t->op_waited_us;
    snprintf(k->op, sizeof k->op, "%s", t->op);
    pthread_mutex_lock(&r->lock);
    k->info.step = t->step;
    k->info.rss_bytes = t->rss_bytes;
    k->info.comm_bytes = t->comm_bytes;
    k->info.comm_us = t->comm_us;
    k->info.comm_ops = t->comm_ops;
    pthread_mutex_unlock(&r->lock);
}

/* Heartbeats come every second; some of the time until the verdict is left to ask why they do not. */
static int64_t silence(const struct crd_replica *r) { return MAX(MIN((int64_t)SILENT_US, r->conf.stall_us / 4 * 3), (int64_t)1500000); }

static bool silent(const struct crd_replica *r, const struct rank *k, int64_t now) { return now - k->info.seen_us > silence(r); }

/* In words; embedding, head and sampling are no layer. */
static const char *layer_name(int32_t layer, char name[32])
{
    if (layer < 0) return "outside the layers";
    snprintf(name, 32, "layer %d", layer);
    return name;
}

/* Its process, where this host's kernel can be asked of it; 0: it is on another. */
static int32_t pid_here(const struct rank *k)
{
    char host[64] = "";
    return !gethostname(host, sizeof host - 1) && !strcmp(host, k->info.host) ? k->info.pid : 0;
}

/* The rank least heard of, if any is silent; else the one most waited for; else the one furthest behind. */
static int32_t suspect(const struct crd_replica *r, int64_t now)
{
    int32_t least = 0, behind = 0, votes[LIMIT_RANKS] = {0}, most = -1;
    for (int32_t i = 0; i < r->n_ranks; i++) {
        const struct rank *k = &r->ranks[i];
        if (k->info.seen_us < r->ranks[least].info.seen_us) least = i;
        if (k->step < r->ranks[behind].step) behind = i;
        if (k->op[0] && k->op_rank >= 0 && k->op_rank < r->n_ranks) votes[k->op_rank]++;
    }
    if (silent(r, &r->ranks[least], now)) return least;
    for (int32_t i = 0; i < r->n_ranks; i++)
        if (votes[i] && (most < 0 || votes[i] > votes[most])) most = i;
    return most >= 0 ? most : behind;
}

void crd_watch_evidence(struct crd_replica *r, struct rank *k, char *text, size_t n)
{
    int64_t now = clock_us();
    char name[32];
    text[0] = 0;
    if (r->awake) { /* asleep, its step and layer say nothing */
        int len = snprintf(text, n, " (step %llu, %s%s%s, last heard of %.1f s before)", (unsigned long long)k->step, layer_name(k->layer, name),
                           k->op[0] ? ", in " : "", k->op, (double)(now - k->info.seen_us) / 1e6);
        if (len < 0 || (size_t)len >= n) return;
        text += len;
        n -= (size_t)len;
    }
    bool asked = k->reach.asked;
    if (!asked && !pid_here(k)) return;
    crd_reach_ask(&k->reach, rpc_peer_address(k->peer), pid_here(k), now);
    const char *said = crd_reach_look(&k->reach, now);
    if (said[0]) snprintf(text, n, "; %s", said);
}

/* Both ends are heard of, and each waits for the other: what is between them. */
static bool link_between(const struct crd_replica *r, int32_t a, int32_t b, int64_t now)
{
    const struct rank *x = &r->ranks[a], *y = &r->ranks[b];
    return b >= 0 && !silent(r, x, now) && !silent(r, y, now) && x->op[0] && x->op_rank == b && y->op[0] && y->op_rank == a;
}

static void verdict(struct crd_replica *r, int64_t now, char *text, size_t n)
{
    char why[256], name[32];
    int32_t s = suspect(r, now), waiting = -1; /* waiting: who waits for it, or else for anybody; -1: nobody does */
    struct rank *k = &r->ranks[s];
    for (int32_t i = 0; i < r->n_ranks; i++)
        if (i != s && r->ranks[i].op[0] && (waiting < 0 || r->ranks[i].op_rank == s)) waiting = i;
    const struct rank *w = &r->ranks[MAX(waiting, 0)];
    r->culprit = s;
    crd_watch_evidence(r, k, why, sizeof why);
    int len = snprintf(text, n, "rank %d (%s, %s, pid %d) stalls: no progress past step %llu, %s, for %.1f s, last heard of %.1f s ago", s, k->info.host,
                       k->info.device, k->info.pid, (unsigned long long)k->step, layer_name(k->layer, name), (double)(now - k->moved_us) / 1e6,
                       (double)(now - k->info.seen_us) / 1e6);
    const char *rest = strchr(why, ';'); /* step and layer are said already */
    if (len > 0 && (size_t)len < n && silent(r, k, now)) len += snprintf(text + len, n - (size_t)len, "%s", rest ? rest : "");
    if (len > 0 && (size_t)len < n && waiting >= 0)
        len += snprintf(text + len, n - (size_t)len, "; rank %d waits %sin %s #%llu (%s) for %.1f s", waiting, w->op_rank == s ? "for it " : "", w->op,
                        (unsigned long long)w->op_seq, layer_name(w->layer, name), (double)w->op_waited_us / 1e6);
    if (len > 0 && (size_t)len < n && waiting >= 0 && link_between(r, s, waiting, now))
        snprintf(text + len, n - (size_t)len, ", and it for that: both are heard of, so the link between %s and %s carries nothing", k->info.host,
                 w->info.host);
}

bool crd_watch_due(const struct crd_replica *r)
{
    return r->state == REPLICA_READY && r->awake && r->conf.stall_us > 0 && !crd_sched_idle(r->sched);
}

void crd_watch_check(struct crd_replica *r)
{
    char text[512];
    int64_t now = clock_us(), moved = r->result_us;
    if (!crd_watch_due(r)) return;
    for (int32_t i = 0; i < r->n_ranks; i++) {
        struct rank *k = &r->ranks[i];
        if (silent(r, k, now) && k->peer) crd_reach_ask(&k->reach, rpc_peer_address(k->peer), pid_here(k), now);
    }
    for (int32_t i = 0; i < r->n_ranks; i++) moved = MAX(moved, r->ranks[i].moved_us);
    if (now - moved < r->conf.stall_us) return;
    verdict(r, now, text, sizeof text);
    crd_ranks_lose(r, ERR_PEER_LOST, text);
}
