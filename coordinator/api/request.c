/* request.c: bytes to an object, and what all endpoints have in common. The fields are in
 * sampling_in.c, the prompts in chat_in.c and completions_in.c. */
#include "coordinator/api/request.h"
#include "coordinator/api/chat_in.h"
#include "coordinator/api/completions_in.h"
#include "coordinator/api/embeddings_in.h"
#include "coordinator/api/sampling_in.h"
#include "coordinator/api/translate.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* The parser recurses once per level, so depth is bounded before it runs. */
static bool too_deep(const char *p, size_t n)
{
    int depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < n; i++) {
        if (in_string) {
            if (p[i] == '\\')
                i++;
            else if (p[i] == '"')
                in_string = false;
        } else if (p[i] == '"') {
            in_string = true;
        } else if (p[i] == '{' || p[i] == '[') {
            if (++depth > REQUEST_MAX_DEPTH) return true;
        } else if (p[i] == '}' || p[i] == ']') {
            depth--;
        }
    }
    return false;
}

enum err crd_request_object(json_t **out, const char *body, size_t n, struct crd_api_error *e)
{
    json_error_t why;
    if (too_deep(body, n))
        return crd_api_malformed(e, NULL, "Invalid JSON: nested deeper than %d levels",
                                 REQUEST_MAX_DEPTH);
    /* the parser would lose a NUL that stands right after a number */
    const char *nul = n ? memchr(body, 0, n) : NULL;
    if (nul)
        return crd_api_malformed(e, NULL, "Invalid JSON: a NUL byte at offset %zu",
                                 (size_t)(nul - body));
    json_t *j = json_loadb(body, n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &why);
    if (!j && json_error_code(&why) == json_error_null_character)
        return crd_api_malformed(e, NULL, "Invalid JSON: line %d, column %d: a text with a NUL character "
                                 "(\\u0000), which is not supported", why.line, why.column);
    if (!j)
        return crd_api_malformed(e, NULL, "Invalid JSON: line %d, column %d: %s", why.line,
                                 why.column, why.text);
    if (!json_is_object(j)) {
        json_decref(j);
        return crd_api_malformed(e, NULL, "The body should be a JSON object");
    }
    *out = j;
    return OK;
}

int32_t crd_request_adapter(const struct crd_api *api, const char *name)
{
    for (int32_t i = 0; api->adapter_names && api->adapter_names[i]; i++)
        if (!strcmp(api->adapter_names[i], name)) return i + 1;
    return 0;
}

bool crd_request_is_model(const struct crd_api *api, const char *name)
{
    for (const char *const *known = api->model_names; *known; known++)
        if (!strcmp(*known, name)) return true;
    for (const char *const *known = api->unlisted_names; known && *known; known++)
        if (!strcasecmp(*known, name)) return true;
    return crd_request_adapter(api, name) > 0;
}

enum err crd_request_model(const struct crd_api *api, const json_t *body, struct crd_api_error *e)
{
    const json_t *j = json_object_get(body, "model");
    if (!j || json_is_null(j)) return OK;
    const char *name = json_string_value(j);
    if (!name) return crd_api_malformed(e, "model", "model: Input should be a valid string");
    if (!*name) return OK;
    if (crd_request_is_model(api, name)) return OK;
    return crd_api_refuse(e, 404, "model", "The model `%s` does not exist. This server serves `%s`.",
                          name, api->model_names[0]);
}

const json_t *crd_request_get(const struct crd_request *r, const char *name)
{
    const json_t *j = json_object_get(r->body, name);
    return json_is_null(j) ? NULL : j;
}

static bool embeds(enum crd_endpoint ep)
{
    return ep >= ENDPOINT_EMBEDDINGS;
}

/* r->body into our form; what it was is kept for the answer. */
static enum err translated(struct crd_request *r, const struct crd_dialect_in *d,
                           struct crd_api_error *e)
{
    json_t *body = NULL;
    enum err rc = crd_translate(d, r->body, &body, e);
    if (rc) return rc;
    r->given = r->body;
    r->body = body;
    r->chat = json_object_get(body, "prompt") == NULL && !embeds(r->endpoint);
    return OK;
}

enum err crd_request_parse(struct crd_request *r, const struct crd_api *api, enum crd_endpoint ep,
                           const char *body, size_t n, struct crd_api_error *e)
{
    enum err rc;
    *r = (struct crd_request){.endpoint = ep,
                              .chat = ep == ENDPOINT_CHAT,
                              .sampling = api->defaults ? *api->defaults : sampling_default()};
    TRY(crd_request_object(&r->body, body, n, e));
    if (crd_dialect_in_of(ep)) TRY(translated(r, crd_dialect_in_of(ep), e));
    TRY(crd_request_model(api, r->body, e));
    const char *model = json_string_value(json_object_get(r->body, "model"));
    if (model) r->adapter = crd_request_adapter(api, model);
    if (embeds(ep)) return crd_embeddings_in(r, api, e);
    TRY(crd_sampling_in(r, api, e));
    r->text_logprobs = r->logprobs && ep == ENDPOINT_RESPONSES;
    r->logprob_entries = r->chat || ep == ENDPOINT_OLLAMA_GENERATE;
    TRY(r->chat ? crd_chat_in(r, api, e) : crd_completions_in(r, api, e));
out:
    return rc;
}

void crd_request_close(struct crd_request *r)
{
    for (int32_t i = 0; i < r->n_prompts; i++) {
        free(r->prompts[i].text);
        eng_tokens_free(&r->prompts[i].tokens);
    }
    free(r->prediction.text);
    eng_tokens_free(&r->prediction.tokens);
    free(r->prompts);
    sampling_free(&r->sampling);
    free((void *)r->grammar.text);
    json_decref(r->messages);
    json_decref(r->body);
    json_decref(r->given);
    *r = (struct crd_request){0};
}
