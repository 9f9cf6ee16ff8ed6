/* completions_in.c: see completions_in.h. */
#include "coordinator/api/completions_in.h"

#include <stdlib.h>
#include <string.h>

static enum err empty(const char *field, struct crd_api_error *e)
{
    return crd_api_refuse(e, 400, field, "%s must be provided and non-empty.", field);
}

static enum err wrong_type(const char *field, struct crd_api_error *e)
{
    return crd_api_malformed(
        e, field,
        "%s: Input should be a string, a list of strings, a list of token ids or a "
        "list of lists of token ids",
        field);
}

static enum err take_ids(struct crd_prompt *p, const struct crd_api *api, const char *field,
                         const json_t *list, struct crd_api_error *e)
{
    const json_t *j;
    size_t i;
    if (!json_array_size(list)) return empty(field, e);
    json_array_foreach(list, i, j)
    {
        json_int_t id = json_integer_value(j);
        if (!json_is_integer(j)) return wrong_type(field, e);
        if (id < 0 || id >= eng_tokenizer_size(api->tokenizer))
            return crd_api_refuse(e, 400, field,
                                  "Token id %" JSON_INTEGER_FORMAT " is out of vocabulary", id);
        eng_tokens_push(&p->tokens, (int32_t)id);
    }
    return OK;
}

static enum err take_one(struct crd_request *r, const struct crd_api *api, const char *field,
                         const json_t *j, struct crd_api_error *e)
{
    struct crd_prompt *p = &r->prompts[r->n_prompts++];
    if (json_is_array(j)) return take_ids(p, api, field, j, e);
    if (!json_is_string(j)) return wrong_type(field, e);
    if (!json_string_length(j)) return empty(field, e);
    p->n_text = json_string_length(j);
    p->text = xstrndup(json_string_value(j), p->n_text);
    p->add_special = r->add_special;
    return OK;
}

enum err crd_completions_in(struct crd_request *r, const struct crd_api *api,
                            struct crd_api_error *e)
{
    return crd_prompts_in(r, api, "prompt", REQUEST_MAX_PROMPTS, e);
}

enum err crd_prompts_in(struct crd_request *r, const struct crd_api *api, const char *field,
                        size_t most, struct crd_api_error *e)
{
    const json_t *given = json_object_get(r->body, field), *j;
    size_t i;
    enum err rc = OK;
    if (!given || json_is_null(given)) return empty(field, e);
    bool many = json_is_array(given) && !json_is_integer(json_array_get(given, 0));
    size_t n = many ? json_array_size(given) : 1;
    if (!n) return empty(field, e);
    if (n > most)
        return crd_api_refuse(e, 400, field, "%s may contain at most %zu prompts, got %zu.", field,
                              most, n);
    r->prompts = xcalloc(n, sizeof *r->prompts);
    if (!many) return take_one(r, api, field, given, e);
    json_array_foreach(given, i, j) TRY(take_one(r, api, field, j, e));
out:
    return rc;
}

/* How many of a prompt's last tokens are kept. */
static size_t most_kept(const struct crd_request *r, const struct crd_api *api)
{
    if (r->truncate_prompt == REQUEST_NO_TRUNCATION) return SIZE_MAX;
    if (r->truncate_prompt >= 0) return (size_t)r->truncate_prompt;
    return (size_t)MAX(crd_request_context(api) - MAX(r->max_tokens, 1), 1);
}

static void keep_last(struct eng_tokens *t, size_t keep)
{
    if (t->n <= keep) return;
    memmove(t->ids, t->ids + (t->n - keep), keep * sizeof *t->ids);
    t->n = keep;
}

enum err crd_prompts_tokenize(struct crd_request *r, const struct crd_api *api,
                              struct crd_api_error *e)
{
    for (int32_t i = 0; i < r->n_prompts; i++) {
        struct crd_prompt *p = &r->prompts[i];
        unsigned flags = TOKENIZE_PARSE_SPECIAL | (p->add_special ? TOKENIZE_ADD_SPECIAL : 0);
        if (p->text) eng_tokenizer_encode(api->tokenizer, p->text, p->n_text, flags, &p->tokens);
        keep_last(&p->tokens, most_kept(r, api));
        if (!p->tokens.n) return crd_api_refuse(e, 400, NULL, "The prompt has no tokens.");
    }
    return OK;
}
