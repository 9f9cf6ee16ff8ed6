/* ranks.c: the processes of a replica: who joined, what they were told to load, and what happens when one is lost.
 *
 * The unit of failure is the replica: when one rank is gone the MPI job is over. The scheduler keeps every open sequence's known tokens;
 * the next job that joins gets the next epoch, and the sequences are prefilled again and go on in their open streams. Since results do not
 * depend on the cut, batch or chunking, they go on with the same bits. */
#include "coordinator/replica/state.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/rng.h"
#include "proto/version.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define C "replica"

void crd_ranks_forget(struct crd_replica *r)
{
    pthread_mutex_lock(&r->lock);
    for (int32_t i = 0; i < LIMIT_RANKS; i++) {
        if (r->ranks[i].peer) {
            rpc_peer_set_user(r->ranks[i].peer, NULL);
            rpc_peer_close(r->ranks[i].peer);
        }
        control_msg_free(r->ranks[i].hello);
        crd_reach_end(&r->ranks[i].reach);
        r->ranks[i] = (struct rank){0};
    }
    r->n_ranks = 0;
    pthread_mutex_unlock(&r->lock);
}

/* ---- losing and coming back ---- */

static void move(void *user, struct crd_group *g)
{
    struct crd_replica *r = user;
    struct replica_moved m = {.group = g};
    bool known = crd_requests_take(r->requests, crd_sched_handed_id(g), &m.n_left, &m.on_event, &m.user);
    ASSERT(known);
    r->conf.peers.take(r->conf.peers.self, r->conf.index, &m);
}

void crd_ranks_hand_over(struct crd_replica *r)
{
    struct sched_stats s;
    const struct replica_peers *p = &r->conf.peers;
    if (!r->sched || r->state == REPLICA_READY || crd_sched_idle(r->sched) || !p->self || !p->others_serve(p->self, r->conf.index)) return;
    crd_sched_stats(r->sched, &s);
    log_info(C, "replica %d: other replicas go on with %d open sequence(s)", r->conf.index, s.n_waiting + s.n_running);
    crd_sched_hand_over(r->sched, clock_us(), move, r);
}

/* The status is told first: who reads his stream's error and then asks for it learns the same. */
static void end_all(struct crd_replica *r, enum err err, const char *text)
{
    r->lost_us = 0;
    crd_replica_tell(r, text);
    crd_ranks_hand_over(r);
    if (r->sched) crd_sched_fail_all(r->sched, err, text, clock_us());
    crd_sched_close(r->sched);
    r->sched = NULL;
}

void crd_ranks_lose(struct crd_replica *r, enum err err, const char *text)
{
    char why[600];
    if (r->stopping) return;
    /* while draining nobody starts a new job but we ourselves */
    bool hope = r->sched && r->conf.recovery_us > 0 && (!r->draining || r->conf.relaunched);
    const struct replica_peers *peers = &r->conf.peers;
    bool others = peers->self && peers->others_serve(peers->self, r->conf.index);
    if (r->sched || !r->lost_us)
        log_error(C, "replica %d %s: %s%s", r->conf.index, r->sched ? "lost" : "not started", text,
                  !hope ? "" : others ? "; its open requests go on at another" : "; open requests wait for it to come back");
    snprintf(r->why, sizeof r->why, "%s", text);
    r->why_err = err;
    snprintf(why, sizeof why, "%s%s", text, hope ? " (recovering)" : "");
    if (!r->lost_us) {
        int64_t now = clock_us(), last = r->result_us;
        r->lost_us = now;
        pthread_mutex_lock(&r->lock);
        r->status.phases[PHASE_DETECT] = r->awake && r->sched && !crd_sched_idle(r->sched) && last ? (double)(now - last) / 1e6 : 0;
        pthread_mutex_unlock(&r->lock);
    }
    r->state = REPLICA_LOST;
    r->awake = false;
    trn_step_link_close(r->link);
    r->link = NULL;
    crd_replica_set_text(r, why);
    crd_ranks_forget(r);
    r->epoch++;
    if (hope) {
        crd_replica_tell(r, why);
        crd_ranks_hand_over(r);
    } else end_all(r, err_radius(err) == RADIUS_REQUEST ? err : ERR_UNAVAILABLE, text);
}

void crd_ranks_give_up(struct crd_replica *r)
{
    char text[700];
    snprintf(text, sizeof text, "not recovered within --recovery-timeout %.0f s: %s", (double)r->conf.recovery_us / 1e6, r->why);
    log_error(C, "%s", text);
    crd_replica_set_text(r, text);
    end_all(r, ERR_UNAVAILABLE, text);
}

/* ---- joining and loading ---- */

void crd_ranks_send(struct crd_replica *r, const struct control_msg *m)
{
    for (int32_t i = 0; i < r->n_ranks; i++)
        if (r->ranks[i].peer) rpc_peer_send(r->ranks[i].peer, m);
}

static void start_loading(struct crd_replica *r)
{
    struct msg_hello hellos[LIMIT_RANKS];
    struct control_msg m = {.type = MSG_LOAD_PLAN};
    for (int32_t i = 0; i < r->n_ranks; i++) hellos[i] = r->ranks[i].hello->hello;
    m.load_plan.epoch = r->epoch;
    m.load_plan.replica = (uint16_t)r->conf.index;
    enum err e = r->conf.place(r->conf.user, hellos, r->n_ranks, &m.load_plan);
    if (e) {
        crd_ranks_lose(r, e, err_text());
        return;
    }
    r->plan = m.load_plan;
    bool adopt = hellos[0].loaded_epoch; /* one job, so all of them */
    if (adopt) m = (struct control_msg){.type = MSG_ADOPT, .adopt = {r->epoch}};
    r->state = REPLICA_LOADING;
    r->load_started_us = clock_us();
    crd_replica_set_text(r, adopt ? "workers of an earlier coordinator are taken over" : "the model is loading");
    crd_ranks_send(r, &m);
    crd_replica_tell(r, "loading");
}

static uint32_t loaded_epoch(const struct crd_replica *r)
{
    for (int32_t i = 0; i < r->n_ranks; i++)
        if (r->ranks[i].hello) return r->ranks[i].hello->hello.loaded_epoch;
    return 0;
}

/* before: the rank that this session has already said it is, or NULL. */
static const char *why_not_welcome(const struct crd_replica *r, const struct rank *before, const struct msg_hello *h, char *text, size_t n)
{
    if (before)
        snprintf(text, n, "the session of rank %d on %s says a second hello, as rank %d on %s: a worker is one rank and says it once",
                 (int)(before - r->ranks), before->info.host, h->rank, h->host);
    else if (strcmp(h->version, TESSERA_VERSION))
        snprintf(text, n, "rank %d on %s runs tessera %s, the coordinator %s: install the same version on every host", h->rank, h->host,
                 h->version, TESSERA_VERSION);
    else if (r->conf.n_ranks && h->size != r->conf.n_ranks)
        snprintf(text, n, "the job has %d ranks, %d are needed: start it with mpirun -n %d, or change --tp and --pp", h->size, r->conf.n_ranks,
                 r->conf.n_ranks);
    else if (r->n_ranks && (h->size != r->n_ranks || strcmp(r->job, h->job)))
        snprintf(text, n, "rank %d on %s belongs to another job than the %d rank(s) already here", h->rank, h->host, r->n_ranks);
    else if (h->loaded_epoch && h->loaded_epoch != atomic_load(&r->left_epoch))
        snprintf(text, n, "rank %d on %s holds what an earlier coordinator told it to load (epoch %u), and nobody here knows how that was cut: it may "
                 "leave", h->rank, h->host, h->loaded_epoch);
    else if (r->n_ranks && h->loaded_epoch != loaded_epoch(r))
        snprintf(text, n, "rank %d on %s holds epoch %u, the other rank(s) here %u", h->rank, h->host, h->loaded_epoch, loaded_epoch(r));
    else if (r->ranks[h->rank].peer)
        snprintf(text, n, "rank %d has already joined from %s", h->rank, r->ranks[h->rank].info.host);
    else return NULL;
    return text;
}

static void on_hello(struct crd_replica *r, struct rpc_event *e)
{
    const struct msg_hello *h = &e->msg->hello;
    char text[512];
    const char *no = why_not_welcome(r, rpc_peer_user(e->peer), h, text, sizeof text);
    if (!no && r->state != REPLICA_GATHERING && r->state != REPLICA_LOST) no = "the replica is already complete";
    if (no) {
        struct control_msg m = {.type = MSG_SHUTDOWN, .shutdown = {.reason = no}};
        if (!r->stopping) log_warn(C, "refused: %s", no);
        if (r->state != REPLICA_READY) crd_replica_set_text(r, no);
        rpc_peer_send(e->peer, &m);
        return;
    }
    r->state = REPLICA_GATHERING;
    r->culprit = -1;
    r->n_ranks = h->size;
    snprintf(r->job, sizeof r->job, "%s", h->job);
    struct rank *k = &r->ranks[h->rank];
    pthread_mutex_lock(&r->lock);
    k->peer = e->peer;
    k->info = (struct replica_rank){.joined = true, .pid = h->pid, .seen_us = clock_us()};
    snprintf(k->info.host, sizeof k->info.host, "%s", h->host);
    snprintf(k->info.device, sizeof k->info.device, "%s", h->device);
    pthread_mutex_unlock(&r->lock);
    k->hello = e->msg;
    e->msg = NULL;
    rpc_peer_set_user(e->peer, k);
    int32_t joined = 0;
    for (int32_t i = 0; i < r->n_ranks; i++) joined += r->ranks[i].info.joined;
    if (joined == r->n_ranks) {
        start_loading(r);
        return;
    }
    snprintf(text, sizeof text, "waiting for workers: %d of %d joined", joined, r->n_ranks);
    crd_replica_set_text(r, text);
    crd_replica_tell(r, text);
}

static void on_token_event(void *user, const struct token_event *e)
{
    struct crd_replica *r = user;
    struct token_event mine = *e;
    mine.engine = r->conf.index;
    crd_requests_event(r->requests, &mine);
}

static void recovered(struct crd_replica *r)
{
    int64_t now = clock_us();
    pthread_mutex_lock(&r->lock);
    struct replica_status *s = &r->status;
    s->n_recoveries++;
    s->recovery_seconds = (double)(now - r->lost_us) / 1e6;
    s->phases[PHASE_RELAUNCH] = (double)(r->load_started_us - r->lost_us) / 1e6;
    s->phases[PHASE_LOAD] = (double)(now - r->load_started_us) / 1e6;
    s->phases[PHASE_PREFILL] = 0;
    pthread_mutex_unlock(&r->lock);
    r->refill_us = now;
    r->lost_us = 0;
}

void crd_ranks_refilled(struct crd_replica *r)
{
    struct sched_stats s;
    if (r->state != REPLICA_READY) {
        r->refill_us = 0; /* lost again: the next recovery says it all */
        return;
    }
    crd_sched_stats(r->sched, &s);
    if (s.n_behind) return;
    pthread_mutex_lock(&r->lock);
    double *p = r->status.phases;
    p[PHASE_PREFILL] = (double)(clock_us() - r->refill_us) / 1e6;
    log_info(C, "replica %d recovered in %.2f s: detected %.2f, relaunched %.2f, loaded %.2f, prefilled %.2f; %d sequence(s) go on", r->conf.index,
             p[PHASE_DETECT] + p[PHASE_RELAUNCH] + p[PHASE_LOAD] + p[PHASE_PREFILL], p[PHASE_DETECT], p[PHASE_RELAUNCH], p[PHASE_LOAD],
             p[PHASE_PREFILL], s.n_waiting + s.n_running);
    pthread_mutex_unlock(&r->lock);
    r->refill_us = 0;
}

/* Positions that a step decodes for little more than one: what bounds them is reading the weights. Measured: docs/performance.md. */
enum { GUESS_ROWS = 8, MAX_LOSSES = 3 };

static struct kv_groups groups_of(const struct crd_replica *r)
{
    return r->conf.model ? kv_groups_of_model(r->conf.model, r->plan.context) : kv_groups_of(1, 0, 0);
}

static void become_ready(struct crd_replica *r)
{
    struct sched_conf c = {.epoch = r->epoch, .n_blocks = r->plan.n_blocks, .groups = groups_of(r), .n_slots = r->plan.n_slots,
                           .n_stages = r->plan.grid.n_stages,
                           .depth = r->plan.grid.n_stages + 1, .max_step_tokens = r->plan.max_step_tokens, .context = r->plan.context,
                           .max_waiting = r->conf.max_waiting, .prefix_cache = r->conf.prefix_cache,
                           .max_guesses = r->conf.max_guesses, .max_losses = MAX_LOSSES, .guess_rows = GUESS_ROWS,
                           /* half a frame of logits at most: they travel in one StepResult */
                           .max_logit_rows = MAX(1, LIMIT_FRAME_BYTES / 2 / (int32_t)sizeof(float) / MAX(r->conf.model ? r->conf.model->n_vocab : 0, 1))};
    if (getrandom(c.prefix_key, sizeof c.prefix_key, 0) != sizeof c.prefix_key)
        c.prefix_key[0] = rng_mix((uint64_t)clock_us()), c.prefix_key[1] = rng_mix(c.prefix_key[0]);
    struct rpc_peer *peers[LIMIT_RANKS];
    for (int32_t i = 0; i < r->n_ranks; i++) peers[i] = r->ranks[i].peer;
    r->link = trn_step_link_rpc_open(peers, r->n_ranks);
    if (r->sched) crd_sched_restart(r->sched, &c, clock_us());
    else {
        r->sched = crd_sched_open(&c, on_token_event, r);
        r->pulse.from = (struct sched_stats){0};
    }
    crd_pace_reset(r);
    r->state = REPLICA_READY;
    r->awake = false;
    pthread_mutex_lock(&r->lock);
    r->status.context = c.context;
    r->status.n_blocks = c.n_blocks;
    r->status.kv_tokens = kv_groups_room(&c.groups, c.n_blocks, c.context, c.max_step_tokens);
    r->status.n_stages = c.n_stages;
    r->status.load_seconds = (double)(clock_us() - r->load_started_us) / 1e6;
    snprintf(r->status.text, sizeof r->status.text, "ready");
    pthread_mutex_unlock(&r->lock);
    if (r->lost_us) recovered(r);
    crd_replica_tell(r, "ready");
    crd_replica_release_held(r);
}

static void on_ready(struct crd_replica *r, struct rank *k, const struct msg_ready *m)
{
    int32_t ready = 0;
    pthread_mutex_lock(&r->lock);
    k->info.ready = true;
    k->info.weight_bytes = m->weight_bytes;
    k->info.kv_bytes = m->kv_bytes;
    k->info.read_bytes = m->read_bytes;
    k->info.received_bytes = m->received_bytes;
    k->info.cached_bytes = m->cached_bytes;
    k->info.bytes_done = k->info.bytes_total;
    pthread_mutex_unlock(&r->lock);
    for (int32_t i = 0; i < r->n_ranks; i++) ready += r->ranks[i].info.ready;
    crd_replica_tell(r, "loading");
    if (ready == r->n_ranks && r->state == REPLICA_LOADING) become_ready(r);
}

/* ---- messages from ranks ---- */

void crd_ranks_message(struct crd_replica *r, struct rpc_event *e)
{
    struct rank *k = rpc_peer_user(e->peer);
    if (e->msg->type == MSG_HELLO) {
        on_hello(r, e);
        return;
    }
    if (!k) return; /* a rank of an epoch that is over */
    pthread_mutex_lock(&r->lock);
    k->info.seen_us = clock_us();
    pthread_mutex_unlock(&r->lock);
    switch (e->msg->type) {
    case MSG_LOAD_PROGRESS:
        pthread_mutex_lock(&r->lock);
        k->info.bytes_done = e->msg->progress.bytes_done;
        k->info.bytes_total = e->msg->progress.bytes_total;
        pthread_mutex_unlock(&r->lock);
        crd_replica_tell(r, "loading");
        break;
    case MSG_READY: on_ready(r, k, &e->msg->ready); break;
    case MSG_STEP_RESULT: crd_steps_result(r, e->msg); break;
    case MSG_TELEMETRY: crd_watch_heartbeat(r, k, &e->msg->telemetry); break;
    case MSG_FAULT: {
        char text[512];
        snprintf(text, sizeof text, "rank %d (%s): %s", (int)(k - r->ranks), k->info.host, e->msg->fault.text);
        r->culprit = (int32_t)(k - r->ranks);
        crd_ranks_lose(r, ERR_UNAVAILABLE, text);
        break;
    }
    default: log_warn(C, "unexpected message %d from %s", e->msg->type, rpc_peer_identity(e->peer));
    }
}

void crd_ranks_closed(struct crd_replica *r, struct rpc_event *e)
{
    struct rank *k = rpc_peer_user(e->peer);
    if (!k) return;
    char text[512];
    int len = snprintf(text, sizeof text, "rank %d (%s, pid %d) is gone: %s", (int)(k - r->ranks), k->info.host, k->info.pid, e->text);
    if (len > 0 && len < (int)sizeof text) crd_watch_evidence(r, k, text + len, sizeof text - (size_t)len);
    r->culprit = (int32_t)(k - r->ranks);
    k->peer = NULL;
    if (r->stopping) trn_step_link_close(r->link), r->link = NULL;
    pthread_mutex_lock(&r->lock);
    k->info.joined = k->info.ready = false;
    pthread_mutex_unlock(&r->lock);
    if (r->stopping) return;
    crd_ranks_lose(r, ERR_UNAVAILABLE, text);
}
