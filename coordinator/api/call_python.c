/* call_python.c: see call_python.h. Descends by recursion, at most CALL_PYTHON_DEEP deep. */
#include "coordinator/api/call_python.h"
#include "base/buf.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct cursor {
    const char *p, *end;
    int depth;
};

static void spaces(struct cursor *c)
{
    while (c->p < c->end && strchr(" \t\r\n", *c->p)) c->p++;
}

static bool take(struct cursor *c, char what)
{
    spaces(c);
    if (c->p == c->end || *c->p != what) return false;
    c->p++;
    return true;
}

static bool word(struct cursor *c, const char *what)
{
    size_t n = strlen(what);
    if ((size_t)(c->end - c->p) < n || memcmp(c->p, what, n)) return false;
    if (c->p + n < c->end && (isalnum((unsigned char)c->p[n]) || c->p[n] == '_')) return false;
    c->p += n;
    return true;
}

/* A name, of a function or an argument; NULL: there is none. Own: caller */
static char *name(struct cursor *c)
{
    spaces(c);
    const char *from = c->p;
    while (c->p < c->end && (isalnum((unsigned char)*c->p) || strchr("_-.", *c->p))) c->p++;
    return c->p == from ? NULL : strndup(from, (size_t)(c->p - from));
}

/* ---- strings ---- */

static bool hex(struct cursor *c, int n, uint32_t *out)
{
    *out = 0;
    for (int i = 0; i < n; i++) {
        if (c->p == c->end || !isxdigit((unsigned char)*c->p)) return false;
        int d = tolower((unsigned char)*c->p++);
        *out = *out << 4 | (uint32_t)(d <= '9' ? d - '0' : d - 'a' + 10);
    }
    return true;
}

static void put_utf8(struct buf *out, uint32_t cp)
{
    if (cp < 0x80) {
        buf_u8(out, (uint8_t)cp);
    } else if (cp < 0x800) {
        buf_u8(out, (uint8_t)(0xC0 | cp >> 6));
        buf_u8(out, (uint8_t)(0x80 | (cp & 0x3F)));
    } else if (cp < 0x10000) {
        buf_u8(out, (uint8_t)(0xE0 | cp >> 12));
        buf_u8(out, (uint8_t)(0x80 | (cp >> 6 & 0x3F)));
        buf_u8(out, (uint8_t)(0x80 | (cp & 0x3F)));
    } else {
        buf_u8(out, (uint8_t)(0xF0 | cp >> 18));
        buf_u8(out, (uint8_t)(0x80 | (cp >> 12 & 0x3F)));
        buf_u8(out, (uint8_t)(0x80 | (cp >> 6 & 0x3F)));
        buf_u8(out, (uint8_t)(0x80 | (cp & 0x3F)));
    }
}

/* Behind \u: a pair of surrogates is one character; half of one is none. */
static bool wide(struct cursor *c, uint32_t cp, struct buf *out)
{
    uint32_t low;
    if (cp >= 0xD800 && cp < 0xDC00) {
        if (c->end - c->p < 2 || c->p[0] != '\\' || c->p[1] != 'u') return false;
        c->p += 2;
        if (!hex(c, 4, &low) || low < 0xDC00 || low > 0xDFFF) return false;
        cp = 0x10000 + ((cp - 0xD800) << 10) + (low - 0xDC00);
    }
    if (!cp || (cp >= 0xD800 && cp < 0xE000) || cp > 0x10FFFF) return false;
    put_utf8(out, cp);
    return true;
}

static bool escape(struct cursor *c, struct buf *out)
{
    static const char from[] = "ntrbfav0", to[] = "\n\t\r\b\f\a\v";
    if (c->p == c->end) return false;
    const char what = *c->p++, *known = strchr(from, what);
    uint32_t cp;
    switch (what) {
    case 'u':
        return hex(c, 4, &cp) && wide(c, cp, out);
    case 'U':
        return hex(c, 8, &cp) && wide(c, cp, out);
    case 'x':
        return hex(c, 2, &cp) && wide(c, cp, out);
    case '\n':
        return true; /* a line goes on */
    case '\\':
    case '\'':
    case '"':
    case '/':
        buf_putc(out, what);
        return true;
    }
    if (!what || !known || what == '0') { /* as Python: what is no escape stands for itself */
        if (!what || what == '0') return false;
        buf_putc(out, '\\');
        buf_putc(out, what);
        return true;
    }
    buf_putc(out, to[known - from]);
    return true;
}

static json_t *string(struct cursor *c)
{
    struct buf text = {0};
    const char quote = *c->p++;
    bool good = true;
    json_t *j = NULL;
    while (good && c->p < c->end && *c->p != quote) {
        char b = *c->p++;
        if (b == '\\')
            good = escape(c, &text);
        else
            buf_putc(&text, b);
    }
    if (good && c->p < c->end) {
        c->p++;
        j = json_stringn(buf_str(&text), text.len); /* NULL: not UTF-8 */
    }
    buf_free(&text);
    return j;
}

/* ---- values ---- */

static json_t *value(struct cursor *c);

static json_t *list(struct cursor *c, char close)
{
    json_t *j = json_array(), *one;
    while (!take(c, close)) {
        if (json_array_size(j) && !take(c, ',')) goto bad;
        if (take(c, close)) break; /* a comma may end it */
        if (!(one = value(c))) goto bad;
        json_array_append_new(j, one);
    }
    return j;
bad:
    json_decref(j);
    return NULL;
}

static json_t *dictionary(struct cursor *c)
{
    json_t *j = json_object(), *key, *one;
    while (!take(c, '}')) {
        if (json_object_size(j) && !take(c, ',')) goto bad;
        if (take(c, '}')) break;
        key = c->p < c->end && (*c->p == '"' || *c->p == '\'') ? string(c) : NULL;
        one = key && take(c, ':') ? value(c) : NULL;
        if (one) json_object_set_new(j, json_string_value(key), one);
        json_decref(key);
        if (!one) goto bad;
    }
    return j;
bad:
    json_decref(j);
    return NULL;
}

static json_t *number(struct cursor *c)
{
    const char *from = c->p;
    if (c->p < c->end && *c->p == '+') from = ++c->p;
    while (c->p < c->end && *c->p && strchr("+-.0123456789eE", *c->p)) c->p++;
    return c->p == from ? NULL : json_loadb(from, (size_t)(c->p - from), JSON_DECODE_ANY, NULL);
}

static json_t *value(struct cursor *c)
{
    json_t *j = NULL;
    spaces(c);
    if (c->p == c->end || c->depth == CALL_PYTHON_DEEP) return NULL;
    c->depth++;
    if (*c->p == '"' || *c->p == '\'')
        j = string(c);
    else if (take(c, '['))
        j = list(c, ']');
    else if (take(c, '('))
        j = list(c, ')');
    else if (take(c, '{'))
        j = dictionary(c);
    else if (word(c, "True") || word(c, "true"))
        j = json_true();
    else if (word(c, "False") || word(c, "false"))
        j = json_false();
    else if (word(c, "None") || word(c, "null"))
        j = json_null();
    else
        j = number(c);
    c->depth--;
    return j;
}

/* ---- calls ---- */

static json_t *call(struct cursor *c)
{
    char *function = name(c), *key = NULL;
    json_t *args = json_object(), *one;
    if (!function || !take(c, '(')) goto bad;
    while (!take(c, ')')) {
        if (json_object_size(args) && !take(c, ',')) goto bad;
        if (take(c, ')')) break;
        free(key);
        key = name(c);
        if (!key || json_object_get(args, key) || !take(c, '=') || !(one = value(c))) goto bad;
        json_object_set_new(args, key, one);
    }
    one = json_pack("[s,o]", function, args);
    free(function);
    free(key);
    return one;
bad:
    free(function);
    free(key);
    json_decref(args);
    return NULL;
}

json_t *crd_call_python(const char *text, size_t n)
{
    struct cursor c = {text, text + n, 0};
    json_t *calls = json_array(), *one;
    const bool bracket = take(&c, '[');
    do {
        if (!(one = call(&c))) goto bad;
        json_array_append_new(calls, one);
    } while (take(&c, ',') || (!bracket && take(&c, ';')));
    if (bracket && !take(&c, ']')) goto bad;
    spaces(&c);
    if (c.p == c.end) return calls;
bad:
    json_decref(calls);
    return NULL;
}
