/* template_methods.c: the methods of lists and dicts, by Python's names. */
#include "engine/text/template_value.h"

#include <string.h>

static int64_t int_arg(struct run *r, const struct args *a, int32_t i, const char *name,
                       int64_t fallback)
{
    struct value v;
    if (!args_get(a, i, name, &v) || v.kind == V_NONE) return fallback;
    if (v.kind != V_INT && v.kind != V_BOOL)
        run_fail(r, "argument %d must be int, not %s", i + 1, v_type(v));
    return v.kind == V_INT || v.kind == V_BOOL ? v_as_int(v) : fallback;
}

static struct value l_append(struct run *r, struct value self, const struct args *a)
{
    struct value v = v_none();
    args_get(a, 0, NULL, &v);
    list_push(r, self.list, v);
    return v_none();
}

static struct value l_extend(struct run *r, struct value self, const struct args *a)
{
    struct value v = v_none();
    args_get(a, 0, NULL, &v);
    struct list *l = v_iterate(r, v);
    for (size_t i = 0, n = l->n; i < n && !r->rc; i++) list_push(r, self.list, l->at[i]);
    return v_none();
}

static struct value l_insert(struct run *r, struct value self, const struct args *a)
{
    struct value v = v_none();
    struct list *l = self.list;
    int64_t n = (int64_t)l->n, i = int_arg(r, a, 0, NULL, 0);
    args_get(a, 1, NULL, &v);
    i = i < 0 ? MAX(i + n, 0) : MIN(i, n);
    list_push(r, l, v);
    if (r->rc) return v_none();
    memmove(l->at + i + 1, l->at + i, sizeof *l->at * (size_t)(n - i));
    l->at[i] = v;
    return v_none();
}

static struct value l_pop(struct run *r, struct value self, const struct args *a)
{
    struct list *l = self.list;
    int64_t n = (int64_t)l->n, i = int_arg(r, a, 0, NULL, n - 1);
    if (i < 0) i += n;
    if (i < 0 || i >= n) return run_fail(r, n ? "pop index out of range" : "pop from empty list");
    struct value v = l->at[i];
    memmove(l->at + i, l->at + i + 1, sizeof *l->at * (size_t)(n - i - 1));
    l->n--;
    return v;
}

static struct value l_index(struct run *r, struct value self, const struct args *a)
{
    struct value v = v_none();
    args_get(a, 0, NULL, &v);
    for (size_t i = 0; i < self.list->n && run_work(r, 1); i++)
        if (v_equal(r, self.list->at[i], v)) return v_int((int64_t)i);
    return run_fail(r, "the value is not in list");
}

static struct value l_count(struct run *r, struct value self, const struct args *a)
{
    struct value v = v_none();
    int64_t n = 0;
    args_get(a, 0, NULL, &v);
    for (size_t i = 0; i < self.list->n && run_work(r, 1); i++)
        n += v_equal(r, self.list->at[i], v);
    return v_int(n);
}

static struct value l_copy(struct run *r, struct value self, const struct args *a)
{
    struct value out = v_list(r, self.kind);
    (void)a;
    for (size_t i = 0; i < self.list->n && !r->rc; i++) list_push(r, out.list, self.list->at[i]);
    return out;
}

enum part { KEYS, VALUES, ITEMS };
static struct value d_parts(struct run *r, struct value self, enum part part)
{
    struct value out = v_list(r, V_LIST);
    for (size_t i = 0; i < self.dict->n && !r->rc; i++) {
        const struct entry *e = &self.dict->at[i];
        struct value pair = part == KEYS ? e->key : e->val;
        if (part == ITEMS) {
            pair = v_list(r, V_TUPLE);
            list_push(r, pair.list, e->key);
            list_push(r, pair.list, e->val);
        }
        list_push(r, out.list, pair);
    }
    return out;
}
static struct value d_keys(struct run *r, struct value s, const struct args *a)
{
    return (void)a, d_parts(r, s, KEYS);
}
static struct value d_values(struct run *r, struct value s, const struct args *a)
{
    return (void)a, d_parts(r, s, VALUES);
}
static struct value d_items(struct run *r, struct value s, const struct args *a)
{
    return (void)a, d_parts(r, s, ITEMS);
}

static struct value d_get(struct run *r, struct value self, const struct args *a)
{
    struct value key = v_none(), fallback = v_none(), *v;
    args_get(a, 0, NULL, &key);
    args_get(a, 1, "default", &fallback);
    v = dict_find(r, self.dict, key);
    return v ? *v : fallback;
}

static struct value d_pop(struct run *r, struct value self, const struct args *a)
{
    struct value key = v_none(), fallback;
    struct dict *d = self.dict;
    args_get(a, 0, NULL, &key);
    for (size_t i = 0; i < d->n && run_work(r, 1); i++) {
        if (!v_equal(r, d->at[i].key, key)) continue;
        struct value v = d->at[i].val;
        memmove(d->at + i, d->at + i + 1, sizeof *d->at * (d->n - i - 1));
        d->n--;
        return v;
    }
    return args_get(a, 1, "default", &fallback) ? fallback : run_fail(r, "pop of an absent key");
}

static struct value d_update(struct run *r, struct value self, const struct args *a)
{
    struct value other;
    if (args_get(a, 0, NULL, &other)) {
        if (other.kind != V_DICT) return run_fail(r, "update takes a dict, not %s", v_type(other));
        for (size_t i = 0, n = other.dict->n; i < n && !r->rc; i++)
            dict_set(r, self.dict, other.dict->at[i].key, other.dict->at[i].val);
    }
    for (int32_t i = 0; i < a->n_named; i++)
        dict_set(r, self.dict, v_str(a->named[i].name), a->named[i].val);
    return v_none();
}

static struct value d_setdefault(struct run *r, struct value self, const struct args *a)
{
    struct value key = v_none(), val = v_none(), *old;
    args_get(a, 0, NULL, &key);
    args_get(a, 1, "default", &val);
    old = dict_find(r, self.dict, key);
    if (old) return *old;
    dict_set(r, self.dict, key, val);
    return val;
}

static struct value d_copy(struct run *r, struct value self, const struct args *a)
{
    struct value out = v_dict(r, V_DICT);
    (void)a;
    for (size_t i = 0; i < self.dict->n && !r->rc; i++)
        dict_set(r, out.dict, self.dict->at[i].key, self.dict->at[i].val);
    return out;
}

struct row {
    const char *name;
    value_fn fn;
};
static const struct row list_rows[] = {
    {"append", l_append}, {"extend", l_extend}, {"insert", l_insert}, {"pop", l_pop},
    {"index", l_index},   {"count", l_count},   {"copy", l_copy},     {NULL, NULL}};
static const struct row tuple_rows[] = {{"index", l_index}, {"count", l_count}, {NULL, NULL}};
static const struct row dict_rows[] = {{"get", d_get},
                                       {"items", d_items},
                                       {"keys", d_keys},
                                       {"values", d_values},
                                       {"pop", d_pop},
                                       {"update", d_update},
                                       {"setdefault", d_setdefault},
                                       {"copy", d_copy},
                                       {NULL, NULL}};

value_fn method_find(struct value self, struct str name)
{
    const struct row *row = self.kind == V_LIST    ? list_rows
                            : self.kind == V_TUPLE ? tuple_rows
                            : self.kind == V_DICT  ? dict_rows
                                                   : NULL;
    if (self.kind == V_STR) return method_find_str(name);
    for (; row && row->name; row++)
        if (str_is(name, row->name)) return row->fn;
    return NULL;
}
