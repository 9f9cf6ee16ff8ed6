/* template_filters_seq.c: filters on sequences and mappings. */
#include "engine/text/template_value.h"

#include <stdlib.h>
#include <string.h>

static struct value f_length(struct run *r, struct value v, const struct args *a)
{
    int64_t n;
    (void)a;
    return v_length(r, v, &n) ? v_int(n) : v_none();
}

static struct value f_list(struct run *r, struct value v, const struct args *a)
{
    struct list *l = v_iterate(r, v);
    struct value out = v_list(r, V_LIST);
    (void)a;
    for (size_t i = 0; i < l->n && !r->rc; i++) list_push(r, out.list, l->at[i]);
    return out;
}

static struct value f_first(struct run *r, struct value v, const struct args *a)
{
    (void)a;
    if (v.kind == V_STR && v.s.n) return v_str(str_slice(v.s, 0, 1));
    struct list *l = v_iterate(r, v);
    return l->n ? l->at[0] : v_undef(STR("first item of an empty sequence"), V_UNDEF);
}

static struct value f_last(struct run *r, struct value v, const struct args *a)
{
    struct list *l = v_iterate(r, v);
    (void)a;
    return l->n ? l->at[l->n - 1] : v_undef(STR("last item of an empty sequence"), V_UNDEF);
}

static struct value f_reverse(struct run *r, struct value v, const struct args *a)
{
    struct list *l = v_iterate(r, v);
    struct value out = v_list(r, V_LIST);
    struct buf b = {0};
    (void)a;
    for (size_t i = l->n; i-- > 0 && !r->rc;) {
        if (v.kind == V_STR)
            v_put(r, &b, l->at[i]);
        else
            list_push(r, out.list, l->at[i]);
    }
    return v.kind == V_STR ? run_take(r, &b) : out;
}

static struct value f_items(struct run *r, struct value v, const struct args *a)
{
    if (v.kind == V_UNDEF) return v_list(r, V_LIST);
    if (v.kind != V_DICT) return run_fail(r, "Can only get item pairs from a mapping.");
    return method_find(v, STR("items"))(r, v, a);
}

/* "a.b.0" looked up step by step, as items. An empty or absent name is the value itself; what is
 * missing is `other`, if given, at every step. */
static struct value by_attribute_or(struct run *r, struct value v, struct value attribute,
                                    const struct value *other)
{
    if (attribute.kind == V_INT) {
        v = v_item(r, v, attribute);
        return other && v.kind == V_UNDEF ? *other : v;
    }
    if (attribute.kind != V_STR) return v;
    for (struct str rest = attribute.s; rest.n && !r->rc;) {
        size_t dot = str_find(rest, STR("."), 0), n = dot == SIZE_MAX ? rest.n : dot;
        struct str name = {rest.p, n};
        bool number = n > 0 && n < 10 && strspn(name.p, "0123456789") >= n;
        v = v_item(r, v, number ? v_int(atoll(name.p)) : v_str(name));
        if (other && v.kind == V_UNDEF) v = *other;
        rest = (struct str){rest.p + n + (dot != SIZE_MAX), rest.n - n - (dot != SIZE_MAX)};
    }
    return v;
}

static struct value by_attribute(struct run *r, struct value v, struct value attribute)
{
    return by_attribute_or(r, v, attribute, NULL);
}

static struct value f_join(struct run *r, struct value v, const struct args *a)
{
    struct value d = v_str(STR("")), attribute = v_none();
    struct list *l = v_iterate(r, v);
    struct buf b = {0};
    args_get(a, 0, "d", &d);
    args_get(a, 1, "attribute", &attribute);
    for (size_t i = 0; i < l->n && !r->rc; i++) {
        if (i) v_put(r, &b, d);
        v_put(r, &b, by_attribute(r, l->at[i], attribute));
    }
    return run_take(r, &b);
}

/* The arguments after the first k. */
static struct args tail(const struct args *a, int32_t k)
{
    k = MIN(k, a->n);
    return (struct args){
        .at = k ? a->at + k : a->at, .n = a->n - k, .named = a->named, .n_named = a->n_named};
}

static struct value f_map(struct run *r, struct value v, const struct args *a)
{
    struct value attribute, fallback = v_none(), name, out = v_list(r, V_LIST);
    struct list *l = v_truth(v) ? v_iterate(r, v) : NULL;
    value_fn fn = NULL;
    bool by_name = args_get(a, -1, "attribute", &attribute),
         has_fallback = args_get(a, -1, "default", &fallback);
    struct args rest = tail(a, 1);
    if (!l) return out; /* nothing, none and the like have no items to map */
    if (!by_name) {
        if (!args_get(a, 0, NULL, &name) || name.kind != V_STR)
            return run_fail(r, "map needs the name of a filter or attribute=");
        fn = filter_find(name.s);
        if (!fn) return run_fail(r, "No filter named '%.*s'", (int)MIN(name.s.n, 60), name.s.p);
    }
    for (size_t i = 0; i < l->n && run_work(r, 1); i++) {
        struct value x =
            fn ? fn(r, l->at[i], &rest)
               : by_attribute_or(r, l->at[i], attribute, has_fallback ? &fallback : NULL);
        list_push(r, out.list, x);
    }
    return out;
}

/* select, reject, selectattr, rejectattr: an optional attribute, an optional test and its
 * arguments. */
static struct value choose(struct run *r, struct value v, const struct args *a, bool keep,
                           bool attr)
{
    struct value attribute = v_none(), name, out = v_list(r, V_LIST);
    struct list *l = v_truth(v) ? v_iterate(r, v) : NULL;
    value_fn test = NULL;
    struct args rest = tail(a, attr ? 2 : 1);
    if (!l) return out; /* as for map */
    if (attr && !args_get(a, 0, NULL, &attribute))
        return run_fail(r, "Missing parameter for attribute name");
    if (args_get(a, attr ? 1 : 0, NULL, &name)) {
        test = name.kind == V_STR ? test_find(name.s) : NULL;
        if (!test)
            return run_fail(r, "No test named '%.60s'",
                            name.kind == V_STR ? v_text(r, name).p : v_type(name));
    }
    for (size_t i = 0; i < l->n && run_work(r, 1); i++) {
        struct value x = by_attribute(r, l->at[i], attribute);
        bool yes = v_truth(test ? test(r, x, &rest) : x);
        if (yes == keep) list_push(r, out.list, l->at[i]);
    }
    return out;
}
static struct value f_select(struct run *r, struct value v, const struct args *a)
{
    return choose(r, v, a, true, false);
}
static struct value f_reject(struct run *r, struct value v, const struct args *a)
{
    return choose(r, v, a, false, false);
}
static struct value f_selectattr(struct run *r, struct value v, const struct args *a)
{
    return choose(r, v, a, true, true);
}
static struct value f_rejectattr(struct run *r, struct value v, const struct args *a)
{
    return choose(r, v, a, false, true);
}

/* What sort and unique compare: the attribute, in lower case unless asked otherwise. */
static struct value sort_key(struct run *r, struct value v, struct value attribute, bool exact)
{
    v = by_attribute(r, v, attribute);
    return v.kind == V_STR && !exact ? str_case(r, v.s, CASE_LOWER) : v;
}

struct keyed {
    struct value key, val;
};

/* Stable; merges halves. */
static void sort_keyed(struct run *r, struct keyed *at, struct keyed *tmp, size_t n, bool down)
{
    if (n < 2 || !run_work(r, n)) return;
    size_t half = n / 2, i = 0, k = half, m = 0;
    sort_keyed(r, at, tmp, half, down);
    sort_keyed(r, at + half, tmp, n - half, down);
    while (i < half && k < n && !r->rc) {
        int c = v_compare(r, at[k].key, at[i].key, "<");
        tmp[m++] = (down ? c > 0 : c < 0) ? at[k++] : at[i++];
    }
    while (i < half) tmp[m++] = at[i++];
    if (!r->rc) memcpy(at, tmp, m * sizeof *at);
}

static struct value sorted(struct run *r, struct list *l, struct value attribute, bool exact,
                           bool down)
{
    struct keyed *at = run_alloc(r, (l->n + 1) * sizeof *at),
                 *tmp = run_alloc(r, (l->n + 1) * sizeof *tmp);
    struct value out = v_list(r, V_LIST);
    for (size_t i = 0; i < l->n && !r->rc; i++)
        at[i] = (struct keyed){sort_key(r, l->at[i], attribute, exact), l->at[i]};
    sort_keyed(r, at, tmp, l->n, down);
    for (size_t i = 0; i < l->n && !r->rc; i++) list_push(r, out.list, at[i].val);
    return out;
}

static struct value f_sort(struct run *r, struct value v, const struct args *a)
{
    struct value down = v_bool(false), exact = v_bool(false), attribute = v_none();
    args_get(a, 0, "reverse", &down);
    args_get(a, 1, "case_sensitive", &exact);
    args_get(a, 2, "attribute", &attribute);
    return sorted(r, v_iterate(r, v), attribute, v_truth(exact), v_truth(down));
}

static struct value f_dictsort(struct run *r, struct value v, const struct args *a)
{
    struct value exact = v_bool(false), by = v_str(STR("key")), down = v_bool(false);
    args_get(a, 0, "case_sensitive", &exact);
    args_get(a, 1, "by", &by);
    args_get(a, 2, "reverse", &down);
    struct value items = f_items(r, v, &(struct args){0});
    if (r->rc) return items;
    bool by_value = by.kind == V_STR && str_is(by.s, "value");
    return sorted(r, items.list, v_int(by_value), v_truth(exact), v_truth(down));
}

static struct value f_unique(struct run *r, struct value v, const struct args *a)
{
    struct value exact = v_bool(false), attribute = v_none(), out = v_list(r, V_LIST),
                 seen = v_list(r, V_LIST);
    struct list *l = v_iterate(r, v);
    args_get(a, 0, "case_sensitive", &exact);
    args_get(a, 1, "attribute", &attribute);
    for (size_t i = 0; i < l->n && !r->rc; i++) {
        struct value key = sort_key(r, l->at[i], attribute, v_truth(exact));
        if (v_contains(r, seen, key)) continue;
        list_push(r, seen.list, key);
        list_push(r, out.list, l->at[i]);
    }
    return out;
}

static struct value extreme(struct run *r, struct value v, const struct args *a, int sign)
{
    struct value exact = v_bool(false), attribute = v_none(), best = v_none(), best_key = v_none();
    struct list *l = v_iterate(r, v);
    args_get(a, 0, "case_sensitive", &exact);
    args_get(a, 1, "attribute", &attribute);
    for (size_t i = 0; i < l->n && run_work(r, 1); i++) {
        struct value key = sort_key(r, l->at[i], attribute, v_truth(exact));
        if (i && sign * v_compare(r, key, best_key, sign < 0 ? "<" : ">") <= 0) continue;
        best = l->at[i], best_key = key;
    }
    return l->n ? best : v_undef(STR("item of an empty sequence"), V_UNDEF);
}
static struct value f_min(struct run *r, struct value v, const struct args *a)
{
    return extreme(r, v, a, -1);
}
static struct value f_max(struct run *r, struct value v, const struct args *a)
{
    return extreme(r, v, a, 1);
}

static struct value f_sum(struct run *r, struct value v, const struct args *a)
{
    struct value attribute = v_none(), total = v_int(0);
    struct list *l = v_iterate(r, v);
    args_get(a, 0, "attribute", &attribute);
    args_get(a, 1, "start", &total);
    for (size_t i = 0; i < l->n && run_work(r, 1); i++)
        total = v_binary(r, "+", total, by_attribute(r, l->at[i], attribute));
    return total;
}

static struct value f_attr(struct run *r, struct value v, const struct args *a)
{
    struct value name = v_none();
    args_get(a, 0, "name", &name);
    return v.kind == V_DICT ? v_undef(v_text(r, name), V_DICT) : v_attr(r, v, v_text(r, name));
}

value_fn filter_seq_find(struct str name)
{
    static const struct {
        const char *name;
        value_fn fn;
    } table[] = {{"length", f_length},
                 {"count", f_length},
                 {"list", f_list},
                 {"first", f_first},
                 {"last", f_last},
                 {"reverse", f_reverse},
                 {"items", f_items},
                 {"join", f_join},
                 {"map", f_map},
                 {"select", f_select},
                 {"reject", f_reject},
                 {"selectattr", f_selectattr},
                 {"rejectattr", f_rejectattr},
                 {"sort", f_sort},
                 {"dictsort", f_dictsort},
                 {"unique", f_unique},
                 {"min", f_min},
                 {"max", f_max},
                 {"sum", f_sum},
                 {"attr", f_attr}};
    for (size_t i = 0; i < COUNT_OF(table); i++)
        if (str_is(name, table[i].name)) return table[i].fn;
    return NULL;
}
