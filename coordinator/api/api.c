/* api.c: see api.h. */
#include "coordinator/api/api.h"
#include "coordinator/api/admin_http.h"
#include "coordinator/api/answer_out.h"
#include "coordinator/api/http.h"
#include "coordinator/api/replay.h"

#include <stdio.h>
#include <string.h>

static void h_chat(void *api, struct gw_exchange *x, const struct gw_request *r)
{
    crd_replay_begin(api, x, r, ENDPOINT_CHAT);
}

static void h_completions(void *api, struct gw_exchange *x, const struct gw_request *r)
{
    crd_replay_begin(api, x, r, ENDPOINT_COMPLETIONS);
}

static void h_responses(void *api, struct gw_exchange *x, const struct gw_request *r)
{
    crd_replay_begin(api, x, r, ENDPOINT_RESPONSES);
}

static void h_messages(void *api, struct gw_exchange *x, const struct gw_request *r)
{
    crd_replay_begin(api, x, r, ENDPOINT_MESSAGES);
}

static void h_ollama_chat(void *api, struct gw_exchange *x, const struct gw_request *r)
{
    if (!crd_http_ollama_load(api, x, r, "messages"))
        crd_replay_begin(api, x, r, ENDPOINT_OLLAMA_CHAT);
}

static void h_embeddings(void *api, struct gw_exchange *x, const struct gw_request *r)
{
    crd_replay_begin(api, x, r, ENDPOINT_EMBEDDINGS);
}

static void h_ollama_embed(void *api, struct gw_exchange *x, const struct gw_request *r)
{
    crd_replay_begin(api, x, r, ENDPOINT_OLLAMA_EMBED);
}

static void h_ollama_embeddings(void *api, struct gw_exchange *x, const struct gw_request *r)
{
    crd_replay_begin(api, x, r, ENDPOINT_OLLAMA_EMBEDDINGS);
}

static void h_ollama_generate(void *api, struct gw_exchange *x, const struct gw_request *r)
{
    if (!crd_http_ollama_load(api, x, r, "prompt"))
        crd_replay_begin(api, x, r, ENDPOINT_OLLAMA_GENERATE);
}

const struct gw_route crd_api_routes[] = {
    /* OpenAI's */
    {"POST", "/v1/chat/completions", h_chat},
    {"POST", "/v1/completions", h_completions},
    {"POST", "/v1/responses", h_responses},
    {"POST", "/v1/embeddings", h_embeddings},
    {"GET", "/v1/models", crd_http_models},
    /* Anthropic's */
    {"POST", "/v1/messages", h_messages},
    {"POST", "/v1/messages/count_tokens", crd_http_count_tokens},
    /* Ollama's */
    {"POST", "/api/chat", h_ollama_chat},
    {"POST", "/api/generate", h_ollama_generate},
    {"POST", "/api/embed", h_ollama_embed},
    {"POST", "/api/embeddings", h_ollama_embeddings},
    {"POST", "/api/show", crd_http_ollama_show},
    {"GET", "/api/tags", crd_http_ollama_tags},
    {"GET", "/api/ps", crd_http_ollama_ps},
    {"GET", "/api/version", crd_http_version},
    /* servers' */
    {"GET", "/", crd_http_root},
    {"GET", "/health", crd_http_health},
    {"GET", "/metrics", crd_http_metrics},
    {"GET", "/version", crd_http_version},
    {"GET", "/v1/cluster", crd_http_cluster},
    {"POST", "/admin/drain", crd_http_admin_drain},
    {"POST", "/admin/reload", crd_http_admin_reload},
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

/* Where Ollama's clients ask to fetch, make or remove models. */
static bool is_keeping_models(const char *path)
{
    static const char *const paths[] = {"/api/pull", "/api/push", "/api/create", "/api/copy", "/api/delete"};
    for (size_t i = 0; i < COUNT_OF(paths); i++)
        if (!strcmp(path, paths[i])) return true;
    return false;
}

/* Where vLLM's clients ask to change the LoRA adapters of a running server. */
static bool is_changing_adapters(const char *path) { return !strcmp(path, "/v1/load_lora_adapter") || !strcmp(path, "/v1/unload_lora_adapter"); }

void crd_api_fallback(void *user, struct gw_exchange *x, const struct gw_request *r)
{
    static const char models[] = "/v1/models/", requests[] = "/v1/requests/";
    struct crd_api_error e = {0};
    const char *allowed = method_of(r->path);
    char allow[32];
    bool reading = !strcmp(r->method, "GET") || !strcmp(r->method, "HEAD");
    if (reading && !strncmp(r->path, models, sizeof models - 1)) {
        crd_http_model(user, x, r->path + sizeof models - 1);
        return;
    }
    if (!strncmp(r->path, requests, sizeof requests - 1)) {
        crd_replay_handle(user, x, r);
        return;
    }
    if (allowed) {
        snprintf(allow, sizeof allow, "Allow: %s\n", allowed);
        crd_api_refuse(&e, 405, NULL, "Method Not Allowed: %s answers %s only", r->path, allowed);
    } else if (is_keeping_models(r->path)) {
        crd_api_refuse(&e, 404, NULL, "Models are not fetched, made or removed over the API: `tessera pull`, `rm` and `reload` on the server's host do that.");
    } else if (is_changing_adapters(r->path)) {
        crd_api_refuse(&e, 404, NULL, "LoRA adapters are not loaded or unloaded while the server runs: start it with --lora NAME=PATH for each of them.");
    } else {
        crd_api_refuse(&e, 404, NULL, "Not Found: there is nothing at %s %.200s", r->method,
                       r->path);
    }
    crd_http_refuse(x, r->path, &e, allowed ? allow : NULL);
}

void crd_api_alarm(void *user)
{
    crd_replay_alarm(((struct crd_api *)user)->replay);
}
