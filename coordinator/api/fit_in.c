/* fit_in.c: does the prompt fit, and how much room is left for the answer? */
#include "coordinator/api/calls_grammar.h"
#include "coordinator/api/sampling_in.h"

int32_t crd_request_context(const struct crd_api *api)
{
    struct service_status st = {0};
    if (api->service.ops) api->service.ops->status(api->service.self, &st);
    return st.max_context > 0 ? MIN(st.max_context, api->max_context) : api->max_context;
}

enum err crd_sampling_fit(struct crd_request *r, const struct crd_api *api, int64_t n_prompt,
                          struct crd_api_error *e)
{
    struct sampling *s = &r->sampling;
    int32_t context = crd_request_context(api);
    int64_t room = context - n_prompt, asked = r->max_tokens;
    if (room <= 0)
        return crd_api_refuse(
            e, 400, "input_tokens",
            "This model's maximum context length is %d tokens. However, your "
            "request has %lld input tokens. Please reduce the length of the input messages.",
            context, (long long)n_prompt);
    if (asked > room) {
        const char *field = crd_request_get(r, "max_completion_tokens") ? "max_completion_tokens"
                                                                        : "max_tokens";
        return crd_api_refuse(
            e, 400, field,
            "%s is too large: %lld. This "
            "model's maximum context length is %d tokens and your request has %lld input tokens "
            "(%lld > %d - %lld).",
            field, (long long)asked, context, (long long)n_prompt, (long long)asked, context,
            (long long)n_prompt);
    }
    if (asked < 0) asked = r->chat ? room : MIN(room, 16);
    s->max_tokens = (int32_t)MAX(asked, 1);
    int32_t need = r->forced ? crd_calls_need(r, api) : 0;
    if (need > s->max_tokens)
        return crd_api_refuse(e, 400, "max_tokens",
                              "max_tokens is %d, but the shortest call of a tool offered takes %d "
                              "tokens: raise max_tokens, or shorten the prompt.",
                              s->max_tokens, need);
    if (s->min_tokens > s->max_tokens)
        return crd_api_refuse(e, 400, "min_tokens",
                              "min_tokens must be less than or equal to max_tokens=%d, got %d.",
                              s->max_tokens, s->min_tokens);
    return OK;
}
