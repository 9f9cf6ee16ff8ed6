/* ollama_in.c: the bodies of Ollama's /api/chat and /api/generate. */
#include "coordinator/api/translate.h"

#include <string.h>

static bool given_and(const json_t *given, const char *name, json_t **out)
{
    *out = json_object_get(given, name);
    return *out && !json_is_null(*out);
}

/* "name" and "name:latest" are one. */
static void model(const json_t *given, json_t *body)
{
    static const char latest[] = ":latest";
    json_t *j;
    if (!given_and(given, "model", &j)) return;
    const char *s = json_string_value(j);
    size_t n = s ? strlen(s) : 0, m = sizeof latest - 1;
    if (n > m && !strcmp(s + n - m, latest))
        json_object_set_new(body, "model", json_stringn(s, n - m));
    else
        json_object_set(body, "model", j);
}

static enum err think(const json_t *given, json_t *body, struct crd_api_error *e)
{
    json_t *j;
    if (!given_and(given, "think", &j)) return OK;
    if (!json_is_boolean(j) && !json_is_string(j))
        return crd_api_malformed(e, "think", "think: Input should be true, false or a level");
    crd_translate_thinking(body, !json_is_false(j));
    if (json_is_string(j)) json_object_set(body, "reasoning_effort", j);
    return OK;
}

static enum err format(const json_t *given, json_t *body, struct crd_api_error *e)
{
    json_t *j, *f;
    const char *s;
    if (!given_and(given, "format", &j)) return OK;
    s = json_string_value(j);
    if (s && !*s) return OK;
    if (!json_is_object(j) && !(s && !strcmp(s, "json")))
        return crd_api_malformed(e, "format", "format: Input should be \"json\" or a JSON schema");
    f = json_object();
    json_object_set_new(f, "type", json_string(s ? "json_object" : "json_schema"));
    if (!s)
        json_object_set_new(f, "json_schema",
                            json_pack("{s:s,s:O}", "name", "format", "schema", j));
    json_object_set_new(body, "response_format", f);
    return OK;
}

static enum err no_images(const json_t *from, const char *param, struct crd_api_error *e)
{
    json_t *j;
    if (!given_and(from, "images", &j) || !json_array_size(j)) return OK;
    return crd_api_refuse(e, 400, param, "images are not supported: this model reads text only.");
}

/* A negative number of tokens is as many as fit. */
static void num_predict(json_t *body)
{
    const json_t *j = json_object_get(body, "max_tokens");
    if (json_is_integer(j) && json_integer_value(j) < 0) json_object_del(body, "max_tokens");
}

/* Of prompts as they are our form has a number where others have a flag and a number. */
static enum err logprobs(const json_t *given, json_t *body, bool raw, struct crd_api_error *e)
{
    json_t *wanted, *top;
    bool any = given_and(given, "logprobs", &wanted), tops = given_and(given, "top_logprobs", &top);
    if (any && !json_is_boolean(wanted))
        return crd_api_malformed(e, "logprobs", "logprobs: Input should be a valid boolean");
    if (!raw) {
        if (any) json_object_set(body, "logprobs", wanted);
        if (tops && (json_is_true(wanted) || !json_is_integer(top) || json_integer_value(top)))
            json_object_set(body, "top_logprobs", top);
        return OK;
    }
    if (tops && !json_is_integer(top))
        return crd_api_malformed(e, "top_logprobs", "top_logprobs: Input should be a valid integer");
    if (json_is_true(wanted))
        json_object_set_new(body, "logprobs", json_integer(tops ? json_integer_value(top) : 0));
    return OK;
}

static enum err common(const json_t *given, json_t *body, bool raw, struct crd_api_error *e)
{
    enum err rc;
    json_t *j;
    model(given, body);
    num_predict(body);
    TRY(logprobs(given, body, raw, e));
    if (!given_and(given, "stream", &j)) json_object_set_new(body, "stream", json_true());
    TRY(think(given, body, e));
    TRY(format(given, body, e));
out:
    return rc;
}

static enum err translate_chat(const json_t *given, json_t *body, struct crd_api_error *e)
{
    json_t *list = json_object_get(given, "messages"), *m;
    size_t i;
    enum err rc;
    TRY(common(given, body, false, e));
    json_array_foreach(list, i, m) TRY(no_images(m, "messages", e));
    if (json_is_array(json_object_get(body, "tools")) &&
        !json_array_size(json_object_get(body, "tools")))
        json_object_del(body, "tools"); /* clients send an empty list for none */
out:
    return rc;
}

static enum err translate_generate(const json_t *given, json_t *body, struct crd_api_error *e)
{
    json_t *j, *list, *prompt = json_object_get(given, "prompt");
    enum err rc;
    TRY(common(given, body, json_is_true(json_object_get(given, "raw")), e));
    TRY(no_images(given, "images", e));
    if (given_and(given, "context", &j) && !(json_is_array(j) && !json_array_size(j)))
        return crd_api_refuse(e, 400, "context",
                              "context is not supported: send the whole conversation to /api/chat.");
    if (given_and(given, "raw", &j) && !json_is_boolean(j))
        return crd_api_malformed(e, "raw", "raw: Input should be a valid boolean");
    if (given_and(given, "system", &j) && !json_is_string(j) && !json_is_array(j))
        return crd_api_malformed(e, "system", "system: Input should be a valid string");
    if (!json_is_string(prompt) || !json_string_length(prompt))
        return crd_api_malformed(e, "prompt", "prompt: Input should be a string that is not empty");
    if (json_is_true(json_object_get(given, "raw"))) {
        json_object_set(body, "prompt", prompt);
        return OK;
    }
    list = json_array();
    if (given_and(given, "system", &j))
        json_array_append_new(list, crd_translate_message("system", j));
    json_array_append_new(list, crd_translate_message("user", prompt));
    json_object_set_new(body, "messages", list);
out:
    return rc;
}

/* Of options nothing bears on a vector. */
static enum err translate_embed(const json_t *given, json_t *body, struct crd_api_error *e)
{
    json_t *j;
    model(given, body);
    if (given_and(given, "truncate", &j) && !json_is_boolean(j))
        return crd_api_malformed(e, "truncate", "truncate: Input should be a valid boolean");
    if (given_and(given, "options", &j) && !json_is_object(j))
        return crd_api_malformed(e, "options", "options: Input should be an object");
    return OK;
}

/* As Ollama's own, this older endpoint gives vectors as they are, not of length 1. */
static enum err translate_embeddings(const json_t *given, json_t *body, struct crd_api_error *e)
{
    json_t *prompt = json_object_get(given, "prompt");
    if (!json_is_string(prompt))
        return crd_api_malformed(e, "prompt", "prompt: Input should be a valid string");
    json_object_set_new(body, "normalize", json_false());
    return translate_embed(given, body, e);
}

static const struct crd_field_name options[] = {
    {"temperature", "temperature"},
    {"num_predict", "max_tokens"},
    {"top_k", "top_k"},
    {"top_p", "top_p"},
    {"min_p", "min_p"},
    {"seed", "seed"},
    {"stop", "stop"},
    {"repeat_penalty", "repetition_penalty"},
    {"repeat_last_n", "repeat_last_n"},
    {"typical_p", "typical_p"},
    {"mirostat", "mirostat"},
    {"presence_penalty", "presence_penalty"},
    {"frequency_penalty", "frequency_penalty"},
    {NULL, NULL},
};
static const struct crd_field_name top_chat[] = {{"messages", "messages"},
                                                 {"tools", "tools"},
                                                 {"stream", "stream"},
                                                 {"format", "response_format"},
                                                 {NULL, NULL}};
static const struct crd_field_name top_generate[] = {{"stream", "stream"},
                                                     {"suffix", "suffix"},
                                                     {"template", "chat_template"},
                                                     {"format", "response_format"},
                                                     {NULL, NULL}};

const struct crd_dialect_in crd_ollama_chat_in = {
    .translate = translate_chat, .names = options, .inside = "options", .top = top_chat};
const struct crd_dialect_in crd_ollama_generate_in = {
    .translate = translate_generate, .names = options, .inside = "options", .top = top_generate};

static const struct crd_field_name top_embed[] = {{"input", "input"},
                                                  {"dimensions", "dimensions"},
                                                  {"pooling", "pooling"},
                                                  {NULL, NULL}};
static const struct crd_field_name top_embeddings[] = {
    {"prompt", "input"}, {"pooling", "pooling"}, {NULL, NULL}};

const struct crd_dialect_in crd_ollama_embed_in = {.translate = translate_embed, .top = top_embed};
const struct crd_dialect_in crd_ollama_embeddings_in = {.translate = translate_embeddings,
                                                        .top = top_embeddings};
