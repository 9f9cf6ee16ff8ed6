/* api.c: see api.h. A generation on a connection: the gateway asks for bytes, the generation's wake
 * is the exchange's. */
#include "coordinator/api/api.h"
#include "coordinator/api/http.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct call {
    struct crd_generation *g;
    struct gw_waker *waker;
    char headers[48];
};

static bool call_run(void *self, struct buf *out, int32_t *status, const char **type,
                     const char **headers)
{
    struct call *c = self;
    bool over = crd_generation_run(c->g, out, status);
    int32_t retry = *status ? crd_generation_retry_after(c->g) : 0;
    *type = crd_generation_type(c->g);
    if (retry) snprintf(c->headers, sizeof c->headers, "Retry-After: %d\n", retry);
    *headers = c->headers;
    return over;
}

static void call_closed(void *self, bool client_left)
{
    struct call *c = self;
    (void)client_left; /* a finished generation has nothing left to cancel */
    crd_generation_close(c->g);
    gw_waker_free(c->waker);
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
    const uint64_t anonymous = 0;
    struct call *c = xcalloc(1, sizeof *c);
    c->waker = gw_exchange_waker(x);
    c->g = crd_generation_open(api, ep, r->body, r->n_body, anonymous, r->request_id, call_wake, c);
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

const struct gw_route crd_api_routes[] = {
    {"POST", "/v1/chat/completions", h_chat}, {"POST", "/v1/completions", h_completions},
    {"GET", "/v1/models", crd_http_models},   {"GET", "/health", crd_http_health},
    {"GET", "/metrics", crd_http_metrics},    {"GET", "/version", crd_http_version},
    {"POST", "/tokenize", crd_http_tokenize}, {"POST", "/detokenize", crd_http_detokenize},
};
const int32_t crd_api_n_routes = COUNT_OF(crd_api_routes);

void crd_http_json(struct gw_exchange *x, int32_t status, struct buf *out)
{
    gw_reply(x, status, "application/json", out->data, out->len, NULL);
    buf_free(out);
}

void crd_http_error(struct gw_exchange *x, struct crd_api_error *e, const char *extra_headers)
{
    struct buf out = {0};
    crd_api_error_json(e, &out);
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
    crd_http_error(x, &e, allowed ? allow : NULL);
}
