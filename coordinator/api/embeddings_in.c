/* embeddings_in.c: see embeddings_in.h. OpenAI's fields; beside them `pooling` and `normalize`, and
 * those of the completions endpoint that say how a text becomes tokens. */
#include "coordinator/api/embeddings_in.h"
#include "coordinator/api/completions_in.h"
#include "coordinator/api/sampling_in.h"
#include "base/log.h"

#include <string.h>

/* An integer in [min, max], *out unchanged when it is absent. */
static enum err integer(const struct crd_request *r, const char *name, int64_t min, int64_t max,
                        int32_t *out, struct crd_api_error *e)
{
    const json_t *j = crd_request_get(r, name);
    if (!j) return OK;
    if (!json_is_integer(j))
        return crd_api_malformed(e, name, "%s: Input should be a valid integer", name);
    json_int_t v = json_integer_value(j);
    if (v < min || v > max)
        return crd_api_refuse(
            e, 400, name, "%s must be in [%lld, %lld], got %" JSON_INTEGER_FORMAT ".", name,
            (long long)min, (long long)max, v);
    *out = (int32_t)v;
    return OK;
}

static enum err boolean(const struct crd_request *r, const char *name, bool *out,
                        struct crd_api_error *e)
{
    const json_t *j = crd_request_get(r, name);
    if (!j) return OK;
    if (!json_is_boolean(j))
        return crd_api_malformed(e, name, "%s: Input should be a valid boolean", name);
    *out = json_is_true(j);
    return OK;
}

/* One of two words; *second says which. */
static enum err word(const struct crd_request *r, const char *name, const char *a, const char *b,
                     bool *second, struct crd_api_error *e)
{
    const json_t *j = crd_request_get(r, name);
    const char *s = json_string_value(j);
    if (!j) return OK;
    if (!s || (strcmp(s, a) && strcmp(s, b)))
        return crd_api_malformed(e, name, "%s: Input should be '%s' or '%s'", name, a, b);
    *second = !strcmp(s, b);
    return OK;
}

static enum err pooling(struct crd_request *r, const struct crd_api *api, struct crd_api_error *e)
{
    bool mean = api->pooling == POOL_MEAN;
    enum err rc = word(r, "pooling", "last", "mean", &mean, e);
    if (rc) return rc;
    if (!api->pooling && !crd_request_get(r, "pooling"))
        return crd_api_refuse(e, 400, "model",
                              "This model's files name a way of pooling that is neither the last "
                              "token's state nor the mean: ask for one of these with \"pooling\".");
    r->pool = mean ? POOL_MEAN : POOL_LAST;
    return OK;
}

static void log_unknown(const struct crd_request *r)
{
    static const char *const known[] = {
        "input",    "model", "encoding_format", "dimensions", "user",      "pooling",
        "priority", "normalize", "cache_salt",  "add_special_tokens", "truncate_prompt_tokens",
    };
    const char *key;
    json_t *j;
    json_object_foreach(r->body, key, j)
    {
        bool found = false;
        for (size_t i = 0; i < COUNT_OF(known); i++) found |= !strcmp(known[i], key);
        if (!found) log_debug("api", "field \"%.64s\" was present in the request but ignored", key);
    }
}

enum err crd_embeddings_in(struct crd_request *r, const struct crd_api *api,
                           struct crd_api_error *e)
{
    enum err rc;
    struct crd_vector_conf *v = &r->vector;
    int32_t keep = 0;
    const json_t *user = crd_request_get(r, "user");
    r->n = 1;
    r->add_special = v->normalize = true;
    r->truncate_prompt = REQUEST_NO_TRUNCATION;
    TRY(word(r, "encoding_format", "float", "base64", &v->base64, e));
    TRY(integer(r, "dimensions", 1, api->model.d_model, &v->dimensions, e));
    TRY(boolean(r, "normalize", &v->normalize, e));
    TRY(boolean(r, "add_special_tokens", &r->add_special, e));
    TRY(integer(r, "truncate_prompt_tokens", -1, INT32_MAX, &keep, e));
    TRY(integer(r, "priority", INT32_MIN, INT32_MAX, &r->priority, e));
    TRY(crd_salt_in(r, e));
    TRY(pooling(r, api, e));
    if (user && !json_is_string(user))
        TRY(crd_api_malformed(e, "user", "user: Input should be a valid string"));
    v->cut_end = r->given && !json_is_false(json_object_get(r->given, "truncate"));
    if (!keep && crd_request_get(r, "truncate_prompt_tokens"))
        TRY(crd_api_refuse(e, 400, "truncate_prompt_tokens",
                           "truncate_prompt_tokens must be -1 or at least 1, got 0."));
    if (keep < 0) keep = crd_request_context(api);
    if (keep) r->truncate_prompt = keep;
    TRY(crd_prompts_in(r, api, "input", EMBEDDINGS_MAX_INPUTS, e));
    log_unknown(r);
out:
    return rc;
}

enum err crd_embeddings_fit(struct crd_request *r, const struct crd_api *api,
                            struct crd_api_error *e)
{
    size_t context = (size_t)crd_request_context(api);
    for (int32_t i = 0; i < r->n_prompts; i++) {
        struct eng_tokens *t = &r->prompts[i].tokens;
        if (t->n > context && r->vector.cut_end) t->n = context;
        if (t->n > context)
            return crd_api_refuse(
                e, 400, "input_tokens",
                "This model's maximum context length is %zu tokens. However, your request has %zu "
                "input tokens in input %d. Please reduce the length of the input.",
                context, t->n, i);
    }
    return OK;
}
