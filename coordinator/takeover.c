/* takeover.c: how a coordinator finds the workers of one that was killed, and leaves its own to be found.
 *
 * A replica is taken over when its job lives (mpirun, or ranks that join by themselves), model and options are the same, and what its ranks
 * were told to load is known. Then its worker plane listens where it did, with the same key, and the ranks, which dial that address, are
 * given the next epoch. Otherwise its job is ended before another is started, so there are never two. */
#include "coordinator/core_impl.h"

#include "base/log.h"
#include "cluster/launch.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LOG "state"

static bool may_take_over(const struct crd_core *c, const struct core_unit *u)
{
    const struct crd_left *l = &u->left;
    if (!u->left_plan || l->fit != c->conf.fit || !l->epoch || u->left_plan->load_plan.epoch != l->epoch) return false;
    return c->conf.launch == LAUNCH_EXTERNAL || (l->mpirun && clu_launch_start_time(l->mpirun) == l->mpirun_start);
}

void crd_takeover_open(struct crd_core *c)
{
    c->state = c->conf.state;
    for (int32_t i = 0; i < c->n_units && c->state; i++) {
        struct core_unit *u = &c->units[i];
        if (!crd_state_left(c->state, i, &u->left, &u->left_plan)) continue;
        u->takes_over = may_take_over(c, u);
    }
}

/* The job of one replica of a model that is served no more. */
static void end_left(const struct crd_left *l)
{
    struct clu_launch job;
    if (clu_launch_adopt(&job, l->mpirun, l->mpirun_start)) {
        log_warn(LOG, "the job of a model that is served no more (mpirun %d) is ended", (int)l->mpirun);
        clu_launch_stop(&job, 0);
    }
    clu_launch_reap_local(l->ranks, l->n_ranks);
}

void crd_takeover_sweep(struct crd_state *s, int32_t number)
{
    int32_t numbers[16], n = crd_state_numbers(s, numbers, COUNT_OF(numbers));
    for (int32_t k = 0; k < n; k++) {
        if (numbers[k] == number) continue;
        struct crd_state *one = crd_state_of(s, numbers[k]);
        for (int32_t i = 0; i < ROUTE_REPLICAS; i++) {
            struct crd_left l;
            struct control_msg *plan;
            if (!crd_state_left(one, i, &l, &plan)) continue;
            end_left(&l);
            control_msg_free(plan);
        }
        crd_state_close(one);
        crd_state_drop(s, numbers[k]);
    }
}

bool crd_takeover_key(struct crd_core *c)
{
    bool any = false;
    for (int32_t i = 0; i < c->n_units; i++) any |= c->units[i].takes_over;
    if (!c->state) return false;
    if (any && crd_state_key(c->state, c->key_text)) return true;
    for (int32_t i = 0; i < c->n_units && c->conf.launch == LAUNCH_MANAGED; i++) c->units[i].takes_over = false;
    return false;
}

static void note(struct core_unit *u)
{
    struct crd_core *c = u->core;
    u->now.fit = c->conf.fit;
    snprintf(u->now.listen, sizeof u->now.listen, "%s", u->join);
    crd_state_note(c->state, u->index, &u->now);
}

bool crd_takeover_place(struct core_unit *u, const struct msg_hello hellos[], struct msg_load_plan *plan)
{
    if (!hellos[0].loaded_epoch || !u->left_plan) return false;
    uint32_t epoch = plan->epoch;
    uint16_t replica = plan->replica;
    *plan = u->left_plan->load_plan;
    plan->epoch = epoch;
    plan->replica = replica;
    return true;
}

void crd_takeover_placed(struct core_unit *u, struct msg_load_plan *plan)
{
    struct crd_core *c = u->core;
    plan->rejoin_us = c->state ? c->conf.rejoin_us : 0;
    if (!c->state) return;
    pthread_mutex_lock(&c->lock);
    u->now.epoch = plan->epoch;
    crd_state_note_plan(c->state, u->index, plan);
    note(u);
    pthread_mutex_unlock(&c->lock);
}

void crd_takeover_job(void *unit, pid_t mpirun)
{
    struct core_unit *u = unit;
    struct crd_core *c = u->core;
    if (!c->state) return;
    pthread_mutex_lock(&c->lock);
    u->now.mpirun = mpirun;
    u->now.mpirun_start = clu_launch_start_time(mpirun);
    u->now.n_ranks = 0;
    note(u);
    pthread_mutex_unlock(&c->lock);
}

void crd_takeover_ready(struct core_unit *u, const struct replica_rank ranks[], int32_t n)
{
    struct crd_core *c = u->core;
    char host[64] = "";
    if (!c->state || gethostname(host, sizeof host - 1)) return;
    pthread_mutex_lock(&c->lock);
    u->now.n_ranks = 0;
    for (int32_t i = 0; i < n; i++)
        if (!strcmp(ranks[i].host, host)) u->now.ranks[u->now.n_ranks++] = ranks[i].pid;
    note(u);
    pthread_mutex_unlock(&c->lock);
}

void crd_takeover_close(struct crd_core *c)
{
    if (c->state && c->started) crd_state_clear(c->state, c->n_units);
    for (int32_t i = 0; i < c->n_units; i++) control_msg_free(c->units[i].left_plan);
    crd_state_close(c->state);
}
