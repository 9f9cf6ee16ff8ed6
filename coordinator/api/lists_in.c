/* lists_in.c: the fields that are lists: stop strings, stop ids, biases. */
#include "coordinator/api/sampling_in.h"

#include <stdlib.h>

static enum err one_stop(struct crd_request *r, const json_t *j, struct crd_api_error *e)
{
    const char *s = json_string_value(j);
    if (!s)
        return crd_api_malformed(e, "stop", "stop: Input should be a string or a list of strings");
    if (!*s) return crd_api_refuse(e, 400, "stop", "stop cannot contain an empty string.");
    if (r->n_stops == REQUEST_MAX_STOPS)
        return crd_api_refuse(e, 400, "stop", "stop may contain at most %d strings.",
                              REQUEST_MAX_STOPS);
    r->stops[r->n_stops++] = s;
    return OK;
}

static enum err stops(struct crd_request *r, struct crd_api_error *e)
{
    const json_t *j = crd_request_get(r, "stop"), *item;
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
    const json_t *list = crd_request_get(r, "stop_token_ids"), *j;
    size_t i;
    if (list && !json_is_array(list))
        return crd_api_malformed(e, "stop_token_ids",
                                 "stop_token_ids: Input should be a valid list");
    if (!s->ignore_eos)
        s->n_stop_ids = r->n_eog =
            eng_tokenizer_eog(api->tokenizer, s->stop_ids, LIMIT_STOP_IDS / 2);
    json_array_foreach(list, i, j)
    {
        json_int_t id = json_integer_value(j);
        if (!json_is_integer(j))
            return crd_api_malformed(e, "stop_token_ids",
                                     "stop_token_ids.%zu: Input should be a valid integer", i);
        if (id < 0 || id >= eng_tokenizer_size(api->tokenizer))
            return crd_api_refuse(e, 400, "stop_token_ids",
                                  "stop_token_ids contains the id %" JSON_INTEGER_FORMAT
                                  ", which is out of vocabulary. Vocabulary size: %d",
                                  id, eng_tokenizer_size(api->tokenizer));
        if (s->n_stop_ids == LIMIT_STOP_IDS)
            return crd_api_refuse(e, 400, "stop_token_ids",
                                  "stop_token_ids may contain at most %d ids.",
                                  LIMIT_STOP_IDS - r->n_eog);
        s->stop_ids[s->n_stop_ids++] = (int32_t)id;
    }
    return OK;
}

static enum err one_bias(struct crd_request *r, const struct crd_api *api, const char *key,
                         const json_t *j, struct crd_api_error *e)
{
    char *end;
    long long id = strtoll(key, &end, 10);
    if (!*key || *end || *key == ' ')
        return crd_api_refuse(
            e, 400, "logit_bias",
            "logit_bias contains key(s) that cannot be converted to integer token IDs");
    if (!json_is_number(j))
        return crd_api_malformed(e, "logit_bias", "logit_bias.%s: Input should be a valid number",
                                 key);
    if (id < 0 || id >= eng_tokenizer_size(api->tokenizer))
        return crd_api_refuse(e, 400, "logit_bias",
                              "token_id(s) [%lld] in logit_bias contain out-of-vocab token ids. "
                              "Vocabulary size: %d",
                              id, eng_tokenizer_size(api->tokenizer));
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
    if (!json_is_object(list))
        return crd_api_malformed(e, "logit_bias", "logit_bias: Input should be a valid dictionary");
    if (json_object_size(list) > LIMIT_LOGIT_BIAS)
        return crd_api_refuse(e, 400, "logit_bias", "logit_bias may contain at most %d tokens.",
                              LIMIT_LOGIT_BIAS);
    r->sampling.bias = xcalloc(json_object_size(list) + 1, sizeof *r->sampling.bias);
    json_object_foreach(list, key, j) TRY(one_bias(r, api, key, j, e));
out:
    return rc;
}

enum err crd_lists_in(struct crd_request *r, const struct crd_api *api, struct crd_api_error *e)
{
    enum err rc;
    TRY(stops(r, e));
    TRY(stop_ids(r, api, e));
    TRY(bias(r, api, e));
out:
    return rc;
}
