/* bans_in.c: the fields that bar tokens: bad_words, allowed_token_ids, DRY's sequence breakers, the
 * budget of thoughts. */
#include "coordinator/api/sampling_in.h"

#include <stdlib.h>
#include <string.h>

/* ---- bad_words ---- */

/* The ids of a text in *out; its run is added unless there is no room. */
static bool add_run(struct sampling *s, const struct eng_tokens *ids)
{
    if (s->n_bad + 1 + (int64_t)ids->n > LIMIT_BAD_IDS) return false;
    s->bad = xrealloc(s->bad, ((size_t)s->n_bad + 1 + ids->n) * sizeof *s->bad);
    s->bad[s->n_bad++] = (int32_t)ids->n;
    for (size_t i = 0; i < ids->n; i++) s->bad[s->n_bad++] = ids->ids[i];
    return true;
}

/* As it stands at the beginning of a text, and, where that is another token, behind a space. */
static bool add_word(struct crd_request *r, const struct crd_api *api, const char *word)
{
    struct eng_tokens plain = {0}, spaced = {0};
    struct buf text = {0};
    while (*word == ' ') word++;
    buf_printf(&text, " %s", word);
    eng_tokenizer_encode(api->tokenizer, buf_str(&text) + 1, text.len - 1, 0, &plain);
    eng_tokenizer_encode(api->tokenizer, buf_str(&text), text.len, 0, &spaced);
    bool good = !plain.n || add_run(&r->sampling, &plain);
    if (good && plain.n && spaced.n == plain.n && spaced.ids[0] != plain.ids[0])
        good = add_run(&r->sampling, &spaced);
    eng_tokens_free(&plain);
    eng_tokens_free(&spaced);
    buf_free(&text);
    return good;
}

static enum err bad_words(struct crd_request *r, const struct crd_api *api, struct crd_api_error *e)
{
    const json_t *list = crd_request_get(r, "bad_words"), *j;
    size_t i;
    if (list && !json_is_array(list))
        return crd_api_malformed(e, "bad_words", "bad_words: Input should be a valid list");
    json_array_foreach((json_t *)(uintptr_t)list, i, j)
    {
        if (!json_is_string(j))
            return crd_api_malformed(e, "bad_words",
                                     "bad_words.%zu: Input should be a valid string", i);
        if (!json_string_length(j))
            return crd_api_refuse(e, 400, "bad_words", "bad_words cannot contain an empty string.");
        if (!add_word(r, api, json_string_value(j)))
            return crd_api_refuse(e, 400, "bad_words",
                                  "bad_words may have at most %d tokens in all.", LIMIT_BAD_IDS);
    }
    return OK;
}

/* ---- allowed_token_ids ---- */

static enum err allowed(struct crd_request *r, const struct crd_api *api, struct crd_api_error *e)
{
    struct sampling *s = &r->sampling;
    const json_t *list = crd_request_get(r, "allowed_token_ids"), *j;
    size_t i;
    if (!list) return OK;
    if (!json_is_array(list))
        return crd_api_malformed(e, "allowed_token_ids",
                                 "allowed_token_ids: Input should be a valid list");
    if (!json_array_size(list))
        return crd_api_refuse(e, 400, "allowed_token_ids",
                              "allowed_token_ids is not None and empty!");
    if (json_array_size(list) > LIMIT_ALLOWED_IDS)
        return crd_api_refuse(e, 400, "allowed_token_ids",
                              "allowed_token_ids may contain at most %d ids.", LIMIT_ALLOWED_IDS);
    s->allowed = xcalloc(json_array_size(list), sizeof *s->allowed);
    json_array_foreach((json_t *)(uintptr_t)list, i, j)
    {
        json_int_t id = json_integer_value(j);
        if (!json_is_integer(j))
            return crd_api_malformed(e, "allowed_token_ids",
                                     "allowed_token_ids.%zu: Input should be a valid integer", i);
        if (id < 0 || id >= eng_tokenizer_size(api->tokenizer))
            return crd_api_refuse(e, 400, "allowed_token_ids",
                                  "allowed_token_ids contains out-of-vocab token id!");
        s->allowed[s->n_allowed++] = (int32_t)id;
    }
    return OK;
}

/* ---- DRY ---- */

static bool add_breaker(struct sampling *s, const char *text, size_t n)
{
    if (n > UINT8_MAX || s->n_breakers + 1 + (int64_t)n > LIMIT_BREAKER_BYTES) return false;
    s->breakers = xrealloc(s->breakers, (size_t)s->n_breakers + 1 + n);
    s->breakers[s->n_breakers++] = (char)n;
    memcpy(s->breakers + s->n_breakers, text, n);
    s->n_breakers += (int32_t)n;
    return true;
}

static enum err breakers(struct crd_request *r, struct crd_api_error *e)
{
    static const char *const usual[] = {"\n", ":", "\"", "*"};
    const json_t *list = crd_request_get(r, "dry_sequence_breakers"), *j;
    size_t i;
    if (list && !json_is_array(list))
        return crd_api_malformed(e, "dry_sequence_breakers",
                                 "dry_sequence_breakers: Input should be a valid list");
    json_array_foreach((json_t *)(uintptr_t)list, i, j)
    {
        if (!json_is_string(j) || !json_string_length(j))
            return crd_api_malformed(e, "dry_sequence_breakers",
                                     "dry_sequence_breakers.%zu: Input should be a string that is "
                                     "not empty",
                                     i);
        if (!add_breaker(&r->sampling, json_string_value(j), json_string_length(j)))
            return crd_api_refuse(e, 400, "dry_sequence_breakers",
                                  "dry_sequence_breakers may have at most %d bytes in all, and %d "
                                  "each.",
                                  LIMIT_BREAKER_BYTES, UINT8_MAX);
    }
    if (!sampling_dry(&r->sampling)) r->sampling.n_breakers = 0;
    for (i = 0; !list && sampling_dry(&r->sampling) && i < COUNT_OF(usual); i++)
        (void)add_breaker(&r->sampling, usual[i], strlen(usual[i]));
    return OK;
}

/* ---- thoughts ---- */

static int32_t mark_ids(const struct crd_api *api, const char *mark, int32_t ids[LIMIT_THINK_IDS])
{
    struct eng_tokens t = {0};
    eng_tokenizer_encode(api->tokenizer, mark, strlen(mark), TOKENIZE_PARSE_SPECIAL, &t);
    int32_t n = t.n <= LIMIT_THINK_IDS ? (int32_t)t.n : 0;
    for (int32_t i = 0; i < n; i++) ids[i] = t.ids[i];
    eng_tokens_free(&t);
    return n;
}

void crd_thinking_in(struct crd_request *r, const struct crd_api *api)
{
    struct sampling *s = &r->sampling;
    const struct crd_think_style *t = r->reply.think;
    if (s->think_budget < 0) return;
    if (t) {
        s->n_think_open = mark_ids(api, t->open, s->think_open);
        s->n_think_close = mark_ids(api, t->close, s->think_close);
    }
    s->thinking = r->reply.thinking;
    if (!s->n_think_close) s->think_budget = -1; /* no thoughts, nothing to bound */
}

enum err crd_bans_in(struct crd_request *r, const struct crd_api *api, struct crd_api_error *e)
{
    enum err rc;
    TRY(bad_words(r, api, e));
    TRY(allowed(r, api, e));
    TRY(breakers(r, e));
out:
    return rc;
}
