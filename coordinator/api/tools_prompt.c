/* tools_prompt.c: see tools_prompt.h. */
#include "coordinator/api/tools_prompt.h"

#include <stdlib.h>
#include <string.h>

static void put_json(struct buf *out, const json_t *j)
{
    char *text = json_dumps(j, JSON_ENCODE_ANY);
    buf_puts(out, text ? text : "null");
    free(text);
}

static void describe(struct buf *out, const json_t *tools)
{
    size_t i;
    json_t *t;
    buf_puts(out,
             "# Tools\n\nYou may call functions. Their signatures are within <tools></tools>:\n"
             "<tools>");
    json_array_foreach((json_t *)(uintptr_t)tools, i, t)
    {
        buf_putc(out, '\n');
        put_json(out, t);
    }
    buf_puts(out, "\n</tools>\n\nFor each call answer with a JSON object within "
                  "<tool_call></tool_call>:\n<tool_call>\n{\"name\": <name>, \"arguments\": "
                  "<arguments>}\n</tool_call>");
}

static void set_content(json_t *message, struct buf *text)
{
    json_object_set_new(message, "content", json_stringn(buf_str(text), text->len));
    buf_free(text);
}

static const char *content_of(const json_t *message)
{
    const char *s = json_string_value(json_object_get(message, "content"));
    return s ? s : "";
}

static bool has_role(const json_t *message, const char *role)
{
    return !strcmp(json_string_value(json_object_get(message, "role")), role);
}

static void calls_to_text(json_t *message)
{
    const json_t *calls = json_object_get(message, "tool_calls");
    json_t *call;
    size_t i;
    struct buf text = {0};
    buf_puts(&text, content_of(message));
    json_array_foreach((json_t *)(uintptr_t)calls, i, call)
    {
        const json_t *f = json_object_get(call, "function");
        buf_puts(&text, text.len ? "\n<tool_call>\n{\"name\": " : "<tool_call>\n{\"name\": ");
        put_json(&text, json_object_get(f, "name"));
        buf_puts(&text, ", \"arguments\": ");
        put_json(&text, json_object_get(f, "arguments"));
        buf_puts(&text, "}\n</tool_call>");
    }
    set_content(message, &text);
    json_object_del(message, "tool_calls");
}

static void result_to_text(json_t *message)
{
    struct buf text = {0};
    buf_printf(&text, "<tool_response>\n%s\n</tool_response>", content_of(message));
    set_content(message, &text);
    json_object_set_new(message, "role", json_string("user"));
}

/* The system message if there is one, else the first of the user's. */
static json_t *whom_to_tell(const struct crd_request *r)
{
    json_t *first = json_array_get(r->messages, 0), *m;
    size_t i;
    if (has_role(first, "system")) return first;
    json_array_foreach(r->messages, i, m) if (has_role(m, "user")) return m;
    return first;
}

void crd_tools_prompt(struct crd_request *r)
{
    json_t *m;
    size_t i;
    struct buf text = {0};
    json_t *to = whom_to_tell(r); /* before results become the user's words */
    if (r->tools) {
        bool system = has_role(to, "system");
        if (system) buf_printf(&text, "%s\n\n", content_of(to));
        describe(&text, r->tools);
        if (!system) buf_printf(&text, "\n\n%s", content_of(to));
        set_content(to, &text);
    }
    json_array_foreach(r->messages, i, m)
    {
        if (json_is_array(json_object_get(m, "tool_calls"))) calls_to_text(m);
        if (has_role(m, "tool")) result_to_text(m);
    }
}
