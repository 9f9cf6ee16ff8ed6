/* fleet.c: see fleet.h.
 *
 * I1  an entry's replica is where its request is or to whose mailbox it is on the way; entry and mailbox are written under the lock, so a
 *     cancel is behind the request in the same mailbox.
 * I2  load[i] is the number of choices without a finishing event of the entries at i. */
#include "coordinator/replica/fleet.h"

#include "base/rng.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { BUCKETS = 4096 };

struct entry {
    struct crd_fleet *fleet;
    struct entry *next;
    uint64_t id;
    int32_t replica, n_left;
    bool cancelled;
    token_event_fn fn;
    void *user;
};

struct crd_fleet {
    /* [init] */
    struct crd_replica *replicas[ROUTE_REPLICAS];
    int32_t n;
    /* the lock */
    pthread_mutex_t lock;
    struct crd_route *route;
    enum replica_use use[ROUTE_REPLICAS];
    int32_t load[ROUTE_REPLICAS];
    uint64_t n_moved;
    struct entry *buckets[BUCKETS];
};

struct crd_fleet *crd_fleet_open(void)
{
    struct crd_fleet *f = xcalloc(1, sizeof *f);
    f->route = crd_route_open();
    pthread_mutex_init(&f->lock, NULL);
    return f;
}

void crd_fleet_close(struct crd_fleet *f)
{
    if (!f) return;
    for (int i = 0; i < BUCKETS; i++) ASSERT(!f->buckets[i]); /* every request has ended with its replica */
    crd_route_close(f->route);
    pthread_mutex_destroy(&f->lock);
    free(f);
}

void crd_fleet_add(struct crd_fleet *f, struct crd_replica *r)
{
    ASSERT(f->n < ROUTE_REPLICAS);
    f->replicas[f->n++] = r;
}

/* ---- entries; under the lock ---- */

static struct entry **find(struct crd_fleet *f, uint64_t id)
{
    struct entry **at = &f->buckets[rng_mix(id) % BUCKETS];
    while (*at && (*at)->id != id) at = &(*at)->next;
    return at;
}

static uint32_t in_use(const struct crd_fleet *f, enum replica_use use, int32_t but)
{
    uint32_t mask = 0;
    for (int32_t i = 0; i < f->n; i++)
        if (f->use[i] == use && i != but) mask |= UINT32_C(1) << i;
    return mask;
}

/* Where a request goes that may not stay at `but`: to those that serve, else to those that keep it until they do, else -1. */
static int32_t choose(struct crd_fleet *f, int32_t but, uint64_t salt, const int32_t *prompt, int32_t n_prompt)
{
    uint32_t mask = in_use(f, REPLICA_SERVES, but);
    if (!mask && but < 0) mask = in_use(f, REPLICA_KEEPS, but);
    return mask ? crd_route_pick(f->route, mask, f->load, salt, prompt, n_prompt, NULL) : -1;
}

static void put_at(struct crd_fleet *f, struct entry *e, int32_t replica)
{
    if (e->replica >= 0) f->load[e->replica] -= e->n_left;
    e->replica = replica;
    f->load[replica] += e->n_left;
}

/* ---- events ---- */

static void on_event(void *user, const struct token_event *ev)
{
    struct entry *e = user;
    struct crd_fleet *f = e->fleet;
    bool last = false;
    if (ev->kind == EVENT_FINISH) {
        pthread_mutex_lock(&f->lock);
        int32_t n = ev->choice < 0 ? e->n_left : 1;
        e->n_left -= n;
        f->load[e->replica] -= n;
        last = !e->n_left;
        if (last) *find(f, e->id) = e->next;
        pthread_mutex_unlock(&f->lock);
    }
    e->fn(e->user, ev);
    if (last) free(e);
}

/* An id in use: a replica, which keeps its listeners by id, must not see it a second time. */
static void refuse_id(uint64_t id, token_event_fn fn, void *user)
{
    char text[80];
    snprintf(text, sizeof text, "request %" PRIu64 " is already running; ids are unique", id);
    fn(user, &(struct token_event){.kind = EVENT_FINISH, .request = id, .choice = -1, .err = ERR_BAD_REQUEST, .text = text});
}

void crd_fleet_submit(struct crd_fleet *f, const struct gen_request *q, token_event_fn fn, void *user)
{
    struct entry *e = xmalloc(sizeof *e);
    *e = (struct entry){.fleet = f, .id = q->id, .replica = -1, .n_left = gen_request_open(q), .fn = fn, .user = user};
    pthread_mutex_lock(&f->lock);
    struct entry **at = find(f, q->id);
    if (*at) {
        pthread_mutex_unlock(&f->lock);
        free(e);
        refuse_id(q->id, fn, user);
        return;
    }
    *at = e;
    e->next = NULL;
    int32_t to = choose(f, -1, gen_request_salt(q), q->prompt, q->n_prompt);
    put_at(f, e, MAX(to, 0)); /* when none can, the first says why */
    crd_replica_submit(f->replicas[e->replica], q, on_event, e);
    pthread_mutex_unlock(&f->lock);
}

void crd_fleet_cancel(struct crd_fleet *f, uint64_t request)
{
    pthread_mutex_lock(&f->lock);
    struct entry *e = *find(f, request);
    if (e) {
        e->cancelled = true;
        crd_replica_cancel(f->replicas[e->replica], request);
    }
    pthread_mutex_unlock(&f->lock);
}

/* ---- what replicas say, on their threads ---- */

static void changed(void *self, int32_t index, enum replica_use use)
{
    struct crd_fleet *f = self;
    uint32_t waiting = 0;
    pthread_mutex_lock(&f->lock);
    if (f->use[index] == use) {
        pthread_mutex_unlock(&f->lock);
        return;
    }
    f->use[index] = use;
    if (use == REPLICA_SERVES) waiting = in_use(f, REPLICA_KEEPS, index);
    else crd_route_forget(f->route, index);
    pthread_mutex_unlock(&f->lock);
    for (int32_t i = 0; i < f->n; i++)
        if (waiting >> i & 1) crd_replica_hand_over(f->replicas[i]);
}

static bool others_serve(void *self, int32_t index)
{
    struct crd_fleet *f = self;
    pthread_mutex_lock(&f->lock);
    bool any = in_use(f, REPLICA_SERVES, index) != 0;
    pthread_mutex_unlock(&f->lock);
    return any;
}

static bool submit_elsewhere(void *self, int32_t index, const struct gen_request *q, void *listener)
{
    struct crd_fleet *f = self;
    struct entry *e = listener;
    pthread_mutex_lock(&f->lock);
    int32_t to = choose(f, index, gen_request_salt(q), q->prompt, q->n_prompt);
    if (to >= 0) {
        put_at(f, e, to);
        crd_replica_submit(f->replicas[to], q, on_event, e);
        if (e->cancelled) crd_replica_cancel(f->replicas[to], e->id);
    }
    pthread_mutex_unlock(&f->lock);
    return to >= 0;
}

static void take(void *self, int32_t index, const struct replica_moved *m)
{
    struct crd_fleet *f = self;
    struct entry *e = m->user;
    int32_t n;
    uint64_t salt;
    const int32_t *prompt = crd_sched_handed_prompt(m->group, &n, &salt);
    pthread_mutex_lock(&f->lock);
    int32_t to = choose(f, index, salt, prompt, n);
    f->n_moved += to >= 0;
    put_at(f, e, to >= 0 ? to : index); /* they have all gone meanwhile: it stays */
    crd_replica_adopt(f->replicas[e->replica], m);
    if (e->cancelled) crd_replica_cancel(f->replicas[e->replica], e->id);
    pthread_mutex_unlock(&f->lock);
}

struct replica_peers crd_fleet_peers(struct crd_fleet *f)
{
    return (struct replica_peers){.self = f, .changed = changed, .others_serve = others_serve, .submit = submit_elsewhere, .take = take};
}

/* ---- what one may ask ---- */

int32_t crd_fleet_load(struct crd_fleet *f, int32_t replica)
{
    pthread_mutex_lock(&f->lock);
    int32_t n = f->load[replica];
    pthread_mutex_unlock(&f->lock);
    return n;
}

uint64_t crd_fleet_moved(struct crd_fleet *f)
{
    pthread_mutex_lock(&f->lock);
    uint64_t n = f->n_moved;
    pthread_mutex_unlock(&f->lock);
    return n;
}
