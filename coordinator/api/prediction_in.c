/* prediction_in.c: see prediction_in.h. */
#include "coordinator/api/prediction_in.h"

#include <string.h>

static enum err add_part(struct buf *text, const json_t *part, struct crd_api_error *e)
{
    const char *type = json_string_value(json_object_get(part, "type"));
    const json_t *t = json_object_get(part, "text");
    if (!type || strcmp(type, "text") || !json_is_string(t))
        return crd_api_malformed(e, "prediction", "prediction.content: Input should be a string or a list of parts of type 'text'");
    buf_put(text, json_string_value(t), json_string_length(t));
    return OK;
}

enum err crd_prediction_in(struct crd_request *r, struct crd_api_error *e)
{
    enum err rc = OK;
    const json_t *p = crd_request_get(r, "prediction"), *content = json_object_get(p, "content");
    const char *type = json_string_value(json_object_get(p, "type"));
    struct buf text = {0};
    size_t i;
    json_t *part;
    if (!p) return OK;
    if (!json_is_object(p)) return crd_api_malformed(e, "prediction", "prediction: Input should be a valid dictionary");
    if (!type || strcmp(type, "content")) return crd_api_malformed(e, "prediction", "prediction.type: Input should be 'content'");
    if (json_is_string(content)) {
        buf_put(&text, json_string_value(content), json_string_length(content));
    } else if (json_is_array(content)) {
        json_array_foreach((json_t *)(uintptr_t)content, i, part) TRY(add_part(&text, part, e));
    } else {
        return crd_api_malformed(e, "prediction", "prediction.content: Input should be a string or a list of parts of type 'text'");
    }
    r->predicted = true;
    r->prediction.n_text = text.len;
    r->prediction.text = memcpy(xmalloc(text.len + 1), buf_str(&text), text.len + 1);
out:
    buf_free(&text);
    return rc;
}

void crd_prediction_tokenize(struct crd_request *r, const struct crd_api *api)
{
    struct crd_prompt *p = &r->prediction;
    if (!p->n_text) return;
    eng_tokenizer_encode(api->tokenizer, p->text, p->n_text, 0, &p->tokens);
    p->tokens.n = MIN(p->tokens.n, (size_t)r->sampling.max_tokens);
}
