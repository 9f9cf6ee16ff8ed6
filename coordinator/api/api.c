/* api.c: see api.h. A generation on a connection: the gateway asks for bytes, the generation's wake
 * is the exchange's. */
#include "coordinator/api/api.h"
#include "base/clock.h"
#include "coordinator/api/access.h"
#include "coordinator/api/answer_out.h"
#include "coordinator/api/http.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct call {
    struct crd_generation *g;
    struct gw_waker *waker;
    struct crd_key *key;            /* whose account it goes on; NULL: nobody's */
    int64_t n_prompt, n_completion; /* charged so far */
    struct buf headers;
};

static void charge(struct call *c)
{
    int64_t p, n;
    crd_generation_used(c->g, &p, &n);
    crd_access_charge(c->key, p - c->n_prompt, n - c->n_completion);
    c->n_prompt = p;
    c->n_completion = n;
}

static bool call_run(void *self, struct buf *out, int32_t *status, const char **type,
                     const char **headers)
{
    struct call *c = self;
    bool over = crd_generation_run(c->g, out, status);
    charge(c);
    if (!*status || c->headers.len) return over;
    int32_t retry = crd_generation_retry_after(c->g);
    *type = crd_generation_type(c->g);
    if (c->key) crd_quota_headers(&c->key->quota, clock_us(), &c->headers);
    if (retry) buf_printf(&c->headers, "Retry-After: %d\n", retry);
    *headers = buf_str(&c->headers);
    return over;
}

static void call_closed(void *self, bool client_left)
{
    struct call *c = self;
    (void)client_left; /* a finished generation has nothing left to cancel */
    crd_access_end(c->key);
    crd_generation_close(c->g);
    gw_waker_free(c->waker);
    buf_free(&c->headers);
    free(c);
}

static void call_wake(void *user)
{
    gw_wake(((struct call *)user)->waker);
}

static void generate(struct crd_api *api, struct gw_exchange *x, const struct gw_request *r,
                     enum crd_endpoint ep)
{
    static const struct gw_stream_ops ops = {call_run, call_closed};
    if (!crd_access_begin(api, x, r)) return;
    struct call *c = xcalloc(1, sizeof *c);
    c->key = r->caller;
    c->waker = gw_exchange_waker(x);
    c->g = crd_generation_open(api, ep, r->body, r->n_body, c->key ? c->key->tenant : 0,
                               r->request_id, call_wake, c);
    if (c->key) crd_generation_weight(c->g, c->key->weight);
    gw_stream(x, &ops, c);
}

static void h_chat(void *api, struct gw_exchange *x, const struct gw_request *r)
{
    generate(api, x, r, ENDPOINT_CHAT);
}

static void h_completions(void *api, struct gw_exchange *x, const struct gw_request *r)
{
    generate(api, x, r, ENDPOINT_COMPLETIONS);
}

static void h_responses(void *api, struct gw_exchange *x, const struct gw_request *r)
{
    generate(api, x, r, ENDPOINT_RESPONSES);
}

static void h_messages(void *api, struct gw_exchange *x, const struct gw_request *r)
{
    generate(api, x, r, ENDPOINT_MESSAGES);
}

static void h_ollama_chat(void *api, struct gw_exchange *x, const struct gw_request *r)
{
    generate(api, x, r, ENDPOINT_OLLAMA_CHAT);
}

static void h_ollama_generate(void *api, struct gw_exchange *x, const struct gw_request *r)
{
    generate(api, x, r, ENDPOINT_OLLAMA_GENERATE);
}

const struct gw_route crd_api_routes[] = {
    /* OpenAI's */
    {"POST", "/v1/chat/completions", h_chat},
    {"POST", "/v1/completions", h_completions},
    {"POST", "/v1/responses", h_responses},
    {"GET", "/v1/models", crd_http_models},
    /* Anthropic's */
    {"POST", "/v1/messages", h_messages},
    {"POST", "/v1/messages/count_tokens", crd_http_count_tokens},
    /* Ollama's */
    {"POST", "/api/chat", h_ollama_chat},
    {"POST", "/api/generate", h_ollama_generate},
    {"POST", "/api/show", crd_http_ollama_show},
    {"GET", "/api/tags", crd_http_ollama_tags},
    {"GET", "/api/ps", crd_http_ollama_ps},
    {"GET", "/api/version", crd_http_version},
    /* servers' */
    {"GET", "/health", crd_http_health},
    {"GET", "/metrics", crd_http_metrics},
    {"GET", "/version", crd_http_version},
    {"GET", "/v1/cluster", crd_http_cluster},
    {"POST", "/tokenize", crd_http_tokenize},
    {"POST", "/detokenize", crd_http_detokenize},
    {"POST", "/apply-template", crd_http_apply_template},
};
const int32_t crd_api_n_routes = COUNT_OF(crd_api_routes);

void crd_http_json(struct gw_exchange *x, int32_t status, struct buf *out)
{
    gw_reply(x, status, "application/json", out->data, out->len, NULL);
    buf_free(out);
}

void crd_http_error(struct gw_exchange *x, struct crd_api_error *e, const char *extra_headers)
{
    crd_http_refuse(x, "", e, extra_headers);
}

void crd_http_refuse(struct gw_exchange *x, const char *path, struct crd_api_error *e,
                     const char *extra_headers)
{
    struct buf out = {0};
    crd_format_at(path)->error(e, &out);
    gw_reply(x, e->status, "application/json", out.data, out.len, extra_headers);
    buf_free(&out);
    crd_api_error_clear(e);
}

static const char *method_of(const char *path)
{
    for (int32_t i = 0; i < crd_api_n_routes; i++)
        if (!strcmp(crd_api_routes[i].path, path)) return crd_api_routes[i].method;
    return NULL;
}

void crd_api_fallback(void *user, struct gw_exchange *x, const struct gw_request *r)
{
    static const char models[] = "/v1/models/";
    struct crd_api_error e = {0};
    const char *allowed = method_of(r->path);
    char allow[32];
    bool reading = !strcmp(r->method, "GET") || !strcmp(r->method, "HEAD");
    if (reading && !strncmp(r->path, models, sizeof models - 1)) {
        crd_http_model(user, x, r->path + sizeof models - 1);
        return;
    }
    if (allowed) {
        snprintf(allow, sizeof allow, "Allow: %s\n", allowed);
        crd_api_refuse(&e, 405, NULL, "Method Not Allowed: %s answers %s only", r->path, allowed);
    } else {
        crd_api_refuse(&e, 404, NULL, "Not Found: there is nothing at %s %.200s", r->method,
                       r->path);
    }
    crd_http_refuse(x, r->path, &e, allowed ? allow : NULL);
}
