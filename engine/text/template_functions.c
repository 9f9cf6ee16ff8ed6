/* template_functions.c: the functions every chat template may call. */
#include "engine/text/template_value.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static struct value fn_range(struct run *r, struct value self, const struct args *a)
{
    int64_t v[3] = {0, 0, 1};
    struct value out = v_list(r, V_LIST);
    (void)self;
    for (int32_t i = 0; i < a->n && i < 3; i++) {
        if (a->at[i].kind == V_UNDEF) return v_fail_undef(r, a->at[i]);
        if (a->at[i].kind != V_INT && a->at[i].kind != V_BOOL)
            return run_fail(r, "'%s' object cannot be interpreted as an integer", v_type(a->at[i]));
        v[i] = v_as_int(a->at[i]);
    }
    if (a->n < 1 || a->n > 3) return run_fail(r, "range expected 1 to 3 arguments, got %d", a->n);
    if (a->n == 1) v[1] = v[0], v[0] = 0;
    if (!v[2]) return run_fail(r, "range() arg 3 must not be zero");
    for (int64_t i = v[0]; (v[2] > 0 ? i < v[1] : i > v[1]) && run_work(r, 1);) {
        list_push(r, out.list, v_int(i));
        if (__builtin_add_overflow(i, v[2], &i)) break;
    }
    return out;
}

static struct value build_dict(struct run *r, const struct args *a, enum value_kind kind)
{
    struct value out = v_dict(r, kind);
    for (int32_t i = 0; i < a->n && !r->rc; i++) {
        if (a->at[i].kind != V_DICT)
            return run_fail(r, "dict() takes another dict or named arguments");
        for (size_t k = 0; k < a->at[i].dict->n && !r->rc; k++)
            dict_set(r, out.dict, a->at[i].dict->at[k].key, a->at[i].dict->at[k].val);
    }
    for (int32_t i = 0; i < a->n_named && !r->rc; i++)
        dict_set(r, out.dict, v_str(a->named[i].name), a->named[i].val);
    return out;
}

static struct value fn_dict(struct run *r, struct value self, const struct args *a)
{
    (void)self;
    return build_dict(r, a, V_DICT);
}

static struct value fn_namespace(struct run *r, struct value self, const struct args *a)
{
    (void)self;
    return build_dict(r, a, V_NAMESPACE);
}

static struct value fn_raise(struct run *r, struct value self, const struct args *a)
{
    struct value text = v_str(STR(""));
    (void)self;
    args_get(a, 0, "message", &text);
    struct str s = v_text(r, text);
    if (!r->rc) r->rc = err_raise(ERR_BAD_REQUEST, "%.*s", (int)MIN(s.n, 900), s.p);
    return v_none();
}

static struct value fn_strftime(struct run *r, struct value self, const struct args *a)
{
    struct value format = v_none();
    char fmt[200], text[400];
    struct tm tm;
    time_t t = (time_t)r->now_unix;
    struct buf b = {0};
    (void)self;
    if (!args_get(a, 0, "format", &format) || format.kind != V_STR || format.s.n >= sizeof fmt)
        return run_fail(r, "strftime_now takes a format of less than 200 bytes");
    memcpy(fmt, format.s.p, format.s.n);
    fmt[format.s.n] = 0;
    gmtime_r(&t, &tm);
    run_put(r, &b, text, fmt[0] ? strftime(text, sizeof text, fmt, &tm) : 0);
    return run_take(r, &b);
}

value_fn function_find(struct str name)
{
    static const struct {
        const char *name;
        value_fn fn;
    } table[] = {{"range", fn_range},
                 {"dict", fn_dict},
                 {"namespace", fn_namespace},
                 {"raise_exception", fn_raise},
                 {"strftime_now", fn_strftime}};
    for (size_t i = 0; i < COUNT_OF(table); i++)
        if (str_is(name, table[i].name)) return table[i].fn;
    return NULL;
}
