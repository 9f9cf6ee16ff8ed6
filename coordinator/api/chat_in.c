/* chat_in.c: see chat_in.h. */
#include "coordinator/api/chat_in.h"
#include "coordinator/api/calls_grammar.h"
#include "coordinator/api/json_in.h"
#include "coordinator/api/sampling_in.h"
#include "coordinator/api/tools_in.h"
#include "coordinator/api/tools_prompt.h"

#include <stdlib.h>
#include <string.h>

/* [{"type":"text","text":"a"}, "b", ...] -> "a\nb". */
static enum err join_parts(const json_t *parts, size_t m, struct buf *out, struct crd_api_error *e)
{
    size_t i;
    json_t *part;
    json_array_foreach(parts, i, part)
    {
        const char *type = json_string_value(json_object_get(part, "type"));
        const json_t *text = json_is_string(part) ? part : json_object_get(part, "text");
        if (!json_is_string(part) && !type)
            return crd_api_malformed(e, "messages", "messages.%zu.content.%zu.type: Field required",
                                     m, i);
        if (type && strcmp(type, "text") && strcmp(type, "input_text") &&
            strcmp(type, "output_text"))
            return crd_api_refuse(e, 400, "messages",
                                  "messages.%zu.content.%zu: parts of type '%s' are not supported: "
                                  "this model reads text only.",
                                  m, i, type);
        if (!json_is_string(text))
            return crd_api_malformed(
                e, "messages", "messages.%zu.content.%zu.text: Input should be a valid string", m,
                i);
        if (i) buf_putc(out, '\n');
        buf_put(out, json_string_value(text), json_string_length(text));
    }
    return OK;
}

static enum err set_content(json_t *message, size_t m, struct crd_api_error *e)
{
    json_t *content = json_object_get(message, "content");
    struct buf text = {0};
    enum err rc = OK;
    if (json_is_string(content)) return OK;
    if (!content || json_is_null(content)) {
        if (!json_object_get(message, "tool_calls"))
            return crd_api_malformed(e, "messages", "messages.%zu.content: Field required", m);
    } else if (!json_is_array(content)) {
        return crd_api_malformed(
            e, "messages", "messages.%zu.content: Input should be a string or a list of parts", m);
    }
    TRY(join_parts(content, m, &text, e));
    json_object_set_new(message, "content", json_stringn(buf_str(&text), text.len));
out:
    buf_free(&text);
    return rc;
}

/* Clients send arguments as JSON in a string; templates want to walk them. */
static void open_arguments(json_t *message)
{
    json_t *calls = json_deep_copy(json_object_get(message, "tool_calls")), *call;
    size_t i;
    if (!json_is_array(calls)) {
        json_decref(calls);
        return;
    }
    json_array_foreach(calls, i, call)
    {
        json_t *function = json_object_get(call, "function"),
               *args = json_object_get(function, "arguments");
        if (!json_is_string(args)) continue;
        json_t *open =
            json_in(json_string_value(args), json_string_length(args), JSON_REJECT_DUPLICATES);
        if (open) json_object_set_new(function, "arguments", open);
    }
    json_object_set_new(message, "tool_calls", calls);
}

static bool template_says(const struct crd_api *api, const char *word)
{
    return api->template_source && strstr(api->template_source, word);
}

static enum err one_message(struct crd_request *r, const struct crd_api *api, const json_t *given,
                            size_t m, struct crd_api_error *e)
{
    if (!json_is_object(given))
        return crd_api_malformed(e, "messages", "messages.%zu: Input should be an object", m);
    const json_t *role = json_object_get(given, "role");
    if (!role) return crd_api_malformed(e, "messages", "messages.%zu.role: Field required", m);
    if (!json_is_string(role))
        return crd_api_malformed(e, "messages", "messages.%zu.role: Input should be a valid string",
                                 m);
    json_t *copy =
        json_copy((json_t *)(uintptr_t)given); /* shallow: only what differs is made anew */
    json_array_append_new(r->messages, copy);
    if (!strcmp(json_string_value(role), "developer") && !template_says(api, "developer"))
        json_object_set_new(copy, "role", json_string("system"));
    open_arguments(copy);
    return set_content(copy, m, e);
}

/* How many words the answer makes is the template's affair; one that does not know of it cannot be
 * told. */
static enum err verbosity(const struct crd_request *r, const struct crd_api *api,
                          struct crd_api_error *e)
{
    static const char *const known[] = {"low", "medium", "high"};
    const char *s = json_string_value(crd_request_get(r, "verbosity"));
    size_t i = 0;
    if (!s) return OK;
    while (i < COUNT_OF(known) && strcmp(s, known[i])) i++;
    if (i == COUNT_OF(known))
        return crd_api_malformed(e, "verbosity",
                                 "verbosity: Input should be 'low', 'medium' or 'high'");
    if (strcmp(s, "medium") && !template_says(api, "verbosity"))
        return crd_api_refuse(e, 400, "verbosity",
                              "verbosity: '%s' is not supported: this model's chat template does "
                              "not know of it.",
                              s);
    return OK;
}

enum err crd_chat_in(struct crd_request *r, const struct crd_api *api, struct crd_api_error *e)
{
    const json_t *list = json_object_get(r->body, "messages"),
                 *kwargs = json_object_get(r->body, "chat_template_kwargs");
    json_t *m;
    size_t i;
    enum err rc = OK;
    if (!list || json_is_null(list))
        return crd_api_malformed(e, "messages", "messages: Field required");
    if (!json_is_array(list))
        return crd_api_malformed(e, "messages", "messages: Input should be a valid list");
    if (!json_array_size(list))
        return crd_api_malformed(e, "messages", "messages: List should have at least 1 item");
    if (kwargs && !json_is_object(kwargs) && !json_is_null(kwargs))
        return crd_api_malformed(e, "chat_template_kwargs",
                                 "chat_template_kwargs: Input should be a valid dictionary");
    TRY(verbosity(r, api, e));
    r->messages = json_array();
    json_array_foreach(list, i, m) TRY(one_message(r, api, m, i, e));
    TRY(crd_tools_in(r, api, e));
    r->prompts = xcalloc(1, sizeof *r->prompts);
    r->prompts[0].add_special = r->add_special;
    r->n_prompts = 1;
out:
    return rc;
}

static void put_token(json_t *context, const char *name, const struct eng_tokenizer *t, int32_t id)
{
    struct buf text = {0};
    if (id >= 0) eng_tokenizer_piece(t, id, true, &text);
    json_object_set_new(context, name, json_string(buf_str(&text)));
    buf_free(&text);
}

static json_t *context_of(const struct crd_request *r, const struct crd_api *api)
{
    static const char *const passed[] = {"documents", "reasoning_effort", "verbosity"};
    json_t *context = json_object(), *kwargs = json_object_get(r->body, "chat_template_kwargs");
    if (json_is_object(kwargs)) json_object_update(context, kwargs);
    for (size_t i = 0; i < COUNT_OF(passed); i++) {
        json_t *j = json_object_get(r->body, passed[i]);
        if (!j || json_is_null(j)) continue;
        json_object_set(context, passed[i], j);
    }
    if (r->tools && api->style.takes_tools) json_object_set(context, "tools", r->tools);
    json_object_set(context, "messages", r->messages);
    json_object_set_new(context, "add_generation_prompt", json_boolean(r->add_generation_prompt));
    put_token(context, "bos_token", api->tokenizer, eng_tokenizer_bos(api->tokenizer));
    put_token(context, "eos_token", api->tokenizer, eng_tokenizer_eos(api->tokenizer));
    return context;
}

/* The text ends where the last message's content ends: the model goes on from there. */
static enum err cut_after_final(struct crd_request *r, struct buf *text, struct crd_api_error *e)
{
    const json_t *last = json_array_get(r->messages, json_array_size(r->messages) - 1);
    const char *content = json_string_value(json_object_get(last, "content")), *found = NULL;
    size_t n = strlen(content);
    while (n && strchr(" \t\r\n", content[n - 1])) n--; /* templates may trim */
    for (const char *p = buf_str(text), *end = p + text->len;
         n && (p = memmem(p, (size_t)(end - p), content, n)); p++)
        found = p;
    if (!found)
        return crd_api_refuse(e, 400, "continue_final_message",
                              "continue_final_message is set but the final message does "
                              "not appear in the chat after applying the chat template.");
    text->len = (size_t)(found + n - buf_str(text));
    text->data[text->len] = 0;
    return OK;
}

/* But for white space. */
static bool ends_with(struct buf *text, const char *mark)
{
    size_t n = text->len, m = strlen(mark);
    while (n && strchr(" \t\r\n", text->data[n - 1])) n--;
    return n >= m && !memcmp(text->data + n - m, mark, m);
}

enum err crd_chat_render(struct crd_request *r, const struct crd_api *api, int64_t now_unix,
                         struct crd_api_error *e)
{
    enum err rc;
    struct buf text = {0};
    json_t *context = NULL;
    if (!api->chat_template)
        return crd_api_refuse(
            e, 400, NULL,
            "This model has no chat template, so it cannot be asked in messages. Use "
            "/v1/completions, or start the server with a chat template.");
    if (!api->style.takes_tools) crd_tools_prompt(r);
    context = context_of(r, api);
    rc = eng_template_render(api->chat_template, context, now_unix, &text);
    if (rc) crd_api_error_of(e, rc, err_text());
    if (rc) goto out;
    if (r->continue_final) TRY(cut_after_final(r, &text, e));
    r->reply.think = api->style.think;
    r->reply.thinking = r->reply.think && ends_with(&text, r->reply.think->open);
    crd_thinking_in(r, api);
    TRY(crd_calls_grammar(r, api, e));
    r->prompts[0].n_text = text.len;
    r->prompts[0].text = buf_take(&text);
out:
    buf_free(&text);
    json_decref(context);
    return rc;
}
