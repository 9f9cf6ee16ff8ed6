/* template_filters.c: filters on one value; those on sequences are in template_filters_seq.c. */
#include "engine/text/template_value.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The filter's own name for a method of text: undefined is "", everything else its str(). */
static struct value by_method(struct run *r, struct value v, const char *method,
                              const struct args *a)
{
    struct value out = method_find_str(str_of(method))(r, v_str(v_text(r, v)), a);
    out.safe = v.safe;
    return out;
}
static struct value f_upper(struct run *r, struct value v, const struct args *a)
{
    return by_method(r, v, "upper", a);
}
static struct value f_lower(struct run *r, struct value v, const struct args *a)
{
    return by_method(r, v, "lower", a);
}
static struct value f_trim(struct run *r, struct value v, const struct args *a)
{
    return by_method(r, v, "strip", a);
}

static struct value f_replace(struct run *r, struct value v, const struct args *a)
{
    v.safe = false;
    return by_method(r, v, "replace", a);
}

static struct value f_capitalize(struct run *r, struct value v, const struct args *a)
{
    return by_method(r, v, "capitalize", a);
}

static struct value f_string(struct run *r, struct value v, const struct args *a)
{
    return (void)a, v.kind == V_STR ? v : v_str(v_text(r, v));
}

static struct value f_safe(struct run *r, struct value v, const struct args *a)
{
    struct value out = v_str(v_text(r, v));
    (void)a;
    out.safe = true;
    return out;
}

/* Unlike str.title: words begin after blanks and opening brackets or dashes only. */
static struct value f_title(struct run *r, struct value v, const struct args *a)
{
    struct str s = v_text(r, v);
    struct buf b = {0};
    bool start = true;
    (void)a;
    for (size_t at = 0; at < s.n && !r->rc;) {
        size_t from = at;
        uint32_t cp = str_next(s, &at);
        v_put(r, &b,
              str_case(r, (struct str){s.p + from, at - from}, start ? CASE_UPPER : CASE_LOWER));
        start = ch_is_space(cp) || (cp < 0x80 && strchr("-({[<", (int)cp) && cp);
    }
    return run_take(r, &b);
}

static struct value f_default(struct run *r, struct value v, const struct args *a)
{
    struct value other = v_str(STR("")), boolean = v_bool(false);
    (void)r;
    args_get(a, 0, "default_value", &other);
    args_get(a, 1, "boolean", &boolean);
    return v.kind == V_UNDEF || (v_truth(boolean) && !v_truth(v)) ? other : v;
}

static struct value f_abs(struct run *r, struct value v, const struct args *a)
{
    (void)a;
    if (v.kind == V_FLOAT) return v_float(fabs(v.f));
    if (v.kind != V_INT && v.kind != V_BOOL)
        return run_fail(r, "bad operand type for abs(): '%s'", v_type(v));
    int64_t i = v_as_int(v);
    return i == INT64_MIN ? run_fail(r, "the number does not fit 64 bits") : v_int(i < 0 ? -i : i);
}

/* A C string of text without blanks around it, when it is short enough to be a number. */
static bool number_text(struct value v, char out[64])
{
    size_t n = 0;
    if (v.kind != V_STR) return false;
    struct str s = str_strip(v.s, STRIP_LEFT | STRIP_RIGHT, NULL);
    if (!s.n || s.n > 60) return false;
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] != '_') out[n++] = s.p[i];
    out[n] = 0;
    return n && strlen(out) == n && !strpbrk(out, " \t\n\r(");
}

static struct value f_float(struct run *r, struct value v, const struct args *a)
{
    struct value other = v_float(0);
    char text[64], *end;
    (void)r;
    args_get(a, 0, "default", &other);
    if (v_is_number(v)) return v_float(v_as_float(v));
    if (!number_text(v, text) || strpbrk(text, "xXpP")) return other;
    double f = strtod(text, &end);
    return *end ? other : v_float(f);
}

static struct value f_int(struct run *r, struct value v, const struct args *a)
{
    struct value other = v_int(0), base = v_int(10);
    char text[64], *end;
    args_get(a, 0, "default", &other);
    args_get(a, 1, "base", &base);
    if (v.kind == V_UNDEF) return v_fail_undef(r, v);
    if (v.kind == V_INT || v.kind == V_BOOL) return v_int(v_as_int(v));
    if (v.kind == V_STR && base.kind == V_INT && base.i >= 0 && base.i <= 36 &&
        number_text(v, text)) {
        errno = 0;
        long long i = strtoll(text, &end, (int)base.i);
        if (!*end && !errno) return v_int(i);
    }
    struct value f = f_float(r, v, &(struct args){.at = &other, .n = 1});
    if (f.kind != V_FLOAT || (v.kind != V_FLOAT && v.kind != V_STR)) return other;
    return isfinite(f.f) && fabs(f.f) < 9e18 ? v_int((int64_t)f.f) : other;
}

static struct value f_round(struct run *r, struct value v, const struct args *a)
{
    struct value precision = v_int(0), method = v_str(STR("common"));
    char text[400];
    args_get(a, 0, "precision", &precision);
    args_get(a, 1, "method", &method);
    if (v.kind == V_UNDEF) return v_fail_undef(r, v);
    if (!v_is_number(v) || precision.kind != V_INT || llabs(precision.i) > 30)
        return run_fail(r, "round needs a number and a precision of at most 30");
    double f = v_as_float(v), scale = pow(10, (double)precision.i);
    if (method.kind == V_STR && str_is(method.s, "ceil")) return v_float(ceil(f * scale) / scale);
    if (method.kind == V_STR && str_is(method.s, "floor")) return v_float(floor(f * scale) / scale);
    if (v.kind != V_FLOAT && precision.i >= 0) return v; /* round() of a whole number is itself */
    if (precision.i < 0) return v_float(rint(f * scale) / scale);
    snprintf(text, sizeof text, "%.*f", (int)precision.i, f);
    return v_float(strtod(text, NULL));
}

static struct value f_indent(struct run *r, struct value v, const struct args *a)
{
    struct value width = v_int(4), first = v_bool(false), blank = v_bool(false);
    struct buf b = {0}, margin = {0};
    args_get(a, 0, "width", &width);
    args_get(a, 1, "first", &first);
    args_get(a, 2, "blank", &blank);
    if (width.kind == V_STR)
        v_put(r, &margin, width);
    else
        for (int64_t i = 0; width.kind == V_INT && i < width.i && run_work(r, 1); i++)
            run_puts(r, &margin, " ");
    struct str m = run_take(r, &margin).s;
    struct list *lines =
        str_lines(r, v_text(r, v_binary(r, "+", v_str(v_text(r, v)), v_str(STR("\n")))), false);
    for (size_t i = 0; i < lines->n && !r->rc; i++) {
        if (i) run_puts(r, &b, "\n");
        if (i ? lines->at[i].s.n || v_truth(blank) : v_truth(first)) run_put(r, &b, m.p, m.n);
        v_put(r, &b, lines->at[i]);
    }
    return run_take(r, &b);
}

static struct value f_escape(struct run *r, struct value v, const struct args *a)
{
    return (void)a, v.safe ? v : str_escape(r, v_text(r, v));
}

static struct value f_forceescape(struct run *r, struct value v, const struct args *a)
{
    return (void)a, str_escape(r, v_text(r, v));
}

static struct value f_center(struct run *r, struct value v, const struct args *a)
{
    struct value width = v_int(80);
    args_get(a, 0, "width", &width);
    return by_method(r, v, "center", &(struct args){.at = &width, .n = 1});
}

static struct value f_format(struct run *r, struct value v, const struct args *a)
{
    struct value all = v_list(r, V_TUPLE);
    for (int32_t i = 0; i < a->n; i++) list_push(r, all.list, a->at[i]);
    return str_percent(r, v_text(r, v), all);
}

static struct value f_wordcount(struct run *r, struct value v, const struct args *a)
{
    (void)a;
    return v_int(
        (int64_t)method_find_str(STR("split"))(r, v_str(v_text(r, v)), &(struct args){0}).list->n);
}

/* Hugging Face's: json.dumps without ASCII escapes, nothing else escaped. */
static struct value f_tojson(struct run *r, struct value v, const struct args *a)
{
    struct value ascii = v_bool(false), indent = v_none(), seps = v_none(), sort = v_bool(false);
    struct json_style st = {-1, ", ", ": ", false, false};
    struct buf b = {0};
    if (args_get(a, 0, "ensure_ascii", &ascii)) st.ascii = v_truth(ascii);
    if (args_get(a, 1, "indent", &indent) && indent.kind == V_INT) {
        st.indent = (int32_t)CLAMP(indent.i, 0, 1000);
        st.item = ",";
    }
    if (args_get(a, 2, "separators", &seps) && (seps.kind == V_TUPLE || seps.kind == V_LIST) &&
        seps.list->n == 2) {
        char *t = run_alloc(r, v_text(r, seps.list->at[0]).n + v_text(r, seps.list->at[1]).n + 2);
        struct str x = v_text(r, seps.list->at[0]), y = v_text(r, seps.list->at[1]);
        st.item = memcpy(t, x.p, x.n);
        st.key = memcpy(t + x.n + 1, y.p, y.n);
    }
    if (args_get(a, 3, "sort_keys", &sort)) st.sort = v_truth(sort);
    v_put_json(r, &b, v, &st, 0);
    return run_take(r, &b);
}

/* Not Jinja's: of templates that llama.cpp has for models that come without one. Text to data; what is no JSON fails. */
static struct value f_from_json(struct run *r, struct value v, const struct args *a)
{
    (void)a;
    struct str s = v_text(r, v);
    if (!r->kept) r->kept = json_array();
    (void)run_alloc(r, 8 * s.n); /* charged for what the parser keeps */
    json_t *j = r->rc ? NULL : json_loadb(s.p, s.n, JSON_DECODE_ANY, NULL);
    if (!j) return run_fail(r, "from_json: no JSON: '%.*s'", (int)MIN(s.n, 60), s.p);
    json_array_append_new(r->kept, j);
    return v_from_json(r, j, 0);
}

value_fn filter_find(struct str name)
{
    static const struct {
        const char *name;
        value_fn fn;
    } table[] = {{"upper", f_upper},
                 {"lower", f_lower},
                 {"trim", f_trim},
                 {"replace", f_replace},
                 {"capitalize", f_capitalize},
                 {"string", f_string},
                 {"safe", f_safe},
                 {"title", f_title},
                 {"default", f_default},
                 {"d", f_default},
                 {"abs", f_abs},
                 {"float", f_float},
                 {"int", f_int},
                 {"round", f_round},
                 {"indent", f_indent},
                 {"escape", f_escape},
                 {"e", f_escape},
                 {"forceescape", f_forceescape},
                 {"center", f_center},
                 {"format", f_format},
                 {"wordcount", f_wordcount},
                 {"tojson", f_tojson},
                 {"from_json", f_from_json}};
    for (size_t i = 0; i < COUNT_OF(table); i++)
        if (str_is(name, table[i].name)) return table[i].fn;
    return filter_seq_find(name);
}
