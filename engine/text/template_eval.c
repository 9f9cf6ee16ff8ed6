/* template_eval.c: the value of an expression. Every node costs a step; every level of nesting is
 * counted. */
#include "engine/text/template_ast.h"

#include <string.h>

static struct value eval_name(struct run *r, const struct node *n)
{
    struct value *v = scope_find(r, n->name);
    value_fn f = v ? NULL : function_find(n->name);
    if (v) return *v;
    return f ? (struct value){.kind = V_FUNCTION, .function = f} : v_undef(n->name, V_UNDEF);
}

static struct value eval_list(struct run *r, const struct node *n, enum value_kind kind)
{
    struct value out = v_list(r, kind);
    for (int32_t i = 0; i < n->n && !r->rc; i++) list_push(r, out.list, eval(r, n->kids[i]));
    return out;
}

static struct value eval_dict(struct run *r, const struct node *n)
{
    struct value out = v_dict(r, V_DICT);
    for (int32_t i = 0; i + 1 < n->n && !r->rc; i += 2) {
        struct value key = eval(r, n->kids[i]);
        dict_set(r, out.dict, key, eval(r, n->kids[i + 1]));
    }
    return out;
}

static bool compare(struct run *r, const char *op, struct value a, struct value b)
{
    if (!strcmp(op, "==")) return v_equal(r, a, b);
    if (!strcmp(op, "!=")) return !v_equal(r, a, b);
    if (!strcmp(op, "in")) return v_contains(r, b, a);
    if (!strcmp(op, "not in")) return !v_contains(r, b, a);
    int c = v_compare(r, a, b, op);
    return op[0] == '<' ? (op[1] ? c <= 0 : c < 0) : (op[1] ? c >= 0 : c > 0);
}

static struct value eval_compare(struct run *r, const struct node *n)
{
    struct value left = eval(r, n->a);
    for (int32_t i = 0; i < n->n && !r->rc; i++) {
        char op[8] = "";
        struct value right = eval(r, n->kids[i]->a);
        memcpy(op, n->kids[i]->name.p, MIN(n->kids[i]->name.n, sizeof op - 1));
        if (r->rc || !compare(r, op, left, right)) return v_bool(false);
        left = right;
    }
    return v_bool(true);
}

static struct value eval_concat(struct run *r, const struct node *n)
{
    struct buf b = {0};
    for (int32_t i = 0; i < n->n && !r->rc; i++) v_put(r, &b, eval(r, n->kids[i]));
    return run_take(r, &b);
}

static struct value eval_sign(struct run *r, const struct node *n)
{
    struct value v = eval(r, n->a);
    if (r->rc) return v;
    if (v.kind == V_UNDEF) return v_fail_undef(r, v);
    if (!v_is_number(v))
        return run_fail(r, "bad operand type for unary %c: '%s'", n->kind == E_NEG ? '-' : '+',
                        v_type(v));
    return v_binary(r, n->kind == E_NEG ? "-" : "+", v_int(0), v);
}

static struct value eval_item(struct run *r, const struct node *n)
{
    struct value v = eval(r, n->a);
    if (r->rc) return v;
    if (n->b->kind != E_SLICE) return v_item(r, v, eval(r, n->b));
    struct value from = n->b->a ? eval(r, n->b->a) : v_none();
    struct value to = n->b->b ? eval(r, n->b->b) : v_none();
    struct value step = n->b->c ? eval(r, n->b->c) : v_none();
    return r->rc ? v : v_slice(r, v, from, to, step);
}

struct arg_lists {
    struct list pos;
    struct named *named;
    int32_t n_named, cap;
};

static void add_named(struct run *r, struct arg_lists *l, struct str name, struct value v)
{
    if (l->n_named == l->cap) {
        struct named *more = run_alloc(r, sizeof *more * (size_t)(l->cap * 2 + 4));
        if (l->n_named) memcpy(more, l->named, sizeof *more * (size_t)l->n_named);
        l->named = more, l->cap = l->cap * 2 + 4;
    }
    l->named[l->n_named++] = (struct named){name, v};
}

static void add_spread(struct run *r, struct arg_lists *l, struct str stars, struct value v)
{
    if (stars.n == 2) {
        if (v.kind != V_DICT)
            run_fail(r, "the argument after ** must be a dict, not %s", v_type(v));
        for (size_t i = 0; !r->rc && i < v.dict->n; i++)
            add_named(r, l, v_text(r, v.dict->at[i].key), v.dict->at[i].val);
        return;
    }
    struct list *items = v_iterate(r, v);
    for (size_t i = 0; i < items->n && !r->rc; i++) list_push(r, &l->pos, items->at[i]);
}

static struct args eval_args(struct run *r, const struct node *n)
{
    struct arg_lists l = {0};
    for (int32_t i = 0; i < n->n && !r->rc; i++) {
        const struct node *k = n->kids[i];
        struct value v = eval(r, k->kind == E_NAMED || k->kind == E_SPREAD ? k->a : k);
        if (k->kind == E_NAMED)
            add_named(r, &l, k->name, v);
        else if (k->kind == E_SPREAD)
            add_spread(r, &l, k->name, v);
        else
            list_push(r, &l.pos, v);
    }
    return (struct args){
        .at = l.pos.at, .n = (int32_t)l.pos.n, .named = l.named, .n_named = l.n_named};
}

struct value eval_call(struct run *r, const struct node *n, const struct named *extra)
{
    struct value f = eval(r, n->a);
    if (r->rc) return f;
    struct args a = eval_args(r, n);
    if (r->rc) return f;
    struct named *all = NULL;
    if (extra) { /* the caller of a call block */
        all = run_alloc(r, sizeof *all * (size_t)(a.n_named + 1));
        if (a.n_named) memcpy(all, a.named, sizeof *all * (size_t)a.n_named);
        all[a.n_named++] = *extra;
        a.named = all;
    }
    r->line = n->line;
    return v_call(r, f, &a);
}

struct value eval_filters(struct run *r, const struct node *n, struct value block)
{
    if (!n) return block;
    struct value on =
        n->kind == E_FILTER ? (n->a ? eval_filters(r, n->a, block) : block) : eval(r, n);
    if (n->kind != E_FILTER || r->rc) return on;
    struct args a = eval_args(r, n);
    r->line = n->line;
    return r->rc ? on : n->fn(r, on, &a);
}

static struct value eval_test(struct run *r, const struct node *n)
{
    struct value v = eval(r, n->a);
    if (r->rc) return v;
    struct args a = eval_args(r, n);
    r->line = n->line;
    return r->rc ? v : n->fn(r, v, &a);
}

static struct value eval_node(struct run *r, const struct node *n)
{
    struct value a;
    switch (n->kind) {
    case E_CONST: return n->val;
    case E_NAME: return eval_name(r, n);
    case E_TUPLE: return eval_list(r, n, V_TUPLE);
    case E_LIST: return eval_list(r, n, V_LIST);
    case E_DICT: return eval_dict(r, n);
    case E_COND:
        if (v_truth(eval(r, n->a))) return eval(r, n->b);
        return n->c ? eval(r, n->c)
                    : v_undef(STR("the inline if-expression without else"), V_UNDEF);
    case E_OR: a = eval(r, n->a); return r->rc || v_truth(a) ? a : eval(r, n->b);
    case E_AND: a = eval(r, n->a); return r->rc || !v_truth(a) ? a : eval(r, n->b);
    case E_NOT: return v_bool(!v_truth(eval(r, n->a)));
    case E_NEG:
    case E_POS: return eval_sign(r, n);
    case E_COMPARE: return eval_compare(r, n);
    case E_BINARY: {
        char op[4] = "";
        memcpy(op, n->name.p, MIN(n->name.n, sizeof op - 1));
        a = eval(r, n->a);
        struct value b = eval(r, n->b);
        return r->rc ? a : v_binary(r, op, a, b);
    }
    case E_CONCAT: return eval_concat(r, n);
    case E_ATTR: a = eval(r, n->a); return r->rc ? a : v_attr(r, a, n->name);
    case E_ITEM: return eval_item(r, n);
    case E_CALL: return eval_call(r, n, NULL);
    case E_FILTER: return eval_filters(r, n, v_str(STR("")));
    case E_TEST: return eval_test(r, n);
    default: return run_fail(r, "this is no expression");
    }
}

struct value eval(struct run *r, const struct node *n)
{
    if (!run_work(r, 1)) return v_none();
    if (r->depth >= RUN_MAX_DEPTH) return run_stop(r, "400 levels of nesting");
    r->depth++;
    r->line = n->line;
    struct value v = eval_node(r, n);
    r->depth--;
    return v;
}
