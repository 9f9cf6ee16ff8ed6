/* tools_in.c: see tools_in.h. */
#include "coordinator/api/tools_in.h"
#include "coordinator/api/reply_name.h"

#include <string.h>

static enum err one_tool(const json_t *tool, size_t i, struct crd_api_error *e)
{
    const json_t *f = json_object_get(tool, "function"), *type = json_object_get(tool, "type"),
                 *name = json_object_get(f, "name"), *parameters = json_object_get(f, "parameters"),
                 *strict = json_object_get(f, "strict");
    if (!json_is_object(tool))
        return crd_api_malformed(e, "tools", "tools.%zu: Input should be an object", i);
    if (type && !json_is_string(type))
        return crd_api_malformed(e, "tools", "tools.%zu.type: Input should be 'function'", i);
    if (type && strcmp(json_string_value(type), "function"))
        return crd_api_refuse(e, 400, "tools",
                              "tools.%zu: tools of type '%.64s' are not supported.", i,
                              json_string_value(type));
    if (!json_is_object(f))
        return crd_api_malformed(e, "tools", "tools.%zu.function: Field required", i);
    if (!json_is_string(name))
        return crd_api_malformed(e, "tools",
                                 "tools.%zu.function.name: Input should be a valid string", i);
    if (!crd_reply_name_good(json_string_value(name)) || json_string_length(name) >= REPLY_NAME_MAX)
        return crd_api_refuse(e, 400, "tools",
                              "tools.%zu.function.name: '%.64s' is not made of letters, digits, "
                              "'_', '-' and '.' only, or is too long.",
                              i, json_string_value(name));
    if (strict && !json_is_null(strict) && !json_is_boolean(strict))
        return crd_api_malformed(e, "tools",
                                 "tools.%zu.function.strict: Input should be a valid boolean", i);
    if (parameters && !json_is_null(parameters) && !json_is_object(parameters))
        return crd_api_malformed(e, "tools",
                                 "tools.%zu.function.parameters: Input should be an object", i);
    return OK;
}

static enum err the_tools(struct crd_request *r, struct crd_api_error *e)
{
    json_t *list = json_object_get(r->body, "tools"), *tool;
    size_t i;
    enum err rc = OK;
    if (!list || json_is_null(list)) return OK;
    if (!json_is_array(list))
        return crd_api_malformed(e, "tools", "tools: Input should be a valid list");
    if (!json_array_size(list))
        return crd_api_refuse(
            e, 400, "tools",
            "`tools` must not be an empty array. Either leave it out or give at least "
            "one tool.");
    if (json_array_size(list) > TOOLS_MAX)
        return crd_api_refuse(e, 400, "tools", "tools may contain at most %d tools.", TOOLS_MAX);
    json_array_foreach(list, i, tool) TRY(one_tool(tool, i, e));
    r->tools = list;
out:
    return rc;
}

static enum err named(struct crd_request *r, const json_t *choice, struct crd_api_error *e)
{
    const json_t *name = json_object_get(json_object_get(choice, "function"), "name");
    if (!json_is_string(name))
        return crd_api_malformed(e, "tool_choice", "tool_choice.function.name: Field required");
    if (!crd_reply_offered(r->tools, json_string_value(name)))
        return crd_api_refuse(
            e, 400, "tool_choice",
            "The tool specified in `tool_choice` does not match any of the specified `tools`");
    r->forced = true;
    r->forced_name = json_string_value(name);
    return OK;
}

/* Some of the tools, and whether one must be called; the model is shown no other. */
static enum err allowed(struct crd_request *r, const json_t *choice, struct crd_api_error *e)
{
    const json_t *in = json_object_get(choice, "allowed_tools"), *names = json_object_get(in, "tools"),
                 *one;
    const char *mode = json_string_value(json_object_get(in, "mode"));
    json_t *left = json_array(), *tool;
    enum err rc = OK;
    size_t i, k;
    if (!mode || (strcmp(mode, "auto") && strcmp(mode, "required")))
        TRY(crd_api_malformed(
            e, "tool_choice", "tool_choice: the mode of allowed tools should be 'auto' or 'required'"));
    if (!json_array_size(names))
        TRY(crd_api_malformed(
            e, "tool_choice",
            "tool_choice: allowed tools should be a list with at least one tool"));
    json_array_foreach(names, i, one)
    {
        const char *name = json_string_value(json_object_get(json_object_get(one, "function"), "name"));
        if (!name)
            TRY(crd_api_malformed(
                e, "tool_choice", "tool_choice: allowed tool %zu has no name", i));
        if (!crd_reply_offered(r->tools, name))
            TRY(crd_api_refuse(e, 400, "tool_choice",
                               "The tool '%.64s' in `tool_choice` does not match any of the specified "
                               "`tools`", name));
    }
    json_array_foreach(r->tools, k, tool)
    {
        const char *name = json_string_value(json_object_get(json_object_get(tool, "function"), "name"));
        json_array_foreach(names, i, one)
        {
            const json_t *f = json_object_get(one, "function");
            if (strcmp(json_string_value(json_object_get(f, "name")), name)) continue;
            json_array_append(left, tool);
            break;
        }
    }
    json_object_set(r->body, "tools", left);
    r->tools = json_object_get(r->body, "tools");
    r->forced = !strcmp(mode, "required");
out:
    json_decref(left);
    return rc;
}

static enum err the_choice(struct crd_request *r, struct crd_api_error *e)
{
    const json_t *choice = json_object_get(r->body, "tool_choice");
    const char *how = json_string_value(choice);
    if (how && !strcmp(how, "none")) r->tools = NULL;
    if (!choice || json_is_null(choice) || (how && !strcmp(how, "none"))) return OK;
    if (!how && !json_is_object(choice))
        return crd_api_malformed(
            e, "tool_choice",
            "tool_choice: Input should be 'none', 'auto', 'required' or an object");
    if (!r->tools)
        return crd_api_refuse(e, 400, "tool_choice",
                              "When using `tool_choice`, `tools` must be set.");
    if (json_object_get(choice, "allowed_tools")) return allowed(r, choice, e);
    if (!how) return named(r, choice, e);
    if (!strcmp(how, "auto")) return OK;
    r->forced = !strcmp(how, "required");
    if (r->forced) return OK;
    return crd_api_malformed(
        e, "tool_choice", "tool_choice: Input should be 'none', 'auto', 'required' or an object");
}

enum err crd_tools_in(struct crd_request *r, const struct crd_api *api, struct crd_api_error *e)
{
    const json_t *parallel = json_object_get(r->body, "parallel_tool_calls"),
                 *thoughts = json_object_get(r->body, "include_reasoning");
    enum err rc;
    if (thoughts && !json_is_null(thoughts) && !json_is_boolean(thoughts))
        return crd_api_malformed(e, "include_reasoning",
                                 "include_reasoning: Input should be a valid boolean");
    r->hide_thoughts = json_is_false(thoughts);
    if (parallel && !json_is_null(parallel) && !json_is_boolean(parallel))
        return crd_api_malformed(e, "parallel_tool_calls",
                                 "parallel_tool_calls: Input should be a valid boolean");
    TRY(the_tools(r, e));
    TRY(the_choice(r, e));
    if (!r->tools) return OK;
    r->reply.calls = api->style.calls;
    r->reply.tools = r->tools;
    r->reply.one_call = json_is_false(parallel) || r->forced_name;
out:
    return rc;
}
