/* pace.c: how long a step of plain decoding takes, for whoever has a prediction to compare it with.
 *
 * A window holds only steps in which every item is one sequence's next token; any other step begins a new one, so that steps of unlike kinds
 * are not averaged. Time in collectives comes with the heartbeats, as a sum: the difference of two of them, by the steps between, is exact
 * whenever they were sent. */
#include "coordinator/replica/state.h"

#include "base/clock.h"

enum { LEAST_STEPS = 48, LEAST_US = 5000000 };

void crd_pace_reset(struct crd_replica *r)
{
    r->pace.n_steps = 0;
    r->pace.rows = r->pace.step_s = r->pace.running = 0;
    for (int32_t i = 0; i < r->n_ranks; i++) r->ranks[i].pace_from.step = r->ranks[i].pace_to.step = 0;
}

void crd_pace_sent(struct crd_replica *r, const struct step_plan *p)
{
    bool plain = p->n_items > 0;
    for (int32_t i = 0; i < p->n_items; i++) plain &= p->items[i].n_in == 1 && p->items[i].out == OUT_SAMPLE;
    r->pace.sent_step[p->step % PACE_RING] = p->step;
    r->pace.sent_rows[p->step % PACE_RING] = plain ? p->n_items : 0;
}

static void tell(struct crd_replica *r)
{
    double least = -1, lead = 0, n = (double)r->pace.n_steps;
    int32_t answers = 0, stages = r->plan.grid.n_stages;
    for (int32_t s = 0; s < r->plan.grid.n_stages - 1; s++) answers += r->plan.grid.width[s];
    for (int32_t i = 0; i < r->n_ranks; i++) {
        const struct rank *k = &r->ranks[i];
        if (!k->pace_from.step || k->pace_to.step < k->pace_from.step + LEAST_STEPS / 4) return;
        double s = (double)(k->pace_to.comm_us - k->pace_from.comm_us) / (double)(k->pace_to.step - k->pace_from.step) / 1e6;
        if (i < answers) continue; /* of another stage */
        if (i == answers) lead = s;
        if (least < 0 || s < least) least = s;
    }
    struct replica_pace p = {r->conf.index, r->pace.n_steps, r->pace.rows / n, r->pace.step_s / n, lead, least};
    if (stages > 1 && n > 1) {
        /* the window's first result is its beginning: it counts for no time */
        double s = (double)(clock_us() - r->pace.since_us) / 1e6, steps = r->pace.running / r->pace.rows;
        p.rows = r->pace.running / n;
        p.step_s = s * steps / (n - 1);
        p.lead_s *= steps;
        p.least_s *= steps;
    }
    crd_pace_reset(r);
    r->conf.on_pace(r->conf.user, &p);
}

void crd_pace_result(struct crd_replica *r, const struct step_result *res)
{
    int32_t rows = r->pace.sent_step[res->step % PACE_RING] == res->step ? r->pace.sent_rows[res->step % PACE_RING] : 0;
    if (!r->conf.on_pace) return;
    if (!rows) {
        crd_pace_reset(r);
        return;
    }
    if (!r->pace.n_steps++) {
        r->pace.since_us = clock_us();
        r->pace.first = res->step;
    }
    r->pace.rows += rows;
    if (r->plan.grid.n_stages > 1) {
        struct sched_stats now;
        crd_sched_stats(r->sched, &now);
        r->pace.running += now.n_running;
    }
    r->pace.step_s += res->compute_us / 1e6;
    if (r->pace.n_steps >= LEAST_STEPS && clock_us() - r->pace.since_us >= LEAST_US) tell(r);
}

void crd_pace_heartbeat(struct crd_replica *r, struct rank *k, const struct msg_telemetry *t)
{
    if (!r->pace.n_steps || t->step <= r->pace.first) return;
    k->pace_to.step = t->step;
    k->pace_to.comm_us = t->comm_us;
    if (!k->pace_from.step) k->pace_from = k->pace_to;
}
