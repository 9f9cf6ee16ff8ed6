/* call_python.c: see call_python.h. Descends by recursion, at most CALL_PYTHON_DEEP deep. */
#include "coordinator/api/call_python.h"
#include "coordinator/api/json_check.h"
#include "coordinator/api/json_out.h"

#include <ctype.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct cursor {
    const char *p, *end;
    int depth;
};

static void spaces(struct cursor *c)
{
    while (c->p < c->end && *c->p && strchr(" \t\r\n", *c->p)) c->p++;
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
    while (c->p < c->end && *c->p && (isalnum((unsigned char)*c->p) || strchr("_-.", *c->p))) c->p++;
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

/* The text between quotes, appended; false: it is not closed, or has an escape that is none. */
static bool string(struct cursor *c, struct buf *text)
{
    const char quote = *c->p++;
    while (c->p < c->end && *c->p != quote) {
        char b = *c->p++;
        if (b != '\\')
            buf_putc(text, b);
        else if (!escape(c, text))
            return false;
    }
    return c->p < c->end && *c->p++ == quote;
}

/* A string as JSON's. */
static bool put_string(struct cursor *c, struct buf *out)
{
    struct buf text = {0};
    bool good = string(c, &text) && (json_out_text(out, buf_str(&text), text.len), true);
    buf_free(&text);
    return good;
}

/* ---- values: from Python's text to JSON's ---- */

static bool value(struct cursor *c, struct buf *out);

static bool list(struct cursor *c, char close, struct buf *out)
{
    buf_putc(out, '[');
    for (bool first = true; !take(c, close); first = false) {
        if (!first && !take(c, ',')) return false;
        if (take(c, close)) break; /* a comma may end it */
        buf_puts(out, first ? "" : ", ");
        if (!value(c, out)) return false;
    }
    buf_putc(out, ']');
    return true;
}

static bool dictionary(struct cursor *c, struct buf *out)
{
    buf_putc(out, '{');
    for (bool first = true; !take(c, '}'); first = false) {
        if (!first && !take(c, ',')) return false;
        if (take(c, '}')) break;
        buf_puts(out, first ? "" : ", ");
        if (c->p == c->end || (*c->p != '"' && *c->p != '\'') || !put_string(c, out) || !take(c, ':'))
            return false;
        buf_puts(out, ": ");
        if (!value(c, out)) return false;
    }
    buf_putc(out, '}');
    return true;
}

static bool number(struct cursor *c, struct buf *out)
{
    if (c->p < c->end && *c->p == '+') c->p++;
    const char *from = c->p;
    while (c->p < c->end && *c->p && strchr("+-.0123456789eE", *c->p)) c->p++;
    const size_t n = (size_t)(c->p - from);
    if (!n || n > 400) return false;
    if (crd_json_is(from, n)) return buf_put(out, from, n), true;
    /* as Python has it too: .5 and 1. */
    char text[408], *end;
    memcpy(text, from, n);
    text[n] = 0;
    double x = strtod(text, &end);
    if (*end || !isfinite(x)) return false;
    buf_printf(out, "%.17g", x);
    return true;
}

static bool value(struct cursor *c, struct buf *out)
{
    bool good = true;
    spaces(c);
    if (c->p == c->end || c->depth == CALL_PYTHON_DEEP) return false;
    c->depth++;
    if (*c->p == '"' || *c->p == '\'')
        good = put_string(c, out);
    else if (take(c, '['))
        good = list(c, ']', out);
    else if (take(c, '('))
        good = list(c, ')', out);
    else if (take(c, '{'))
        good = dictionary(c, out);
    else if (word(c, "True") || word(c, "true"))
        buf_puts(out, "true");
    else if (word(c, "False") || word(c, "false"))
        buf_puts(out, "false");
    else if (word(c, "None") || word(c, "null"))
        buf_puts(out, "null");
    else
        good = number(c, out);
    c->depth--;
    return good;
}

/* ---- calls ---- */

/* name=value, ... up to the closing bracket, as an object. */
static bool arguments(struct cursor *c, struct buf *out)
{
    json_t *seen = json_object();
    bool good = true;
    buf_putc(out, '{');
    for (bool first = true; good && !take(c, ')'); first = false) {
        if (!first && !take(c, ',')) good = false;
        if (!good || take(c, ')')) break;
        char *key = name(c);
        good = key && !json_object_get(seen, key) && take(c, '=');
        if (good) {
            json_object_set_new(seen, key, json_true());
            buf_puts(out, first ? "" : ", ");
            json_out_text(out, key, strlen(key));
            buf_puts(out, ": ");
            good = value(c, out);
        }
        free(key);
    }
    buf_putc(out, '}');
    json_decref(seen);
    return good;
}

static json_t *call(struct cursor *c)
{
    struct buf args = {0};
    char *function = name(c);
    json_t *one = NULL;
    if (function && take(c, '(') && arguments(c, &args)) one = json_pack("[s,s]", function, buf_str(&args));
    free(function);
    buf_free(&args);
    return one;
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
