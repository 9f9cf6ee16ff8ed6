/* serving.c: see serving.h. */
#include "cli/serving.h"

#include "cli/core_options.h"
#include "cli/fit.h"
#include "cli/process.h"

#include "base/clock.h"
#include "base/log.h"
#include "coordinator/api/replay.h"
#include "coordinator/journal/journal.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LOG "serve"

enum { POLL_US = 20000, END_US = 5000000, GRACE_US = 3000000 };

/* ---- one model ---- */

/* What its replicas may still fill is not free. */
static void leave_room(struct placement *p, const struct served *other)
{
    struct replica_rank ranks[LIMIT_RANKS];
    for (int32_t i = 0; crd_core_replica(other->core, i); i++) {
        int32_t n = crd_replica_ranks(crd_core_replica(other->core, i), ranks);
        for (int32_t k = 0; k < n && p->n_taken < LIMIT_RANKS; k++) {
            snprintf(p->taken[p->n_taken].host, sizeof p->taken[0].host, "%s", ranks[k].host);
            p->taken[p->n_taken++].bytes = ranks[k].kv_bytes;
        }
    }
}

static void served_close(struct served *s)
{
    if (!s) return;
    crd_core_close(s->core, GRACE_US);
    placement_close(&s->place);
    free(s->model);
    free(s);
}

/* before: another that is open, or NULL; with it the worker plane takes any free port. beside: and it stays while this one is loaded. */
static enum err served_open(struct served **out, struct serving *v, const char *model, int32_t number, const struct served *before, bool beside)
{
    enum err rc;
    const struct serving_conf *conf = &v->conf;
    struct served *s = xcalloc(1, sizeof *s);
    struct core_conf *cc = &s->core_conf;
    s->model = xstrdup(model);
    s->number = number;
    TRY(placement_open(&s->place, conf->c, s->model));
    TRY(core_options_fill(conf->c, &s->place, conf->program, cc));
    TRY(core_options_listen(conf->c, cc->launch == LAUNCH_MANAGED && !cc->hostfile, s->listen));
    if (before) strcpy(strrchr(s->listen, ':'), ":0");
    if (beside) leave_room(&s->place, before);
    cc->listen = s->listen;
    cc->served_name = conf->served_name;
    hub_ref_labels(s->model, s->label[0], s->label[1]);
    for (int i = 0, n = 0; i < 2 && !conf->served_name; i++)
        if (s->label[i][0]) s->also[n++] = s->label[i];
    cc->chat_template = conf->chat_template;
    cc->max_waiting = conf->max_waiting;
    cc->pulse_us = conf->pulse_us;
    cc->max_n = conf->max_n;
    cc->pooling = conf->pooling;
    cc->plain_sampling = conf->plain_sampling;
    cc->fit = fit_load(conf->c, &s->place);
    cc->rejoin_us = (int64_t)(conf->c->cluster.rejoin_timeout * 1e6);
    if (conf->state) cc->state = crd_state_of(conf->state, number);
    TRY(crd_core_open(&s->core, cc));
    struct crd_api *api = crd_core_api(s->core);
    api->unlisted_names = s->also;
    api->max_context = s->place.context; /* also before the replicas say so */
    api->keys = conf->keys;
    api->replay = conf->replay;
    api->ledger = conf->ledger;
    api->admin = conf->door;
    *out = s, s = NULL;
out:
    served_close(s);
    return rc;
}

/* Of another model than the one that stays: its files go too. */
static void served_drop(struct serving *v, struct served *s)
{
    if (!s) return;
    int32_t number = s->number;
    served_close(s);
    if (v->conf.state) crd_state_drop(v->conf.state, number);
}

/* Before requests come to it. */
static enum err open_journal(const struct serving *v, struct served *s)
{
    const struct serving_conf *conf = &v->conf;
    enum err rc = OK;
    if (!conf->journal) return OK;
    struct crd_api *api = crd_core_api(s->core);
    char *path = crd_state_model_path(crd_core_state(s->core), "journal");
    struct crd_journal_conf jc = {.path = path, .fit = fit_answers(conf->c, &s->place, conf->chat_template, api->defaults_text),
                                  .max_bytes = conf->journal_bytes,
                                  .sync_us = conf->journal_sync_us, .keep_us = conf->keep_us};
    TRY(crd_journal_open(&api->journal, &jc)); /* the core closes it */
    crd_replay_recall(api);
    TRY(crd_journal_run(api->journal));
out:
    free(path);
    return rc;
}

/* A model in the place of v->now, with files of its own. */
static enum err open_next(struct serving *v, const char *model, bool beside, struct served **out)
{
    enum err rc;
    struct served *s = NULL;
    TRY(served_open(&s, v, model, ++v->last_number, v->now, beside));
    TRY(open_journal(v, s));
    *out = s;
    s = NULL;
out:
    served_drop(v, s);
    return rc;
}

/* The next coordinator goes on with this one, should this coordinator be killed. */
static void note_now(struct serving *v, const struct served *s)
{
    struct crd_now now = {.number = s->number};
    char full[PATH_MAX];
    if (!v->conf.state) return;
    snprintf(now.model, sizeof now.model, "%s", realpath(s->model, full) ? full : s->model);
    if (crd_state_set_now(v->conf.state, &now)) log_error(LOG, "%s: a coordinator after this one would begin with another model", err_text());
}

enum err serving_open(struct serving *v, const char *model)
{
    enum err rc;
    struct crd_now now = {.number = 0};
    bool gone = false;
    if (v->conf.state && crd_state_now(v->conf.state, &now)) {
        gone = access(now.model, R_OK);
        if (gone)
            log_warn(LOG, "%s, which was served when the coordinator before was killed, cannot be read (%s): %s is served", now.model, strerror(errno), model);
        else
            log_warn(LOG, "%s was served when the coordinator before was killed, since a reload: it is served again; `tessera reload` changes that", now.model);
        if (!gone) model = now.model;
    }
    v->last_number = now.number;
    if (v->conf.state) crd_takeover_sweep(v->conf.state, now.number);
    TRY(served_open(&v->now, v, model, now.number, NULL, false));
    TRY(open_journal(v, v->now));
    if (gone) note_now(v, v->now);
out:
    return rc;
}

void serving_close(struct serving *v)
{
    int32_t number = v->now ? v->now->number : 0;
    bool ours = v->now && crd_core_started(v->now->core); /* else it is the last coordinator's still */
    served_close(v->now);
    v->now = NULL;
    if (v->conf.state && ours) crd_state_end(v->conf.state, number);
}

/* ---- from one to the next ---- */

static int32_t n_live(const struct served *s) { return atomic_load(&crd_core_api(s->core)->n_live); }

/* Its answers may finish; then it goes. */
static void retire(struct serving *v, struct served *old, struct crd_admin *a)
{
    int64_t until = clock_us() + (int64_t)(v->conf.drain_timeout * 1e6);
    crd_replay_tell(v->conf.replay, v->gw);
    if (n_live(old)) {
        log_info(LOG, "%d answer(s) of %s may finish within %.0f s", n_live(old), old->model, v->conf.drain_timeout);
        crd_admin_say(a, "%d answer(s) of %s may finish within %.0f s", n_live(old), old->model, v->conf.drain_timeout);
    }
    while (n_live(old) && clock_us() < until && !process_stop()) clock_sleep_us(POLL_US);
    if (n_live(old)) crd_core_end(old->core);
    for (until = clock_us() + END_US; n_live(old) && clock_us() < until;) clock_sleep_us(POLL_US);
    if (n_live(old)) { /* a client that does not read: its answer is complete, but lies here; the model must stay with it */
        log_warn(LOG, "%d client(s) do not read the last of their answers: what %s held stays in memory", n_live(old), old->model);
        return;
    }
    served_drop(v, old);
    crd_admin_say(a, "the old replicas are gone");
}

static enum err load(struct served *s, struct crd_admin *a)
{
    enum err rc;
    crd_admin_say(a, "loading %s on %d worker(s)", s->model, s->core_conf.n_ranks * s->core_conf.n_replicas);
    TRY(crd_core_start(s->core));
    TRY(crd_core_await_ready(s->core, process_stop));
out:
    return rc;
}

static void go_over(struct serving *v, struct served *next)
{
    gw_set_user(v->gw, crd_core_api(next->core));
    v->now = next;
}

/* Not enough memory for both: the old one goes first, and requests wait meanwhile. */
static enum err swap(struct serving *v, const char *model, struct crd_admin *a)
{
    enum err rc, e = OK;
    struct served *next = NULL, *old = v->now;
    char *before = xstrdup(old->model), why[600];
    log_info(LOG, "both models do not fit: requests wait while %s makes room for %s", before, model);
    crd_admin_say(a, "both do not fit: new requests wait while the old replicas finish");
    TRY(open_next(v, model, false, &next));
    crd_core_hold(next->core, true);
    go_over(v, next);
    retire(v, old, a);
    e = load(next, a);
    if (!e) note_now(v, next);
    if (!e || e == ERR_CANCELLED) {
        rc = e;
        goto out;
    }
    snprintf(why, sizeof why, "%s", err_text());
    log_error(LOG, "%s cannot be served (%s): back to %s", model, why, before);
    crd_admin_say(a, "%s cannot be served: back to %s", model, before);
    crd_core_hold(next->core, false);
    struct served *again = NULL;
    TRY(open_next(v, before, false, &again));
    crd_core_hold(again->core, true);
    go_over(v, again);
    retire(v, next, a);
    TRY(load(again, a));
    note_now(v, again);
    rc = err_raise(e, "%s", why);
out:
    free(before);
    return rc;
}

enum err serving_reload(struct serving *v, const char *model, struct crd_admin *a)
{
    enum err rc;
    struct served *next = NULL, *old = v->now;
    if (old->core_conf.launch != LAUNCH_MANAGED)
        return err_raise(ERR_BAD_REQUEST, "reload needs workers that the server starts itself: these join by themselves, so start a server with the new model "
                                          "beside this one, and drain this one");
    log_info(LOG, "reload: %s", model);
    TRY(open_next(v, model, true, &next));
    TRY(load(next, a));
    note_now(v, next);
    go_over(v, next);
    next = NULL;
    log_info(LOG, "serving %s", model);
    crd_admin_say(a, "serving %s", model);
    retire(v, old, a);
out:
    served_drop(v, next);
    return rc == ERR_NO_FIT ? swap(v, model, a) : rc;
}
