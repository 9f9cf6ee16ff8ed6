/* http_ollama.c: what Ollama's clients ask about models: /api/tags, /api/ps, /api/show. */
#include "coordinator/api/http.h"
#include "coordinator/api/json_out.h"
#include "coordinator/api/request.h"

#include <string.h>
#include <time.h>

static void put_details(const struct crd_api *api, struct buf *out)
{
    const struct model_info *m = &api->model;
    buf_puts(out, "\"details\":{\"parent_model\":\"\",\"format\":\"gguf\",\"family\":");
    json_out_str(out, m->arch);
    buf_puts(out, ",\"families\":[");
    json_out_str(out, m->arch);
    buf_printf(out, "],\"parameter_size\":\"%.1f%s\",\"quantization_level\":",
               (double)m->n_params / (m->n_params < 1000000000 ? 1e6 : 1e9),
               m->n_params < 1000000000 ? "M" : "B");
    json_out_str(out, m->type);
    buf_putc(out, '}');
}

static void put_model(const struct crd_api *api, const char *name, struct buf *out)
{
    buf_puts(out, "{\"name\":");
    json_out_str(out, name);
    buf_puts(out, ",\"model\":");
    json_out_str(out, name);
    buf_puts(out, ",\"modified_at\":");
    json_out_time(out, &(struct timespec){api->created_unix, 0}, 0);
    buf_printf(out, ",\"size\":%lld,\"digest\":\"\",", (long long)api->model.weight_bytes);
    put_details(api, out);
}

static void put_named(const struct crd_api *api, const char *const *names, bool running, struct buf *out)
{
    for (const char *const *name = names; name && *name; name++) {
        if (*name != api->model_names[0]) buf_putc(out, ',');
        put_model(api, *name, out);
        if (running) /* it stays as long as we do */
            buf_printf(out,
                       ",\"expires_at\":\"9999-12-31T23:59:59Z\",\"size_vram\":0,"
                       "\"context_length\":%d",
                       crd_request_context(api));
        buf_putc(out, '}');
    }
}

static void put_all(struct crd_api *api, struct gw_exchange *x, bool running)
{
    struct buf out = {0};
    buf_puts(&out, "{\"models\":[");
    put_named(api, api->model_names, running, &out);
    put_named(api, api->adapter_names, running, &out);
    buf_puts(&out, "]}");
    crd_http_json(x, 200, &out);
}

void crd_http_ollama_tags(void *api, struct gw_exchange *x, const struct gw_request *r)
{
    (void)r;
    put_all(api, x, false);
}

void crd_http_ollama_ps(void *api, struct gw_exchange *x, const struct gw_request *r)
{
    (void)r;
    put_all(api, x, true);
}

static void put_shown(const struct crd_api *api, struct buf *out)
{
    const struct model_info *m = &api->model;
    buf_puts(out, "{\"modelfile\":\"\",\"parameters\":\"\",\"template\":");
    json_out_str(out, api->template_source ? api->template_source : "");
    buf_putc(out, ',');
    put_details(api, out);
    buf_puts(out, ",\"model_info\":{\"general.architecture\":");
    json_out_str(out, m->arch);
    buf_printf(out,
               ",\"general.parameter_count\":%lld,\"%s.context_length\":%d,"
               "\"%s.embedding_length\":%d,\"%s.block_count\":%d}",
               (long long)m->n_params, m->arch, m->context, m->arch, m->d_model, m->arch,
               m->n_layers);
    buf_puts(out, ",\"capabilities\":[\"completion\"");
    if (api->chat_template) buf_puts(out, ",\"tools\"");
    if (api->style.think) buf_puts(out, ",\"thinking\"");
    buf_puts(out, "],\"modified_at\":");
    json_out_time(out, &(struct timespec){api->created_unix, 0}, 0);
    buf_putc(out, '}');
}

/* "name:latest" is "name". */
static void drop_latest(json_t *body)
{
    static const char latest[] = ":latest";
    json_t *model = json_object_get(body, "model");
    size_t n = model ? json_string_length(model) : 0, m = sizeof latest - 1;
    if (n > m && !strcmp(json_string_value(model) + n - m, latest))
        json_object_set_new(body, "model", json_stringn(json_string_value(model), n - m));
}

void crd_http_ollama_show(void *user, struct gw_exchange *x, const struct gw_request *r)
{
    struct crd_api *api = user;
    struct crd_api_error e = {0};
    struct buf out = {0};
    json_t *body = NULL, *model;
    enum err rc;
    TRY(crd_request_object(&body, r->body, r->n_body, &e));
    model = json_object_get(body, "model");
    if (!model && (model = json_object_get(body, "name"))) json_object_set(body, "model", model);
    drop_latest(body);
    TRY(crd_request_model(api, body, &e));
    put_shown(api, &out);
    crd_http_json(x, 200, &out);
out:
    if (rc) crd_http_refuse(x, r->path, &e, NULL);
    json_decref(body);
}

static bool is_nothing(const json_t *j)
{
    return !j || json_is_null(j) || (json_is_string(j) && !json_string_length(j)) ||
           (json_is_array(j) && !json_array_size(j));
}

bool crd_http_ollama_load(struct crd_api *api, struct gw_exchange *x, const struct gw_request *r,
                          const char *field)
{
    enum { MOST = 4096 }; /* such a body is small; others are read on a text thread */
    struct crd_api_error e = {0};
    struct buf out = {0};
    json_t *body = NULL;
    bool load = r->n_body <= MOST && !crd_request_object(&body, r->body, r->n_body, &e) &&
                is_nothing(json_object_get(body, field)) && json_object_get(body, "model");
    if (load) drop_latest(body);
    bool known = load && !crd_request_model(api, body, &e);
    json_decref(body);
    if (load && !known) {
        crd_http_refuse(x, r->path, &e, NULL);
        return true;
    }
    crd_api_error_clear(&e);
    if (!load) return false;
    bool chat = !strcmp(field, "messages");
    buf_puts(&out, "{\"model\":");
    json_out_str(&out, api->model_names[0]);
    buf_puts(&out, ",\"created_at\":");
    json_out_time(&out, &(struct timespec){time(NULL), 0}, 0);
    buf_printf(&out, ",%s,\"done\":true,\"done_reason\":\"load\"}",
               chat ? "\"message\":{\"role\":\"assistant\",\"content\":\"\"}" : "\"response\":\"\"");
    crd_http_json(x, 200, &out);
    return true;
}

void crd_http_root(void *api, struct gw_exchange *x, const struct gw_request *r)
{
    static const char text[] = "tessera is running\n";
    (void)api, (void)r;
    gw_reply(x, 200, "text/plain; charset=utf-8", text, sizeof text - 1, NULL);
}
