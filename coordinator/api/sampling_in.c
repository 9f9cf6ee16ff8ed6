/* sampling_in.c: see sampling_in.h. Wording of refusals as vLLM's, because clients match on it.
 *
 * Null means absent. A number is a number: no strings, no booleans. Unknown fields are accepted and
 * logged. */
#include "coordinator/api/sampling_in.h"
#include "base/log.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

enum where { CHAT = 1, COMPLETIONS = 2, BOTH = 3 };
enum field_type { FIELD_F32, FIELD_I32, FIELD_BOOL };

/* One field: where it may stand, what it is, what it must be, what is said when it is not, where it
 * goes. */
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
    {"temperature", BOTH, FIELD_F32, TO(sampling.temperature), 0, FLT_MAX, false,
     "temperature must be non-negative, got %s."},
    {"top_p", BOTH, FIELD_F32, TO(sampling.top_p), 0, 1, true, "top_p must be in (0, 1], got %s."},
    {"top_k", BOTH, FIELD_I32, TO(sampling.top_k), -1, DBL_MAX, false,
     "top_k must be 0 (disable), or at least 1, got %s."},
    {"min_p", BOTH, FIELD_F32, TO(sampling.min_p), 0, 1, false, "min_p must be in [0, 1], got %s."},
    {"presence_penalty", BOTH, FIELD_F32, TO(sampling.presence_penalty), -2, 2, false,
     "presence_penalty must be in [-2, 2], got %s."},
    {"frequency_penalty", BOTH, FIELD_F32, TO(sampling.frequency_penalty), -2, 2, false,
     "frequency_penalty must be in [-2, 2], got %s."},
    {"repetition_penalty", BOTH, FIELD_F32, TO(sampling.repetition_penalty), 0, FLT_MAX, true,
     "repetition_penalty must be greater than zero, got %s."},
    {"repeat_penalty", BOTH, FIELD_F32, TO(sampling.repetition_penalty), 0, FLT_MAX, true,
     "repeat_penalty must be greater than zero, got %s."},
    {"repeat_last_n", BOTH, FIELD_I32, TO(sampling.penalty_last_n), -1, DBL_MAX, false,
     "repeat_last_n must be at least -1, got %s."},
    {"typical_p", BOTH, FIELD_F32, TO(sampling.typical_p), 0, 1, true,
     "typical_p must be in (0, 1], got %s."},
    {"xtc_probability", BOTH, FIELD_F32, TO(sampling.xtc_probability), 0, 1, false,
     "xtc_probability must be in [0, 1], got %s."},
    {"xtc_threshold", BOTH, FIELD_F32, TO(sampling.xtc_threshold), 0, 1, false,
     "xtc_threshold must be in [0, 1], got %s."},
    {"dry_multiplier", BOTH, FIELD_F32, TO(sampling.dry_multiplier), 0, FLT_MAX, false,
     "dry_multiplier must be non-negative, got %s."},
    {"dry_base", BOTH, FIELD_F32, TO(sampling.dry_base), 1, FLT_MAX, false,
     "dry_base must be at least 1, got %s."},
    {"dry_allowed_length", BOTH, FIELD_I32, TO(sampling.dry_allowed_length), 0, DBL_MAX, false,
     "dry_allowed_length must be non-negative, got %s."},
    {"dry_penalty_last_n", BOTH, FIELD_I32, TO(sampling.dry_last_n), -1, DBL_MAX, false,
     "dry_penalty_last_n must be at least -1, got %s."},
    {"thinking_token_budget", CHAT, FIELD_I32, TO(sampling.think_budget), 0, DBL_MAX, false,
     "thinking_token_budget must be non-negative, got %s."},
    {"prompt_logprobs", BOTH, FIELD_I32, TO(prompt_logprobs), 0, LIMIT_LOGPROBS, false,
     "prompt_logprobs must be in [0, 20], got %s."},
    {"best_of", COMPLETIONS, FIELD_I32, TO(best_of), 1, DBL_MAX, false,
     "best_of must be at least 1, got %s."},
    {"n", BOTH, FIELD_I32, TO(n), 1, DBL_MAX, false, "n must be at least 1, got %s."},
    {"max_tokens", CHAT, FIELD_I32, TO(max_tokens), 1, DBL_MAX, false,
     "max_tokens must be at least 1, got %s."},
    {"max_tokens", COMPLETIONS, FIELD_I32, TO(max_tokens), 0, DBL_MAX, false,
     "max_tokens must be at least 1, got %s."},
    {"max_completion_tokens", BOTH, FIELD_I32, TO(max_tokens), 1, DBL_MAX, false,
     "max_completion_tokens must be at least 1, got %s."},
    {"min_tokens", BOTH, FIELD_I32, TO(sampling.min_tokens), 0, DBL_MAX, false,
     "min_tokens must be greater than or equal to 0, got %s."},
    {"truncate_prompt_tokens", BOTH, FIELD_I32, TO(truncate_prompt), -1, DBL_MAX, false,
     "truncate_prompt_tokens must be at least -1, got %s."},
    {"priority", BOTH, FIELD_I32, TO(priority), -DBL_MAX, DBL_MAX, false, NULL},
    {"logprobs", CHAT, FIELD_BOOL, TO(logprobs), 0, 0, false, NULL},
    {"top_logprobs", CHAT, FIELD_I32, TO(sampling.n_logprobs), 0, LIMIT_LOGPROBS, false,
     "top_logprobs must be in [0, 20], got %s."},
    {"logprobs", COMPLETIONS, FIELD_I32, TO(sampling.n_logprobs), 0, LIMIT_LOGPROBS, false,
     "logprobs must be in [0, 20], got %s."},
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

/* A number as Python would show it, which is how the refusals clients know show it. */
static const char *shown(const json_t *j, bool real, char text[40])
{
    if (json_is_integer(j))
        snprintf(text, 40, real ? "%" JSON_INTEGER_FORMAT ".0" : "%" JSON_INTEGER_FORMAT,
                 json_integer_value(j));
    else
        snprintf(text, 40, "%.15g", json_real_value(j));
    if (!json_is_integer(j) && !strpbrk(text, ".e")) strcat(text, ".0");
    return text;
}

static enum err number(struct crd_request *r, const struct field *f, const json_t *j,
                       struct crd_api_error *e)
{
    char text[40];
    bool real = f->type == FIELD_F32;
    double v = json_number_value(j);
    if (real && f->max == FLT_MAX) v = MIN(v, FLT_MAX); /* as good as any number beyond */
    if (!json_is_number(j) || (!real && v != floor(v)))
        return crd_api_malformed(e, f->name, "%s: Input should be a valid %s", f->name,
                                 real ? "number" : "integer");
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
    const json_t *j = crd_request_get(r, f->name);
    if (!j || !(f->where & (r->chat ? CHAT : COMPLETIONS))) return OK;
    if (f->type != FIELD_BOOL) return number(r, f, j, e);
    if (!json_is_boolean(j))
        return crd_api_malformed(e, f->name, "%s: Input should be a valid boolean", f->name);
    bool b = json_is_true(j);
    memcpy((char *)r + f->to, &b, sizeof b);
    return OK;
}

static enum err seed(struct crd_request *r, struct crd_api_error *e)
{
    const json_t *j = crd_request_get(r, "seed");
    if (j && !json_is_integer(j))
        return crd_api_malformed(e, "seed", "seed: Input should be a valid integer");
    r->sampling.seed = (uint64_t)json_integer_value(j);
    if (j) return OK;
    ssize_t n = getrandom(&r->sampling.seed, sizeof r->sampling.seed,
                          0); /* once: what follows is a function of it */
    ASSERT(n == sizeof r->sampling.seed);
    return OK;
}

static void log_unknown(const struct crd_request *r)
{
    const char *key;
    json_t *j;
    json_object_foreach(r->body, key, j)
    {
        bool known = crd_options_known(key);
        for (size_t i = 0; i < COUNT_OF(fields) && !known; i++)
            known = !strcmp(fields[i].name, key);
        if (!known) log_debug("api", "field \"%.64s\" was present in the request but ignored", key);
    }
}

/* What one field means for another. */
static enum err together(struct crd_request *r, const struct crd_api *api, struct crd_api_error *e)
{
    enum err rc = OK;
    struct sampling *s = &r->sampling;
    if (r->n > api->max_n)
        return crd_api_refuse(e, 400, "n", "n must be at most %d, got %d.", api->max_n, r->n);
    if (r->chat) {
        if (s->n_logprobs >= 0 && !r->logprobs)
            return crd_api_refuse(e, 400, "top_logprobs",
                                  "when using `top_logprobs`, `logprobs` must be set to true.");
        if (r->logprobs) s->n_logprobs = MAX(s->n_logprobs, 0);
        if (r->add_generation_prompt && r->continue_final)
            return crd_api_refuse(
                e, 400, "continue_final_message",
                "Cannot set both `continue_final_message` and `add_generation_prompt` to True.");
    }
    r->logprobs = s->n_logprobs >= 0;
    r->score_only = r->max_tokens == 0;
    if (r->score_only && !r->echo)
        return crd_api_refuse(e, 400, "max_tokens", "max_tokens must be at least 1, got 0.");
    if (r->prompt_logprobs >= 0 && r->stream)
        return crd_api_refuse(e, 400, "prompt_logprobs",
                              "`prompt_logprobs` are not available when `stream=True`.");
    s->n_prompt_logprobs = MAX(r->prompt_logprobs, r->echo ? s->n_logprobs : -1);
    TRY(crd_best_of_in(r, api, e));
    if (s->top_k < 0) s->top_k = 0;
    if (s->temperature < 1e-5f)
        s->temperature = 0; /* as vLLM: greedy, */
    else if (s->temperature < 1e-2f)
        s->temperature = 1e-2f; /* or warm enough that logits / temperature is finite */
out:
    return rc;
}

enum err crd_sampling_in(struct crd_request *r, const struct crd_api *api, struct crd_api_error *e)
{
    enum err rc = OK;
    bool chat = r->chat;
    r->n = 1;
    r->max_tokens = r->prompt_logprobs = r->best_of = -1;
    r->truncate_prompt = REQUEST_NO_TRUNCATION;
    r->add_generation_prompt = r->skip_special = true;
    r->add_special = !chat; /* templates write their own BOS */
    for (size_t i = 0; i < COUNT_OF(fields); i++) TRY(one_field(r, &fields[i], e));
    TRY(seed(r, e));
    TRY(crd_lists_in(r, api, e));
    TRY(crd_bans_in(r, api, e));
    TRY(crd_options_in(r, api, e));
    TRY(together(r, api, e));
    log_unknown(r);
out:
    return rc;
}
