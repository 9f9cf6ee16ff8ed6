/* template_value.c: the run's bounds, values, comparing and iterating them. */
#include "engine/text/template_value.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct str str_of(const char *s) { return (struct str){s, strlen(s)}; }
bool str_eq(struct str a, struct str b) { return a.n == b.n && (!a.n || !memcmp(a.p, b.p, a.n)); }
bool str_is(struct str a, const char *b) { return str_eq(a, str_of(b)); }

bool args_get(const struct args *a, int32_t i, const char *name, struct value *out)
{
    if (i >= 0 && i < a->n) return *out = a->at[i], true;
    for (int32_t k = 0; name && k < a->n_named; k++)
        if (str_is(a->named[k].name, name)) return *out = a->named[k].val, true;
    return false;
}

struct value run_fail(struct run *r, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    if (r->rc) return v_none();
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    r->rc = err_raise(ERR_BAD_REQUEST, "chat template, line %d: %s", r->line, text);
    return v_none();
}

struct value run_stop(struct run *r, const char *what)
{
    if (!r->rc)
        r->rc = err_raise(ERR_TOO_LONG,
                          "chat template, line %d: stopped after %s: shorten the conversation or "
                          "mend the template",
                          r->line, what);
    return v_none();
}

bool run_work(struct run *r, size_t steps)
{
    if (r->rc) return false;
    r->steps += steps;
    if (r->steps > RUN_MAX_STEPS) run_stop(r, "20 million steps");
    return !r->rc;
}

void *run_alloc(struct run *r, size_t n)
{
    r->memory += n + 16;
    if (r->memory > RUN_MAX_MEMORY) run_stop(r, "128 MiB of memory");
    run_work(r, 1 + n / 64);
    return arena_alloc(&r->arena, n ? n : 1);
}

void run_put(struct run *r, struct buf *b, const char *p, size_t n)
{
    if (b->len + n > RUN_MAX_OUTPUT || n > RUN_MAX_OUTPUT) run_stop(r, "32 MiB of text");
    if (run_work(r, n / 64) && n) buf_put(b, p, n);
}

void run_puts(struct run *r, struct buf *b, const char *s) { run_put(r, b, s, strlen(s)); }

struct value run_take(struct run *r, struct buf *b)
{
    char *p = run_alloc(r, b->len + 1);
    struct str s = {p, b->len};
    if (b->len) memcpy(p, b->data, b->len);
    buf_free(b);
    return v_str(s);
}

struct value v_none(void) { return (struct value){.kind = V_NONE}; }
struct value v_bool(bool b) { return (struct value){.kind = V_BOOL, .b = b}; }
struct value v_int(int64_t i) { return (struct value){.kind = V_INT, .i = i}; }
struct value v_float(double f) { return (struct value){.kind = V_FLOAT, .f = f}; }
struct value v_str(struct str s) { return (struct value){.kind = V_STR, .s = s}; }

struct value v_undef(struct str name, enum value_kind owner)
{
    return (struct value){.kind = V_UNDEF, .owner = owner, .s = name};
}

struct value v_list(struct run *r, enum value_kind kind)
{
    return (struct value){.kind = kind, .list = run_alloc(r, sizeof(struct list))};
}

struct value v_dict(struct run *r, enum value_kind kind)
{
    return (struct value){.kind = kind, .dict = run_alloc(r, sizeof(struct dict))};
}

struct value v_method(struct run *r, struct value self, value_fn fn)
{
    struct method *m = run_alloc(r, sizeof *m);
    *m = (struct method){self, fn};
    return (struct value){.kind = V_METHOD, .method = m};
}

void list_push(struct run *r, struct list *l, struct value v)
{
    if (l->n == l->cap) {
        if (r->rc) return; /* who goes on after a bound was hit gets no more memory */
        size_t cap = l->cap ? l->cap * 2 : 4;
        struct value *at = run_alloc(r, cap * sizeof *at);
        if (r->rc) return;
        if (l->n) memcpy(at, l->at, l->n * sizeof *at);
        l->at = at, l->cap = cap;
    }
    l->at[l->n++] = v;
}

struct value *dict_find(struct run *r, const struct dict *d, struct value key)
{
    for (size_t i = 0; i < d->n; i++)
        if (v_equal(r, d->at[i].key, key)) return &d->at[i].val;
    run_work(r, d->n / 8);
    return NULL;
}

static void dict_append(struct run *r, struct dict *d, struct value key, struct value val)
{
    if (d->n == d->cap) {
        size_t cap = d->cap ? d->cap * 2 : 4;
        struct entry *at = run_alloc(r, cap * sizeof *at);
        if (r->rc) return;
        if (d->n) memcpy(at, d->at, d->n * sizeof *at);
        d->at = at, d->cap = cap;
    }
    d->at[d->n++] = (struct entry){key, val};
}

void dict_set(struct run *r, struct dict *d, struct value key, struct value val)
{
    struct value *old = dict_find(r, d, key);
    if (key.kind == V_LIST || key.kind == V_DICT)
        run_fail(r, "unhashable type: '%s'", v_type(key));
    else if (old)
        *old = val;
    else
        dict_append(r, d, key, val);
}

struct value v_from_json(struct run *r, json_t *j, int32_t nesting)
{
    struct value v = v_none();
    const char *key;
    size_t i, n;
    json_t *x;
    if (r->rc) return v;
    if (nesting > RUN_MAX_NESTING) return run_stop(r, "100 levels of nested data");
    switch (json_typeof(j)) {
    case JSON_TRUE: return v_bool(true);
    case JSON_FALSE: return v_bool(false);
    case JSON_NULL: return v;
    case JSON_INTEGER: return v_int(json_integer_value(j));
    case JSON_REAL: return v_float(json_real_value(j));
    case JSON_STRING: return v_str((struct str){json_string_value(j), json_string_length(j)});
    case JSON_ARRAY:
        v = v_list(r, V_LIST);
        json_array_foreach(j, i, x) list_push(r, v.list, v_from_json(r, x, nesting + 1));
        return v;
    case JSON_OBJECT:
        v = v_dict(r, V_DICT);
        json_object_keylen_foreach(j, key, n, x)
            dict_append(r, v.dict, v_str((struct str){key, n}), v_from_json(r, x, nesting + 1));
        return v;
    }
    return v;
}

bool v_is_number(struct value v)
{
    return v.kind == V_BOOL || v.kind == V_INT || v.kind == V_FLOAT;
}
int64_t v_as_int(struct value v) { return v.kind == V_BOOL ? v.b : v.i; }
double v_as_float(struct value v) { return v.kind == V_FLOAT ? v.f : (double)v_as_int(v); }

bool v_truth(struct value v)
{
    switch (v.kind) {
    case V_UNDEF:
    case V_NONE: return false;
    case V_BOOL: return v.b;
    case V_INT: return v.i != 0;
    case V_FLOAT: return v.f != 0;
    case V_STR: return v.s.n > 0;
    case V_LIST:
    case V_TUPLE: return v.list->n > 0;
    case V_DICT: return v.dict->n > 0;
    case V_NAMESPACE:
    case V_LOOP:
    case V_MACRO:
    case V_FUNCTION:
    case V_METHOD: break;
    }
    return true;
}

static bool equal_deep(struct run *r, struct value a, struct value b, int32_t nesting);

static bool equal_dicts(struct run *r, const struct dict *a, const struct dict *b, int32_t nesting)
{
    if (a->n != b->n) return false;
    for (size_t i = 0; i < a->n; i++) {
        const struct value *other = dict_find(r, b, a->at[i].key);
        if (!other || !equal_deep(r, a->at[i].val, *other, nesting + 1)) return false;
    }
    return true;
}

static bool equal_deep(struct run *r, struct value a, struct value b, int32_t nesting)
{
    if (nesting > RUN_MAX_NESTING) return run_stop(r, "100 levels of nested data"), false;
    if (v_is_number(a) && v_is_number(b)) {
        if (a.kind == V_FLOAT || b.kind == V_FLOAT) return v_as_float(a) == v_as_float(b);
        return v_as_int(a) == v_as_int(b);
    }
    if (a.kind != b.kind) return false;
    switch (a.kind) {
    case V_STR: return a.s.n == b.s.n && run_work(r, a.s.n / 64) && str_eq(a.s, b.s);
    case V_LIST:
    case V_TUPLE:
        if (!run_work(r, 1) || a.list->n != b.list->n) return false;
        for (size_t i = 0; i < a.list->n; i++)
            if (!equal_deep(r, a.list->at[i], b.list->at[i], nesting + 1)) return false;
        return true;
    case V_DICT: return run_work(r, 1) && equal_dicts(r, a.dict, b.dict, nesting);
    case V_NAMESPACE: return a.dict == b.dict;
    case V_LOOP: return a.loop == b.loop;
    case V_MACRO: return a.macro == b.macro;
    case V_FUNCTION: return a.function == b.function;
    case V_METHOD: return a.method == b.method;
    case V_UNDEF:
    case V_NONE:
    case V_BOOL:
    case V_INT:
    case V_FLOAT: break;
    }
    return true;
}

bool v_equal(struct run *r, struct value a, struct value b) { return equal_deep(r, a, b, 0); }

static int compare_deep(struct run *r, struct value a, struct value b, const char *op,
                        int32_t nesting)
{
    if (a.kind == V_UNDEF) return v_fail_undef(r, a), 0;
    if (b.kind == V_UNDEF) return v_fail_undef(r, b), 0;
    if (nesting > RUN_MAX_NESTING) return run_stop(r, "100 levels of nested data"), 0;
    if (v_is_number(a) && v_is_number(b)) {
        double x = v_as_float(a), y = v_as_float(b);
        if (a.kind == V_FLOAT || b.kind == V_FLOAT) return x < y ? -1 : x > y;
        return v_as_int(a) < v_as_int(b) ? -1 : v_as_int(a) > v_as_int(b);
    }
    if (a.kind == V_STR && b.kind == V_STR) { /* UTF-8 sorts as its code points */
        size_t n = MIN(a.s.n, b.s.n);
        run_work(r, n / 64);
        int c = n ? memcmp(a.s.p, b.s.p, n) : 0;
        return c ? c : a.s.n < b.s.n ? -1 : a.s.n > b.s.n;
    }
    if (a.kind == b.kind && (a.kind == V_LIST || a.kind == V_TUPLE)) {
        for (size_t i = 0; i < a.list->n && i < b.list->n && run_work(r, 1); i++)
            if (!v_equal(r, a.list->at[i], b.list->at[i]))
                return compare_deep(r, a.list->at[i], b.list->at[i], op, nesting + 1);
        return a.list->n < b.list->n ? -1 : a.list->n > b.list->n;
    }
    run_fail(r, "'%s' not supported between instances of '%s' and '%s'", op, v_type(a), v_type(b));
    return 0;
}

int v_compare(struct run *r, struct value a, struct value b, const char *op)
{
    return compare_deep(r, a, b, op, 0);
}

bool v_contains(struct run *r, struct value box, struct value x)
{
    switch (box.kind) {
    case V_STR:
        if (x.kind == V_STR)
            return run_work(r, box.s.n / 64) && str_find(box.s, x.s, 0) != SIZE_MAX;
        run_fail(r, "'in <string>' requires string as left operand, not %s", v_type(x));
        return false;
    case V_LIST:
    case V_TUPLE:
        for (size_t i = 0; i < box.list->n && run_work(r, 1); i++)
            if (v_equal(r, box.list->at[i], x)) return true;
        return false;
    case V_DICT: return dict_find(r, box.dict, x) != NULL;
    case V_UNDEF: return false;
    default: run_fail(r, "argument of type '%s' is not iterable", v_type(box)); return false;
    }
}

const char *v_type(struct value v)
{
    static const char *const names[] = {"Undefined",   "NoneType", "bool",     "int",   "float",
                                        "str",         "list",     "tuple",    "dict",  "Namespace",
                                        "LoopContext", "Macro",    "function", "method"};
    return names[v.kind];
}

struct value v_fail_undef(struct run *r, struct value v)
{
    int n = (int)MIN(v.s.n, 200);
    if (v.owner == V_UNDEF) return run_fail(r, "'%.*s' is undefined", n, v.s.p);
    if (v.s.n && (uint8_t)(v.s.p[0] - '0') < 10)
        return run_fail(r, "%s object has no element %.*s", v_type((struct value){.kind = v.owner}),
                        n, v.s.p);
    return run_fail(r, "'%s object' has no attribute '%.*s'",
                    v_type((struct value){.kind = v.owner}), n, v.s.p);
}

struct list *v_iterate(struct run *r, struct value v)
{
    struct value out;
    if (v.kind == V_LIST || v.kind == V_TUPLE) return v.list;
    out = v_list(r, V_LIST);
    if (v.kind == V_STR) {
        for (size_t at = 0, from; at < v.s.n && !r->rc;) {
            from = at;
            str_next(v.s, &at);
            list_push(r, out.list, v_str((struct str){v.s.p + from, at - from}));
        }
    } else if (v.kind == V_DICT) {
        for (size_t i = 0; i < v.dict->n && !r->rc; i++) list_push(r, out.list, v.dict->at[i].key);
    } else if (v.kind != V_UNDEF) {
        run_fail(r, "'%s' object is not iterable", v_type(v));
    }
    return out.list;
}

bool v_length(struct run *r, struct value v, int64_t *n)
{
    switch (v.kind) {
    case V_STR: *n = (int64_t)str_chars(v.s); return run_work(r, v.s.n / 64);
    case V_LIST:
    case V_TUPLE: *n = (int64_t)v.list->n; return true;
    case V_DICT: *n = (int64_t)v.dict->n; return true;
    case V_UNDEF: *n = 0; return true;
    default: run_fail(r, "object of type '%s' has no len()", v_type(v)); return false;
    }
}
