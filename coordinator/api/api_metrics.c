/* api_metrics.c: see api_metrics.h. */
#include "coordinator/api/api_metrics.h"
#include "base/metric.h"
#include "coordinator/api/json_out.h"
#include "coordinator/api/keys.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double steps[] = {1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};
static const double choices[] = {1, 2, 5, 10, 20};
static const double ttft[] = {.001, .005, .01, .02, .04, .06, .08, .1, .25, .5,  .75,
                              1,    2.5,  5,   7.5, 10,  20,  40,  80, 160, 640, 2560};
static const double itl[] = {.01, .025, .05, .075, .1,  .15, .2, .3, .4, .5,
                             .75, 1,    2.5, 5,    7.5, 10,  20, 40, 80};
static const double seconds[] = {.3, .5, .8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
                                 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};
static const double tokens[] = {1,     2,      5,      10,     20,     50,    100,
                                200,   500,    1000,   2000,   5000,   10000, 20000,
                                50000, 100000, 200000, 500000, 1000000};

/* In the order shown; those of one name stand together. */
enum which {
    M_PROMPT_TOKENS,
    M_BY_COMPUTE,
    M_BY_CACHE,
    M_PROMPT_CACHED,
    M_GENERATION_TOKENS,
    M_QUERIES,
    M_HITS,
    M_PREEMPTIONS,
    M_ENDED_STOP,
    M_ENDED_LENGTH,
    M_ENDED_ABORT,
    M_ENDED_ERROR,
    M_STEP_TOKENS,
    M_H_PROMPT,
    M_H_GENERATION,
    M_H_MAX_GENERATION,
    M_H_MAX_TOKENS,
    M_H_COMPUTED,
    M_H_N,
    M_H_PREEMPTIONS,
    M_H_TTFT,
    M_H_ITL,
    M_H_TPOT,
    M_H_E2E,
    M_H_QUEUE,
    M_H_INFERENCE,
    M_H_PREFILL,
    M_H_DECODE,
    N_METRICS,
};

static const struct metric rows[N_METRICS] = {
    [M_PROMPT_TOKENS] = {.name = "vllm:prompt_tokens",
                         .kind = METRIC_COUNTER,
                         .help = "Prefill tokens processed."},
    [M_BY_COMPUTE] = {.name = "vllm:prompt_tokens_by_source",
                      .kind = METRIC_COUNTER,
                      .labels = "source=\"local_compute\"",
                      .help = "Prompt tokens by source."},
    [M_BY_CACHE] = {.name = "vllm:prompt_tokens_by_source",
                    .kind = METRIC_COUNTER,
                    .labels = "source=\"local_cache_hit\"",
                    .help = "Prompt tokens by source."},
    [M_PROMPT_CACHED] = {.name = "vllm:prompt_tokens_cached",
                         .kind = METRIC_COUNTER,
                         .help = "Prompt tokens not computed thanks to the prefix cache."},
    [M_GENERATION_TOKENS] = {.name = "vllm:generation_tokens",
                             .kind = METRIC_COUNTER,
                             .help = "Generation tokens processed."},
    [M_QUERIES] = {.name = "vllm:prefix_cache_queries",
                   .kind = METRIC_COUNTER,
                   .help = "Prefix cache queries, in tokens."},
    [M_HITS] = {.name = "vllm:prefix_cache_hits",
                .kind = METRIC_COUNTER,
                .help = "Prefix cache hits, in tokens."},
    [M_PREEMPTIONS] = {.name = "vllm:num_preemptions",
                       .kind = METRIC_COUNTER,
                       .help = "Preemptions of requests that ended."},
    [M_ENDED_STOP] = {.name = "vllm:request_success",
                      .kind = METRIC_COUNTER,
                      .labels = "finished_reason=\"stop\"",
                      .help = "Requests that ended, by reason."},
    [M_ENDED_LENGTH] = {.name = "vllm:request_success",
                        .kind = METRIC_COUNTER,
                        .labels = "finished_reason=\"length\"",
                        .help = "Requests that ended, by reason."},
    [M_ENDED_ABORT] = {.name = "vllm:request_success",
                       .kind = METRIC_COUNTER,
                       .labels = "finished_reason=\"abort\"",
                       .help = "Requests that ended, by reason."},
    [M_ENDED_ERROR] = {.name = "vllm:request_success",
                       .kind = METRIC_COUNTER,
                       .labels = "finished_reason=\"error\"",
                       .help = "Requests that ended, by reason."},
    [M_STEP_TOKENS] = {.name = "vllm:iteration_tokens_total",
                       .kind = METRIC_HISTOGRAM,
                       .buckets = steps,
                       .n_buckets = COUNT_OF(steps),
                       .help = "Tokens per engine step."},
    [M_H_PROMPT] = {.name = "vllm:request_prompt_tokens",
                    .kind = METRIC_HISTOGRAM,
                    .buckets = tokens,
                    .n_buckets = COUNT_OF(tokens),
                    .help = "Prompt tokens per request."},
    [M_H_GENERATION] = {.name = "vllm:request_generation_tokens",
                        .kind = METRIC_HISTOGRAM,
                        .buckets = tokens,
                        .n_buckets = COUNT_OF(tokens),
                        .help = "Generated tokens per request."},
    [M_H_MAX_GENERATION] = {.name = "vllm:request_max_num_generation_tokens",
                            .kind = METRIC_HISTOGRAM,
                            .buckets = tokens,
                            .n_buckets = COUNT_OF(tokens),
                            .help = "The longest choice of each request."},
    [M_H_MAX_TOKENS] = {.name = "vllm:request_params_max_tokens",
                        .kind = METRIC_HISTOGRAM,
                        .buckets = tokens,
                        .n_buckets = COUNT_OF(tokens),
                        .help = "The max_tokens parameter."},
    [M_H_COMPUTED] = {.name = "vllm:request_prefill_kv_computed_tokens",
                      .kind = METRIC_HISTOGRAM,
                      .buckets = tokens,
                      .n_buckets = COUNT_OF(tokens),
                      .help = "Prompt tokens computed, cached ones left out."},
    [M_H_N] = {.name = "vllm:request_params_n",
               .kind = METRIC_HISTOGRAM,
               .buckets = choices,
               .n_buckets = COUNT_OF(choices),
               .help = "The n parameter."},
    [M_H_PREEMPTIONS] = {.name = "vllm:request_num_preemptions",
                         .kind = METRIC_HISTOGRAM,
                         .buckets = choices,
                         .n_buckets = COUNT_OF(choices),
                         .help = "Preemptions per request."},
    [M_H_TTFT] = {.name = "vllm:time_to_first_token_seconds",
                  .kind = METRIC_HISTOGRAM,
                  .buckets = ttft,
                  .n_buckets = COUNT_OF(ttft),
                  .help = "Arrival to first token."},
    [M_H_ITL] = {.name = "vllm:inter_token_latency_seconds",
                 .kind = METRIC_HISTOGRAM,
                 .buckets = itl,
                 .n_buckets = COUNT_OF(itl),
                 .help = "Between two tokens."},
    [M_H_TPOT] = {.name = "vllm:request_time_per_output_token_seconds",
                  .kind = METRIC_HISTOGRAM,
                  .buckets = itl,
                  .n_buckets = COUNT_OF(itl),
                  .help = "Mean time per token after the first."},
    [M_H_E2E] = {.name = "vllm:e2e_request_latency_seconds",
                 .kind = METRIC_HISTOGRAM,
                 .buckets = seconds,
                 .n_buckets = COUNT_OF(seconds),
                 .help = "Arrival to end."},
    [M_H_QUEUE] = {.name = "vllm:request_queue_time_seconds",
                   .kind = METRIC_HISTOGRAM,
                   .buckets = seconds,
                   .n_buckets = COUNT_OF(seconds),
                   .help = "Queued to last scheduled."},
    [M_H_INFERENCE] = {.name = "vllm:request_inference_time_seconds",
                       .kind = METRIC_HISTOGRAM,
                       .buckets = seconds,
                       .n_buckets = COUNT_OF(seconds),
                       .help = "Last scheduled to last token."},
    [M_H_PREFILL] = {.name = "vllm:request_prefill_time_seconds",
                     .kind = METRIC_HISTOGRAM,
                     .buckets = seconds,
                     .n_buckets = COUNT_OF(seconds),
                     .help = "Last scheduled to first token."},
    [M_H_DECODE] = {.name = "vllm:request_decode_time_seconds",
                    .kind = METRIC_HISTOGRAM,
                    .buckets = seconds,
                    .n_buckets = COUNT_OF(seconds),
                    .help = "First to last token."},
};

struct crd_api_stats {
    int32_t n_engines;
    struct engine_stats {
        struct metric m[N_METRICS];
        char labels[N_METRICS][64];
    } at[]; /* [n_engines] */
};

struct crd_api_stats *crd_api_stats_open(int32_t max_context, int32_t n_engines)
{
    ASSERT(n_engines >= 1 && n_engines <= STATS_ENGINES);
    struct crd_api_stats *s = xcalloc(1, sizeof *s + (size_t)n_engines * sizeof s->at[0]);
    int n_tokens = 0; /* 1-2-5 decades up to the context */
    while (n_tokens < (int)COUNT_OF(tokens) && tokens[n_tokens] <= max_context) n_tokens++;
    s->n_engines = n_engines;
    for (int32_t e = 0; e < n_engines; e++)
        for (int i = 0; i < N_METRICS; i++) {
            struct metric *m = &s->at[e].m[i];
            char *labels = s->at[e].labels[i];
            snprintf(labels, sizeof s->at[e].labels[i], "engine=\"%d\"%s%s", e,
                     rows[i].labels ? "," : "", rows[i].labels ? rows[i].labels : "");
            m->name = rows[i].name;
            m->help = rows[i].help;
            m->kind = rows[i].kind;
            m->labels = labels;
            m->buckets = rows[i].buckets;
            m->n_buckets = rows[i].buckets == tokens ? n_tokens : rows[i].n_buckets;
        }
    return s;
}

void crd_api_stats_close(struct crd_api_stats *s)
{
    free(s);
}

static double s_of(int64_t us)
{
    return (double)us / 1e6;
}

static struct metric *of(struct crd_api_stats *s, int32_t engine, enum which which)
{
    ASSERT(engine >= 0 && engine < s->n_engines);
    return &s->at[engine].m[which];
}

void crd_api_stats_over(struct crd_api_stats *s, int32_t engine, const struct crd_request *r)
{
    metric_observe(of(s, engine, M_H_N), r->n);
    if (!r->pool) metric_observe(of(s, engine, M_H_MAX_TOKENS), r->sampling.max_tokens);
}

void crd_api_stats_pooled(struct crd_api_stats *s, int32_t engine, int32_t n_prompt)
{
    metric_add(of(s, engine, M_PROMPT_TOKENS), n_prompt);
}

void crd_api_stats_first_token(struct crd_api_stats *s, int32_t engine, int64_t ttft_us,
                               int32_t n_prompt)
{
    metric_observe(of(s, engine, M_H_TTFT), s_of(ttft_us));
    metric_add(of(s, engine, M_GENERATION_TOKENS), 1);
    if (n_prompt) metric_add(of(s, engine, M_PROMPT_TOKENS), n_prompt);
}

void crd_api_stats_next_token(struct crd_api_stats *s, int32_t engine, int64_t since_last_us)
{
    metric_observe(of(s, engine, M_H_ITL), s_of(since_last_us));
    metric_add(of(s, engine, M_GENERATION_TOKENS), 1);
}

static void count_cache(struct crd_api_stats *s, const struct token_event *e)
{
    int32_t engine = e->engine;
    metric_add(of(s, engine, M_QUERIES), e->n_prompt);
    metric_add(of(s, engine, M_HITS), e->n_cached);
    metric_add(of(s, engine, M_PROMPT_CACHED), e->n_cached);
    metric_add(of(s, engine, M_BY_CACHE), e->n_cached);
    metric_add(of(s, engine, M_BY_COMPUTE), e->n_prompt - e->n_cached);
}

void crd_api_stats_ended(struct crd_api_stats *s, const struct token_event *e, enum crd_ended how,
                         int64_t e2e_us)
{
    int32_t engine = e->engine;
    struct metric *const reasons[] = {of(s, engine, M_ENDED_STOP), of(s, engine, M_ENDED_LENGTH),
                                      of(s, engine, M_ENDED_ABORT), of(s, engine, M_ENDED_ERROR)};
    metric_add(reasons[how], 1);
    metric_add(of(s, engine, M_PREEMPTIONS), e->n_preempted);
    if (e->choice <= 0) count_cache(s, e); /* choices share one prompt */
    metric_observe(of(s, engine, M_H_PREEMPTIONS), e->n_preempted);
    metric_observe(of(s, engine, M_H_PROMPT), e->n_prompt);
    metric_observe(of(s, engine, M_H_GENERATION), e->n_generated);
    metric_observe(of(s, engine, M_H_MAX_GENERATION), e->n_generated);
    metric_observe(of(s, engine, M_H_COMPUTED), e->n_prompt - e->n_cached);
    metric_observe(of(s, engine, M_H_E2E), s_of(e2e_us));
    metric_observe(of(s, engine, M_H_QUEUE), s_of(e->queued_us));
    metric_observe(of(s, engine, M_H_PREFILL), s_of(e->prefill_us));
    metric_observe(of(s, engine, M_H_DECODE), s_of(e->decode_us));
    metric_observe(of(s, engine, M_H_INFERENCE), s_of(e->prefill_us + e->decode_us));
    if (e->n_generated > 1)
        metric_observe(of(s, engine, M_H_TPOT), s_of(e->decode_us) / (e->n_generated - 1));
}

void crd_api_stats_step(struct crd_api_stats *s, int32_t engine, int32_t n_tokens)
{
    metric_observe(of(s, engine, M_STEP_TOKENS), n_tokens);
}

/* Gauges (or counters) of one name, a line for each engine. extra: further labels, after a comma, or "". */
static void render_engines(const struct crd_api *api, struct buf *out, const struct metric *like, const char *extra,
                           double (*value)(const struct sched_stats *s))
{
    struct metric gauges[STATS_ENGINES], *all[STATS_ENGINES];
    char labels[STATS_ENGINES][64];
    struct service_status st = {0};
    const struct crd_service *v = &api->service;
    v->ops->status(v->self, &st);
    int32_t n = CLAMP(st.n_engines, 1, STATS_ENGINES);
    for (int32_t i = 0; i < n; i++) {
        struct sched_stats one = st.sched;
        if (st.n_engines) v->ops->engine(v->self, i, &one);
        snprintf(labels[i], sizeof labels[i], "engine=\"%d\"%s", i, extra);
        gauges[i] = (struct metric){.name = like->name, .help = like->help, .kind = like->kind, .labels = labels[i]};
        if (like->kind == METRIC_COUNTER)
            metric_add(&gauges[i], (int64_t)value(&one));
        else
            metric_set(&gauges[i], value(&one));
        all[i] = &gauges[i];
    }
    struct buf common = {0};
    buf_puts(&common, "model_name=");
    json_out_str(&common, api->model_names[0]);
    metric_render(out, all, n, buf_str(&common));
    buf_free(&common);
}

static double running(const struct sched_stats *s)
{
    return s->n_running;
}
static double waiting(const struct sched_stats *s)
{
    return s->n_waiting;
}
static double waiting_blocks(const struct sched_stats *s)
{
    return s->n_waiting_blocks;
}
static double waiting_else(const struct sched_stats *s)
{
    return s->n_waiting - s->n_waiting_blocks;
}
static double recomputed(const struct sched_stats *s)
{
    return (double)s->prompt_recomputed;
}
static double guessed_steps(const struct sched_stats *s)
{
    return (double)s->n_guessed_steps;
}
static double guesses(const struct sched_stats *s)
{
    return (double)s->n_guesses;
}
static double right(const struct sched_stats *s)
{
    return (double)s->n_right;
}
static double always(const struct sched_stats *s)
{
    (void)s;
    return 1;
}
static double never(const struct sched_stats *s)
{
    (void)s;
    return 0;
}
static double kv_usage(const struct sched_stats *s)
{
    return s->n_blocks ? (double)s->n_blocks_used / s->n_blocks : 0;
}

#define OF(NAME, KIND, HELP) {.name = "vllm:" NAME, .kind = METRIC_##KIND, .help = HELP}
static const struct {
    struct metric m;
    const char *extra;
    double (*value)(const struct sched_stats *s);
} of_engines[] = {
    {OF("num_requests_running", GAUGE, "Requests being computed."), "", running},
    {OF("num_requests_waiting", GAUGE, "Requests waiting."), "", waiting},
    /* in order, so all wait for the first: for KV blocks, or for a place in the batch */
    {OF("num_requests_waiting_by_reason", GAUGE, "Requests waiting, by reason."), ",reason=\"capacity\"", waiting_blocks},
    {OF("num_requests_waiting_by_reason", GAUGE, "Requests waiting, by reason."), ",reason=\"deferred\"", waiting_else},
    {OF("kv_cache_usage_perc", GAUGE, "KV blocks in use; 1 is all."), "", kv_usage},
    /* engines without work sleep, and wake at once: weights stay where they are */
    {OF("engine_sleep_state", GAUGE, "Sleep that gives memory back: there is none."), ",sleep_state=\"awake\"", always},
    {OF("engine_sleep_state", GAUGE, "Sleep that gives memory back: there is none."), ",sleep_state=\"weights_offloaded\"", never},
    {OF("engine_sleep_state", GAUGE, "Sleep that gives memory back: there is none."), ",sleep_state=\"discard_all\"", never},
    {OF("spec_decode_num_drafts", COUNTER, "Steps of a sequence with tokens guessed ahead."), "", guessed_steps},
    {OF("spec_decode_num_draft_tokens", COUNTER, "Tokens guessed ahead."), "", guesses},
    {OF("spec_decode_num_accepted_tokens", COUNTER, "Tokens guessed ahead that were right."), "", right},
    {OF("prompt_tokens_recomputed", COUNTER, "Prompt tokens computed again, after a preemption or a loss."), "", recomputed},
};

/* Names of the adapters in a mask, parted by commas. */
static void put_adapters(const struct crd_api *api, uint32_t mask, struct buf *out)
{
    struct buf names = {0};
    for (int32_t i = 0; api->adapter_names[i]; i++)
        if (mask >> i & 1) buf_printf(&names, "%s%s", names.len ? "," : "", api->adapter_names[i]);
    json_out_str(out, buf_str(&names));
    buf_free(&names);
}

/* As vLLM has it: what it says is in the labels, its value is the time. */
static void render_adapters(const struct crd_api *api, struct buf *out)
{
    const struct crd_service *v = &api->service;
    struct service_status st;
    int32_t n_adapters = 0;
    if (!api->adapter_names || !api->adapter_names[0]) return;
    while (api->adapter_names[n_adapters]) n_adapters++;
    v->ops->status(v->self, &st);
    buf_puts(out, "# HELP vllm:lora_requests_info LoRA adapters that requests use.\n# TYPE vllm:lora_requests_info gauge\n");
    for (int32_t i = 0; i < CLAMP(st.n_engines, 1, STATS_ENGINES); i++) {
        struct sched_stats one = st.sched;
        if (st.n_engines) v->ops->engine(v->self, i, &one);
        buf_puts(out, "vllm:lora_requests_info{model_name=");
        json_out_str(out, api->model_names[0]);
        buf_printf(out, ",engine=\"%d\",max_lora=\"%d\",waiting_lora_adapters=", i, n_adapters);
        put_adapters(api, one.adapters_waiting, out);
        buf_puts(out, ",running_lora_adapters=");
        put_adapters(api, one.adapters_running, out);
        buf_printf(out, "} %lld\n", (long long)time(NULL));
    }
}

void crd_api_metrics(const struct crd_api *api, struct buf *out)
{
    struct crd_api_stats *s = api->stats;
    struct metric *all[N_METRICS * STATS_ENGINES];
    size_t n = 0;
    for (int i = 0; i < N_METRICS; i++) /* same-named ones side by side */
        for (int32_t e = 0; e < s->n_engines; e++) all[n++] = &s->at[e].m[i];
    struct buf common = {0};
    buf_puts(&common, "model_name=");
    json_out_str(&common,
                 api->model_names[0]); /* the same escapes as Prometheus for what a name may hold */
    for (size_t i = 0; i < COUNT_OF(of_engines); i++) {
        struct buf part = {0};
        render_engines(api, &part, &of_engines[i].m, of_engines[i].extra, of_engines[i].value);
        const char *text = buf_str(&part); /* of those of one name, the first says what it is */
        bool again = i && !strcmp(of_engines[i].m.name, of_engines[i - 1].m.name);
        for (int k = 0; again && k < 2; k++) text = strchr(text, '\n') + 1;
        buf_puts(out, text);
        buf_free(&part);
    }
    metric_render(out, all, n, buf_str(&common));
    buf_free(&common);
    render_adapters(api, out);
    if (api->keys) crd_keys_metrics(api->keys, out);
    if (api->service.ops->metrics) api->service.ops->metrics(api->service.self, out);
}
