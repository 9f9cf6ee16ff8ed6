/* workers.c: see workers.h. */
#include "coordinator/workers.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "cluster/hosts_probe.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LOG "workers"

enum {
    TAKE_OVER_US = 12000000, /* longer than a keepalive needs to find out that a coordinator is gone */
    ENDED_US = 3000000,      /* until the ranks of a job that was ended are seen to go */
    ASK_US = 5000000,        /* ranks that join at all join sooner: then their hosts are asked */
    PROBE_US = 8000000,      /* a host that starts no process within it is gone */
    JOIN_US = 20000000,      /* then they are started again; doubled each time */
    POLL_US = 50000,
    FIRST_POLL_US = 5000,    /* somebody waits at a terminal */
    PAUSE_MIN_US = 200000, PAUSE_MAX_US = 10000000 /* between two starts */
};

struct crd_workers {
    struct crd_workers_conf conf;
    struct mailbox *mail;          /* poked when the replica changes state, and to leave */
    pthread_t thread;
    bool runs;
    /* [keeper]; the opener before it runs and after it was joined */
    struct clu_launch job;
    char *list;                    /* hosts of the job, for mpirun */
    char device[CLU_HOSTS_DEVICE];
    /* [sched] writes at READY, [keeper] reads after a loss */
    pid_t local_pids[LIMIT_RANKS]; /* of this host */
    _Atomic int32_t n_local;
    _Atomic uint32_t first_epoch, last_epoch; /* of the jobs that were told to load */
    _Atomic bool stopping;
    pthread_mutex_t lock;          /* the two below */
    enum err err;
    char why[600];
};

struct crd_workers *crd_workers_open(const struct crd_workers_conf *conf)
{
    struct crd_workers *w = xcalloc(1, sizeof *w);
    w->conf = *conf;
    w->mail = mailbox_open();
    w->list = xmalloc(CLU_HOSTS_LIST);
    pthread_mutex_init(&w->lock, NULL);
    return w;
}

/* ---- starting and clearing away ---- */

/* On these hosts, of those that are left. */
static enum err choose_hosts(struct crd_workers *w, struct clu_launch_conf *lc)
{
    struct crd_hosts *h = w->conf.hosts;
    if (!h) return OK;
    pthread_mutex_lock(&h->lock);
    enum err e = clu_hosts_take(&h->hosts, w->conf.index, lc->n_ranks, w->conf.least_ranks, clock_us(), w->list, &lc->n_ranks);
    lc->hosts = w->list;
    if (!e) clu_hosts_device(&h->hosts, w->conf.index, lc->device ? lc->device : "auto", w->device);
    if (!e) lc->device = w->device;
    pthread_mutex_unlock(&h->lock);
    return e;
}

static enum err start(struct crd_workers *w)
{
    enum err rc;
    struct clu_launch_conf lc = w->conf.launch;
    TRY(choose_hosts(w, &lc));
    if (lc.n_ranks != w->conf.launch.n_ranks)
        log_warn(LOG, "replica %d: %d rank(s) instead of %d, on %s", w->conf.index, lc.n_ranks, w->conf.launch.n_ranks, w->list);
    crd_replica_expect(w->conf.replica, lc.n_ranks);
    TRY(clu_launch_start(&w->job, &lc));
    if (w->conf.on_job) w->conf.on_job(w->conf.user, w->job.pid);
out:
    return rc;
}

/* What is left of a job: mpirun, and ranks of this host that cannot leave by themselves. */
static void clear_away(struct crd_workers *w, int64_t grace_us)
{
    clu_launch_stop(&w->job, grace_us);
    clu_launch_reap_local(w->local_pids, atomic_exchange(&w->n_local, 0));
    if (atomic_load(&w->first_epoch)) clu_launch_reap_shm(atomic_load(&w->first_epoch), atomic_load(&w->last_epoch));
}

/* ---- the keeper ---- */

static void fail(struct crd_workers *w, enum err err, const char *text)
{
    pthread_mutex_lock(&w->lock);
    w->err = err;
    snprintf(w->why, sizeof w->why, "%s", text);
    pthread_mutex_unlock(&w->lock);
}

/* The job that was left cannot be taken over: end it for certain, then start one of our own. */
static enum err start_instead(struct crd_workers *w, const char *why)
{
    struct replica_status s;
    log_warn(LOG, "replica %d: the workers of the coordinator before are not taken over (%s): they are ended and started again", w->conf.index, why);
    w->conf.takes_over = false;
    crd_replica_forsake(w->conf.replica);
    clear_away(w, 0);
    for (int64_t until = clock_us() + ENDED_US; clock_us() < until; clock_sleep_us(FIRST_POLL_US)) { /* those that had come are seen to go */
        crd_replica_status(w->conf.replica, &s);
        if (!s.n_joined) break;
    }
    return start(w);
}

/* Its end, or patience's, while we wait for its ranks; NULL: go on waiting. */
static const char *not_taken_over(struct crd_workers *w, int64_t until, bool lost)
{
    int status;
    if (clu_launch_ended(&w->job, &status)) return "mpirun has ended";
    if (lost) return "a rank was lost meanwhile";
    return clock_us() > until ? "they did not all come back" : NULL;
}

/* A number that changes whenever a rank joins, reports more bytes, or is ready: a load that moves is not late. */
static int64_t progress_of(struct crd_workers *w)
{
    struct replica_rank *ranks = xcalloc(LIMIT_RANKS, sizeof *ranks);
    int64_t sum = 0;
    int32_t n = crd_replica_ranks(w->conf.replica, ranks);
    for (int32_t i = 0; i < n; i++) sum += ranks[i].bytes_done + ranks[i].joined + ranks[i].ready;
    free(ranks);
    return sum;
}

static bool leaving(void *user) { return atomic_load(&((struct crd_workers *)user)->stopping); }

/* Each host of the replica is asked for a process. p[LIMIT_RANKS]; returns how many they are. */
static int32_t ask_hosts(struct crd_workers *w, struct clu_probed p[])
{
    struct crd_hosts *h = w->conf.hosts;
    int32_t n = 0;
    pthread_mutex_lock(&h->lock);
    for (int32_t i = 0; i < h->hosts.n; i++)
        if (h->hosts.hosts[i].used[w->conf.index]) snprintf(p[n++].host, sizeof p[0].host, "%s", h->hosts.hosts[i].name);
    pthread_mutex_unlock(&h->lock);
    log_info(LOG, "replica %d: asking its %d host(s) for a process each", w->conf.index, n);
    clu_hosts_probe(p, n, &w->conf.launch, PROBE_US, leaving, w);
    return n;
}

/* mpirun could not start the workers: which lines of the hostfile name a host that starts no process. False: none does. */
static bool bad_lines(struct crd_workers *w, char out[600])
{
    struct crd_hosts *h = w->conf.hosts;
    struct buf b = {0};
    if (!h) return false;
    struct clu_probed *p = xcalloc(LIMIT_RANKS, sizeof *p);
    int32_t n = ask_hosts(w, p), line = 0;
    for (int32_t k = 0; k < n && !leaving(w); k++) {
        if (p[k].good) continue;
        for (int32_t i = 0; i < h->hosts.n; i++)
            if (!strcmp(h->hosts.hosts[i].name, p[k].host)) line = h->hosts.hosts[i].line;
        buf_printf(&b, "%s line %d: no process can be started on %s (%.120s)", b.len ? ";" : "the hostfile,", line, p[k].host, p[k].why);
    }
    bool any = b.len > 0;
    if (any) snprintf(out, 600, "%s", buf_str(&b));
    buf_free(&b);
    free(p);
    return any;
}

/* Has the first start failed? Then why is noted. epoch: losses before it are of a job that was left. late: nothing moves any more. */
static bool has_failed(struct crd_workers *w, const struct replica_status *s, uint32_t epoch, bool late)
{
    char text[600];
    int status;
    if (s->state == REPLICA_LOST && s->epoch != epoch) {
        fail(w, s->err == ERR_NO_FIT ? s->err : ERR_UNAVAILABLE, s->text);
    } else if (clu_launch_ended(&w->job, &status)) {
        if (!bad_lines(w, text))
            snprintf(text, sizeof text, "mpirun ended before the workers were ready (%.400s); `tessera doctor` with the same hosts finds "
                     "what is wrong", s->text);
        fail(w, ERR_UNAVAILABLE, text);
    } else if (late) {
        snprintf(text, sizeof text, "no progress for %.0f s: %s (--load-timeout)", (double)w->conf.load_timeout_us / 1e6, s->text);
        fail(w, ERR_DEADLINE, text);
    } else {
        return false;
    }
    return true;
}

/* True once the replica is READY. */
static bool first_start(struct crd_workers *w)
{
    int64_t until = clock_us() + w->conf.load_timeout_us, over_until = clock_us() + TAKE_OVER_US, progress = 0;
    uint32_t epoch = 0;
    while (!atomic_load(&w->stopping)) {
        struct replica_status s;
        mailbox_get(w->mail, FIRST_POLL_US);
        crd_replica_status(w->conf.replica, &s);
        if (s.state == REPLICA_READY) return true;
        int64_t now = progress_of(w);
        if (now != progress) until = clock_us() + w->conf.load_timeout_us;
        progress = now;
        if (!w->conf.takes_over) {
            if (has_failed(w, &s, epoch, clock_us() > until)) return false;
            continue;
        }
        const char *why = not_taken_over(w, over_until, s.state == REPLICA_LOST);
        if (!why) continue;
        if (start_instead(w, why)) {
            fail(w, ERR_SYSTEM, err_text());
            return false;
        }
        crd_replica_status(w->conf.replica, &s);
        epoch = s.epoch;
        until = clock_us() + w->conf.load_timeout_us;
    }
    return false;
}

/* ---- whose fault it was ---- */

static void set_aside(struct crd_workers *w, struct clu_hosts_one *o, bool gone, const char *why)
{
    if (clu_hosts_failed(&w->conf.hosts->hosts, o, gone, why, clock_us()))
        log_error(LOG, "host %s is set aside for %lld s: %s", o->name, (long long)(o->pause_us / 1000000), o->why);
}

/* A rank said why, or went before its replica was READY: its host has failed once more. */
static void blame_rank(struct crd_workers *w, const struct replica_status *s)
{
    struct crd_hosts *h = w->conf.hosts;
    if (!h || s->culprit < 0) return;
    pthread_mutex_lock(&h->lock);
    struct clu_hosts_one *o = clu_hosts_of(&h->hosts, w->conf.index, s->culprit);
    if (o) set_aside(w, o, false, s->text);
    pthread_mutex_unlock(&h->lock);
}

/* Nobody said why. True: a host of the replica cannot give a process. */
static bool blame_silent(struct crd_workers *w)
{
    struct crd_hosts *h = w->conf.hosts;
    int32_t n_gone = 0;
    if (!h) return false;
    struct clu_probed *p = xcalloc(LIMIT_RANKS, sizeof *p);
    int32_t n = ask_hosts(w, p);
    pthread_mutex_lock(&h->lock);
    for (int32_t k = 0; k < n && !leaving(w); k++)
        for (int32_t i = 0; i < h->hosts.n && !p[k].good; i++) {
            if (strcmp(h->hosts.hosts[i].name, p[k].host)) continue;
            set_aside(w, &h->hosts.hosts[i], true, p[k].why);
            n_gone++;
        }
    pthread_mutex_unlock(&h->lock);
    free(p);
    return n_gone > 0;
}

static void praise(struct crd_workers *w)
{
    struct crd_hosts *h = w->conf.hosts;
    if (!h) return;
    pthread_mutex_lock(&h->lock);
    clu_hosts_good(&h->hosts, w->conf.index);
    pthread_mutex_unlock(&h->lock);
}

/* One attempt has begun; true: the replica is READY, or we leave. */
static bool attempt(struct crd_workers *w, uint32_t epoch, int64_t *join_us)
{
    struct replica_status s;
    int status;
    bool asked = false;
    int64_t begun = clock_us();
    for (;;) {
        mailbox_get(w->mail, POLL_US);
        crd_replica_status(w->conf.replica, &s);
        if (s.state == REPLICA_READY) praise(w);
        if (s.state == REPLICA_READY || leaving(w)) return true;
        if (s.epoch != epoch) {
            blame_rank(w, &s);
            return false;
        }
        bool ended = clu_launch_ended(&w->job, &status), late = !asked && s.state != REPLICA_LOADING && clock_us() - begun > ASK_US;
        if (late) asked = true;
        if ((ended || late) && blame_silent(w)) return false;
        if (ended) return false;
        /* an mpirun whose rank was killed before it had joined may wait for it for ever */
        if (s.state != REPLICA_LOADING && clock_us() - begun > *join_us) {
            log_warn(LOG, "replica %d: its ranks did not join within %.0f s: they are started again", w->conf.index, (double)*join_us / 1e6);
            *join_us *= 2;
            return false;
        }
    }
}

/* All of the pause, whatever the replica tells meanwhile; or until we leave. */
static void rest(struct crd_workers *w, int64_t pause_us)
{
    for (int64_t until = clock_us() + pause_us, left; (left = until - clock_us()) > 0 && !leaving(w);) mailbox_get(w->mail, left);
}

/* Start the workers until the replica is whole; also after open requests had to be given up, so that the server comes back when its cause is
 * gone. */
static void bring_back(struct crd_workers *w)
{
    struct replica_status s;
    int64_t pause = PAUSE_MIN_US, join_us = JOIN_US;
    for (bool first = true; !atomic_load(&w->stopping); first = false) {
        clear_away(w, 0); /* the old job holds memory and hosts */
        if (!first) {
            log_info(LOG, "replica %d: its workers are started again in %.1f s", w->conf.index, (double)pause / 1e6);
            rest(w, pause);
            pause = MIN(2 * pause, (int64_t)PAUSE_MAX_US);
        }
        if (atomic_load(&w->stopping)) return;
        crd_replica_status(w->conf.replica, &s);
        uint32_t epoch = s.epoch; /* the next loss changes it */
        if (start(w)) {
            log_error(LOG, "replica %d cannot be started: %s", w->conf.index, err_text());
            continue;
        }
        if (attempt(w, epoch, &join_us)) return;
    }
}

static void *keeper_main(void *arg)
{
    struct crd_workers *w = arg;
    bool up = first_start(w);
    while (up && !atomic_load(&w->stopping)) {
        struct replica_status s;
        crd_replica_status(w->conf.replica, &s);
        if (s.state == REPLICA_LOST && s.recovering) bring_back(w);
        else if (s.state == REPLICA_LOST) log_error(LOG, "the workers of replica %d are gone and are not started again", w->conf.index);
        if (!atomic_load(&w->stopping)) mailbox_get(w->mail, -1); /* bring_back may have taken the poke that says so */
    }
    return NULL;
}

/* ---- the outside ---- */

enum err crd_workers_start(struct crd_workers *w)
{
    enum err rc = OK;
    const struct crd_left *l = &w->conf.left;
    bool there = clu_launch_adopt(&w->job, l->mpirun, l->mpirun_start);
    memcpy(w->local_pids, l->ranks, sizeof w->local_pids);
    atomic_store(&w->n_local, l->n_ranks);
    if (l->epoch) crd_workers_placed(w, l->epoch);
    w->conf.takes_over &= there;
    if (!w->conf.takes_over) {
        if (there) log_warn(LOG, "replica %d: the job of the coordinator before (mpirun %d) is ended first", w->conf.index, (int)l->mpirun);
        crd_replica_forsake(w->conf.replica);
        clear_away(w, 0);
        TRY(start(w));
    } else {
        log_info(LOG, "replica %d: taking over the workers of the coordinator before (mpirun %d, epoch %u)", w->conf.index, (int)l->mpirun, l->epoch);
    }
    w->runs = !pthread_create(&w->thread, NULL, keeper_main, w);
    if (!w->runs) rc = err_raise(ERR_SYSTEM, "cannot start the thread that keeps the workers of replica %d", w->conf.index);
out:
    return rc;
}

enum err crd_workers_failed(struct crd_workers *w)
{
    pthread_mutex_lock(&w->lock);
    enum err e = w->err;
    if (e) e = err_raise(e, "%s", w->why);
    pthread_mutex_unlock(&w->lock);
    return e;
}

static void note_local(struct crd_workers *w, const struct replica_rank ranks[], int32_t n)
{
    char host[64] = "";
    int32_t k = 0;
    if (gethostname(host, sizeof host - 1)) return;
    for (int32_t i = 0; i < n; i++)
        if (!strcmp(ranks[i].host, host)) w->local_pids[k++] = ranks[i].pid;
    atomic_store(&w->n_local, k);
}

void crd_workers_changed(struct crd_workers *w, enum replica_state state, const struct replica_rank ranks[], int32_t n)
{
    if (state == REPLICA_READY) note_local(w, ranks, n);
    if (state == REPLICA_READY || state == REPLICA_LOST) mailbox_poke(w->mail);
}

void crd_workers_placed(struct crd_workers *w, uint32_t epoch)
{
    if (!atomic_load(&w->first_epoch)) atomic_store(&w->first_epoch, epoch);
    atomic_store(&w->last_epoch, epoch);
}

void crd_workers_let_go(struct crd_workers *w)
{
    atomic_store(&w->stopping, true);
    mailbox_poke(w->mail);
    if (w->runs) pthread_join(w->thread, NULL);
    w->runs = false;
}

void crd_workers_close(struct crd_workers *w, int64_t grace_us)
{
    if (!w) return;
    crd_workers_let_go(w);
    clear_away(w, grace_us);
    mailbox_close(w->mail);
    pthread_mutex_destroy(&w->lock);
    free(w->list);
    free(w);
}
