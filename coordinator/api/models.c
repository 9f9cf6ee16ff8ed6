/* models.c: GET /v1/models and /v1/models/{id}: OpenAI's objects with vLLM's and llama-server's
 * additions, and what Anthropic's clients look for. LoRA adapters stand behind the model, which is their parent. */
#include "coordinator/api/http.h"
#include "coordinator/api/json_out.h"
#include "coordinator/api/request.h"

#include <string.h>

/* parent: the model that an adapter stands beside, or NULL. */
static void put_model(const struct crd_api *api, const char *id, const char *parent, struct buf *out)
{
    const struct model_info *m = &api->model;
    buf_puts(out, "{\"id\":");
    json_out_str(out, id);
    buf_printf(out, ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"tessera\",\"root\":",
               (long long)api->created_unix);
    json_out_str(out, parent ? id : m->name[0] ? m->name : api->model_names[0]);
    buf_puts(out, ",\"parent\":");
    if (parent) json_out_str(out, parent);
    else buf_puts(out, "null");
    buf_printf(out, ",\"max_model_len\":%d,\"permission\":[{\"id\":\"modelperm-",
               crd_request_context(api));
    buf_printf(
        out,
        "%llx\",\"object\":\"model_permission\",\"created\":%lld,\"allow_create_engine\":false,"
        "\"allow_sampling\":true,\"allow_logprobs\":true,\"allow_search_indices\":false,\"allow_"
        "view\":true,"
        "\"allow_fine_tuning\":false,\"organization\":\"*\",\"group\":null,\"is_blocking\":false}]",
        (unsigned long long)api->created_unix, (long long)api->created_unix);
    buf_puts(out, ",\"type\":\"model\",\"display_name\":");
    json_out_str(out, id);
    buf_puts(out, ",\"created_at\":");
    json_out_time(out, &(struct timespec){api->created_unix, 0}, 0);
    buf_puts(out, ",\"meta\":{\"arch\":");
    json_out_str(out, m->arch);
    buf_printf(
        out, ",\"n_vocab\":%d,\"n_ctx_train\":%d,\"n_embd\":%d,\"n_params\":%lld,\"size\":%lld}}",
        m->n_vocab, m->context, m->d_model, (long long)m->n_params, (long long)m->weight_bytes);
}

void crd_http_models(void *user, struct gw_exchange *x, const struct gw_request *r)
{
    const struct crd_api *api = user;
    struct buf out = {0};
    (void)r;
    buf_puts(&out, "{\"object\":\"list\",\"data\":[");
    for (const char *const *name = api->model_names; *name; name++) {
        if (name != api->model_names) buf_putc(&out, ',');
        put_model(api, *name, NULL, &out);
    }
    const char *const *last = api->model_names;
    while (last[1]) last++;
    for (const char *const *name = api->adapter_names; name && *name; last = name++) {
        buf_putc(&out, ',');
        put_model(api, *name, api->model_names[0], &out);
    }
    buf_puts(&out, "],\"has_more\":false,\"first_id\":");
    json_out_str(&out, api->model_names[0]);
    buf_puts(&out, ",\"last_id\":");
    json_out_str(&out, *last);
    buf_putc(&out, '}');
    crd_http_json(x, 200, &out);
}

void crd_http_model(struct crd_api *api, struct gw_exchange *x, const char *id)
{
    struct crd_api_error e = {0};
    struct buf out = {0};
    if (!*id) { /* "/v1/models/" */
        crd_http_models(api, x, NULL);
        return;
    }
    if (crd_request_is_model(api, id)) {
        put_model(api, id, crd_request_adapter(api, id) ? api->model_names[0] : NULL, &out);
        crd_http_json(x, 200, &out);
        return;
    }
    crd_api_refuse(&e, 404, "model", "The model `%.200s` does not exist. This server serves `%s`.", id,
                   api->model_names[0]);
    crd_http_error(x, &e, NULL);
}
