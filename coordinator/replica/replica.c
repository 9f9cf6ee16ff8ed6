/* replica.c: see replica.h. */
#include "coordinator/replica/replica.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/rng.h"
#include "coordinator/replica/requests.h"
#include "proto/version.h"
#include "transport/step_link.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define C "replica"

/* Every message in the mailbox begins with an int: rpc events have their own small kinds, ours begin here. */
enum { CMD_SUBMIT = 100, CMD_CANCEL, CMD_DRAIN, CMD_STOP };

struct command {
    int kind;
    struct gen_request request; /* SUBMIT; Own: prompt and bias */
    token_event_fn on_event;
    void *user;
    uint64_t id;                /* CANCEL */
    int64_t timeout_us;         /* STOP */
};

struct rank {
    struct rpc_peer *peer;
    struct control_msg *hello;  /* Own */
    struct replica_rank info;   /* [lock] */
};

struct crd_replica {
    /* [init] */
    struct replica_conf conf;
    struct mailbox *mail;
    pthread_t thread;
    /* [sched] */
    enum replica_state state;
    struct rank ranks[LIMIT_RANKS];
    int32_t n_ranks;            /* of the job; 0 until the first hello */
    char job[64];
    uint32_t epoch;
    struct msg_load_plan plan;
    struct crd_sched *sched;
    struct crd_requests *requests;
    struct trn_step_link *link; /* while READY */
    struct arena step_arena;    /* lifetime: step */
    bool awake, draining, stopping;
    int64_t busy_us, load_started_us, stop_deadline_us;
    /* [lock] what others may read */
    pthread_mutex_t lock;
    struct replica_status status;
};

/* ---- events to the requests' owners ---- */

static void on_token_event(void *user, const struct token_event *e)
{
    struct crd_replica *r = user;
    crd_requests_event(r->requests, e);
}

static void refuse(token_event_fn fn, void *user, uint64_t id, enum err err, const char *text)
{
    struct token_event e = {.kind = EVENT_FINISH, .request = id, .choice = -1, .err = err, .text = text};
    fn(user, &e);
}

/* ---- state, and telling about it ---- */

static void publish(struct crd_replica *r)
{
    pthread_mutex_lock(&r->lock);
    struct replica_status *s = &r->status;
    s->state = r->state;
    s->epoch = r->epoch;
    s->draining = r->draining;
    s->n_ranks = r->n_ranks;
    s->n_joined = s->n_ready = 0;
    for (int32_t i = 0; i < r->n_ranks; i++) {
        s->n_joined += r->ranks[i].info.joined;
        s->n_ready += r->ranks[i].info.ready;
    }
    if (r->sched) crd_sched_stats(r->sched, &s->sched);
    pthread_mutex_unlock(&r->lock);
}

static void set_text(struct crd_replica *r, const char *text)
{
    pthread_mutex_lock(&r->lock);
    snprintf(r->status.text, sizeof r->status.text, "%s", text);
    pthread_mutex_unlock(&r->lock);
}

static void tell(struct crd_replica *r, const char *text)
{
    struct replica_rank infos[LIMIT_RANKS];
    publish(r);
    if (!r->conf.on_change) return;
    for (int32_t i = 0; i < r->n_ranks; i++) infos[i] = r->ranks[i].info;
    r->conf.on_change(r->conf.user, r->state, infos, r->n_ranks, text);
}

static void forget_ranks(struct crd_replica *r)
{
    pthread_mutex_lock(&r->lock);
    for (int32_t i = 0; i < LIMIT_RANKS; i++) {
        if (r->ranks[i].peer) {
            rpc_peer_set_user(r->ranks[i].peer, NULL);
            rpc_peer_close(r->ranks[i].peer);
        }
        control_msg_free(r->ranks[i].hello);
        r->ranks[i] = (struct rank){0};
    }
    r->n_ranks = 0;
    pthread_mutex_unlock(&r->lock);
}

/* The replica is gone: every open request ends with this sentence, and a new job may join. */
static void lose(struct crd_replica *r, enum err err, const char *text)
{
    if (r->stopping) return;
    log_error(C, "replica lost: %s", text);
    r->state = REPLICA_LOST;
    set_text(r, text);
    tell(r, text);
    if (r->sched) crd_sched_fail_all(r->sched, err == ERR_BAD_REQUEST ? ERR_UNAVAILABLE : err, text, clock_us());
    crd_sched_close(r->sched);
    r->sched = NULL;
    r->awake = false;
    trn_step_link_close(r->link);
    r->link = NULL;
    forget_ranks(r);
    r->epoch++;
    publish(r);
}

/* ---- joining and loading ---- */

static void send_all(struct crd_replica *r, const struct control_msg *m)
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
    enum err e = r->conf.place(r->conf.user, hellos, r->n_ranks, &m.load_plan);
    if (e) {
        lose(r, e, err_text());
        return;
    }
    r->plan = m.load_plan;
    r->state = REPLICA_LOADING;
    r->load_started_us = clock_us();
    set_text(r, "the model is loading");
    send_all(r, &m);
    tell(r, "loading");
}

static const char *why_not_welcome(const struct crd_replica *r, const struct msg_hello *h, char *text, size_t n)
{
    if (strcmp(h->version, TESSERA_VERSION))
        snprintf(text, n, "rank %d on %s runs tessera %s, the coordinator %s: install the same version on every host", h->rank, h->host,
                 h->version, TESSERA_VERSION);
    else if (r->conf.n_ranks && h->size != r->conf.n_ranks)
        snprintf(text, n, "the job has %d ranks, %d are needed: start it with mpirun -n %d, or change --tp and --pp", h->size, r->conf.n_ranks,
                 r->conf.n_ranks);
    else if (r->n_ranks && (h->size != r->n_ranks || strcmp(r->job, h->job)))
        snprintf(text, n, "rank %d on %s belongs to another job than the %d rank(s) already here", h->rank, h->host, r->n_ranks);
    else if (r->ranks[h->rank].peer)
        snprintf(text, n, "rank %d has already joined from %s", h->rank, r->ranks[h->rank].info.host);
    else return NULL;
    return text;
}

static void on_hello(struct crd_replica *r, struct rpc_event *e)
{
    const struct msg_hello *h = &e->msg->hello;
    char text[512];
    const char *no = why_not_welcome(r, h, text, sizeof text);
    if (!no && r->state != REPLICA_GATHERING && r->state != REPLICA_LOST) no = "the replica is already complete";
    if (no) {
        struct control_msg m = {.type = MSG_SHUTDOWN, .shutdown = {.reason = no}};
        log_warn(C, "refused: %s", no);
        if (r->state != REPLICA_READY) set_text(r, no);
        rpc_peer_send(e->peer, &m);
        return;
    }
    r->state = REPLICA_GATHERING;
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
    snprintf(text, sizeof text, "waiting for workers: %d of %d joined", joined, r->n_ranks);
    set_text(r, text);
    tell(r, text);
    if (joined == r->n_ranks) start_loading(r);
}

static void become_ready(struct crd_replica *r)
{
    struct sched_conf c = {.epoch = r->epoch, .n_blocks = r->plan.n_blocks, .n_slots = r->plan.n_slots, .n_stages = r->plan.n_stages,
                           .depth = r->plan.n_stages + 1, .max_step_tokens = r->plan.max_step_tokens, .context = r->plan.context,
                           .max_waiting = r->conf.max_waiting, .prefix_cache = r->conf.prefix_cache,
                           /* half a frame of logits at most: they travel in one StepResult */
                           .max_logit_rows = MAX(1, LIMIT_FRAME_BYTES / 2 / (int32_t)sizeof(float) / MAX(r->conf.n_vocab, 1))};
    if (getrandom(c.prefix_key, sizeof c.prefix_key, 0) != sizeof c.prefix_key)
        c.prefix_key[0] = rng_mix((uint64_t)clock_us()), c.prefix_key[1] = rng_mix(c.prefix_key[0]);
    struct rpc_peer *peers[LIMIT_RANKS];
    for (int32_t i = 0; i < r->n_ranks; i++) peers[i] = r->ranks[i].peer;
    r->link = trn_step_link_rpc_open(peers, r->n_ranks);
    r->sched = crd_sched_open(&c, on_token_event, r);
    r->state = REPLICA_READY;
    r->awake = false;
    pthread_mutex_lock(&r->lock);
    r->status.context = c.context;
    r->status.n_blocks = c.n_blocks;
    r->status.n_stages = c.n_stages;
    r->status.load_seconds = (double)(clock_us() - r->load_started_us) / 1e6;
    snprintf(r->status.text, sizeof r->status.text, "ready");
    pthread_mutex_unlock(&r->lock);
    tell(r, "ready");
}

static void on_ready(struct crd_replica *r, struct rank *k, const struct msg_ready *m)
{
    int32_t ready = 0;
    pthread_mutex_lock(&r->lock);
    k->info.ready = true;
    k->info.weight_bytes = m->weight_bytes;
    k->info.kv_bytes = m->kv_bytes;
    k->info.bytes_done = k->info.bytes_total;
    pthread_mutex_unlock(&r->lock);
    for (int32_t i = 0; i < r->n_ranks; i++) ready += r->ranks[i].info.ready;
    tell(r, "loading");
    if (ready == r->n_ranks && r->state == REPLICA_LOADING) become_ready(r);
}

/* ---- messages from ranks ---- */

static void on_result(struct crd_replica *r, const struct control_msg *m)
{
    struct arena a = {0};
    struct step_result res;
    enum err e = r->sched ? step_result_unpack(&res, m->bytes.data, m->bytes.n, &a) : ERR_STALE_EPOCH;
    if (!e && res.epoch != r->epoch) e = ERR_STALE_EPOCH;
    if (!e) e = crd_sched_on_result(r->sched, &res, clock_us());
    if (e && e != ERR_STALE_EPOCH) lose(r, e, err_text());
    if (!e) {
        pthread_mutex_lock(&r->lock);
        r->status.n_results++;
        r->status.compute_seconds += res.compute_us / 1e6;
        pthread_mutex_unlock(&r->lock);
    }
    arena_free(&a);
}

static void on_telemetry(struct crd_replica *r, struct rank *k, const struct msg_telemetry *t)
{
    pthread_mutex_lock(&r->lock);
    k->info.step = t->step;
    k->info.comm_bytes = t->comm_bytes;
    k->info.comm_us = t->comm_us;
    k->info.comm_ops = t->comm_ops;
    pthread_mutex_unlock(&r->lock);
}

static void on_message(struct crd_replica *r, struct rpc_event *e)
{
    struct rank *k = rpc_peer_user(e->peer);
    if (e->msg->type == MSG_HELLO) {
        on_hello(r, e);
        return;
    }
    if (!k) return; /* a rank of an epoch that is over */
    k->info.seen_us = clock_us();
    switch (e->msg->type) {
    case MSG_LOAD_PROGRESS:
        pthread_mutex_lock(&r->lock);
        k->info.bytes_done = e->msg->progress.bytes_done;
        k->info.bytes_total = e->msg->progress.bytes_total;
        pthread_mutex_unlock(&r->lock);
        tell(r, "loading");
        break;
    case MSG_READY: on_ready(r, k, &e->msg->ready); break;
    case MSG_STEP_RESULT: on_result(r, e->msg); break;
    case MSG_TELEMETRY: on_telemetry(r, k, &e->msg->telemetry); break;
    case MSG_FAULT: {
        char text[512];
        snprintf(text, sizeof text, "rank %d (%s): %s", (int)(k - r->ranks), k->info.host, e->msg->fault.text);
        lose(r, ERR_UNAVAILABLE, text);
        break;
    }
    default: log_warn(C, "unexpected message %d from %s", e->msg->type, rpc_peer_identity(e->peer));
    }
}

static void on_closed(struct crd_replica *r, struct rpc_event *e)
{
    struct rank *k = rpc_peer_user(e->peer);
    if (!k) return;
    char text[512];
    snprintf(text, sizeof text, "rank %d (%s, pid %d) is gone: %s", (int)(k - r->ranks), k->info.host, k->info.pid, e->text);
    k->peer = NULL;
    if (r->stopping) trn_step_link_close(r->link), r->link = NULL;
    pthread_mutex_lock(&r->lock);
    k->info.joined = k->info.ready = false;
    pthread_mutex_unlock(&r->lock);
    if (r->stopping) return;
    lose(r, ERR_UNAVAILABLE, text);
}

/* ---- commands ---- */

static void free_command(struct command *c)
{
    free((void *)c->request.prompt);
    free(c->request.sampling.bias);
    free(c);
}

static void submit(struct crd_replica *r, struct command *c)
{
    char text[512];
    if (r->draining || r->stopping) {
        refuse(c->on_event, c->user, c->request.id, ERR_UNAVAILABLE, "the server is shutting down");
    } else if (r->state != REPLICA_READY) {
        pthread_mutex_lock(&r->lock);
        snprintf(text, sizeof text, "%s", r->status.text);
        pthread_mutex_unlock(&r->lock);
        refuse(c->on_event, c->user, c->request.id, ERR_UNAVAILABLE, text);
    } else {
        crd_requests_add(r->requests, c->request.id, c->request.n, c->on_event, c->user);
        enum err e = crd_sched_submit(r->sched, &c->request, clock_us());
        if (e) {
            crd_requests_drop(r->requests, c->request.id);
            refuse(c->on_event, c->user, c->request.id, e, err_text());
        }
    }
}

static void stop(struct crd_replica *r, struct command *c)
{
    struct control_msg m = {.type = MSG_SHUTDOWN, .shutdown = {.reason = "the server is shutting down"}};
    if (r->stopping) return;
    if (r->sched) crd_sched_fail_all(r->sched, ERR_UNAVAILABLE, "the server is shutting down", clock_us());
    if (r->awake && r->link) /* ranks in the group's rhythm leave it together */
        if (trn_step_link_send(r->link, &(struct step_plan){.epoch = r->epoch, .flags = STEP_SHUTDOWN})) log_warn(C, "%s", err_text());
    send_all(r, &m);
    r->stopping = true;
    r->state = REPLICA_STOPPED;
    r->stop_deadline_us = clock_us() + c->timeout_us;
}

static void on_command(struct crd_replica *r, struct command *c)
{
    switch (c->kind) {
    case CMD_SUBMIT: submit(r, c); break;
    case CMD_CANCEL:
        if (r->sched) crd_sched_cancel(r->sched, c->id, clock_us());
        break;
    case CMD_DRAIN:
        r->draining = true;
        send_all(r, &(struct control_msg){.type = MSG_DRAIN}); /* no new sequences will come */
        break;
    case CMD_STOP: stop(r, c); break;
    }
    free_command(c);
}

static void handle(struct crd_replica *r, void *msg)
{
    int kind = *(int *)msg;
    if (kind >= CMD_SUBMIT) {
        on_command(r, msg);
        return;
    }
    struct rpc_event *e = msg;
    if (e->kind == RPC_MESSAGE) on_message(r, e);
    if (e->kind == RPC_CLOSED) on_closed(r, e);
    rpc_event_free(e);
}

/* ---- steps ---- */

static enum err send_plan(struct crd_replica *r, const struct step_plan *p)
{
    if (!r->awake) trn_step_link_wake(r->link);
    r->awake = true;
    return trn_step_link_send(r->link, p);
}

static void pump(struct crd_replica *r)
{
    struct step_plan p;
    enum err e = OK;
    for (bool some = true; some && !e;) {
        some = crd_sched_step(r->sched, clock_us(), &r->step_arena, &p);
        if (some) e = send_plan(r, &p);
        arena_free(&r->step_arena);
    }
    if (e) {
        lose(r, e, err_text());
        return;
    }
    int64_t now = clock_us();
    if (!crd_sched_idle(r->sched)) r->busy_us = now;
    else if (r->awake && now - r->busy_us >= r->conf.idle_us) {
        e = send_plan(r, &(struct step_plan){.epoch = r->epoch, .flags = STEP_SLEEP});
        r->awake = false;
        if (e) lose(r, e, err_text());
    }
}

static int64_t patience(const struct crd_replica *r)
{
    if (r->stopping) return 20000;
    if (r->state == REPLICA_READY && r->awake && crd_sched_idle(r->sched)) return r->conf.idle_us;
    return -1;
}

static bool all_gone(const struct crd_replica *r)
{
    for (int32_t i = 0; i < r->n_ranks; i++)
        if (r->ranks[i].peer) return false;
    return true;
}

static void *replica_main(void *arg)
{
    struct crd_replica *r = arg;
    while (!r->stopping || (!all_gone(r) && clock_us() < r->stop_deadline_us)) {
        void *m = mailbox_get(r->mail, patience(r));
        for (; m; m = mailbox_get(r->mail, 0)) handle(r, m);
        if (r->state == REPLICA_READY) pump(r);
        publish(r);
    }
    return NULL;
}

/* ---- the outside ---- */

struct crd_replica *crd_replica_open(const struct replica_conf *conf)
{
    struct crd_replica *r = xcalloc(1, sizeof *r);
    r->conf = *conf;
    r->mail = mailbox_open();
    r->requests = crd_requests_open();
    r->epoch = (uint32_t)(rng_mix((uint64_t)clock_us()) >> 40) + 1; /* not 1, 2, 3: names in shared memory of another start must differ */
    pthread_mutex_init(&r->lock, NULL);
    snprintf(r->status.text, sizeof r->status.text, "waiting for workers to join");
    ASSERT(!pthread_create(&r->thread, NULL, replica_main, r));
    return r;
}

struct mailbox *crd_replica_mailbox(struct crd_replica *r) { return r->mail; }

static void command(struct crd_replica *r, const struct command *c)
{
    struct command *copy = xmalloc(sizeof *copy);
    *copy = *c;
    mailbox_put(r->mail, copy);
}

void crd_replica_stop(struct crd_replica *r, int64_t timeout_us)
{
    command(r, &(struct command){.kind = CMD_STOP, .timeout_us = timeout_us});
    pthread_join(r->thread, NULL);
}

void crd_replica_close(struct crd_replica *r)
{
    if (!r) return;
    for (void *m; (m = mailbox_get(r->mail, 0));) handle(r, m);
    crd_sched_close(r->sched);
    trn_step_link_close(r->link);
    forget_ranks(r);
    crd_requests_close(r->requests);
    mailbox_close(r->mail);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

void crd_replica_submit(struct crd_replica *r, const struct gen_request *q, token_event_fn on_event, void *user)
{
    struct command c = {.kind = CMD_SUBMIT, .request = *q, .on_event = on_event, .user = user};
    int32_t *prompt = xmalloc((size_t)MAX(q->n_prompt, 1) * sizeof *prompt);
    memcpy(prompt, q->prompt, (size_t)q->n_prompt * sizeof *prompt);
    c.request.prompt = prompt;
    if (q->sampling.n_bias) {
        c.request.sampling.bias = xmalloc((size_t)q->sampling.n_bias * sizeof *q->sampling.bias);
        memcpy(c.request.sampling.bias, q->sampling.bias, (size_t)q->sampling.n_bias * sizeof *q->sampling.bias);
    } else {
        c.request.sampling.bias = NULL;
    }
    command(r, &c);
}

void crd_replica_cancel(struct crd_replica *r, uint64_t request) { command(r, &(struct command){.kind = CMD_CANCEL, .id = request}); }
void crd_replica_drain(struct crd_replica *r) { command(r, &(struct command){.kind = CMD_DRAIN}); }

void crd_replica_status(struct crd_replica *r, struct replica_status *out)
{
    pthread_mutex_lock(&r->lock);
    *out = r->status;
    pthread_mutex_unlock(&r->lock);
}

int32_t crd_replica_ranks(struct crd_replica *r, struct replica_rank out[LIMIT_RANKS])
{
    pthread_mutex_lock(&r->lock);
    int32_t n = r->status.n_ranks;
    for (int32_t i = 0; i < n; i++) out[i] = r->ranks[i].info;
    pthread_mutex_unlock(&r->lock);
    return n;
}
