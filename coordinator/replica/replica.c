/* replica.c: see replica.h: the thread, its mailbox, and what others may ask. */
#include "coordinator/replica/state.h"

#include "base/clock.h"
#include "base/rng.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define C "replica"

/* Every message in the mailbox begins with an int: rpc events have their own small kinds, ours begin here. */
enum { CMD_SUBMIT = 100, CMD_CANCEL, CMD_ADOPT, CMD_HAND_OVER, CMD_HOLD, CMD_EXPECT, CMD_DRAIN, CMD_END, CMD_STOP };

struct command {
    int kind;
    struct command *next;       /* while held */
    bool on;                    /* HOLD */
    struct gen_request request; /* SUBMIT; Own: prompt, bias, grammar's text */
    token_event_fn on_event;
    void *user;
    uint64_t id;                /* CANCEL */
    struct replica_moved moved; /* ADOPT */
    int32_t n_ranks;            /* EXPECT */
    int64_t timeout_us;         /* STOP */
    char text[256];             /* END */
};

static void refuse(const struct crd_replica *r, token_event_fn fn, void *user, uint64_t id, enum err err, const char *text)
{
    struct token_event e = {.kind = EVENT_FINISH, .request = id, .choice = -1, .engine = r->conf.index, .err = err, .text = text};
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
    s->err = r->why_err;
    s->culprit = r->culprit;
    s->recovering = r->sched && r->lost_us;
    s->n_ranks = r->n_ranks;
    s->n_expected = r->n_ranks ? r->n_ranks : r->conf.n_ranks;
    s->n_joined = s->n_ready = 0;
    for (int32_t i = 0; i < r->n_ranks; i++) {
        s->n_joined += r->ranks[i].info.joined;
        s->n_ready += r->ranks[i].info.ready;
    }
    if (r->sched) crd_sched_stats(r->sched, &s->sched);
    pthread_mutex_unlock(&r->lock);
}

void crd_replica_set_text(struct crd_replica *r, const char *text)
{
    pthread_mutex_lock(&r->lock);
    snprintf(r->status.text, sizeof r->status.text, "%s", text);
    pthread_mutex_unlock(&r->lock);
}

void crd_replica_tell(struct crd_replica *r, const char *text)
{
    struct replica_rank infos[LIMIT_RANKS];
    publish(r);
    if (r->conf.peers.self) {
        enum replica_use use = r->state == REPLICA_READY ? REPLICA_SERVES : r->sched && r->lost_us ? REPLICA_KEEPS : REPLICA_REFUSES;
        r->conf.peers.changed(r->conf.peers.self, r->conf.index, use);
    }
    if (!r->conf.on_change) return;
    for (int32_t i = 0; i < r->n_ranks; i++) infos[i] = r->ranks[i].info;
    r->conf.on_change(r->conf.user, r->state, infos, r->n_ranks, text);
}

/* ---- commands ---- */

static void free_command(struct command *c)
{
    free((void *)c->request.prompt);
    free((void *)c->request.likely);
    sampling_free(&c->request.sampling);
    free((void *)c->request.grammar.text);
    for (int32_t i = 0; c->request.known && i < c->request.n; i++) free((void *)c->request.known[i].ids);
    free((void *)c->request.known);
    free(c);
}

/* True: the request waits for the first READY, and the command stays ours. */
static bool held(struct crd_replica *r, struct command *c)
{
    if (c->kind != CMD_SUBMIT || !r->hold || r->sched || r->draining || r->stopping || r->n_held >= r->conf.max_waiting) return false;
    *r->held_end = c;
    r->held_end = &c->next;
    r->n_held++;
    return true;
}

static void submit(struct crd_replica *r, struct command *c)
{
    char text[512];
    if (r->draining || r->stopping) {
        refuse(r, c->on_event, c->user, c->request.id, ERR_UNAVAILABLE, "the server is shutting down");
    } else if (r->state != REPLICA_READY && r->conf.peers.self && r->conf.peers.submit(r->conf.peers.self, r->conf.index, &c->request, c->user)) {
        log_debug(C, "request %llu came when this replica was lost: given to another", (unsigned long long)c->request.id);
    } else if (!r->sched) { /* while recovering there is one, and the request waits like the others */
        pthread_mutex_lock(&r->lock);
        snprintf(text, sizeof text, "%s", r->status.text);
        pthread_mutex_unlock(&r->lock);
        refuse(r, c->on_event, c->user, c->request.id, ERR_UNAVAILABLE, text);
    } else {
        crd_requests_add(r->requests, c->request.id, gen_request_open(&c->request), c->on_event, c->user);
        enum err e = crd_sched_submit(r->sched, &c->request, clock_us());
        if (e) {
            crd_requests_drop(r->requests, c->request.id);
            refuse(r, c->on_event, c->user, c->request.id, e, err_text());
        }
    }
}

void crd_replica_release_held(struct crd_replica *r)
{
    struct command *c = r->held, *next;
    r->held = NULL;
    r->held_end = &r->held;
    r->culprit = -1;
    r->n_held = 0;
    r->hold = false;
    for (; c; c = next) {
        next = c->next;
        submit(r, c);
        free_command(c);
    }
}

static void cancel(struct crd_replica *r, uint64_t id)
{
    for (struct command **at = &r->held, *c; (c = *at); at = &c->next) {
        if (c->request.id != id) continue;
        *at = c->next;
        if (r->held_end == &c->next) r->held_end = at;
        r->n_held--;
        refuse(r, c->on_event, c->user, id, ERR_CANCELLED, err_short(ERR_CANCELLED));
        free_command(c);
        return;
    }
    if (r->sched) crd_sched_cancel(r->sched, id, clock_us());
}

static void adopt(struct crd_replica *r, struct command *c)
{
    struct replica_moved *m = &c->moved;
    uint64_t id = crd_sched_handed_id(m->group);
    if (r->sched && !r->stopping) {
        crd_requests_add(r->requests, id, m->n_left, m->on_event, m->user);
        crd_sched_adopt(r->sched, m->group, clock_us());
        crd_ranks_hand_over(r); /* if this one was lost meanwhile */
        return;
    }
    crd_sched_discard(m->group);
    refuse(r, m->on_event, m->user, id, ERR_UNAVAILABLE, r->stopping ? "the server is shutting down" : r->why);
}

static void stop(struct crd_replica *r, struct command *c)
{
    struct control_msg m = {.type = MSG_SHUTDOWN, .shutdown = {.reason = "the server is shutting down"}};
    if (r->stopping) return;
    if (r->sched) crd_sched_fail_all(r->sched, ERR_UNAVAILABLE, "the server is shutting down", clock_us());
    if (r->awake && r->link) /* ranks in the group's rhythm leave it together */
        if (trn_step_link_send(r->link, &(struct step_plan){.epoch = r->epoch, .flags = STEP_SHUTDOWN})) log_warn(C, "%s", err_text());
    crd_ranks_send(r, &m);
    r->stopping = true;
    r->state = REPLICA_STOPPED;
    crd_replica_release_held(r);
    r->stop_deadline_us = clock_us() + c->timeout_us;
}

static void on_command(struct crd_replica *r, struct command *c)
{
    switch (c->kind) {
    case CMD_SUBMIT: submit(r, c); break;
    case CMD_CANCEL: cancel(r, c->id); break;
    case CMD_ADOPT: adopt(r, c); break;
    case CMD_HAND_OVER: crd_ranks_hand_over(r); break;
    case CMD_HOLD:
        r->hold = c->on;
        if (!c->on) crd_replica_release_held(r);
        break;
    case CMD_EXPECT: r->conf.n_ranks = c->n_ranks; break;
    case CMD_DRAIN:
        r->draining = true;
        crd_ranks_send(r, &(struct control_msg){.type = MSG_DRAIN}); /* no new sequences will come */
        break;
    case CMD_END:
        if (r->sched) crd_sched_fail_all(r->sched, ERR_UNAVAILABLE, c->text, clock_us());
        break;
    case CMD_STOP: stop(r, c); break;
    }
    free_command(c);
}

static void handle(struct crd_replica *r, void *msg)
{
    int kind = *(int *)msg;
    if (kind >= CMD_SUBMIT) {
        if (!held(r, msg)) on_command(r, msg);
        return;
    }
    struct rpc_event *e = msg;
    if (e->kind == RPC_MESSAGE) crd_ranks_message(r, e);
    if (e->kind == RPC_CLOSED) crd_ranks_closed(r, e);
    rpc_event_free(e);
}

/* ---- the thread ---- */

static int64_t patience(const struct crd_replica *r)
{
    if (r->stopping) return 20000;
    if (r->sched && r->lost_us) return MAX(r->lost_us + r->conf.recovery_us - clock_us(), 0);
    if (r->state == REPLICA_READY && r->awake && crd_sched_idle(r->sched)) return r->conf.idle_us;
    if (crd_watch_due(r)) return MIN(r->conf.stall_us / 4, (int64_t)1000000);
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
        if (r->state == REPLICA_READY) crd_steps_pump(r);
        crd_watch_check(r);
        if (r->refill_us) crd_ranks_refilled(r);
        if (r->sched && r->lost_us && clock_us() >= r->lost_us + r->conf.recovery_us) crd_ranks_give_up(r);
        publish(r);
    }
    return NULL;
}

/* ---- the outside ---- */

enum err crd_replica_open(struct crd_replica **out, const struct replica_conf *conf)
{
    struct crd_replica *r = xcalloc(1, sizeof *r);
    r->conf = *conf;
    r->mail = mailbox_open();
    r->requests = crd_requests_open();
    r->held_end = &r->held;
    r->epoch = (uint32_t)(rng_mix((uint64_t)clock_us()) >> 40) + 1; /* not 1, 2, 3: names in shared memory of another start must differ */
    if (conf->first_epoch) r->epoch = conf->first_epoch;
    atomic_init(&r->left_epoch, conf->left_epoch);
    pthread_mutex_init(&r->lock, NULL);
    snprintf(r->status.text, sizeof r->status.text, "waiting for workers to join");
    int e = pthread_create(&r->thread, NULL, replica_main, r);
    if (!e) {
        *out = r;
        return OK;
    }
    crd_replica_close(r);
    return err_raise(ERR_SYSTEM, "cannot start the thread of replica %d: %s", conf->index, strerror(e));
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
    crd_replica_release_held(r);
    crd_sched_close(r->sched);
    trn_step_link_close(r->link);
    crd_ranks_forget(r);
    crd_requests_close(r->requests);
    mailbox_close(r->mail);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

static struct gen_known *copy_known(const struct gen_request *q)
{
    struct gen_known *k = q->known ? xcalloc((size_t)q->n, sizeof *k) : NULL;
    for (int32_t i = 0; k && i < q->n; i++) {
        int32_t n = q->known[i].over ? 0 : q->known[i].n, *ids = xmalloc((size_t)MAX(n, 1) * sizeof *ids);
        if (n) memcpy(ids, q->known[i].ids, (size_t)n * sizeof *ids);
        k[i] = (struct gen_known){.n = n, .ids = ids, .over = q->known[i].over};
    }
    return k;
}

void crd_replica_submit(struct crd_replica *r, const struct gen_request *q, token_event_fn on_event, void *user)
{
    struct command c = {.kind = CMD_SUBMIT, .request = *q, .on_event = on_event, .user = user};
    int32_t *prompt = xmalloc((size_t)MAX(q->n_prompt, 1) * sizeof *prompt);
    memcpy(prompt, q->prompt, (size_t)q->n_prompt * sizeof *prompt);
    c.request.prompt = prompt;
    int32_t *likely = xmalloc((size_t)MAX(q->n_likely, 1) * sizeof *likely);
    if (q->n_likely) memcpy(likely, q->likely, (size_t)q->n_likely * sizeof *likely);
    c.request.likely = likely;
    char *grammar = xmalloc((size_t)q->grammar.n + 1);
    if (q->grammar.n) memcpy(grammar, q->grammar.text, (size_t)q->grammar.n);
    c.request.grammar.text = grammar;
    c.request.known = copy_known(q);
    c.request.sampling = sampling_copy(&q->sampling);
    command(r, &c);
}

void crd_replica_cancel(struct crd_replica *r, uint64_t request) { command(r, &(struct command){.kind = CMD_CANCEL, .id = request}); }

void crd_replica_adopt(struct crd_replica *r, const struct replica_moved *m) { command(r, &(struct command){.kind = CMD_ADOPT, .moved = *m}); }

void crd_replica_hand_over(struct crd_replica *r) { command(r, &(struct command){.kind = CMD_HAND_OVER}); }

void crd_replica_hold(struct crd_replica *r, bool hold) { command(r, &(struct command){.kind = CMD_HOLD, .on = hold}); }

void crd_replica_expect(struct crd_replica *r, int32_t n_ranks) { command(r, &(struct command){.kind = CMD_EXPECT, .n_ranks = n_ranks}); }

void crd_replica_end(struct crd_replica *r, const char *text)
{
    struct command c = {.kind = CMD_END};
    snprintf(c.text, sizeof c.text, "%s", text);
    command(r, &c);
}

void crd_replica_forsake(struct crd_replica *r) { atomic_store(&r->left_epoch, 0); }

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
