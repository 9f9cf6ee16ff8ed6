/* report.c: what the coordinator says of itself: one state for everybody, every replica and rank in /health, and lines for /metrics. */
#include "coordinator/core_impl.h"

#include "base/clock.h"
#include "coordinator/api/json_out.h"
#include "coordinator/journal/journal.h"

#include <stdio.h>
#include <string.h>

/* ---- one state ---- */

/* Of two replicas the one that says more about what the service can do. */
static enum service_state better(enum service_state a, enum service_state b)
{
    static const int rank[] = {[SERVICE_READY] = 3, [SERVICE_DRAINING] = 2, [SERVICE_DEGRADED] = 1, [SERVICE_LOADING] = 0};
    return rank[a] >= rank[b] ? a : b;
}

static enum service_state state_of(const struct replica_status *s)
{
    static const enum service_state states[] = {SERVICE_LOADING, SERVICE_LOADING, SERVICE_READY, SERVICE_DEGRADED, SERVICE_DRAINING};
    if (s->draining) return SERVICE_DRAINING;
    /* a replica that was lost and waits for its next job is degraded, not loading */
    return states[s->state] == SERVICE_LOADING && s->load_seconds > 0 ? SERVICE_DEGRADED : states[s->state];
}

static void add(struct sched_stats *sum, const struct sched_stats *s)
{
    sum->n_running += s->n_running;
    sum->n_waiting += s->n_waiting;
    sum->n_waiting_blocks += s->n_waiting_blocks;
    sum->n_in_flight += s->n_in_flight;
    sum->n_blocks += s->n_blocks;
    sum->n_blocks_used += s->n_blocks_used;
    sum->n_blocks_cached += s->n_blocks_cached;
    sum->n_steps += s->n_steps;
    sum->n_preemptions += s->n_preemptions;
    sum->prompt_tokens += s->prompt_tokens;
    sum->generated_tokens += s->generated_tokens;
    sum->prefix_queries += s->prefix_queries;
    sum->prompt_recomputed += s->prompt_recomputed;
    sum->prefix_hits += s->prefix_hits;
    sum->n_guessed_steps += s->n_guessed_steps;
    sum->n_guesses += s->n_guesses;
    sum->n_right += s->n_right;
    sum->adapters_running |= s->adapters_running;
    sum->adapters_waiting |= s->adapters_waiting;
    sum->last_step_tokens = MAX(sum->last_step_tokens, s->last_step_tokens);
}

void crd_report_status(void *self, struct service_status *out)
{
    struct crd_core *c = self;
    *out = (struct service_status){.state = SERVICE_LOADING, .n_engines = c->n_units};
    for (int32_t i = 0; i < c->n_units; i++) {
        struct replica_status s;
        crd_replica_status(c->units[i].replica, &s);
        enum service_state st = state_of(&s), best = i ? better(out->state, st) : st;
        if (!i || best != out->state) snprintf(out->text, sizeof out->text, "%s", s.draining ? "the server is shutting down" : s.text);
        out->state = best;
        out->max_context = MAX(out->max_context, s.context);
        add(&out->sched, &s.sched);
    }
}

void crd_report_engine(void *self, int32_t i, struct sched_stats *out)
{
    struct replica_status s;
    crd_replica_status(((struct crd_core *)self)->units[i].replica, &s);
    *out = s.sched;
}

/* ---- /health ---- */

static void rank_json(struct buf *out, int32_t i, const struct replica_rank *r)
{
    buf_printf(out, "%s{\"rank\":%d,\"joined\":%s,\"ready\":%s,\"pid\":%d,\"weight_bytes\":%lld,\"kv_bytes\":%lld,\"rss_bytes\":%lld,"
               "\"read_bytes\":%lld,\"received_bytes\":%lld,"
               "\"cached_bytes\":%lld,\"host\":", i ? "," : "", i,
               r->joined ? "true" : "false", r->ready ? "true" : "false", r->pid, (long long)r->weight_bytes, (long long)r->kv_bytes, (long long)r->rss_bytes,
               (long long)r->read_bytes, (long long)r->received_bytes, (long long)r->cached_bytes);
    json_out_str(out, r->host);
    buf_puts(out, ",\"device\":");
    json_out_str(out, r->device);
    buf_putc(out, '}');
}

static void replica_json(struct crd_core *c, int32_t i, struct buf *out)
{
    static const char *const names[] = {"gathering", "loading", "ready", "lost", "stopped"};
    struct replica_status s;
    struct replica_rank ranks[LIMIT_RANKS];
    crd_replica_status(c->units[i].replica, &s);
    int32_t n = crd_replica_ranks(c->units[i].replica, ranks);
    buf_printf(out, "%s{\"state\":\"%s\",\"epoch\":%u,\"stages\":%d,\"open\":%d,\"recoveries\":%u,\"reason\":", i ? "," : "", names[s.state], s.epoch,
               s.n_stages, crd_fleet_load(c->fleet, i), s.n_recoveries);
    json_out_str(out, s.text);
    buf_puts(out, ",\"ranks\":[");
    for (int32_t k = 0; k < n; k++) rank_json(out, k, &ranks[k]);
    buf_puts(out, "]}");
}

static void journal_json(struct crd_journal *j, struct buf *out)
{
    struct crd_journal_status s;
    crd_journal_status(j, &s);
    buf_printf(out, ",\"journal\":{\"state\":\"%s\",\"requests\":%d,\"bytes\":%lld,\"not_journaled\":%llu,\"reason\":", s.failing ? "failing" : "ok", s.n,
               (long long)s.bytes, (unsigned long long)s.n_refused);
    json_out_str(out, s.failing ? s.text : "");
    buf_putc(out, '}');
}

static void aside_json(struct crd_core *c, struct buf *out)
{
    int64_t now = clock_us();
    const char *comma = "";
    buf_puts(out, ",\"hosts_aside\":[");
    pthread_mutex_lock(&c->hosts.lock);
    for (int32_t i = 0; i < c->hosts.hosts.n; i++) {
        const struct clu_hosts_one *o = &c->hosts.hosts.hosts[i];
        if (o->aside_until_us <= now) continue;
        buf_printf(out, "%s{\"host\":", comma);
        json_out_str(out, o->name);
        buf_puts(out, ",\"why\":");
        json_out_str(out, o->why);
        buf_printf(out, ",\"seconds\":%lld}", (long long)((o->aside_until_us - now) / 1000000));
        comma = ",";
    }
    pthread_mutex_unlock(&c->hosts.lock);
    buf_putc(out, ']');
}

void crd_report_health(void *self, struct buf *out)
{
    struct crd_core *c = self;
    buf_printf(out, "{\"exact\":%s,\"replicas\":[", c->conf.inexact ? "false" : "true");
    for (int32_t i = 0; i < c->n_units; i++) replica_json(c, i, out);
    buf_putc(out, ']');
    if (c->api.journal) journal_json(c->api.journal, out);
    if (c->conf.share_hosts) aside_json(c, out);
    buf_putc(out, '}');
}

/* ---- /metrics ---- */

static void head(struct buf *out, const char *name, const char *kind, const char *help)
{
    buf_printf(out, "# HELP tessera:%s %s\n# TYPE tessera:%s %s\n", name, help, name, kind);
}

static void rank_metrics(struct crd_core *c, struct buf *out)
{
    static const struct { const char *name, *kind, *help; } heads[] = {
        {"rank_weight_bytes", "gauge", "Bytes of packed weights a rank holds."},
        {"rank_kv_bytes", "gauge", "Bytes of KV cache a rank holds."},
        {"rank_rss_bytes", "gauge", "Bytes of a rank's process in memory."},
        {"rank_comm_bytes_total", "counter", "Bytes a rank sent in collectives."},
        {"rank_comm_wait_seconds_total", "counter", "Seconds a rank waited in collectives."},
        {"rank_comm_ops_total", "counter", "Collectives a rank took part in."},
    };
    for (size_t h = 0; h < COUNT_OF(heads); h++) {
        head(out, heads[h].name, heads[h].kind, heads[h].help);
        for (int32_t k = 0; k < c->n_units; k++) {
            struct replica_rank ranks[LIMIT_RANKS];
            int32_t n = crd_replica_ranks(c->units[k].replica, ranks);
            for (int32_t i = 0; i < n; i++) {
                const double v[] = {(double)ranks[i].weight_bytes, (double)ranks[i].kv_bytes, (double)ranks[i].rss_bytes, (double)ranks[i].comm_bytes,
                                    (double)ranks[i].comm_us / 1e6, (double)ranks[i].comm_ops};
                buf_printf(out, "tessera:%s{engine=\"%d\",rank=\"%d\"} %.17g\n", heads[h].name, k, i, v[h]);
            }
        }
    }
}

static void block_metrics(const struct crd_core *c, const struct replica_status s[], struct buf *out)
{
    head(out, "kv_blocks", "gauge", "KV blocks of the pool by use.");
    for (int32_t k = 0; k < c->n_units; k++) {
        const struct sched_stats *b = &s[k].sched;
        buf_printf(out, "tessera:kv_blocks{engine=\"%d\",state=\"all\"} %d\ntessera:kv_blocks{engine=\"%d\",state=\"used\"} %d\n"
                        "tessera:kv_blocks{engine=\"%d\",state=\"cached\"} %d\n", k, b->n_blocks, k, b->n_blocks_used, k, b->n_blocks_cached);
    }
}

static void phase_metrics(const struct crd_core *c, const struct replica_status s[], struct buf *out)
{
    static const char *const names[RECOVERY_PHASES] = {"detect", "relaunch", "load", "prefill"};
    head(out, "recovery_phase_seconds", "gauge", "What the last recovery's time went into.");
    for (int32_t k = 0; k < c->n_units; k++)
        for (int p = 0; p < RECOVERY_PHASES; p++)
            buf_printf(out, "tessera:recovery_phase_seconds{engine=\"%d\",phase=\"%s\"} %.3f\n", k, names[p], s[k].phases[p]);
}

/* What vLLM's dashboards ask of each engine beside its counters. */
static void engine_metrics(struct crd_core *c, const struct replica_status s[], struct buf *out)
{
    struct buf model = {0};
    json_out_str(&model, c->names[0]);
    buf_puts(out, "# HELP vllm:cache_config_info The KV cache.\n# TYPE vllm:cache_config_info gauge\n");
    for (int32_t k = 0; k < c->n_units; k++)
        buf_printf(out, "vllm:cache_config_info{model_name=%s,engine=\"%d\",block_size=\"%d\",cache_dtype=\"%s\",enable_prefix_caching=\"%s\","
                        "num_gpu_blocks=\"%d\",kv_cache_size_tokens=\"%lld\"} 1\n", buf_str(&model), k, LIMIT_BLOCK_TOKENS,
                   kv_type_name((enum kv_type)atomic_load(&c->kv_type)), c->conf.prefix_cache ? "True" : "False", s[k].sched.n_blocks,
                   (long long)s[k].kv_tokens);
    buf_puts(out, "# HELP vllm:engine_healthy 1 while every rank of the engine answers.\n# TYPE vllm:engine_healthy gauge\n");
    for (int32_t k = 0; k < c->n_units; k++)
        buf_printf(out, "vllm:engine_healthy{model_name=%s,engine=\"%d\"} %d\n", buf_str(&model), k, s[k].state == REPLICA_READY);
    buf_free(&model);
}

static void replica_metrics(const struct crd_core *c, const struct replica_status s[], struct buf *out)
{
    static const struct { const char *name, *kind, *help; } heads[] = {
        {"replica_up", "gauge", "1 while every rank of the replica answers."},
        {"recoveries_total", "counter", "Times the replica came back after a loss."},
        {"recovery_seconds", "gauge", "From the loss to READY, the last time."},
        {"steps_total", "counter", "Steps answered."},
        {"step_compute_seconds_total", "counter", "Seconds in these steps on the rank that answers."},
    };
    for (size_t h = 0; h < COUNT_OF(heads); h++) {
        head(out, heads[h].name, heads[h].kind, heads[h].help);
        for (int32_t k = 0; k < c->n_units; k++) {
            const double v[] = {s[k].state == REPLICA_READY, s[k].n_recoveries, s[k].recovery_seconds, (double)s[k].n_results, s[k].compute_seconds};
            buf_printf(out, "tessera:%s{engine=\"%d\"} %.17g\n", heads[h].name, k, v[h]);
        }
    }
}

void crd_report_metrics(void *self, struct buf *out)
{
    struct crd_core *c = self;
    struct replica_status s[ROUTE_REPLICAS];
    for (int32_t k = 0; k < c->n_units; k++) crd_replica_status(c->units[k].replica, &s[k]);
    rank_metrics(c, out);
    block_metrics(c, s, out);
    engine_metrics(c, s, out);
    replica_metrics(c, s, out);
    phase_metrics(c, s, out);
    head(out, "requests_moved_total", "counter", "Open requests that went from a lost replica to another.");
    buf_printf(out, "tessera:requests_moved_total %llu\n", (unsigned long long)crd_fleet_moved(c->fleet));
}
