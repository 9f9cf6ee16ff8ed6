/* journal.c: see journal.h: the thread that writes, and what it knows of each request.
 *
 * Every live request's records are kept in memory too (`records`), so the file can be written anew without the old one, also after it could not
 * be written for a while. I1  an event is handed on after its record was written, or the file is failing. I2  a request's records stand in the
 * file in the order of its life; those of different requests may stand in any. */
#include "coordinator/journal/journal.h"
#include "coordinator/journal/journal_file.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mailbox.h"
#include "base/rng.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LOG "journal"

enum { MOST_AT_ONCE = 4096, SLACK = 1 << 20, TICK_US = 1000000, READ_BUCKETS = 4096 };

struct crd_journaled {
    struct crd_journal *j;
    uint64_t number;
    struct crd_journaled *prev, *next; /* [journal] */
    struct buf records;
    int64_t ended_s;                   /* 0: it goes on */
    struct crd_journaled *bucket;      /* while reading */
};

enum job_kind { JOB_ACCEPT, JOB_RECORD, JOB_EVENT, JOB_END, JOB_PASS, JOB_STOP };

/* Own: everything in it. */
struct job {
    struct job *next;
    enum job_kind kind;
    struct crd_journaled *q;
    struct buf record; /* ACCEPT, RECORD */
    int32_t sub;
    struct token_event event;
    struct result_token token;
    char *text;
    token_event_fn then;
    void *user;
    bool whole;
};

struct crd_journal {
    struct crd_journal_conf conf;
    struct crd_journal_file file;
    struct mailbox *mail, *sync_mail;
    pthread_t thread, sync_thread;
    bool runs;
    /* [journal] */
    struct crd_journaled *head, *tail;
    int32_t n, n_over;
    struct buf batch;
    int64_t retry_us;
    bool stopping;
    /* [any] */
    _Atomic uint64_t next_number;
    _Atomic int64_t live;
    _Atomic bool dirty, sync_stop;
    pthread_mutex_t lock; /* status */
    struct crd_journal_status status;
};

/* ---- requests ---- */

static void list_append(struct crd_journal *j, struct crd_journaled *q)
{
    j->n++;
    q->prev = j->tail;
    *(j->tail ? &j->tail->next : &j->head) = q;
    j->tail = q;
}

static void forget(struct crd_journal *j, struct crd_journaled *q)
{
    *(q->prev ? &q->prev->next : &j->head) = q->next;
    *(q->next ? &q->next->prev : &j->tail) = q->prev;
    atomic_fetch_sub(&j->live, (int64_t)q->records.len);
    j->n_over -= q->ended_s != 0;
    j->n--;
    buf_free(&q->records);
    free(q);
}

static void remember(struct crd_journaled *q, const void *p, size_t n)
{
    buf_put(&q->records, p, n);
    atomic_fetch_add(&q->j->live, (int64_t)n);
}

static bool expired(const struct crd_journal *j, const struct crd_journaled *q, int64_t now_s)
{
    int64_t keep_us = j->conf.keep_us, keep_s = keep_us ? DIV_UP(keep_us, (int64_t)1000000) + 1 : 0; /* whole seconds: rather one more */
    return q->ended_s && now_s - q->ended_s >= keep_s;
}

static void expire(struct crd_journal *j)
{
    int64_t now_s = time(NULL);
    for (struct crd_journaled *q = j->head, *next; q && j->n_over; q = next) {
        next = q->next;
        if (expired(j, q, now_s)) forget(j, q);
    }
}

/* ---- writing ---- */

static void note(struct crd_journal *j, bool failing, const char *text)
{
    pthread_mutex_lock(&j->lock);
    j->status.bytes = j->file.size;
    j->status.n = j->n;
    j->status.failing = failing;
    if (text) snprintf(j->status.text, sizeof j->status.text, "%s", text);
    pthread_mutex_unlock(&j->lock);
}

static void fail(struct crd_journal *j)
{
    if (!j->status.failing) log_error(LOG, "%s: answers go on, and would not survive this coordinator; tried again every second", err_text());
    j->retry_us = clock_us() + TICK_US;
    note(j, true, err_text());
}

/* The whole file anew, of what is live. */
static void write_anew(struct crd_journal *j)
{
    struct crd_journal_fresh n;
    struct buf head = {0};
    bool was_failing = j->status.failing;
    record_file_head(&head, j->conf.fit);
    crd_journal_fresh_begin(&j->file, &n);
    crd_journal_fresh_put(&n, head.data, head.len);
    for (struct crd_journaled *q = j->head; q; q = q->next) crd_journal_fresh_put(&n, q->records.data, q->records.len);
    buf_free(&head);
    if (crd_journal_fresh_end(&j->file, &n)) {
        fail(j);
        return;
    }
    note(j, false, "");
    if (was_failing) log_info(LOG, "%s is written again", j->conf.path);
}

static void write_batch(struct crd_journal *j)
{
    if (!j->batch.len || j->status.failing) return; /* failing: it is in `records`, for write_anew */
    if (crd_journal_file_append(&j->file, j->batch.data, j->batch.len)) {
        fail(j);
        return;
    }
    if (!j->conf.sync_us) crd_journal_file_sync(&j->file);
    else if (!atomic_exchange(&j->dirty, true)) mailbox_poke(j->sync_mail);
}

static void keep_small(struct crd_journal *j)
{
    int64_t live = atomic_load(&j->live), size = j->file.size;
    bool due = size > 2 * live + SLACK || (size > j->conf.max_bytes && size > live + live / 2);
    if (j->status.failing ? clock_us() >= j->retry_us : due) write_anew(j);
}

/* ---- jobs ---- */

/* Its record into the batch. */
static void take(struct crd_journal *j, struct job *b)
{
    struct crd_journaled *q = b->q;
    size_t at = j->batch.len;
    switch (b->kind) {
    case JOB_ACCEPT: list_append(j, q); buf_put(&j->batch, b->record.data, b->record.len); break;
    case JOB_RECORD: buf_put(&j->batch, b->record.data, b->record.len); break;
    case JOB_EVENT: record_put_event(&j->batch, q->number, b->sub, &b->event); break;
    case JOB_END: record_put_end(&j->batch, q->number, b->whole ? time(NULL) : 0); break;
    case JOB_PASS: return;
    case JOB_STOP: j->stopping = true; return;
    }
    remember(q, j->batch.data + at, j->batch.len - at);
    if (b->kind != JOB_END) return;
    if (b->whole) q->ended_s = time(NULL), j->n_over++;
    else forget(j, q);
}

static void hand_on(struct job *b)
{
    if (b->then) b->then(b->user, &b->event);
    buf_free(&b->record);
    free(b->text);
    free(b);
}

static void *journal_main(void *arg)
{
    struct crd_journal *j = arg;
    while (!j->stopping) {
        struct job *first = mailbox_get(j->mail, j->status.failing || j->n_over ? TICK_US : -1), *b = first;
        buf_clear(&j->batch);
        for (int32_t n = 0; b; n++) {
            take(j, b);
            b = b->next = n < MOST_AT_ONCE ? mailbox_get(j->mail, 0) : NULL;
        }
        write_batch(j);
        for (struct job *next; (b = first); first = next) {
            next = b->next;
            hand_on(b);
        }
        expire(j);
        keep_small(j);
        note(j, j->status.failing, NULL);
    }
    return NULL;
}

static void *sync_main(void *arg)
{
    struct crd_journal *j = arg;
    while (!atomic_load(&j->sync_stop)) {
        mailbox_get(j->sync_mail, -1);
        if (!atomic_exchange(&j->dirty, false)) continue;
        crd_journal_file_sync(&j->file);
        for (int64_t until = clock_us() + j->conf.sync_us, now; !atomic_load(&j->sync_stop) && (now = clock_us()) < until;)
            mailbox_get(j->sync_mail, until - now);
        if (atomic_load(&j->dirty)) mailbox_poke(j->sync_mail); /* its poke was taken above */
    }
    return NULL;
}

/* ---- what was left ---- */

static void read_left(struct crd_journal *j, const struct buf *file)
{
    struct crd_journaled **buckets = xcalloc(READ_BUCKETS, sizeof *buckets);
    struct rd r = rd_of(file->data + RECORD_FILE_HEAD, file->len - RECORD_FILE_HEAD);
    struct record_event *e = xmalloc(sizeof *e);
    uint64_t most = 0;
    size_t bytes;
    const uint8_t *begin = r.p;
    for (; record_next(&r, e, &bytes); begin = r.p) {
        struct crd_journaled **at = &buckets[rng_mix(e->request) % READ_BUCKETS], *q;
        while (*at && (*at)->number != e->request) at = &(*at)->bucket;
        q = *at;
        if (!q && e->kind == RECORD_ACCEPT) {
            q = *at = xcalloc(1, sizeof *q);
            q->j = j;
            q->number = e->request;
            list_append(j, q);
            most = MAX(most, q->number);
        } else if (!q || e->kind == RECORD_ACCEPT) {
            continue; /* of a request that was forgotten; or said twice */
        }
        remember(q, begin, bytes);
        if (e->kind == RECORD_END && e->ended_s && !q->ended_s) q->ended_s = e->ended_s, j->n_over++;
        if (e->kind == RECORD_END && !e->ended_s) *at = q->bucket, forget(j, q);
    }
    if (rd_left(&r)) log_warn(LOG, "%s: %zu bytes at its end are no whole record and are left out", j->conf.path, rd_left(&r));
    free(e);
    free(buckets);
    atomic_store(&j->next_number, most + 1);
}

enum err crd_journal_open(struct crd_journal **out, const struct crd_journal_conf *conf)
{
    enum err rc;
    uint64_t fit;
    struct buf file = {0};
    struct crd_journal *j = xcalloc(1, sizeof *j);
    j->conf = *conf;
    j->conf.path = xstrdup(conf->path);
    atomic_store(&j->next_number, 1);
    pthread_mutex_init(&j->lock, NULL);
    j->mail = mailbox_open();
    j->sync_mail = mailbox_open();
    crd_journal_file_open(&j->file, conf->path);
    TRY(crd_journal_file_read(&j->file, &file));
    if (file.len >= RECORD_FILE_HEAD) {
        rc = record_check_file(file.data, file.len, &fit);
        if (rc) {
            rc = err_prefix(rc, "%s", conf->path);
            goto out;
        }
        if (fit == conf->fit) read_left(j, &file);
        else log_warn(LOG, "%s is of another model, or of other options that change answers: what it holds is thrown away", conf->path);
    }
    expire(j);
    write_anew(j);
    *out = j;
    j = NULL;
out:
    buf_free(&file);
    crd_journal_close(j);
    return rc;
}

static void stop_writer(struct crd_journal *j)
{
    struct job *b = xcalloc(1, sizeof *b);
    b->kind = JOB_STOP;
    mailbox_put(j->mail, b);
    pthread_join(j->thread, NULL);
}

enum err crd_journal_run(struct crd_journal *j)
{
    int e = pthread_create(&j->thread, NULL, journal_main, j);
    if (e) return err_raise(ERR_SYSTEM, "cannot start the thread that writes the journal: %s", strerror(e));
    e = pthread_create(&j->sync_thread, NULL, sync_main, j);
    j->runs = !e;
    if (!e) return OK;
    stop_writer(j);
    return err_raise(ERR_SYSTEM, "cannot start the thread that syncs the journal: %s", strerror(e));
}

void crd_journal_close(struct crd_journal *j)
{
    if (!j) return;
    if (j->runs) {
        stop_writer(j);
        atomic_store(&j->sync_stop, true);
        mailbox_poke(j->sync_mail);
        pthread_join(j->sync_thread, NULL);
        crd_journal_file_sync(&j->file);
    }
    while (j->head) forget(j, j->head);
    crd_journal_file_close(&j->file);
    mailbox_close(j->mail);
    mailbox_close(j->sync_mail);
    pthread_mutex_destroy(&j->lock);
    buf_free(&j->batch);
    free((void *)(uintptr_t)j->conf.path);
    free(j);
}

struct crd_journaled *crd_journal_left(struct crd_journal *j, struct crd_journaled *after)
{
    return after ? after->next : j->head;
}

struct rd crd_journaled_records(const struct crd_journaled *q) { return rd_of(q->records.data, q->records.len); }

/* ---- the outside ---- */

static struct job *job(enum job_kind kind, struct crd_journaled *q)
{
    struct job *b = xcalloc(1, sizeof *b);
    b->kind = kind;
    b->q = q;
    return b;
}

static bool has_room(struct crd_journal *j, size_t n)
{
    bool room = atomic_load(&j->live) + (int64_t)n <= j->conf.max_bytes / 2 && n < RECORD_MAX - 4096;
    if (room) return true;
    pthread_mutex_lock(&j->lock);
    uint64_t before = j->status.n_refused++;
    pthread_mutex_unlock(&j->lock);
    if (!(before & (before - 1))) /* 0, 1, 2, 4, 8 ... */
        log_warn(LOG, "no room for another request: %lld bytes are live, half of --journal-bytes may be; it would not survive this coordinator",
                 (long long)atomic_load(&j->live));
    return false;
}

struct crd_journaled *crd_journal_accept(struct crd_journal *j, const struct record_accept *a)
{
    if (!has_room(j, a->n_body)) return NULL;
    struct crd_journaled *q = xcalloc(1, sizeof *q);
    q->j = j;
    q->number = atomic_fetch_add(&j->next_number, 1);
    struct job *b = job(JOB_ACCEPT, q);
    record_put_accept(&b->record, q->number, a);
    mailbox_put(j->mail, b);
    return q;
}

bool crd_journaled_prompt(struct crd_journaled *q, int32_t sub, const struct record_score t[], int32_t n)
{
    struct job *b = job(JOB_RECORD, q);
    record_put_prompt(&b->record, q->number, sub, t, n);
    if (b->record.len > RECORD_HEAD + RECORD_MAX + RECORD_TAIL) { /* a reader would believe nothing from there on */
        hand_on(b);
        return false;
    }
    mailbox_put(q->j->mail, b);
    return true;
}

static void put_event(struct crd_journal *j, struct job *b, int32_t sub, const struct token_event *e, token_event_fn then, void *user)
{
    b->sub = sub;
    b->event = *e;
    if (e->token) b->token = *e->token, b->event.token = &b->token;
    if (e->text) b->event.text = b->text = xstrdup(e->text);
    b->then = then;
    b->user = user;
    mailbox_put(j->mail, b);
}

void crd_journaled_event(struct crd_journaled *q, int32_t sub, const struct token_event *e, token_event_fn then, void *user)
{
    put_event(q->j, job(JOB_EVENT, q), sub, e, then, user);
}

void crd_journal_pass(struct crd_journal *j, const struct token_event *e, token_event_fn then, void *user)
{
    put_event(j, job(JOB_PASS, NULL), 0, e, then, user);
}
void crd_journaled_end(struct crd_journaled *q, bool whole)
{
    struct job *b = job(JOB_END, q);
    b->whole = whole;
    mailbox_put(q->j->mail, b);
}

void crd_journal_status(struct crd_journal *j, struct crd_journal_status *out)
{
    pthread_mutex_lock(&j->lock);
    *out = j->status;
    pthread_mutex_unlock(&j->lock);
    out->live = atomic_load(&j->live);
}
