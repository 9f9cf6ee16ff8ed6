/* template_format.c: Python's two ways of putting values into a text: "%s" % x and "{}".format(x).
 */
#include "engine/text/template_value.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct spec {
    char flags[8];
    int width, precision;
    char conv;
};

static size_t parse_spec(struct str f, size_t at, struct spec *s)
{
    size_t n = 0;
    *s = (struct spec){.precision = -1};
    while (at < f.n && memchr("-+ 0#", f.p[at], 5) && n < sizeof s->flags - 1)
        s->flags[n++] = f.p[at++];
    while (at < f.n && f.p[at] >= '0' && f.p[at] <= '9' && s->width < 1000)
        s->width = s->width * 10 + (f.p[at++] - '0');
    if (at < f.n && f.p[at] == '.') {
        s->precision = 0;
        for (at++; at < f.n && f.p[at] >= '0' && f.p[at] <= '9' && s->precision < 1000; at++)
            s->precision = s->precision * 10 + (f.p[at] - '0');
    }
    s->conv = at < f.n ? f.p[at++] : 0;
    return at;
}

static void put_padded(struct run *r, struct buf *b, struct str t, const struct spec *s)
{
    if (s->precision >= 0) t = str_slice(t, 0, (size_t)s->precision);
    int64_t fill = s->width - (int64_t)str_chars(t);
    bool left = strchr(s->flags, '-') != NULL;
    for (int64_t i = 0; !left && i < fill; i++) run_puts(r, b, " ");
    run_put(r, b, t.p, t.n);
    for (int64_t i = 0; left && i < fill; i++) run_puts(r, b, " ");
}

static void put_number(struct run *r, struct buf *b, struct value v, const struct spec *s)
{
    char fmt[32], text[2400];
    bool whole = strchr("dixXo", s->conv) != NULL;
    if (!v_is_number(v)) {
        run_fail(r, "%%%c format: a number is required, not %s", s->conv, v_type(v));
        return;
    }
    int precision = s->precision < 0 && !whole ? 6 : s->precision;
    snprintf(fmt, sizeof fmt, "%%%s%d.%d%s%c", s->flags, s->width, precision, whole ? "ll" : "",
             s->conv);
    if (s->width == 0)
        snprintf(fmt, sizeof fmt, "%%%s.%d%s%c", s->flags, precision, whole ? "ll" : "", s->conv);
    if (whole && precision < 0) {
        if (s->width)
            snprintf(fmt, sizeof fmt, "%%%s%dll%c", s->flags, s->width, s->conv);
        else
            snprintf(fmt, sizeof fmt, "%%%sll%c", s->flags, s->conv);
    }
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    if (whole)
        snprintf(text, sizeof text, fmt,
                 (long long)(v.kind == V_FLOAT ? (int64_t)v.f : v_as_int(v)));
    else
        snprintf(text, sizeof text, fmt, v_as_float(v));
#pragma GCC diagnostic pop
    run_puts(r, b, text);
}

static void put_spec(struct run *r, struct buf *b, struct value v, const struct spec *s)
{
    struct buf t = {0};
    if (s->conv == 's' || s->conv == 'r') {
        if (s->conv == 's')
            v_put(r, &t, v);
        else
            v_put_repr(r, &t, v, 0);
        put_padded(r, b, run_take(r, &t).s, s);
    } else if (s->conv && strchr("dixXofFgGeE", s->conv)) {
        put_number(r, b, v, s);
    } else {
        run_fail(r, "unsupported format character '%c'", s->conv ? s->conv : ' ');
    }
}

struct value str_percent(struct run *r, struct str f, struct value values)
{
    struct buf b = {0};
    const struct value *at = values.kind == V_TUPLE ? values.list->at : &values;
    size_t n = values.kind == V_TUPLE ? values.list->n : 1, used = 0;
    struct spec s;
    for (size_t i = 0; i < f.n && run_work(r, 1);) {
        if (f.p[i] != '%') {
            run_put(r, &b, f.p + i++, 1);
            continue;
        }
        i = parse_spec(f, i + 1, &s);
        if (s.conv == '%')
            run_puts(r, &b, "%");
        else if (used >= n)
            run_fail(r, "not enough arguments for format string");
        else
            put_spec(r, &b, at[used++], &s);
    }
    if (used < n && values.kind != V_DICT && !(values.kind == V_LIST && n == 1 && !used))
        run_fail(r, "not all arguments converted during string formatting");
    return run_take(r, &b);
}

static struct value field(struct run *r, struct str name, int32_t *next, const struct args *a)
{
    struct value v;
    char digits[12] = "";
    int32_t i = -1;
    if (!name.n)
        i = (*next)++;
    else if (name.n < sizeof digits && name.p[0] >= '0' && name.p[0] <= '9')
        i = atoi(memcpy(digits, name.p, name.n));
    if (i >= 0 && i < a->n) return a->at[i];
    for (int32_t k = 0; i < 0 && k < a->n_named; k++)
        if (str_eq(a->named[k].name, name)) return v = a->named[k].val, v;
    return run_fail(r, "format: no argument for {%.*s}", (int)MIN(name.n, 40), name.p);
}

struct value str_format(struct run *r, struct value self, const struct args *a)
{
    struct str f = self.s;
    struct buf b = {0};
    int32_t next = 0;
    for (size_t i = 0; i < f.n && run_work(r, 1);) {
        char c = f.p[i];
        if ((c == '{' || c == '}') && i + 1 < f.n && f.p[i + 1] == c) {
            run_put(r, &b, &c, 1);
            i += 2;
        } else if (c == '{') {
            const char *end = memchr(f.p + i, '}', f.n - i);
            if (!end) return buf_free(&b), run_fail(r, "format: expected '}' before end of string");
            struct str name = {f.p + i + 1, (size_t)(end - f.p) - i - 1};
            if (memchr(name.p, ':', name.n) || memchr(name.p, '!', name.n) ||
                memchr(name.p, '.', name.n))
                return buf_free(&b), run_fail(r, "format: only {}, {0} and {name} are supported");
            v_put(r, &b, field(r, name, &next, a));
            i += name.n + 2;
        } else {
            run_put(r, &b, &c, 1);
            i++;
        }
    }
    return run_take(r, &b);
}
