/* replay.c: see replay.h: the life of an answer beside its connections. */
#include "coordinator/api/replay_impl.h"
#include "base/clock.h"
#include "base/log.h"
#include "coordinator/api/access.h"
#include "coordinator/api/http.h"
#include "coordinator/journal/journal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* ---- lists ---- */

static void list_remove(struct crd_kept *k)
{
    struct crd_kept_list *l = k->list;
    if (!l) return;
    *(k->prev ? &k->prev->next : &l->head) = k->next;
    *(k->next ? &k->next->prev : &l->tail) = k->prev;
    k->prev = k->next = NULL;
    k->list = NULL;
}

static void list_append(struct crd_kept_list *l, struct crd_kept *k)
{
    list_remove(k);
    k->list = l;
    k->prev = l->tail;
    *(l->tail ? &l->tail->next : &l->head) = k;
    l->tail = k;
}

/* ---- wakes ---- */

static void kept_wake(void *user)
{
    struct crd_kept *k = user;
    pthread_mutex_lock(&k->lock);
    if (k->waker) gw_wake(k->waker);
    pthread_mutex_unlock(&k->lock);
}

static void set_waker(struct crd_kept *k, struct gw_waker *w)
{
    pthread_mutex_lock(&k->lock);
    k->waker = w;
    pthread_mutex_unlock(&k->lock);
}

/* ---- memory ---- */

static void count(struct crd_kept *k)
{
    size_t size = crd_frames_size(&k->frames);
    int64_t more = (int64_t)size - (int64_t)k->counted;
    if (!k->store) return;
    k->store->bytes += more;
    if (k->stays) k->store->staying += more;
    k->counted = size;
}

/* It goes with its last reader, or as soon as its reader has had it: not what the bound is for. */
static void leave(struct crd_kept *k)
{
    if (k->stays) k->store->staying -= (int64_t)k->counted;
    k->stays = false;
}

/* The generation goes, ended or not. */
static void close_generation(struct crd_kept *k)
{
    /* one that had ended was noted then; one that never went on is noted by whoever goes on with it */
    if (k->g && !k->ended && !k->waits) crd_generation_note(k->g, k->key ? k->key->name : NULL, k->id);
    crd_generation_close(k->g);
    k->g = NULL;
}

static void kept_free(struct crd_kept *k)
{
    list_remove(k);
    leave(k);
    close_generation(k);
    crd_access_end(k->key);
    if (k->store) k->store->bytes -= (int64_t)k->counted;
    if (k->task) gw_task_cancel(k->task);
    gw_waker_free(k->task);
    crd_frames_free(&k->frames);
    pthread_mutex_destroy(&k->lock);
    free(k);
}

static bool too_much(const struct crd_replay *r) { return r->staying > r->conf.max_bytes; }

static void drop_oldest(struct crd_replay *r, bool delivered, const struct crd_kept *at_hand)
{
    for (struct crd_kept *k = r->over.head, *next; k && too_much(r); k = next) {
        next = k->next;
        if (delivered && !k->delivered) continue;
        leave(k);
        if (k == at_hand || k->readers) list_remove(k); /* goes when its user does */
        else kept_free(k);
    }
}

/* Of those under way: the largest that somebody reads now, then the largest of all; NULL: all are given up. */
static struct crd_kept *largest(const struct crd_replay *r)
{
    struct crd_kept *best = NULL;
    for (struct crd_kept *k = r->live.head; k; k = k->next) {
        if (!k->stays || k->ended) continue;
        if (!best || (!k->readers == !best->readers ? k->counted > best->counted : k->readers != NULL)) best = k;
    }
    return best;
}

static void give_up(struct crd_kept *k)
{
    k->whole = false;
    leave(k);
}

/* Into the bound, and no more is given up than that takes: what passes it alone takes nothing along. */
static void make_room(struct crd_replay *r, struct crd_kept *at_hand)
{
    for (struct crd_kept *k = r->live.head; k; k = k->next)
        if (k->stays && !k->ended && (int64_t)k->counted > r->conf.max_bytes) give_up(k);
    drop_oldest(r, true, at_hand);
    drop_oldest(r, false, at_hand);
    for (struct crd_kept *k; too_much(r) && (k = largest(r));) give_up(k);
}

/* ---- its end ---- */

static void set_alarm(struct crd_replay *r, struct gw *gw)
{
    int64_t due = INT64_MAX;
    if (r->over.head) due = r->over.head->since_us + r->conf.keep_us;
    for (struct crd_kept *k = r->live.head; k; k = k->next)
        if (!k->readers && !k->waits) due = MIN(due, k->since_us + r->conf.keep_us);
    if (due != INT64_MAX) gw_alarm(gw, due);
}

void crd_replay_alarm(struct crd_replay *r)
{
    int64_t before = clock_us() - r->conf.keep_us;
    struct gw *gw = NULL;
    for (struct crd_kept *k = r->live.head, *next; k; k = next) {
        next = k->next;
        gw = k->gw;
        if (!k->readers && !k->waits && k->since_us <= before) kept_free(k); /* nobody came back: cancelled */
    }
    for (struct crd_kept *k = r->over.head, *next; k; k = next) {
        next = k->next;
        gw = k->gw;
        if (k->since_us > before) break;
        leave(k);
        if (k->readers) list_remove(k); /* goes with them */
        else kept_free(k);
    }
    if (gw) set_alarm(r, gw);
}

static void close_account(struct crd_kept *k)
{
    crd_access_end(k->key);
    k->key = NULL;
}

static void over(struct crd_kept *k)
{
    struct crd_replay *r = k->store;
    k->over = true;
    k->since_us = clock_us();
    k->retry_after = crd_generation_retry_after(k->g);
    set_waker(k, NULL);
    close_generation(k);
    list_remove(k);
    if (!r || !r->conf.keep_us || k->status != 200 || !k->whole || (int64_t)k->counted > r->conf.max_bytes) {
        leave(k);
        return;
    }
    list_append(&r->over, k);
    set_alarm(r, k->gw);
}

void crd_kept_cancel(struct crd_kept *k)
{
    if (!k->over) over(k);
    list_remove(k);
    leave(k);
    for (struct crd_reader *r = k->readers; r; r = r->next) gw_wake(r->waker);
    if (!k->readers) kept_free(k);
}

/* ---- running ---- */

static void charge(struct crd_kept *k)
{
    int64_t p, n;
    crd_generation_used(k->g, &p, &n);
    if (k->recalled) {
        p = 0;
        n = MAX(n - k->n_before, 0);
    }
    crd_access_charge(k->key, p - k->n_prompt, n - k->n_completion);
    k->n_prompt = p;
    k->n_completion = n;
}

static bool is_events(const struct crd_kept *k)
{
    return k->type && k->status == 200 && !strncmp(k->type, "text/event-stream", 17);
}

/* Let the generation go on; readers other than `by` are told of what it said. */
static void advance(struct crd_kept *k, const struct crd_reader *by)
{
    struct buf out = {0};
    if (k->over || k->waits) return;
    bool ended = crd_generation_run(k->g, &out, &k->status);
    charge(k);
    if (k->status && !k->type) k->type = crd_generation_type(k->g);
    crd_frames_add(&k->frames, out.data, out.len, is_events(k));
    if (out.len || ended)
        for (struct crd_reader *r = k->readers; r; r = r->next)
            if (r != by) gw_wake(r->waker);
    buf_free(&out);
    if (ended) crd_frames_settle(&k->frames);
    count(k);
    if (ended) over(k);
    if (k->store && too_much(k->store)) make_room(k->store, k);
}

static void run_unattended(void *user)
{
    struct crd_kept *k = user;
    if (k->readers) return; /* one came meanwhile and was woken */
    advance(k, NULL);
    if (k->over) close_account(k);
    if (k->over && !k->list) kept_free(k);
}

/* ---- readers ---- */

static void say_headers(struct crd_reader *r, const char **headers)
{
    struct crd_kept *k = r->answer;
    if (k->key) crd_quota_headers(&k->key->quota, clock_us(), &r->headers);
    if (k->retry_after) buf_printf(&r->headers, "Retry-After: %d\n", k->retry_after);
    *headers = buf_str(&r->headers);
}

/* Copy what it has not had. True: that was all there will be. */
static bool read_on(struct crd_reader *r, struct buf *out)
{
    struct crd_kept *k = r->answer;
    struct crd_frames *f = &k->frames;
    if (r->from && k->status && !is_events(k)) { /* it was not known when the reader came */
        if (f->dropped) return k->over;
        r->from = 0;
    }
    if (r->from) {
        if (r->from > f->n + 1 || !crd_frames_find(f, r->from, &r->pos)) return k->over;
        r->from = 0;
    }
    ASSERT(r->pos >= f->dropped);
    buf_put(out, f->bytes.data + (r->pos - f->dropped), (size_t)(crd_frames_end(f) - r->pos));
    r->pos = crd_frames_end(f);
    if (!k->whole && k->readers == r && !r->next) {
        crd_frames_drop(f);
        count(k);
    }
    k->delivered |= k->over;
    return k->over;
}

static bool reader_run(void *self, struct buf *out, int32_t *status, const char **type,
                       const char **headers)
{
    struct crd_reader *r = self;
    struct crd_kept *k = r->answer;
    if (k->readers == r) advance(k, r);
    if (!k->status) { /* also while it waits */
        *status = k->over ? 410 : 0; /* over without a status: cancelled by another */
        return k->over;
    }
    if (!*status) say_headers(r, headers);
    *status = k->status;
    *type = k->type;
    return read_on(r, out);
}

static void reader_closed(void *self, bool client_left)
{
    struct crd_reader *r = self, **at;
    struct crd_kept *k = r->answer;
    (void)client_left;
    for (at = &k->readers; *at != r; at = &(*at)->next) continue;
    *at = r->next;
    set_waker(k, k->readers ? k->readers->waker : NULL);
    if (k->readers) gw_wake(k->readers->waker);
    gw_waker_free(r->waker);
    buf_free(&r->headers);
    free(r);
    if (k->over) close_account(k);
    if (k->readers) return;
    if (k->over ? !k->list : !k->resumable) {
        kept_free(k);
        return;
    }
    if (k->over) return;
    if (!k->task) k->task = gw_task(k->gw, run_unattended, k);
    k->since_us = clock_us();
    set_waker(k, k->task);
    gw_wake(k->task);
    set_alarm(k->store, k->gw);
}

void crd_kept_read(struct crd_kept *k, struct gw_exchange *x, int64_t from)
{
    static const struct gw_stream_ops ops = {reader_run, reader_closed};
    struct crd_reader *r = xcalloc(1, sizeof *r), **at = &k->readers;
    if (!k->gw) k->gw = gw_of(x);
    *r = (struct crd_reader){.answer = k, .waker = gw_exchange_waker(x), .from = from};
    while (*at) at = &(*at)->next;
    *at = r;
    if (k->readers == r && !k->over) {
        set_waker(k, r->waker);
        gw_wake(r->waker);
    }
    gw_stream(x, &ops, r);
}

/* ---- beginning ---- */

static bool wants_to_come_back(struct gw_exchange *x)
{
    const char *v = gw_header(x, "X-Resumable");
    return v && (!strcasecmp(v, "true") || !strcmp(v, "1"));
}

/* Vectors are large, have no events, and are made again as cheaply as read again. */
static bool is_vectors(enum crd_endpoint ep)
{
    return ep >= ENDPOINT_EMBEDDINGS;
}

void crd_replay_begin(struct crd_api *api, struct gw_exchange *x, const struct gw_request *q,
                      enum crd_endpoint ep)
{
    struct crd_replay *store = api->replay;
    struct crd_api_error e = {0};
    bool resumable = wants_to_come_back(x);
    if (resumable && (!store || !store->conf.keep_us)) {
        crd_api_refuse(&e, 400, NULL, "X-Resumable: this server keeps no answers (--replay-seconds is 0).");
        crd_http_refuse(x, q->path, &e, NULL);
        return;
    }
    if (!crd_access_begin(api, x, q)) return;
    struct crd_kept *k = xcalloc(1, sizeof *k);
    *k = (struct crd_kept){.store = store, .gw = gw_of(x), .key = q->caller, .resumable = resumable,
                           .whole = store && store->conf.keep_us && (resumable || !is_vectors(ep))};
    k->stays = k->whole;
    k->tenant = k->key ? k->key->tenant : 0;
    snprintf(k->id, sizeof k->id, "%s", q->request_id);
    pthread_mutex_init(&k->lock, NULL);
    k->g = crd_generation_open(api, ep, q->body, q->n_body, k->tenant, q->request_id, kept_wake, k);
    if (k->key) crd_generation_weight(k->g, k->key->weight);
    crd_generation_journal(k->g, resumable);
    if (store) list_append(&store->live, k);
    crd_kept_read(k, x, 0);
}

/* ---- answers of another coordinator's time ---- */

static void recall_one(struct crd_api *api, struct crd_journaled *q)
{
    struct crd_replay *store = api->replay;
    struct crd_recalled what;
    struct crd_kept *k = xcalloc(1, sizeof *k);
    *k = (struct crd_kept){.store = store, .waits = true, .whole = true, .stays = true, .resumable = true, .recalled = true};
    pthread_mutex_init(&k->lock, NULL);
    k->g = crd_generation_recall(api, q, &what, kept_wake, k);
    if (!k->g) {
        kept_free(k);
        return;
    }
    k->tenant = what.tenant;
    snprintf(k->id, sizeof k->id, "%s", what.id);
    k->ended = what.ended;
    k->n_before = what.n_tokens;
    if (!k->ended && api->keys) k->key = crd_keys_resume(api->keys, k->tenant);
    list_append(&store->live, k);
}

void crd_replay_recall(struct crd_api *api)
{
    for (struct crd_journaled *q = NULL; (q = crd_journal_left(api->journal, q));) recall_one(api, q);
}

/* On the net thread. */
static void go(void *user)
{
    struct crd_replay *r = user;
    int32_t n = 0;
    for (struct crd_kept *k = r->live.head, *next; k; k = next) {
        next = k->next;
        if (!k->waits) continue;
        n++;
        k->waits = false;
        k->gw = r->gw;
        k->since_us = clock_us();
        if (!k->task) k->task = gw_task(k->gw, run_unattended, k);
        if (!k->readers) set_waker(k, k->task);
        if (k->readers || !k->ended) kept_wake(k);
    }
    if (n) log_info("journal", "%d answer(s) of an earlier coordinator go on or can be read again", n);
    if (r->gw) set_alarm(r, r->gw);
}

void crd_replay_go(struct crd_api *api, struct gw *gw)
{
    struct crd_replay *r = api->replay;
    r->gw = gw;
    if (!r->go) r->go = gw_task(gw, go, r);
    gw_wake(r->go);
}

/* On the net thread. */
static void tell(void *user)
{
    struct crd_replay *r = user;
    for (struct crd_kept *k = r->live.head; k; k = k->next)
        if (k->ended && !k->waits) kept_wake(k);
}

void crd_replay_tell(struct crd_replay *r, struct gw *gw)
{
    if (!r->tell) r->tell = gw_task(gw, tell, r);
    gw_wake(r->tell);
}

/* ---- the store ---- */

static bool is_named(const struct crd_kept *k, const char *id, size_t n)
{
    size_t len = strlen(k->id);
    if (n == len) return !memcmp(id, k->id, n);
    /* the answer's id: its dialect's prefix, then the request's */
    return n > len && n - len <= 16 && (id[n - len - 1] == '-' || id[n - len - 1] == '_') &&
           !memcmp(id + n - len, k->id, len);
}

struct crd_kept *crd_kept_find(const struct crd_replay *r, const char *id, size_t n,
                               uint64_t tenant)
{
    const struct crd_kept_list *const lists[] = {&r->live, &r->over};
    for (size_t i = 0; i < COUNT_OF(lists); i++) /* the newest of a name first */
        for (struct crd_kept *k = lists[i]->tail; k; k = k->prev)
            if (k->tenant == tenant && is_named(k, id, n)) return k;
    return NULL;
}

struct crd_replay *crd_replay_open(const struct crd_replay_conf *conf)
{
    struct crd_replay *r = xcalloc(1, sizeof *r);
    r->conf = *conf;
    return r;
}

void crd_replay_close(struct crd_replay *r)
{
    if (!r) return;
    if (r->go) gw_task_cancel(r->go);
    gw_waker_free(r->go);
    if (r->tell) gw_task_cancel(r->tell);
    gw_waker_free(r->tell);
    while (r->live.head) kept_free(r->live.head);
    while (r->over.head) kept_free(r->over.head);
    free(r);
}

int64_t crd_replay_bytes(const struct crd_replay *r)
{
    return atomic_load(&r->bytes);
}
