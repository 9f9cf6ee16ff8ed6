/* messages_in.c: the body of Anthropic's /v1/messages. */
#include "coordinator/api/translate.h"

#include <string.h>

static const char *type_of(const json_t *block)
{
    const char *s = json_string_value(json_object_get(block, "type"));
    return s ? s : "";
}

/* One block of a user's content: results of tools are messages of their own, before the text. */
static void user_block(json_t *block, json_t *messages, json_t *parts)
{
    if (strcmp(type_of(block), "tool_result")) {
        json_array_append(parts, block);
        return;
    }
    json_t *content = json_object_get(block, "content"), *empty = json_string("");
    json_t *m = crd_translate_message("tool", content ? content : empty);
    json_t *id = json_object_get(block, "tool_use_id");
    if (id) json_object_set(m, "tool_call_id", id);
    json_array_append_new(messages, m);
    json_decref(empty);
}

static void user_message(const json_t *blocks, json_t *messages)
{
    json_t *parts = json_array(), *block;
    size_t i;
    json_array_foreach((json_t *)(uintptr_t)blocks, i, block) user_block(block, messages, parts);
    if (json_array_size(parts) || !json_array_size(blocks))
        json_array_append_new(messages, crd_translate_message("user", parts));
    json_decref(parts);
}

static void assistant_message(const json_t *blocks, json_t *messages)
{
    json_t *parts = json_array(), *calls = json_array(), *block;
    json_t *m = crd_translate_message("assistant", parts);
    size_t i;
    json_array_foreach((json_t *)(uintptr_t)blocks, i, block)
    {
        const char *type = type_of(block);
        if (!strcmp(type, "tool_use"))
            json_array_append_new(calls, crd_translate_call(json_object_get(block, "id"),
                                                            json_object_get(block, "name"),
                                                            json_object_get(block, "input")));
        else if (!strcmp(type, "thinking"))
            json_object_set(m, "reasoning_content", json_object_get(block, "thinking"));
        else if (strcmp(type, "redacted_thinking"))
            json_array_append(parts, block);
    }
    if (json_array_size(calls)) json_object_set(m, "tool_calls", calls);
    json_array_append_new(messages, m);
    json_decref(parts);
    json_decref(calls);
}

/* Text, or blocks of text. */
static enum err system_text(const json_t *given, struct crd_api_error *e)
{
    const json_t *system = json_object_get(given, "system"), *block;
    size_t i;
    if (!system || json_is_null(system) || json_is_string(system)) return OK;
    if (!json_is_array(system))
        return crd_api_malformed(e, "system",
                                 "system: Input should be a string or a list of blocks");
    json_array_foreach((json_t *)(uintptr_t)system, i, block)
    {
        if (strcmp(type_of(block), "text") || !json_is_string(json_object_get(block, "text")))
            return crd_api_malformed(e, "system", "system.%zu: Input should be a block of text", i);
    }
    return OK;
}

static void messages(const json_t *given, json_t *body)
{
    json_t *list = json_object_get(given, "messages"), *out, *m,
           *system = json_object_get(given, "system");
    size_t i;
    if (!json_is_array(list) || !json_array_size(list)) {
        if (list) json_object_set(body, "messages", list);
        return;
    }
    out = json_array();
    if (system && !json_is_null(system))
        json_array_append_new(out, crd_translate_message("system", system));
    json_array_foreach(list, i, m)
    {
        const char *role = json_string_value(json_object_get(m, "role"));
        const json_t *content = json_object_get(m, "content");
        if (!role || !json_is_array(content))
            json_array_append(out, m);
        else if (!strcmp(role, "assistant"))
            assistant_message(content, out);
        else
            user_message(content, out);
    }
    json_object_set_new(body, "messages", out);
}

static void tools(const json_t *given, json_t *body)
{
    json_t *list = json_object_get(given, "tools"), *out, *t;
    size_t i;
    if (!list || json_is_null(list)) return;
    if (!json_is_array(list) || !json_array_size(list)) {
        if (!json_is_array(list)) json_object_set(body, "tools", list);
        return;
    }
    out = json_array();
    json_array_foreach(list, i, t)
    {
        const json_t *type = json_object_get(t, "type");
        bool ours =
            json_is_object(t) && (!type || json_is_null(type) || !strcmp(type_of(t), "custom"));
        if (ours)
            json_array_append_new(out, crd_translate_tool(t, "input_schema"));
        else
            json_array_append(out, t); /* refused by its type */
    }
    json_object_set_new(body, "tools", out);
}

static enum err tool_choice(const json_t *given, json_t *body, struct crd_api_error *e)
{
    static const struct {
        const char *theirs, *ours;
    } ways[] = {{"auto", "auto"}, {"any", "required"}, {"none", "none"}};
    const json_t *choice = json_object_get(given, "tool_choice");
    if (!choice || json_is_null(choice)) return OK;
    const char *type = type_of(choice);
    if (json_is_true(json_object_get(choice, "disable_parallel_tool_use")))
        json_object_set_new(body, "parallel_tool_calls", json_false());
    for (size_t i = 0; i < COUNT_OF(ways); i++) {
        if (strcmp(type, ways[i].theirs)) continue;
        json_object_set_new(body, "tool_choice", json_string(ways[i].ours));
        return OK;
    }
    if (strcmp(type, "tool"))
        return crd_api_malformed(e, "tool_choice",
                                 "tool_choice.type: Input should be auto, any, tool or none");
    json_object_set_new(body, "tool_choice",
                        crd_translate_call(NULL, json_object_get(choice, "name"), NULL));
    return OK;
}

static enum err thinking(const json_t *given, json_t *body, struct crd_api_error *e)
{
    const json_t *t = json_object_get(given, "thinking");
    if (!t || json_is_null(t)) return OK;
    bool on = !strcmp(type_of(t), "enabled") || !strcmp(type_of(t), "adaptive");
    if (!on && strcmp(type_of(t), "disabled"))
        return crd_api_malformed(e, "thinking",
                                 "thinking.type: Input should be enabled, adaptive or disabled");
    crd_translate_thinking(body, on);
    json_t *budget = json_object_get(t, "budget_tokens");
    if (on && budget && !json_is_null(budget))
        json_object_set(body, "thinking_token_budget", budget);
    return OK;
}

static const json_t *get(const json_t *object, const char *name)
{
    const json_t *j = json_object_get(object, name);
    return json_is_null(j) ? NULL : j;
}

/* What the answer's text keeps to, under its name and the one it had before. */
static enum err format(const json_t *given, json_t *body, struct crd_api_error *e)
{
    const json_t *config = get(given, "output_config"), *effort, *f, *schema;
    const char *field = "output_config";
    json_object_del(body, "reasoning_effort");
    json_object_del(body, "response_format");
    if (config && !json_is_object(config))
        return crd_api_malformed(e, field, "output_config: Input should be an object");
    f = get(config, "format");
    effort = get(config, "effort");
    if (effort && !json_is_string(effort))
        return crd_api_malformed(e, field, "output_config.effort: Input should be a valid string");
    if (effort) json_object_set(body, "reasoning_effort", (json_t *)(uintptr_t)effort);
    if (!f && (f = get(given, "output_format"))) field = "output_format";
    if (!f) return OK;
    schema = get(f, "schema");
    if (strcmp(type_of(f), "json_schema") || !schema)
        return crd_api_malformed(e, field, "%s: Input should be of type json_schema with a schema",
                                 strcmp(field, "output_format") ? "output_config.format" : field);
    json_object_set_new(body, "response_format",
                        json_pack("{s:s,s:{s:s,s:O}}", "type", "json_schema", "json_schema", "name",
                                  "format", "schema", schema));
    return OK;
}

/* What happens elsewhere than in the model. */
static enum err not_here(const json_t *given, struct crd_api_error *e)
{
    static const char *const refused[] = {"mcp_servers", "container", "context_management"};
    for (size_t i = 0; i < COUNT_OF(refused); i++) {
        const json_t *j = get(given, refused[i]);
        if (j && !(json_is_array(j) && !json_array_size(j)))
            return crd_api_refuse(e, 400, refused[i], "%s is not supported.", refused[i]);
    }
    if (get(given, "metadata") && !json_is_object(get(given, "metadata")))
        return crd_api_malformed(e, "metadata", "metadata: Input should be an object");
    return OK;
}

static enum err translate(const json_t *given, json_t *body, struct crd_api_error *e)
{
    enum err rc;
    const json_t *max = json_object_get(given, "max_tokens");
    if (!max || json_is_null(max))
        return crd_api_malformed(e, "max_tokens", "max_tokens: Field required");
    TRY(not_here(given, e));
    TRY(format(given, body, e));
    TRY(system_text(given, e));
    messages(given, body);
    tools(given, body);
    TRY(tool_choice(given, body, e));
    TRY(thinking(given, body, e));
out:
    return rc;
}

static const struct crd_field_name names[] = {
    {"model", "model"},
    {"max_tokens", "max_tokens"},
    {"stop_sequences", "stop"},
    {"stream", "stream"},
    {"temperature", "temperature"},
    {"top_p", "top_p"},
    {"top_k", "top_k"},
    {NULL, NULL},
};

/* Only for the names of errors. */
static const struct crd_field_name also[] = {
    {"output_config", "reasoning_effort"}, {"output_config", "response_format"}, {NULL, NULL}};

const struct crd_dialect_in crd_messages_in = {
    .translate = translate, .names = names, .top = also};
