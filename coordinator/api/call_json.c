/* call_json.c: see call_json.h. */
#include "coordinator/api/call_json.h"
#include "coordinator/api/json_in.h"

#include <string.h>

enum { MAX_KEY = 256, MAX_NAME = 256 };

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

bool crd_json_span(struct json_span *s, char c, bool *taken)
{
    *taken = true;
    if (s->in_string) {
        if (s->escaped)
            s->escaped = false;
        else if (c == '\\')
            s->escaped = true;
        else if (c == '"')
            s->in_string = false;
        return !s->in_string && !s->depth;
    }
    bool ends = c == '}' || c == ']' || c == ',';
    if (s->scalar && !s->depth && (ends || is_space(c))) {
        *taken = false;
        return true;
    }
    s->begun = true;
    if (c == '"')
        s->in_string = true;
    else if (c == '{' || c == '[')
        s->depth++;
    else if (c == '}' || c == ']')
        return --s->depth <= 0;
    else if (!s->depth)
        s->scalar = true;
    return false;
}

void crd_call_json_open(struct crd_call_json *j, bool strict)
{
    crd_call_json_free(j);
    *j = (struct crd_call_json){.strict = strict};
}

void crd_call_json_free(struct crd_call_json *j)
{
    buf_free(&j->text);
    buf_free(&j->name);
    buf_free(&j->args);
}

/* The value of a JSON string with its quotes; what is none stays as it is. */
static void unquote(struct buf *text, struct buf *out)
{
    json_t *s = json_in(buf_str(text), text->len, JSON_DECODE_ANY);
    if (json_is_string(s))
        buf_put(out, json_string_value(s), json_string_length(s));
    else
        buf_put(out, buf_str(text), text->len);
    json_decref(s);
    buf_clear(text);
}

static bool known_key(struct crd_call_json *j)
{
    static const struct {
        const char *text;
        int key;
    } keys[] = {
        {"name", KEY_NAME},
        {"tool_name", KEY_NAME},
        {"arguments", KEY_ARGUMENTS},
        {"parameters", KEY_ARGUMENTS},
        {"function", KEY_FUNCTION},
        {"type", KEY_OTHER},
        {"id", KEY_OTHER},
        {"tool_call_id", KEY_OTHER},
    };
    struct buf key = {0};
    bool found = false;
    unquote(&j->text, &key);
    j->key = KEY_OTHER;
    for (size_t i = 0; i < COUNT_OF(keys) && !found; i++) {
        found = key.len == strlen(keys[i].text) && !strcmp(buf_str(&key), keys[i].text);
        if (found) j->key = (int)keys[i].key;
    }
    buf_free(&key);
    return found;
}

static enum call_json_state at_key(struct crd_call_json *j, char c)
{
    if (is_space(c) || c == ',') return CALL_JSON_GOES_ON;
    if (c == '}') return j->nested-- ? CALL_JSON_GOES_ON : CALL_JSON_DONE;
    if (c != '"') return CALL_JSON_BROKEN;
    j->span = (struct json_span){.in_string = true};
    buf_putc(&j->text, c);
    j->at = IN_KEY;
    return CALL_JSON_GOES_ON;
}

static enum call_json_state in_key(struct crd_call_json *j, char c)
{
    bool taken;
    buf_putc(&j->text, c);
    if (!crd_json_span(&j->span, c, &taken))
        return j->text.len > MAX_KEY ? CALL_JSON_BROKEN : CALL_JSON_GOES_ON;
    bool known = known_key(j), first = !j->any_key;
    j->any_key = true;
    j->at = AT_COLON;
    return j->strict && first && !known ? CALL_JSON_BROKEN : CALL_JSON_GOES_ON;
}

static enum call_json_state at_value(struct crd_call_json *j, char c);

static enum call_json_state in_value(struct crd_call_json *j, char c)
{
    bool taken, over = crd_json_span(&j->span, c, &taken);
    bool outside = !j->span.in_string && c == '<'; /* the end mark, before its time */
    if (outside) return CALL_JSON_BROKEN;
    if (taken && (j->key == KEY_NAME || j->as_string))
        buf_putc(&j->text, c);
    else if (taken && j->key == KEY_ARGUMENTS)
        buf_putc(&j->args, c);
    if (j->key == KEY_NAME && j->text.len > MAX_NAME) return CALL_JSON_BROKEN;
    if (!over) return CALL_JSON_GOES_ON;
    if (j->key == KEY_NAME) {
        unquote(&j->text, &j->name);
        if (strlen(buf_str(&j->name)) < j->name.len) return CALL_JSON_BROKEN; /* "\u0000" in a name */
        j->name_known = true;
    } else if (j->as_string) {
        unquote(&j->text, &j->args);
    }
    j->as_string = false;
    j->at = AT_KEY;
    return taken ? CALL_JSON_GOES_ON : at_key(j, c);
}

static enum call_json_state at_value(struct crd_call_json *j, char c)
{
    if (is_space(c)) return CALL_JSON_GOES_ON;
    if (c == '}' || c == ']' || c == ',') return CALL_JSON_BROKEN;
    if (j->key == KEY_NAME && (c != '"' || j->name_known)) return CALL_JSON_BROKEN;
    if (j->key == KEY_FUNCTION && c == '{') {
        j->nested++;
        j->at = AT_KEY;
        return CALL_JSON_GOES_ON;
    }
    if (j->key == KEY_ARGUMENTS && c == 'n') j->key = KEY_OTHER; /* null: none */
    if (j->key == KEY_ARGUMENTS) {
        if (j->has_args) return CALL_JSON_BROKEN;
        j->has_args = true;
        j->as_string = c == '"';
    }
    j->span = (struct json_span){0};
    j->at = IN_VALUE;
    return in_value(j, c);
}

enum call_json_state crd_call_json_push(struct crd_call_json *j, char c)
{
    switch (j->at) {
    case AT_KEY:
        return at_key(j, c);
    case IN_KEY:
        return in_key(j, c);
    case AT_COLON:
        if (c == ':') j->at = AT_VALUE;
        return c == ':' || is_space(c) ? CALL_JSON_GOES_ON : CALL_JSON_BROKEN;
    case AT_VALUE:
        return at_value(j, c);
    case IN_VALUE:
        return in_value(j, c);
    }
    return CALL_JSON_BROKEN;
}
