/* watch.c: is the replica alive, or does it only look so? The evidence is in the ranks' heartbeats: step, layer, and the collective
 * each waits in, with the rank it waits for.
 *
 * A verdict falls when steps are in flight and no rank's step or layer has moved for stall_us: a slow prefill moves its layer counter, so it
 * is no hang. The sentence names the rank that is silent, or else the one that the others wait for. */
#include "coordinator/replica/state.h"

#include "base/clock.h"

#include <stdio.h>
#include <string.h>

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
    if (t->step != k->step || t->layer != k->layer) k->moved_us = clock_us();
    k->step = t->step;
    k->layer = t->layer;
    k->op_seq = t->op_seq;
    k->op_rank = t->op_rank;
    k->op_waited_us = t->op_waited_us;
    snprintf(k->op, sizeof k->op, "%s", t->op);
    pthread_mutex_lock(&r->lock);
    k->info.step = t->step;
    k->info.comm_bytes = t->comm_bytes;
    k->info.comm_us = t->comm_us;
    k->info.comm_ops = t->comm_ops;
    pthread_mutex_unlock(&r->lock);
}

/* The rank least heard of, if any is silent; else the one most waited for; else the one furthest behind. */
static int32_t suspect(const struct crd_replica *r, int64_t now)
{
    int32_t silent = 0, behind = 0, votes[LIMIT_RANKS] = {0}, most = -1;
    for (int32_t i = 0; i < r->n_ranks; i++) {
        const struct rank *k = &r->ranks[i];
        if (k->info.seen_us < r->ranks[silent].info.seen_us) silent = i;
        if (k->step < r->ranks[behind].step) behind = i;
        if (k->op[0] && k->op_rank >= 0 && k->op_rank < r->n_ranks) votes[k->op_rank]++;
    }
    if (now - r->ranks[silent].info.seen_us > SILENT_US) return silent;
    for (int32_t i = 0; i < r->n_ranks; i++)
        if (votes[i] && (most < 0 || votes[i] > votes[most])) most = i;
    return most >= 0 ? most : behind;
}

static void verdict(const struct crd_replica *r, int64_t now, char *text, size_t n)
{
    int32_t s = suspect(r, now), waiting = -1;
    const struct rank *k = &r->ranks[s];
    for (int32_t i = 0; i < r->n_ranks; i++)
        if (i != s && r->ranks[i].op[0]) waiting = i;
    int len = snprintf(text, n, "rank %d (%s, pid %d) stalls: no progress past step %llu, layer %d for %.1f s, last heard of %.1f s ago", s, k->info.host,
                       k->info.pid, (unsigned long long)k->step, k->layer, (double)(now - k->moved_us) / 1e6, (double)(now - k->info.seen_us) / 1e6);
    if (waiting >= 0 && len > 0 && (size_t)len < n)
        snprintf(text + len, n - (size_t)len, "; rank %d waits in %s #%llu (layer %d)", waiting, r->ranks[waiting].op,
                 (unsigned long long)r->ranks[waiting].op_seq, r->ranks[waiting].layer);
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
    for (int32_t i = 0; i < r->n_ranks; i++) moved = MAX(moved, r->ranks[i].moved_us);
    if (now - moved < r->conf.stall_us) return;
    verdict(r, now, text, sizeof text);
    crd_ranks_lose(r, ERR_PEER_LOST, text);
}
