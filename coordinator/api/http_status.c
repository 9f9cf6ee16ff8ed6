/* http_status.c: GET /health, /metrics, /version and /v1/cluster. */
#include "base/clock.h"
#include "coordinator/api/api_metrics.h"
#include "coordinator/api/http.h"
#include "coordinator/api/json_out.h"
#include "proto/version.h"

static const char *const names[] = {[SERVICE_LOADING] = "loading",
                                    [SERVICE_READY] = "ok",
                                    [SERVICE_DEGRADED] = "degraded",
                                    [SERVICE_DRAINING] = "draining"};

/* 200 while every rank of a replica answers; otherwise 503 with the sentence that says why not. Hosts, processes and what is wrong with
 * them are for those who may ask: where there are keys, whoever shows none learns the status alone. */
void crd_http_health(void *user, struct gw_exchange *x, const struct gw_request *r)
{
    const struct crd_api *api = user;
    struct service_status st = {0};
    struct buf out = {0}, cluster = {0};
    bool whole = !api->keys || r->caller;
    api->service.ops->status(api->service.self, &st);
    buf_printf(&out, "{\"status\":\"%s\"", names[st.state]);
    if (whole && st.state != SERVICE_READY) {
        buf_puts(&out, ",\"error\":{\"message\":");
        json_out_str(&out, st.text[0] ? st.text : "The cluster cannot serve now.");
        buf_puts(&out, ",\"type\":\"ServiceUnavailableError\",\"param\":null,\"code\":\"service_unavailable\"}");
    }
    if (whole && api->service.ops->health_json) api->service.ops->health_json(api->service.self, &cluster);
    if (cluster.len) buf_printf(&out, ",\"cluster\":%s", buf_str(&cluster));
    buf_free(&cluster);
    buf_putc(&out, '}');
    crd_http_json(x, st.state == SERVICE_READY ? 200 : 503, &out);
}

/* What the cluster does now; always 200, as it is a description and no promise. */
void crd_http_cluster(void *user, struct gw_exchange *x, const struct gw_request *r)
{
    const struct crd_api *api = user;
    struct service_status st = {0};
    struct buf out = {0}, cluster = {0};
    (void)r;
    api->service.ops->status(api->service.self, &st);
    const struct sched_stats *s = &st.sched;
    buf_printf(&out, "{\"object\":\"cluster\",\"version\":\"" TESSERA_VERSION "\",\"uptime_seconds\":%.1f,\"status\":\"%s\",\"reason\":",
               (double)(clock_us() - gw_opened_us(gw_of(x))) / 1e6, names[st.state]);
    if (st.text[0])
        json_out_str(&out, st.text);
    else
        buf_puts(&out, "null");
    buf_puts(&out, ",\"model\":");
    json_out_str(&out, api->model_names[0]);
    if (api->defaults_text) buf_printf(&out, ",\"sampling_defaults\":%s", api->defaults_text);
    buf_printf(&out,
               ",\"max_model_len\":%d,\"requests\":{\"running\":%d,\"waiting\":%d},"
               "\"kv_blocks\":{\"all\":%d,\"used\":%d,\"cached\":%d},"
               "\"steps\":{\"done\":%llu,\"in_flight\":%d,\"last_tokens\":%d},"
               "\"tokens\":{\"prompt\":%llu,\"generated\":%llu,\"prefix_queries\":%llu,"
               "\"prefix_hits\":%llu},\"preemptions\":%llu",
               st.max_context, s->n_running, s->n_waiting, s->n_blocks, s->n_blocks_used,
               s->n_blocks_cached, (unsigned long long)s->n_steps, s->n_in_flight,
               s->last_step_tokens, (unsigned long long)s->prompt_tokens,
               (unsigned long long)s->generated_tokens, (unsigned long long)s->prefix_queries,
               (unsigned long long)s->prefix_hits, (unsigned long long)s->n_preemptions);
    if (api->service.ops->health_json) api->service.ops->health_json(api->service.self, &cluster);
    if (cluster.len) buf_printf(&out, ",\"cluster\":%s", buf_str(&cluster));
    buf_free(&cluster);
    buf_putc(&out, '}');
    crd_http_json(x, 200, &out);
}

void crd_http_metrics(void *user, struct gw_exchange *x, const struct gw_request *r)
{
    struct buf out = {0};
    (void)r;
    crd_api_metrics(user, &out);
    gw_metrics(gw_of(x), &out);
    gw_reply(x, 200, "text/plain; version=0.0.4; charset=utf-8", out.data, out.len, NULL);
    buf_free(&out);
}

void crd_http_version(void *user, struct gw_exchange *x, const struct gw_request *r)
{
    struct buf out = {0};
    (void)user, (void)r;
    buf_puts(&out, "{\"version\":\"" TESSERA_VERSION "\"}");
    crd_http_json(x, 200, &out);
}
