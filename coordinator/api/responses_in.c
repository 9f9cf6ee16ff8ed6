/* responses_in.c: the body of OpenAI's /v1/responses. Nothing is stored, so nothing can be
 * continued by its id. */
#include "coordinator/api/translate.h"

#include <string.h>

static const char *str(const json_t *object, const char *name)
{
    const char *s = json_string_value(json_object_get(object, name));
    return s ? s : "";
}

/* Calls of one turn belong into one message. */
static void add_call(json_t *messages, const json_t *item)
{
    size_t n = json_array_size(messages);
    json_t *last = n ? json_array_get(messages, n - 1) : NULL, *calls;
    json_t *call =
        crd_translate_call(json_object_get(item, "call_id"), json_object_get(item, "name"),
                           json_object_get(item, "arguments"));
    if (!last || strcmp(str(last, "role"), "assistant")) {
        last = crd_translate_message("assistant", NULL);
        json_array_append_new(messages, last);
    }
    calls = json_object_get(last, "tool_calls");
    if (!json_is_array(calls)) json_object_set_new(last, "tool_calls", calls = json_array());
    json_array_append_new(calls, call);
}

static void add_message(json_t *messages, const json_t *item)
{
    json_array_append_new(messages, json_copy((json_t *)(uintptr_t)item));
}

static enum err add_item(json_t *messages, const json_t *item, size_t i, struct crd_api_error *e)
{
    const char *type = str(item, "type");
    if (!json_is_object(item))
        return crd_api_malformed(e, "input", "input.%zu: Input should be an object", i);
    if (!*type || !strcmp(type, "message")) {
        add_message(messages, item);
    } else if (!strcmp(type, "function_call")) {
        add_call(messages, item);
    } else if (!strcmp(type, "function_call_output")) {
        json_t *m = crd_translate_message("tool", json_object_get(item, "output"));
        json_t *id = json_object_get(item, "call_id");
        if (id) json_object_set(m, "tool_call_id", id);
        json_array_append_new(messages, m);
    } else if (strcmp(type, "reasoning")) { /* thoughts of earlier turns are not read again */
        return crd_api_refuse(e, 400, "input",
                              "input.%zu: items of type '%.64s' are not supported.", i, type);
    }
    return OK;
}

static enum err input(const json_t *given, json_t *messages, struct crd_api_error *e)
{
    const json_t *in = json_object_get(given, "input");
    json_t *item, *system = json_object_get(given, "instructions");
    size_t i;
    enum err rc = OK;
    if (system && !json_is_null(system)) {
        if (!json_is_string(system))
            return crd_api_malformed(e, "instructions",
                                     "instructions: Input should be a valid string");
        json_array_append_new(messages, crd_translate_message("system", system));
    }
    if (!in || json_is_null(in)) return crd_api_malformed(e, "input", "input: Field required");
    if (json_is_string(in)) {
        json_array_append_new(messages, crd_translate_message("user", in));
        return OK;
    }
    if (!json_is_array(in))
        return crd_api_malformed(e, "input", "input: Input should be a string or a list of items");
    if (!json_array_size(in))
        return crd_api_malformed(e, "input", "input: List should have at least 1 item");
    json_array_foreach((json_t *)(uintptr_t)in, i, item) TRY(add_item(messages, item, i, e));
out:
    return rc;
}

static void tools(const json_t *given, json_t *body)
{
    json_t *list = json_object_get(given, "tools"), *out, *t;
    size_t i;
    if (!list || json_is_null(list)) return;
    if (!json_is_array(list)) {
        json_object_set(body, "tools", list);
        return;
    }
    if (!json_array_size(list)) return; /* the client's way to say none */
    out = json_array();
    json_array_foreach(list, i, t)
    {
        if (json_is_object(t) && !strcmp(str(t, "type"), "function"))
            json_array_append_new(out, crd_translate_tool(t, "parameters"));
        else
            json_array_append(out, t); /* refused by its type */
    }
    json_object_set_new(body, "tools", out);
}

/* {"mode", "tools": [{"name"}]} -> chat's {"allowed_tools": {"mode", "tools": [{"function": {"name"}}]}}. */
static json_t *allowed_tools(const json_t *choice)
{
    json_t *out = json_object(), *in = json_object(), *list = json_array(), *t;
    size_t i;
    json_array_foreach(json_object_get(choice, "tools"), i, t)
        json_array_append_new(list, crd_translate_call(NULL, json_object_get(t, "name"), NULL));
    json_object_set(in, "mode", json_object_get(choice, "mode"));
    json_object_set_new(in, "tools", list);
    json_object_set_new(out, "allowed_tools", in);
    return out;
}

static void tool_choice(const json_t *given, json_t *body)
{
    json_t *choice = json_object_get(given, "tool_choice");
    if (!choice || json_is_null(choice)) return;
    if (!strcmp(str(choice, "type"), "allowed_tools"))
        json_object_set_new(body, "tool_choice", allowed_tools(choice));
    else if (json_is_object(choice))
        json_object_set_new(body, "tool_choice",
                            crd_translate_call(NULL, json_object_get(choice, "name"), NULL));
    else if (json_object_get(body, "tools") || strcmp(str(given, "tool_choice"), "auto"))
        json_object_set(body, "tool_choice", choice);
}

static enum err format(const json_t *given, json_t *body, struct crd_api_error *e)
{
    json_t *f = json_object_get(json_object_get(given, "text"), "format"), *out;
    if (!f || json_is_null(f)) return OK;
    if (!json_is_object(f) || !json_is_string(json_object_get(f, "type")))
        return crd_api_malformed(e, "text", "text.format: Input should be an object with a type");
    out = json_object();
    json_object_set(out, "type", json_object_get(f, "type"));
    if (!strcmp(str(f, "type"), "json_schema")) json_object_set(out, "json_schema", f);
    json_object_set_new(body, "response_format", out);
    return OK;
}

/* Asked for by name, or by how many of the likeliest are wanted. */
static void logprobs(const json_t *given, json_t *body)
{
    json_t *what, *top = json_object_get(given, "top_logprobs");
    bool wanted = top && !json_is_null(top) && json_integer_value(top) != 0;
    size_t i;
    json_array_foreach(json_object_get(given, "include"), i, what)
        wanted |= !strcmp(json_string_value(what), "message.output_text.logprobs");
    if (wanted || (top && !json_is_integer(top)))
        json_object_set_new(body, "logprobs", json_true());
    else
        json_object_del(body, "top_logprobs");
}

static enum err translate(const json_t *given, json_t *body, struct crd_api_error *e)
{
    enum err rc;
    json_t *messages = json_array(), *effort, *verbosity;
    json_object_set_new(body, "messages", messages);
    json_object_del(body, "response_format");
    json_object_del(body, "verbosity");
    TRY(crd_responses_check(given, e));
    TRY(input(given, messages, e));
    TRY(format(given, body, e));
    tools(given, body);
    tool_choice(given, body);
    logprobs(given, body);
    effort = json_object_get(json_object_get(given, "reasoning"), "effort");
    if (json_is_string(effort)) json_object_set(body, "reasoning_effort", effort);
    verbosity = json_object_get(json_object_get(given, "text"), "verbosity");
    if (verbosity) json_object_set(body, "verbosity", verbosity);
out:
    return rc;
}

static const struct crd_field_name names[] = {
    {"model", "model"},
    {"max_output_tokens", "max_tokens"},
    {"stream", "stream"},
    {"temperature", "temperature"},
    {"top_p", "top_p"},
    {"top_logprobs", "top_logprobs"},
    {"parallel_tool_calls", "parallel_tool_calls"},
    {"seed", "seed"},
    {"user", "user"},
    {"store", "store"},
    {"metadata", "metadata"},
    {"service_tier", "service_tier"},
    {"chat_template_kwargs", "chat_template_kwargs"},
    /* not OpenAI's here, but vLLM's and ours */
    {"top_k", "top_k"},
    {"min_p", "min_p"},
    {"typical_p", "typical_p"},
    {"presence_penalty", "presence_penalty"},
    {"frequency_penalty", "frequency_penalty"},
    {"repetition_penalty", "repetition_penalty"},
    {"logit_bias", "logit_bias"},
    {"bad_words", "bad_words"},
    {"allowed_token_ids", "allowed_token_ids"},
    {"stop", "stop"},
    {"stop_token_ids", "stop_token_ids"},
    {"include_stop_str_in_output", "include_stop_str_in_output"},
    {"ignore_eos", "ignore_eos"},
    {"min_tokens", "min_tokens"},
    {"skip_special_tokens", "skip_special_tokens"},
    {"truncate_prompt_tokens", "truncate_prompt_tokens"},
    {"thinking_token_budget", "thinking_token_budget"},
    {"structured_outputs", "structured_outputs"},
    {"cache_salt", "cache_salt"},
    {"priority", "priority"},
    {"request_id", "request_id"},
    {NULL, NULL},
};

/* Only for the names of errors: translate() has filled these. */
static const struct crd_field_name also[] = {
    {"input", "messages"}, {"text", "response_format"}, {"text", "verbosity"}, {NULL, NULL}};

const struct crd_dialect_in crd_responses_in = {
    .translate = translate, .names = names, .top = also};
