/* call_tags.c: see call_tags.h. */
#include "coordinator/api/call_tags.h"
#include "coordinator/api/json_check.h"
#include "coordinator/api/json_out.h"

#include <stdlib.h>
#include <string.h>

struct span {
    const char *p, *end;
};

static struct span trimmed(struct span s)
{
    while (s.p < s.end && strchr(" \t\r\n", *s.p)) s.p++;
    while (s.end > s.p && strchr(" \t\r\n", s.end[-1])) s.end--;
    return s;
}

/* Does it begin with the text? Then it is gone. */
static bool take(struct span *s, const char *text)
{
    size_t n = strlen(text);
    if ((size_t)(s->end - s->p) < n || memcmp(s->p, text, n)) return false;
    s->p += n;
    return true;
}

/* What stands before the next `mark`, which is gone too. */
static bool take_until(struct span *s, const char *mark, struct span *out)
{
    const char *at = memmem(s->p, (size_t)(s->end - s->p), mark, strlen(mark));
    if (!at) return false;
    *out = (struct span){s->p, at};
    s->p = at + strlen(mark);
    return true;
}

static const json_t *schema_of(const json_t *tools, const char *name, const char *key)
{
    size_t i;
    json_t *t;
    json_array_foreach((json_t *)(uintptr_t)tools, i, t)
    {
        const json_t *f = json_object_get(t, "function");
        const char *is = json_string_value(json_object_get(f, "name"));
        if (!is || strcmp(is, name)) continue;
        return json_object_get(json_object_get(json_object_get(f, "parameters"), "properties"),
                               key);
    }
    return NULL;
}

static bool is_string(const json_t *schema)
{
    const char *type = json_string_value(json_object_get(schema, "type"));
    return type && !strcmp(type, "string");
}

/* A NUL in a key is none of a name. */
static bool is_key(struct span key)
{
    return !memchr(key.p, 0, (size_t)(key.end - key.p));
}

/* KEY and VALUE as a member of an object. JSON passes as it was written: a number may be larger than any that is kept here. */
static void put(struct buf *args, const json_t *tools, const char *name, struct span key,
                struct span value)
{
    char *k = strndup(key.p, (size_t)(key.end - key.p));
    const json_t *schema = schema_of(tools, name, k);
    const struct span bare = trimmed(value);
    buf_puts(args, args->len > 1 ? ", " : "");
    json_out_text(args, k, strlen(k));
    buf_puts(args, ": ");
    if (!is_string(schema) && crd_json_is(bare.p, (size_t)(bare.end - bare.p)))
        buf_put(args, bare.p, (size_t)(bare.end - bare.p));
    else
        json_out_text(args, value.p, (size_t)(value.end - value.p));
    free(k);
}

/* The line breaks around a value are the tag's. */
static struct span without_breaks(struct span s)
{
    if (s.p < s.end && *s.p == '\n') s.p++;
    if (s.end > s.p && s.end[-1] == '\n') s.end--;
    return s;
}

static bool pairs(struct span *s, const json_t *tools, const char *name, struct buf *args)
{
    struct span key, value;
    while (*s = trimmed(*s), s->p < s->end) {
        if (!take(s, "<arg_key>") || !take_until(s, "</arg_key>", &key) || !is_key(key))
            return false;
        *s = trimmed(*s);
        if (!take(s, "<arg_value>") || !take_until(s, "</arg_value>", &value)) return false;
        put(args, tools, name, trimmed(key), value);
    }
    return true;
}

static bool parameters(struct span *s, const json_t *tools, const char *name, struct buf *args)
{
    struct span key, value;
    while (*s = trimmed(*s), !take(s, "</function>")) {
        if (!take(s, "<parameter=") || !take_until(s, ">", &key) || !is_key(key)) return false;
        if (!take_until(s, "</parameter>", &value)) return false;
        put(args, tools, name, trimmed(key), without_breaks(value));
    }
    *s = trimmed(*s);
    return s->p == s->end;
}

bool crd_call_tags(const char *text, size_t n, const json_t *tools, struct buf *name,
                   struct buf *args)
{
    struct span s = trimmed((struct span){text, text + n}), word;
    bool function = take(&s, "<function=");
    if (function) {
        if (!take_until(&s, ">", &word)) word = (struct span){s.p, s.p};
    } else {
        const char *end = s.p;
        while (end < s.end && !strchr(" \t\r\n<", *end)) end++;
        word = (struct span){s.p, end};
        s.p = end;
    }
    word = trimmed(word);
    buf_put(name, word.p, (size_t)(word.end - word.p));
    buf_putc(args, '{');
    bool good = name->len && (function ? parameters(&s, tools, buf_str(name), args)
                                       : pairs(&s, tools, buf_str(name), args));
    buf_putc(args, '}');
    return good;
}
