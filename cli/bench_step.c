/* bench_step.c: `tessera bench step`: what scheduler, link and result cost beside the computation, on
 * the real cluster: a managed start, one sequence that generates. */
#include "cli/bench.h"
#include "cli/commands.h"
#include "cli/own_cluster.h"
#include "cli/process.h"

#include "base/clock.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>

struct options {
    struct common_options c; /* first: the shared tables' offsets */
    int64_t steps, wakes;
    double idle;
    bool json;
};

#define O(f) offsetof(struct options, f)
static const struct conf_opt table[] = {
    {"steps", CONF_INT, O(steps), "256", 8, 1e6, "N", "generated tokens"},
    {"idle", CONF_FLOAT, O(idle), "0", 0, 3600, "S", "measure waking up instead: one token after so many idle seconds, and one right after it"},
    {"wakes", CONF_INT, O(wakes), "20", 3, 10000, "N", "how many times"},
    {"json", CONF_FLAG, O(json), NULL, 0, 0, "on|off", "one JSON document instead of sentences"},
    {0},
};
static const struct conf_opt *const groups[] = {table, model_option_table, cluster_option_table,
                                                NULL};
static const struct conf_table conf = {
    "bench step", "bench step MODEL [options]",
    "Starts the workers, generates with one sequence and prints the time between two tokens less\n"
    "the time the workers computed: what coordinator and link cost per step.\n"
    "  tessera bench step model.gguf --threads 1\n"
    "  tessera bench step model.gguf --tp 2 --idle 3           what it costs to have slept", groups, 1, 1};

enum { WARM = 4 }; /* first tokens, left out */

/* Written on the scheduler's thread, read after the last event. */
struct run {
    struct crd_replica *replica;
    struct mailbox *done;
    int64_t last_us;
    double last_compute; /* seconds, of all steps answered before */
    double *overhead, *step; /* [n] us */
    int32_t n, n_tokens;
    enum err err;
    char text[512];
};

/* A result's own compute time is added to the status after its events, so at a token the status
 * holds the step before: pairs are shifted by one on both sides. */
static void on_event(void *user, const struct token_event *e)
{
    struct run *r = user;
    struct replica_status s;
    if (e->kind == EVENT_TOKEN) {
        int64_t now = clock_us();
        crd_replica_status(r->replica, &s);
        if (r->n_tokens >= 1 && r->n_tokens - 1 < r->n) {
            int32_t i = r->n_tokens - 1;
            r->step[i] = (double)(now - r->last_us);
            if (i > 0) r->overhead[i - 1] = r->step[i - 1] - (s.compute_seconds - r->last_compute) * 1e6;
        }
        r->last_us = now;
        r->last_compute = s.compute_seconds;
        r->n_tokens++;
    }
    if (e->kind != EVENT_FINISH) return;
    r->err = e->err;
    if (e->err) snprintf(r->text, sizeof r->text, "%s", e->text ? e->text : err_short(e->err));
    mailbox_put(r->done, r);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile(double *v, int32_t n, double q)
{
    qsort(v, (size_t)n, sizeof *v, by_value);
    return v[MIN((int32_t)(q * n), n - 1)];
}

static void report(const struct options *o, struct run *r)
{
    int32_t n = r->n - 1 - WARM;
    double *over = r->overhead + WARM, *step = r->step + WARM;
    double step50 = quantile(step, n, 0.5), p50 = quantile(over, n, 0.5), p99 = quantile(over, n, 0.99);
    if (o->json)
        printf("{\"steps\": %d, \"step_us_p50\": %.1f, \"overhead_us_p50\": %.1f, "
               "\"overhead_us_p99\": %.1f}\n", n, step50, p50, p99);
    else
        printf("%d steps of %.0f us (p50); beside the computation: p50 %.0f us, p99 %.0f us\n", n,
               step50, p50, p99);
}

static enum err measure(const struct options *o, struct crd_core *core)
{
    enum err rc = OK;
    struct crd_api *api = crd_core_api(core);
    int32_t prompt[] = {1, 2, 3, 4}, n = (int32_t)o->steps;
    struct run r = {.replica = crd_core_replica(core, 0), .done = mailbox_open(), .n = n};
    r.overhead = xcalloc((size_t)n, sizeof *r.overhead);
    r.step = xcalloc((size_t)n, sizeof *r.step);
    struct gen_request q = {.id = 1, .weight = 1, .n_prompt = COUNT_OF(prompt), .prompt = prompt,
                            .n = 1, .sampling = sampling_default()};
    q.sampling.temperature = 0;
    q.sampling.ignore_eos = true;
    q.sampling.max_tokens = n + 1;
    api->service.ops->submit(api->service.self, &q, on_event, &r);
    while (!mailbox_get(r.done, 200000) && !process_stop()) {}
    if (r.err) rc = err_raise(r.err, "%s", r.text);
    else if (r.n_tokens > n) report(o, &r);
    else rc = err_raise(ERR_CANCELLED, "stopped after %d of %d steps", r.n_tokens, n);
    mailbox_close(r.done);
    free(r.overhead);
    free(r.step);
    return rc;
}

/* ---- waking up ---- */

struct ping {
    struct mailbox *done;
    int64_t token_us;
    enum err err;
};

static void on_ping(void *user, const struct token_event *e)
{
    struct ping *p = user;
    if (e->kind == EVENT_TOKEN && !p->token_us) p->token_us = clock_us();
    if (e->kind != EVENT_FINISH) return;
    p->err = e->err;
    mailbox_put(p->done, p);
}

/* From submit to its only token, in us. */
static enum err ping(struct crd_api *api, struct mailbox *done, uint64_t id, double *us)
{
    int32_t prompt[] = {1};
    struct ping p = {.done = done};
    struct gen_request q = {.id = id, .weight = 1, .n_prompt = 1, .prompt = prompt, .n = 1, .sampling = sampling_default()};
    q.sampling.temperature = 0;
    q.sampling.max_tokens = 1;
    int64_t begin = clock_us();
    api->service.ops->submit(api->service.self, &q, on_ping, &p);
    while (!mailbox_get(done, 200000)) {}
    *us = (double)(p.token_us - begin);
    return p.err ? err_raise(p.err, "a request of one token failed") : OK;
}

static enum err measure_wakes(const struct options *o, struct crd_core *core)
{
    enum err rc = OK;
    struct crd_api *api = crd_core_api(core);
    struct mailbox *done = mailbox_open();
    int32_t n = (int32_t)o->wakes, k = 0;
    double *cold = xcalloc((size_t)n, sizeof *cold), *hot = xcalloc((size_t)n, sizeof *hot);
    uint64_t id = 1;
    TRY(ping(api, done, id++, &hot[0])); /* first touches are no part of it */
    for (; k < n && !process_stop(); k++) {
        clock_sleep_us((int64_t)(o->idle * 1e6));
        TRY(ping(api, done, id++, &cold[k]));
        TRY(ping(api, done, id++, &hot[k]));
    }
    if (k < n) TRY(err_raise(ERR_CANCELLED, "stopped after %d of %d", k, n));
    double c50 = quantile(cold, n, 0.5), c90 = quantile(cold, n, 0.9), h50 = quantile(hot, n, 0.5), h90 = quantile(hot, n, 0.9);
    if (o->json)
        printf("{\"wakes\": %d, \"cold_us_p50\": %.0f, \"cold_us_p90\": %.0f, \"hot_us_p50\": %.0f, \"hot_us_p90\": %.0f}\n", n, c50, c90, h50, h90);
    else
        printf("%d tokens after %.1f s of sleep: p50 %.0f us, p90 %.0f us; right after them: p50 %.0f us, p90 %.0f us: waking costs %.0f us (p50)\n", n,
               o->idle, c50, c90, h50, h90, c50 - h50);
out:
    mailbox_close(done);
    free(cold);
    free(hot);
    return rc;
}

static enum err run(const struct options *o, const char *model)
{
    enum err rc;
    struct own_cluster c = {.core = NULL};
    TRY(own_cluster_open(&c, &o->c, model));
    if (o->steps + 8 > c.place.context)
        TRY(err_raise(ERR_BAD_CONFIG, "--steps %lld do not fit the context of %d tokens",
                      (long long)o->steps, c.place.context));
    c.core_conf.max_guesses = 0; /* one token a step, whatever repeats itself */
    TRY(own_cluster_start(&c));
    TRY(o->idle > 0 ? measure_wakes(o, c.core) : measure(o, c.core));
out:
    own_cluster_close(&c);
    return rc;
}

int bench_step(int argc, char **argv)
{
    enum err rc;
    struct options o = {0};
    const char *args[1];
    bool done;
    TRY(options_begin(&conf, argc, argv, &o.c, args, &done));
    if (done) return 0;
    process_catch_signals();
    TRY(cmd_model(&args[0]));
    TRY(run(&o, args[0]));
    return 0;
out:
    return cmd_fail(rc);
}
