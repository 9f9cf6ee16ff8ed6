/* sampling_in.c: see sampling_in.h. Wording of refusals as vLLM's, because clients match on it.
 *
 * Null means absent. A number is a number: no strings, no booleans. Unknown fields are accepted and logged. */
#include "coordinator/api/sampling_in.h"
#include "base/log.h"

#include <float.h>
#include <math.h>
#include <pthread.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum where { CHAT = 1, COMPLETIONS = 2, BOTH = 3 };
enum field_type { FIELD_F32, FIELD_I32, FIELD_BOOL };

/* One field: where it may stand, what it is, what it must be, what is said when it is not, where it goes. */
struct field {
    const char *name;
    enum where where;
    enum field_type type;
    size_t to;
    double min, max;     /* inclusive, but: */
    bool above_min;      /* min itself is refused */
    const char *refusal; /* %s: the value */
};

#define TO(member) offsetof(struct crd_request, member)
static const struct field fields[] = {
    {"temperature", BOTH, FIELD_F32, TO(sampling.temperature), 0, FLT_MAX, false, "temperature must be non-negative, got %s."},
    {"top_p", BOTH, FIELD_F32, TO(sampling.top_p), 0, 1, true, "top_p must be in (0, 1], got %s."},
    {"top_k", BOTH, FIELD_I32, TO(sampling.top_k), -1, DBL_MAX, false, "top_k must be 0 (disable), or at least 1, got %s."},
    {"min_p", BOTH, FIELD_F32, TO(sampling.min_p), 0, 1, false, "min_p must be in [0, 1], got %s."},
    {"presence_penalty", BOTH, FIELD_F32, TO(sampling.presence_penalty), -2, 2, false, "presence_penalty must be in [-2, 2], got %s."},
    {"frequency_penalty", BOTH, FIELD_F32, TO(sampling.frequency_penalty), -2, 2, false, "frequency_penalty must be in [-2, 2], got %s."},
    {"repetition_penalty", BOTH, FIELD_F32, TO(sampling.repetition_penalty), 0, FLT_MAX, true, "repetition_penalty must be greater than zero, got %s."},
    {"n", BOTH, FIELD_I32, TO(n), 1, DBL_MAX, false, "n must be at least 1, got %s."},
    {"max_tokens", CHAT, FIELD_I32, TO(max_tokens), 1, DBL_MAX, false, "max_tokens must be at least 1, got %s."},
    {"max_tokens", COMPLETIONS, FIELD_I32, TO(max_tokens), 0, DBL_MAX, false, "max_tokens must be at least 1, got %s."},
    {"max_completion_tokens", BOTH, FIELD_I32, TO(max_tokens), 1, DBL_MAX, false, "max_completion_tokens must be at least 1, got %s."},
    {"min_tokens", BOTH, FIELD_I32, TO(sampling.min_tokens), 0, DBL_MAX, false, "min_tokens must be greater than or equal to 0, got %s."},
    {"truncate_prompt_tokens", BOTH, FIELD_I32, TO(truncate_prompt), -1, DBL_MAX, false, "truncate_prompt_tokens must be at least -1, got %s."},
    {"priority", BOTH, FIELD_I32, TO(priority), -DBL_MAX, DBL_MAX, false, NULL},
    {"logprobs", CHAT, FIELD_BOOL, TO(logprobs), 0, 0, false, NULL},
    {"top_logprobs", CHAT, FIELD_I32, TO(sampling.n_logprobs), 0, LIMIT_LOGPROBS, false, "top_logprobs must be in [0, 20], got %s."},
    {"logprobs", COMPLETIONS, FIELD_I32, TO(sampling.n_logprobs), 0, LIMIT_LOGPROBS, false, "logprobs must be in [0, 20], got %s."},
    {"ignore_eos", BOTH, FIELD_BOOL, TO(sampling.ignore_eos), 0, 0, false, NULL},
    {"stream", BOTH, FIELD_BOOL, TO(stream), 0, 0, false, NULL},
    {"echo", COMPLETIONS, FIELD_BOOL, TO(echo), 0, 0, false, NULL},
    {"return_token_ids", BOTH, FIELD_BOOL, TO(return_ids), 0, 0, false, NULL},
    {"return_tokens_as_token_ids", BOTH, FIELD_BOOL, TO(ids_as_names), 0, 0, false, NULL},
    {"include_stop_str_in_output", BOTH, FIELD_BOOL, TO(include_stop), 0, 0, false, NULL},
    {"skip_special_tokens", BOTH, FIELD_BOOL, TO(skip_special), 0, 0, false, NULL},
    {"add_special_tokens", BOTH, FIELD_BOOL, TO(add_special), 0, 0, false, NULL},
    {"add_generation_prompt", CHAT, FIELD_BOOL, TO(add_generation_prompt), 0, 0, false, NULL},
    {"continue_final_message", CHAT, FIELD_BOOL, TO(continue_final), 0, 0, false, NULL},
};

/* What would change the answer, and is not done yet: refused rather than ignored. */
static const char *const refused[] = {
    "structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar", "grammar", "json_schema",
    "prompt_logprobs", "allowed_token_ids", "bad_words", "use_beam_search", "suffix", "prompt_embeds", "chat_template",
    "functions", "kv_transfer_params",
};

/* Read elsewhere, or without effect on the answer. */
static const char *const others[] = {
    "model", "messages", "prompt", "seed", "stop", "stop_token_ids", "logit_bias", "stream_options", "response_format",
    "tools", "tool_choice", "chat_template_kwargs", "documents", "reasoning_effort", "user", "cache_salt", "echo",
    "best_of", "parallel_tool_calls", "length_penalty", "spaces_between_special_tokens", "request_id", "session_id",
    "store", "metadata", "service_tier", "include_reasoning",
};

static const json_t *get(const struct crd_request *r, const char *name)
{
    const json_t *j = json_object_get(r->body, name);
    return json_is_null(j) ? NULL : j;
}

/* A number as Python would show it, which is how the refusals clients know show it. */
static const char *shown(const json_t *j, bool real, char text[40])
{
    if (json_is_integer(j)) snprintf(text, 40, real ? "%" JSON_INTEGER_FORMAT ".0" : "%" JSON_INTEGER_FORMAT, json_integer_value(j));
    else snprintf(text, 40, "%.15g%s", json_real_value(j), json_real_value(j) == floor(json_real_value(j)) ? ".0" : "");
    return text;
}

static enum err number(struct crd_request *r, const struct field *f, const json_t *j, struct crd_api_error *e)
{
    char text[40];
    bool real = f->type == FIELD_F32;
    double v = json_number_value(j);
    if (!json_is_number(j) || (!real && v != floor(v)))
        return crd_api_malformed(e, f->name, "%s: Input should be a valid %s", f->name, real ? "number" : "integer");
    if (v < f->min || v > f->max || (f->above_min && v == f->min))
        return crd_api_refuse(e, 400, f->name, f->refusal, shown(j, real, text));
    if (real) {
        float x = (float)v;
        if (f->above_min && x <= (float)f->min) x = FLT_MIN; /* positive, but not in f32 */
        memcpy((char *)r + f->to, &x, sizeof x);
    } else {
        int32_t x = (int32_t)CLAMP(v, (double)INT32_MIN, (double)INT32_MAX);
        memcpy((char *)r + f->to, &x, sizeof x);
    }
    return OK;
}

static enum err one_field(struct crd_request *r, const struct field *f, struct crd_api_error *e)
{
    const json_t *j = get(r, f->name);
    if (!j || !(f->where & (r->endpoint == ENDPOINT_CHAT ? CHAT : COMPLETIONS))) return OK;
    if (f->type != FIELD_BOOL) return number(r, f, j, e);
    if (!json_is_boolean(j)) return crd_api_malformed(e, f->name, "%s: Input should be a valid boolean", f->name);
    bool b = json_is_true(j);
    memcpy((char *)r + f->to, &b, sizeof b);
    return OK;
}

static enum err seed(struct crd_request *r, struct crd_api_error *e)
{
    const json_t *j = get(r, "seed");
    if (j && !json_is_integer(j)) return crd_api_malformed(e, "seed", "seed: Input should be a valid integer");
    r->sampling.seed = (uint64_t)json_integer_value(j);
    if (j) return OK;
    ssize_t n = getrandom(&r->sampling.seed, sizeof r->sampling.seed, 0); /* once: what follows is a function of it */
    ASSERT(n == sizeof r->sampling.seed);
    return OK;
}

static enum err one_stop(struct crd_request *r, const json_t *j, struct crd_api_error *e)
{
    const char *s = json_string_value(j);
    if (!s) return crd_api_malformed(e, "stop", "stop: Input should be a string or a list of strings");
    if (!*s) return crd_api_refuse(e, 400, "stop", "stop cannot contain an empty string.");
    if (r->n_stops == REQUEST_MAX_STOPS)
        return crd_api_refuse(e, 400, "stop", "stop may contain at most %d strings.", REQUEST_MAX_STOPS);
    r->stops[r->n_stops++] = s;
    return OK;
}

static enum err stops(struct crd_request *r, struct crd_api_error *e)
{
    const json_t *j = get(r, "stop"), *item;
    size_t i;
    enum err rc = OK;
    if (j && !json_is_array(j)) return one_stop(r, j, e);
    json_array_foreach(j, i, item) TRY(one_stop(r, item, e));
out:
    return rc;
}

static enum err stop_ids(struct crd_request *r, const struct crd_api *api, struct crd_api_error *e)
{
    struct sampling *s = &r->sampling;
    const json_t *list = get(r, "stop_token_ids"), *j;
    size_t i;
    if (list && !json_is_array(list)) return crd_api_malformed(e, "stop_token_ids", "stop_token_ids: Input should be a valid list");
    if (!s->ignore_eos) s->n_stop_ids = r->n_eog = eng_tokenizer_eog(api->tokenizer, s->stop_ids, LIMIT_STOP_IDS / 2);
    json_array_foreach(list, i, j)
    {
        json_int_t id = json_integer_value(j);
        if (!json_is_integer(j))
            return crd_api_malformed(e, "stop_token_ids", "stop_token_ids.%zu: Input should be a valid integer", i);
        if (id < 0 || id >= eng_tokenizer_size(api->tokenizer))
            return crd_api_refuse(e, 400, "stop_token_ids", "stop_token_ids contains the id %" JSON_INTEGER_FORMAT
                                  ", which is out of vocabulary. Vocabulary size: %d", id, eng_tokenizer_size(api->tokenizer));
        if (s->n_stop_ids == LIMIT_STOP_IDS)
            return crd_api_refuse(e, 400, "stop_token_ids", "stop_token_ids may contain at most %d ids.",
                                  LIMIT_STOP_IDS - r->n_eog);
        s->stop_ids[s->n_stop_ids++] = (int32_t)id;
    }
    return OK;
}

static enum err one_bias(struct crd_request *r, const struct crd_api *api, const char *key, const json_t *j,
                         struct crd_api_error *e)
{
    char *end;
    long long id = strtoll(key, &end, 10);
    if (!*key || *end || *key == ' ')
        return crd_api_refuse(e, 400, "logit_bias", "logit_bias contains key(s) that cannot be converted to integer token IDs");
    if (!json_is_number(j))
        return crd_api_malformed(e, "logit_bias", "logit_bias.%s: Input should be a valid number", key);
    if (id < 0 || id >= eng_tokenizer_size(api->tokenizer))
        return crd_api_refuse(e, 400, "logit_bias", "token_id(s) [%lld] in logit_bias contain out-of-vocab token ids. "
                              "Vocabulary size: %d", id, eng_tokenizer_size(api->tokenizer));
    r->sampling.bias[r->sampling.n_bias++] =
        (struct logit_bias){(int32_t)id, (float)CLAMP(json_number_value(j), -100, 100)};
    return OK;
}

static enum err bias(struct crd_request *r, const struct crd_api *api, struct crd_api_error *e)
{
    json_t *list = json_object_get(r->body, "logit_bias"), *j;
    const char *key;
    enum err rc = OK;
    if (!list || json_is_null(list)) return OK;
    if (!json_is_object(list)) return crd_api_malformed(e, "logit_bias", "logit_bias: Input should be a valid dictionary");
    if (json_object_size(list) > LIMIT_LOGIT_BIAS)
        return crd_api_refuse(e, 400, "logit_bias", "logit_bias may contain at most %d tokens.", LIMIT_LOGIT_BIAS);
    r->sampling.bias = xcalloc(json_object_size(list) + 1, sizeof *r->sampling.bias);
    json_object_foreach(list, key, j) TRY(one_bias(r, api, key, j, e));
out:
    return rc;
}

static enum err stream_options(struct crd_request *r, struct crd_api_error *e)
{
    const json_t *o = get(r, "stream_options");
    if (!o) return OK;
    if (!json_is_object(o)) return crd_api_malformed(e, "stream_options", "stream_options: Input should be a valid dictionary");
    if (!r->stream)
        return crd_api_refuse(e, 400, "stream_options", "Stream options can only be defined when `stream=True`.");
    r->include_usage = json_is_true(json_object_get(o, "include_usage"));
    r->continuous_usage = r->include_usage && json_is_true(json_object_get(o, "continuous_usage_stats"));
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

static enum err cache_salt(struct crd_request *r, struct crd_api_error *e)
{
    const json_t *j = get(r, "cache_salt");
    const char *s = json_string_value(j);
    if (!j) return OK;
    if (!s || !*s || strlen(s) > REQUEST_MAX_SALT || strpbrk(s, "@/\\"))
        return crd_api_refuse(e, 400, "cache_salt", "Parameter 'cache_salt' must be a non-empty string of at most %d bytes "
                              "without '@', '/' and '\\' if provided.", REQUEST_MAX_SALT);
    pthread_once(&salt_once, draw_salt_key);
    crypto_shorthash((unsigned char *)&r->cache_salt, (const unsigned char *)s, strlen(s), salt_key);
    r->cache_salt |= 1; /* 0 means none */
    return OK;
}

static enum err response_format(struct crd_request *r, struct crd_api_error *e)
{
    const json_t *f = get(r, "response_format");
    const char *type = json_string_value(json_object_get(f, "type"));
    if (!f) return OK;
    if (!type) return crd_api_malformed(e, "response_format", "response_format.type: Field required");
    if (!strcmp(type, "text")) return OK;
    if (!strcmp(type, "json_schema") && !json_is_object(json_object_get(f, "json_schema")))
        return crd_api_refuse(e, 400, "response_format",
                              "When response_format type is 'json_schema', the 'json_schema' field must be provided.");
    return crd_api_refuse(e, 400, "response_format", "response_format type '%s' is not supported yet.", type);
}

static bool falsy(const json_t *j)
{
    return !j || json_is_null(j) || json_is_false(j) || (json_is_array(j) && !json_array_size(j)) ||
           (json_is_object(j) && !json_object_size(j)) || (json_is_string(j) && !json_string_length(j));
}

static enum err not_yet(struct crd_request *r, struct crd_api_error *e)
{
    for (size_t i = 0; i < COUNT_OF(refused); i++)
        if (!falsy(get(r, refused[i]))) return crd_api_refuse(e, 400, refused[i], "%s is not supported yet.", refused[i]);
    const json_t *best = get(r, "best_of");
    if (best && json_integer_value(best) != r->n)
        return crd_api_refuse(e, 400, "best_of", "best_of other than n is not supported.");
    return OK;
}

static bool is_known(const char *name)
{
    for (size_t i = 0; i < COUNT_OF(fields); i++)
        if (!strcmp(fields[i].name, name)) return true;
    for (size_t i = 0; i < COUNT_OF(refused); i++)
        if (!strcmp(refused[i], name)) return true;
    for (size_t i = 0; i < COUNT_OF(others); i++)
        if (!strcmp(others[i], name)) return true;
    return false;
}

static void log_unknown(const struct crd_request *r)
{
    const char *key;
    json_t *j;
    json_object_foreach(r->body, key, j)
        if (!is_known(key)) log_debug("api", "field \"%.64s\" was present in the request but ignored", key);
}

/* What one field means for another. */
static enum err together(struct crd_request *r, const struct crd_api *api, struct crd_api_error *e)
{
    struct sampling *s = &r->sampling;
    if (r->n > api->max_n) return crd_api_refuse(e, 400, "n", "n must be at most %d, got %d.", api->max_n, r->n);
    if (r->endpoint == ENDPOINT_CHAT) {
        if (s->n_logprobs >= 0 && !r->logprobs)
            return crd_api_refuse(e, 400, "top_logprobs", "when using `top_logprobs`, `logprobs` must be set to true.");
        if (r->logprobs) s->n_logprobs = MAX(s->n_logprobs, 0);
        if (r->add_generation_prompt && r->continue_final)
            return crd_api_refuse(e, 400, "continue_final_message",
                                  "Cannot set both `continue_final_message` and `add_generation_prompt` to True.");
    }
    r->logprobs = s->n_logprobs >= 0;
    r->score_only = r->max_tokens == 0;
    if (r->score_only && !r->echo) return crd_api_refuse(e, 400, "max_tokens", "max_tokens must be at least 1, got 0.");
    if (s->top_k < 0) s->top_k = 0;
    if (s->temperature < 1e-5f) s->temperature = 0;           /* as vLLM: greedy, */
    else if (s->temperature < 1e-2f) s->temperature = 1e-2f;  /* or warm enough that logits / temperature is finite */
    return OK;
}

enum err crd_sampling_in(struct crd_request *r, const struct crd_api *api, struct crd_api_error *e)
{
    enum err rc = OK;
    bool chat = r->endpoint == ENDPOINT_CHAT;
    r->n = 1;
    r->max_tokens = r->truncate_prompt = -1;
    r->add_generation_prompt = r->skip_special = true;
    r->add_special = !chat; /* templates write their own BOS */
    for (size_t i = 0; i < COUNT_OF(fields); i++) TRY(one_field(r, &fields[i], e));
    TRY(seed(r, e));
    TRY(stops(r, e));
    TRY(stop_ids(r, api, e));
    TRY(bias(r, api, e));
    TRY(stream_options(r, e));
    TRY(cache_salt(r, e));
    TRY(response_format(r, e));
    TRY(not_yet(r, e));
    TRY(together(r, api, e));
    log_unknown(r);
out:
    return rc;
}

enum err crd_sampling_fit(struct crd_request *r, const struct crd_api *api, int64_t n_prompt, struct crd_api_error *e)
{
    struct sampling *s = &r->sampling;
    int32_t context = crd_request_context(api);
    int64_t room = context - n_prompt, asked = r->max_tokens;
    if (room <= 0)
        return crd_api_refuse(e, 400, "input_tokens", "This model's maximum context length is %d tokens. However, your "
                              "request has %lld input tokens. Please reduce the length of the input messages.",
                              context, (long long)n_prompt);
    if (asked > room)
        return crd_api_refuse(e, 400, "max_tokens", "'max_tokens' or 'max_completion_tokens' is too large: %lld. This "
                              "model's maximum context length is %d tokens and your request has %lld input tokens "
                              "(%lld > %d - %lld).", (long long)asked, context, (long long)n_prompt,
                              (long long)asked, context, (long long)n_prompt);
    if (asked < 0) asked = r->endpoint == ENDPOINT_CHAT ? room : MIN(room, 16);
    s->max_tokens = (int32_t)MAX(asked, 1);
    if (s->min_tokens > s->max_tokens)
        return crd_api_refuse(e, 400, "min_tokens", "min_tokens must be less than or equal to max_tokens=%d, got %d.",
                              s->max_tokens, s->min_tokens);
    return OK;
}
