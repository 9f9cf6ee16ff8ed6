/* options_in.c: the fields that are neither numbers nor lists, and those that are refused for now.
 */
#include "coordinator/api/prediction_in.h"
#include "coordinator/api/sampling_in.h"

#include <pthread.h>
#include <sodium.h>
#include <string.h>
#include <sys/random.h>

static enum err stream_options(struct crd_request *r, struct crd_api_error *e)
{
    const json_t *o = crd_request_get(r, "stream_options");
    if (!o) return OK;
    if (!json_is_object(o))
        return crd_api_malformed(e, "stream_options",
                                 "stream_options: Input should be a valid dictionary");
    if (!r->stream)
        return crd_api_refuse(e, 400, "stream_options",
                              "Stream options can only be defined when `stream=True`.");
    static const char *const flags[] = {"include_usage", "continuous_usage_stats"};
    for (size_t i = 0; i < COUNT_OF(flags); i++) {
        const json_t *j = json_object_get(o, flags[i]);
        if (j && !json_is_null(j) && !json_is_boolean(j))
            return crd_api_malformed(e, "stream_options",
                                     "stream_options.%s: Input should be a valid boolean",
                                     flags[i]);
    }
    if (json_is_true(json_object_get(o, "include_obfuscation")))
        return crd_api_refuse(e, 400, "stream_options",
                              "stream_options.include_obfuscation is not supported.");
    r->include_usage = json_is_true(json_object_get(o, "include_usage"));
    r->continuous_usage =
        r->include_usage && json_is_true(json_object_get(o, "continuous_usage_stats"));
    return OK;
}

/* Keyed, so that nobody can choose a salt that meets another's. */
static uint8_t salt_key[crypto_shorthash_KEYBYTES];
static pthread_once_t salt_once = PTHREAD_ONCE_INIT;

static void draw_salt_key(void)
{
    ssize_t n = getrandom(salt_key, sizeof salt_key, 0);
    ASSERT(n == sizeof salt_key);
}

enum err crd_salt_in(struct crd_request *r, struct crd_api_error *e)
{
    const json_t *j = crd_request_get(r, "cache_salt");
    const char *s = json_string_value(j);
    if (!j) return OK;
    if (!s || !*s || strlen(s) > REQUEST_MAX_SALT || strpbrk(s, "@/\\"))
        return crd_api_refuse(
            e, 400, "cache_salt",
            "Parameter 'cache_salt' must be a non-empty string of at most %d bytes "
            "without '@', '/' and '\\' if provided.",
            REQUEST_MAX_SALT);
    pthread_once(&salt_once, draw_salt_key);
    crypto_shorthash((unsigned char *)&r->cache_salt, (const unsigned char *)s, strlen(s),
                     salt_key);
    r->cache_salt |= 1; /* 0 means none */
    return OK;
}

static bool falsy(const json_t *j)
{
    return !j || json_is_null(j) || json_is_false(j) || (json_is_array(j) && !json_array_size(j)) ||
           (json_is_object(j) && !json_object_size(j)) ||
           (json_is_string(j) && !json_string_length(j)) ||
           (json_is_number(j) && json_number_value(j) == 0);
}

/* What would change the answer, and is not done yet: refused rather than ignored. */
static const char *const refused[] = {
    "use_beam_search", "suffix",     "prompt_embeds",  "chat_template", "functions",
    "function_call",   "kv_transfer_params", "mirostat", "dynatemp_range", "samplers",
    "n_probs",         "audio",      "web_search_options",
    "logits_processors", "lora",     "image_data",
};

static enum err not_yet(struct crd_request *r, struct crd_api_error *e)
{
    for (size_t i = 0; i < COUNT_OF(refused); i++)
        if (!falsy(crd_request_get(r, refused[i])))
            return crd_api_refuse(e, 400, refused[i], "%s is not supported yet.", refused[i]);
    const json_t *kinds = crd_request_get(r, "modalities"), *kind;
    size_t k;
    if (kinds && !json_is_array(kinds))
        return crd_api_malformed(e, "modalities", "modalities: Input should be a valid list");
    json_array_foreach((json_t *)(uintptr_t)kinds, k, kind)
        if (!json_is_string(kind) || strcmp(json_string_value(kind), "text"))
            return crd_api_refuse(e, 400, "modalities", "modalities other than text are not supported.");
    const json_t *best = crd_request_get(r, "best_of"), *sigma = crd_request_get(r, "top_n_sigma");
    if (r->chat && best && json_integer_value(best) != r->n)
        return crd_api_refuse(e, 400, "best_of", "best_of other than n is not supported here.");
    if (json_number_value(sigma) > 0)
        return crd_api_refuse(e, 400, "top_n_sigma", "top_n_sigma is not supported yet.");
    return OK;
}

/* Read elsewhere, or without effect on the answer. */
static const char *const others[] = {
    "model",
    "messages",
    "prompt",
    "seed",
    "stop",
    "stop_token_ids",
    "logit_bias",
    "bad_words",
    "allowed_token_ids",
    "dry_sequence_breakers",
    "top_n_sigma",
    "stream_options",
    "response_format",
    "tools",
    "tool_choice",
    "chat_template_kwargs",
    "documents",
    "reasoning_effort",
    "user",
    "cache_salt",
    "echo",
    "best_of",
    "parallel_tool_calls",
    "length_penalty",
    "spaces_between_special_tokens",
    "request_id",
    "session_id",
    "store",
    "metadata",
    "service_tier",
    "include_reasoning",
    "verbosity",
    "modalities",
    "prediction",
    "safety_identifier",
    "prompt_cache_key",
};

/* Fields that have no effect, or only the template reads, must still be what they are. */
static enum err types(const struct crd_request *r, struct crd_api_error *e)
{
    static const struct {
        const char *name, *what;
        json_type type;
    } fields[] = {
        {"user", "string", JSON_STRING},
        {"reasoning_effort", "string", JSON_STRING},
        {"service_tier", "string", JSON_STRING},
        {"verbosity", "string", JSON_STRING},
        {"safety_identifier", "string", JSON_STRING},
        {"prompt_cache_key", "string", JSON_STRING},
        {"request_id", "string", JSON_STRING},
        {"session_id", "string", JSON_STRING},
        {"documents", "list", JSON_ARRAY},
        {"metadata", "dictionary", JSON_OBJECT},
        {"store", "boolean", JSON_TRUE},
        {"spaces_between_special_tokens", "boolean", JSON_TRUE},
        {"best_of", "integer", JSON_INTEGER},
        {"length_penalty", "number", JSON_REAL},
    };
    for (size_t i = 0; i < COUNT_OF(fields); i++) {
        const json_t *j = crd_request_get(r, fields[i].name);
        json_type t = j ? json_typeof(j) : fields[i].type, want = fields[i].type;
        if (t == JSON_FALSE) t = JSON_TRUE;
        if (want == JSON_REAL && t == JSON_INTEGER) t = JSON_REAL;
        if (t != want)
            return crd_api_malformed(e, fields[i].name, "%s: Input should be a valid %s",
                                     fields[i].name, fields[i].what);
    }
    return OK;
}

static bool is_one_of(const char *name, const char *const list[], size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!strcmp(list[i], name)) return true;
    return false;
}

bool crd_options_known(const char *name)
{
    return is_one_of(name, refused, COUNT_OF(refused)) || is_one_of(name, others, COUNT_OF(others)) ||
           crd_grammar_known(name);
}

enum err crd_options_in(struct crd_request *r, const struct crd_api *api,
                        struct crd_api_error *e)
{
    enum err rc;
    TRY(stream_options(r, e));
    TRY(crd_salt_in(r, e));
    TRY(crd_grammar_in(r, api, e));
    TRY(types(r, e));
    TRY(not_yet(r, e));
    TRY(crd_prediction_in(r, e));
out:
    return rc;
}
