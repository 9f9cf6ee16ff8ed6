/* steps.c: plans out, results in: where the scheduler meets the wire. */
#include "coordinator/replica/state.h"

#include "base/clock.h"

#include <stdlib.h>

void crd_steps_result(struct crd_replica *r, const struct control_msg *m)
{
    struct arena a = {0};
    struct step_result res;
    enum err e = r->sched ? step_result_unpack(&res, m->bytes.data, m->bytes.n, &a) : ERR_STALE_EPOCH;
    if (!e && res.epoch != r->epoch) e = ERR_STALE_EPOCH;
    if (!e) e = crd_sched_on_result(r->sched, &res, clock_us());
    if (e && e != ERR_STALE_EPOCH) crd_ranks_lose(r, e, err_text());
    r->result_us = clock_us();
    if (!e) crd_pace_result(r, &res);
    if (!e) crd_pulse_result(r);
    if (!e) {
        pthread_mutex_lock(&r->lock);
        r->status.n_results++;
        r->status.compute_seconds += res.compute_us / 1e6;
        pthread_mutex_unlock(&r->lock);
    }
    arena_free(&a);
}

static enum err send_plan(struct crd_replica *r, const struct step_plan *p)
{
    if (!r->awake) {
        trn_step_link_wake(r->link);
        r->result_us = clock_us();
        crd_watch_start(r);
        crd_pulse_begin(r);
    }
    r->awake = true;
    if (p->step) crd_pace_sent(r, p);
    return trn_step_link_send(r->link, p);
}

void crd_steps_pump(struct crd_replica *r)
{
    struct step_plan p;
    enum err e = OK;
    for (bool some = true; some && !e;) {
        some = crd_sched_step(r->sched, clock_us(), &r->step_arena, &p);
        if (some) e = send_plan(r, &p);
        if (some && !e && r->conf.on_step) r->conf.on_step(r->conf.user, step_plan_tokens(&p));
        arena_free(&r->step_arena);
    }
    if (e) {
        crd_ranks_lose(r, e, err_text());
        return;
    }
    int64_t now = clock_us();
    if (!crd_sched_idle(r->sched)) r->busy_us = now;
    else if (r->awake && now - r->busy_us >= r->conf.idle_us) {
        e = send_plan(r, &(struct step_plan){.epoch = r->epoch, .flags = STEP_SLEEP});
        r->awake = false;
        crd_pulse_rest(r);
        if (e) crd_ranks_lose(r, e, err_text());
    }
}
