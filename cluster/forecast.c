/* forecast.c: see forecast.h. */
#include "cluster/forecast.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const int32_t ROWS[CLU_FORECAST_ROWS] = {1, 2, 4, 8, 16, 32, 64, 128};
static const double TOLERANCE = 0.25;

const char *const clu_term_name[CLU_TERMS] = {"none", "computing", "links", "shares"};

/* Of a round, the sums within the stage that answers: once for each micro-batch. */
static double sums_s(const struct clu_work *w, const struct clu_topo *t, const struct clu_layout *l, int32_t users)
{
    int32_t n = l->grid.n_stages, rows = DIV_UP(users, n);
    struct clu_stage_cost c;
    clu_cost_stage(w, t, l, n - 1, rows, rows, false, &c);
    return (c.reduce_s + c.gather_s) * MIN(n, users);
}

void clu_forecast_of(struct clu_forecast *out, const struct clu_work *w, const struct clu_topo *t, const struct clu_layout *l)
{
    *out = (struct clu_forecast){.n = CLU_FORECAST_ROWS, .n_stages = l->grid.n_stages};
    for (int32_t i = 0; i < out->n; i++) {
        struct clu_stage_cost c;
        struct clu_speed v;
        out->rows[i] = ROWS[i];
        if (out->n_stages > 1) {
            clu_cost_decode(w, t, l, ROWS[i], &v);
            out->comm_s[i] = MIN(sums_s(w, t, l, ROWS[i]), v.round_s);
            out->compute_s[i] = v.round_s - out->comm_s[i];
            continue;
        }
        clu_cost_stage(w, t, l, 0, ROWS[i], ROWS[i], false, &c);
        out->comm_s[i] = c.reduce_s + c.gather_s;
        out->compute_s[i] = c.total_s - out->comm_s[i]; /* the plan's way is part of the first wait, too small to tell */
    }
}

void clu_forecast_at(const struct clu_forecast *f, double rows, double *compute_s, double *comm_s)
{
    int32_t i = 1;
    *compute_s = *comm_s = 0;
    if (f->n < 2) return;
    while (i < f->n - 1 && f->rows[i] < rows) i++;
    double x = (rows - f->rows[i - 1]) / (f->rows[i] - f->rows[i - 1]);
    *compute_s = f->compute_s[i - 1] + x * (f->compute_s[i] - f->compute_s[i - 1]);
    *comm_s = f->comm_s[i - 1] + x * (f->comm_s[i] - f->comm_s[i - 1]);
}

/* By how much of the step each term is off, in the direction in which the whole is. */
static enum clu_term worst(const double off[CLU_TERMS], double whole)
{
    enum clu_term t = CLU_TERM_COMPUTE;
    for (int32_t i = CLU_TERM_LINKS; i < CLU_TERMS; i++)
        if (whole > 0 ? off[i] > off[t] : off[i] < off[t]) t = (enum clu_term)i;
    return t;
}

/* What they came from, in words; where they part, also why. */
static void say(const struct clu_forecast *f, const struct clu_measured *m, double compute, double comm, double alone, double wait, char text[320])
{
    char what[64];
    if (f->n_stages > 1) snprintf(what, sizeof what, "a round of %.3g sequence(s) through %d stages", m->rows, f->n_stages);
    else snprintf(what, sizeof what, "a step of %.3g sequence(s)", m->rows);
    int n = snprintf(text, 320, "%s takes %.2f ms, predicted %.2f: computing %.2f (%.2f), between ranks %.2f (%.2f)", what, m->step_s * 1e3,
                     (compute + comm) * 1e3, alone * 1e3, compute * 1e3, m->least_s * 1e3, comm * 1e3);
    if (f->n_stages == 1 && n > 0 && n < 320) snprintf(text + n, 320 - (size_t)n, ", waiting for a slower rank %.2f (0)", wait * 1e3);
}

enum clu_term clu_forecast_judge(const struct clu_forecast *f, const struct clu_measured *m, char text[320])
{
    static const char *const why[CLU_TERMS] = {"", "the processors' speed, or other work on them", "the links' latency or bandwidth",
                                               "the shares: one rank is slower than the others"};
    double compute, comm;
    text[0] = 0;
    if (!f->n) return CLU_TERM_NONE;
    clu_forecast_at(f, m->rows, &compute, &comm);
    bool round = f->n_stages > 1;
    double wait = round ? 0 : MAX(m->lead_s - m->least_s, 0), alone = MAX(m->step_s - (round ? m->least_s : m->lead_s), 0),
           whole = m->step_s - compute - comm;
    double off[CLU_TERMS] = {0, alone - compute, m->least_s - comm, wait};
    enum clu_term t = fabs(whole) <= TOLERANCE * (compute + comm) ? CLU_TERM_NONE : worst(off, whole);
    say(f, m, compute, comm, alone, wait, text);
    size_t n = strlen(text);
    bool guessed = (t == CLU_TERM_COMPUTE && !f->speed_known) || (t == CLU_TERM_LINKS && !f->links_known);
    if (t) snprintf(text + n, 320 - n, "; wrong is %s%s%s", why[t], round && t == CLU_TERM_COMPUTE ? ", the stages' balance or the hops between them" : "",
                    guessed ? " (it was a guess: tessera plan --record measures)" : "");
    return t;
}
