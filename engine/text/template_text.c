/* template_text.c: values as text: Python's str() and repr(), and json.dumps as chat templates see
 * it. */
#include "engine/text/template_value.h"
#include "engine/text/utf8.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* The shortest digits that read back as f, in Python's spelling. */
static void put_float(struct run *r, struct buf *b, double f, bool json)
{
    char e[40], out[48];
    if (isnan(f) || isinf(f)) {
        const char *inf = json ? "Infinity" : "inf";
        if (isinf(f) && f < 0) run_puts(r, b, "-");
        run_puts(r, b, isnan(f) ? (json ? "NaN" : "nan") : inf);
        return;
    }
    int digits = 0;
    do snprintf(e, sizeof e, "%.*e", digits, f);
    while (digits++ < 17 && strtod(e, NULL) != f);
    int exp10 = atoi(strchr(e, 'e') + 1);
    if (exp10 >= -4 && exp10 < 16) {
        int after = digits - 1 - exp10;
        snprintf(out, sizeof out, "%.*f", after > 0 ? after : 0, f);
        if (after <= 0) strcat(out, ".0");
    } else {
        snprintf(out, sizeof out, "%s", e);
    }
    run_puts(r, b, out);
}

static void put_scalar(struct run *r, struct buf *b, struct value v)
{
    char t[32];
    switch (v.kind) {
    case V_NONE: run_puts(r, b, "None"); return;
    case V_BOOL: run_puts(r, b, v.b ? "True" : "False"); return;
    case V_INT:
        snprintf(t, sizeof t, "%lld", (long long)v.i);
        run_puts(r, b, t);
        return;
    case V_FLOAT: put_float(r, b, v.f, false); return;
    default: return;
    }
}

static bool is_printable(uint32_t cp)
{
    switch (utf8proc_category((utf8proc_int32_t)cp)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP: return false;
    case UTF8PROC_CATEGORY_ZS: return cp == ' ';
    default: return true;
    }
}

static void put_repr_str(struct run *r, struct buf *b, struct str s)
{
    bool single = s.n && memchr(s.p, '\'', s.n), twice = s.n && memchr(s.p, '"', s.n);
    char quote = single && !twice ? '"' : '\'', t[16];
    run_put(r, b, &quote, 1);
    for (size_t at = 0; at < s.n && !r->rc;) {
        size_t from = at;
        uint32_t cp = str_next(s, &at);
        t[0] = 0;
        if (cp == '\\' || cp == (uint32_t)quote)
            snprintf(t, sizeof t, "\\%c", (char)cp);
        else if (cp == '\n')
            strcpy(t, "\\n");
        else if (cp == '\r')
            strcpy(t, "\\r");
        else if (cp == '\t')
            strcpy(t, "\\t");
        else if (!is_printable(cp))
            snprintf(t, sizeof t,
                     cp < 0x100     ? "\\x%02x"
                     : cp < 0x10000 ? "\\u%04x"
                                    : "\\U%08x",
                     cp);
        if (t[0])
            run_puts(r, b, t);
        else
            run_put(r, b, s.p + from, at - from);
    }
    run_put(r, b, &quote, 1);
}

static void put_repr_list(struct run *r, struct buf *b, struct value v, int32_t nesting)
{
    bool tuple = v.kind == V_TUPLE;
    run_puts(r, b, tuple ? "(" : "[");
    for (size_t i = 0; i < v.list->n && !r->rc; i++) {
        if (i) run_puts(r, b, ", ");
        v_put_repr(r, b, v.list->at[i], nesting + 1);
    }
    if (tuple && v.list->n == 1) run_puts(r, b, ",");
    run_puts(r, b, tuple ? ")" : "]");
}

void v_put_repr(struct run *r, struct buf *b, struct value v, int32_t nesting)
{
    if (nesting > RUN_MAX_NESTING) run_stop(r, "100 levels of nested data");
    if (!run_work(r, 1)) return;
    switch (v.kind) {
    case V_STR: put_repr_str(r, b, v.s); return;
    case V_LIST:
    case V_TUPLE: put_repr_list(r, b, v, nesting); return;
    case V_DICT:
    case V_NAMESPACE:
        run_puts(r, b, v.kind == V_NAMESPACE ? "<Namespace {" : "{");
        for (size_t i = 0; i < v.dict->n && !r->rc; i++) {
            if (i) run_puts(r, b, ", ");
            v_put_repr(r, b, v.dict->at[i].key, nesting + 1);
            run_puts(r, b, ": ");
            v_put_repr(r, b, v.dict->at[i].val, nesting + 1);
        }
        run_puts(r, b, v.kind == V_NAMESPACE ? "}>" : "}");
        return;
    case V_UNDEF: run_puts(r, b, "Undefined"); return;
    case V_LOOP:
    case V_MACRO:
    case V_FUNCTION:
    case V_METHOD:
        run_puts(r, b, "<");
        run_puts(r, b, v_type(v));
        run_puts(r, b, ">");
        return;
    case V_NONE:
    case V_BOOL:
    case V_INT:
    case V_FLOAT: break;
    }
    put_scalar(r, b, v);
}

void v_put(struct run *r, struct buf *b, struct value v)
{
    if (v.kind == V_STR)
        run_put(r, b, v.s.p, v.s.n);
    else if (v.kind != V_UNDEF)
        v_put_repr(r, b, v, 0);
}

struct str v_text(struct run *r, struct value v)
{
    struct buf b = {0};
    if (v.kind == V_STR) return v.s;
    v_put(r, &b, v);
    return run_take(r, &b).s;
}

static void put_json_str(struct run *r, struct buf *b, struct str s, bool ascii)
{
    char t[16];
    run_puts(r, b, "\"");
    for (size_t at = 0; at < s.n && !r->rc;) {
        size_t from = at;
        uint32_t cp = str_next(s, &at);
        const char *short_form = cp == '"'    ? "\\\""
                                 : cp == '\\' ? "\\\\"
                                 : cp == '\n' ? "\\n"
                                 : cp == '\r' ? "\\r"
                                 : cp == '\t' ? "\\t"
                                 : cp == '\b' ? "\\b"
                                 : cp == '\f' ? "\\f"
                                              : NULL;
        if (short_form) {
            run_puts(r, b, short_form);
        } else if (cp < 0x20 || (ascii && cp > 0x7E)) {
            if (cp < 0x10000)
                snprintf(t, sizeof t, "\\u%04x", cp);
            else
                snprintf(t, sizeof t, "\\u%04x\\u%04x", 0xD7C0 + (cp >> 10), 0xDC00 + (cp & 0x3FF));
            run_puts(r, b, t);
        } else {
            run_put(r, b, s.p + from, at - from);
        }
    }
    run_puts(r, b, "\"");
}

static void new_line(struct run *r, struct buf *b, const struct json_style *st, int32_t nesting)
{
    if (st->indent < 0) return;
    run_puts(r, b, "\n");
    for (int64_t i = 0; i < (int64_t)st->indent * nesting && !r->rc; i++) run_puts(r, b, " ");
}

static void put_json_key(struct run *r, struct buf *b, struct value k, const struct json_style *st)
{
    struct buf t = {0};
    if (k.kind == V_STR) {
        put_json_str(r, b, k.s, st->ascii);
        return;
    }
    if (k.kind != V_NONE && !v_is_number(k))
        run_fail(r, "keys must be str, int, float, bool or None, not %s", v_type(k));
    v_put_json(r, &t, k, st, 0);
    put_json_str(r, b, run_take(r, &t).s, st->ascii);
}

/* The entries in the order they are written. */
static const struct entry *json_order(struct run *r, const struct dict *d, bool sort)
{
    struct entry *at = d->at;
    if (!sort || d->n < 2) return at;
    at = run_alloc(r, d->n * sizeof *at);
    for (size_t i = 0; i < d->n && run_work(r, i / 4);
         i++) { /* by insertion: dicts of templates are small */
        size_t k = i;
        for (; k && v_compare(r, at[k - 1].key, d->at[i].key, "<") > 0; k--) at[k] = at[k - 1];
        at[k] = d->at[i];
    }
    return at;
}

static void put_json_dict(struct run *r, struct buf *b, const struct dict *d,
                          const struct json_style *st, int32_t nesting)
{
    const struct entry *at = json_order(r, d, st->sort);
    run_puts(r, b, "{");
    for (size_t i = 0; i < d->n && !r->rc; i++) {
        if (i) run_puts(r, b, st->item);
        new_line(r, b, st, nesting + 1);
        put_json_key(r, b, at[i].key, st);
        run_puts(r, b, st->key);
        v_put_json(r, b, at[i].val, st, nesting + 1);
    }
    if (d->n) new_line(r, b, st, nesting);
    run_puts(r, b, "}");
}

void v_put_json(struct run *r, struct buf *b, struct value v, const struct json_style *st,
                int32_t nesting)
{
    if (nesting > RUN_MAX_NESTING) run_stop(r, "100 levels of nested data");
    if (!run_work(r, 1)) return;
    switch (v.kind) {
    case V_NONE: run_puts(r, b, "null"); return;
    case V_BOOL: run_puts(r, b, v.b ? "true" : "false"); return;
    case V_INT: put_scalar(r, b, v); return;
    case V_FLOAT: put_float(r, b, v.f, true); return;
    case V_STR: put_json_str(r, b, v.s, st->ascii); return;
    case V_DICT: put_json_dict(r, b, v.dict, st, nesting); return;
    case V_LIST:
    case V_TUPLE:
        run_puts(r, b, "[");
        for (size_t i = 0; i < v.list->n && !r->rc; i++) {
            if (i) run_puts(r, b, st->item);
            new_line(r, b, st, nesting + 1);
            v_put_json(r, b, v.list->at[i], st, nesting + 1);
        }
        if (v.list->n) new_line(r, b, st, nesting);
        run_puts(r, b, "]");
        return;
    default: run_fail(r, "Object of type %s is not JSON serializable", v_type(v));
    }
}
