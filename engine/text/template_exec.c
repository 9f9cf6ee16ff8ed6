/* template_exec.c: statements, scopes, loops, macros.
 *
 * Scopes are Jinja's: the bodies of for, macro, call, filter, with and block-set have their own,
 * those of if have not. A name is set in the innermost scope and looked up through all. A macro's
 * scope hangs below the one it was defined in. */
#include "engine/text/template_ast.h"

#include <string.h>

struct loop {
    const struct list *items;
    size_t i, depth;
    struct value last_changed; /* loop.changed(...) */
    bool has_changed;
};
struct macro {
    const struct node *node;
    struct scope *scope;
};

void scope_push(struct run *r, struct scope *parent)
{
    struct scope *s = run_alloc(r, sizeof *s);
    s->parent = parent;
    r->scope = s;
}

void scope_set(struct run *r, struct scope *s, struct str name, struct value v)
{
    for (size_t i = 0; i < s->n; i++)
        if (str_eq(s->at[i].name, name)) {
            s->at[i].val = v;
            return;
        }
    if (s->n == s->cap) {
        size_t cap = s->cap ? s->cap * 2 : 4;
        struct named *at = run_alloc(r, cap * sizeof *at);
        if (s->n) memcpy(at, s->at, s->n * sizeof *at);
        s->at = at, s->cap = cap;
    }
    s->at[s->n++] = (struct named){name, v};
}

struct value *scope_find(struct run *r, struct str name)
{
    for (struct scope *s = r->scope; s; s = s->parent)
        for (size_t i = 0; i < s->n; i++)
            if (str_eq(s->at[i].name, name)) return &s->at[i].val;
    return NULL;
}

static void assign(struct run *r, const struct node *target, struct value v)
{
    if (r->rc) return;
    if (target->kind == E_NAME) {
        scope_set(r, r->scope, target->name, v);
    } else if (target->kind == E_ATTR) {
        struct value ns = eval(r, target->a);
        if (ns.kind == V_NAMESPACE)
            dict_set(r, ns.dict, v_str(target->name), v);
        else
            run_fail(r, "cannot assign attribute on non-namespace object");
    } else if (target->kind == E_TUPLE) {
        struct list *l = v_iterate(r, v);
        if (!r->rc && l->n != (size_t)target->n)
            run_fail(r, "%s values to unpack (expected %d, got %zu)",
                     l->n > (size_t)target->n ? "too many" : "not enough", target->n, l->n);
        for (int32_t i = 0; i < target->n && !r->rc; i++) assign(r, target->kids[i], l->at[i]);
    } else {
        run_fail(r, "this cannot be assigned to");
    }
}

/* loop.cycle and loop.changed */
static struct value loop_cycle(struct run *r, struct value self, const struct args *a)
{
    if (!a->n) return run_fail(r, "no items for cycling given");
    return a->at[self.loop->i % (size_t)a->n];
}

static struct value loop_changed(struct run *r, struct value self, const struct args *a)
{
    struct value now = v_list(r, V_TUPLE);
    for (int32_t i = 0; i < a->n; i++) list_push(r, now.list, a->at[i]);
    bool same = self.loop->has_changed && v_equal(r, self.loop->last_changed, now);
    self.loop->last_changed = now;
    self.loop->has_changed = true;
    return v_bool(!same);
}

struct value loop_attr(struct run *r, struct value v, struct str name)
{
    const struct loop *l = v.loop;
    int64_t i = (int64_t)l->i, n = (int64_t)l->items->n;
    if (str_is(name, "index")) return v_int(i + 1);
    if (str_is(name, "index0")) return v_int(i);
    if (str_is(name, "first")) return v_bool(i == 0);
    if (str_is(name, "last")) return v_bool(i + 1 == n);
    if (str_is(name, "length")) return v_int(n);
    if (str_is(name, "revindex")) return v_int(n - i);
    if (str_is(name, "revindex0")) return v_int(n - i - 1);
    if (str_is(name, "depth")) return v_int((int64_t)l->depth + 1);
    if (str_is(name, "depth0")) return v_int((int64_t)l->depth);
    if (str_is(name, "previtem"))
        return i ? l->items->at[i - 1] : v_undef(STR("there is no previous item"), V_UNDEF);
    if (str_is(name, "nextitem"))
        return i + 1 < n ? l->items->at[i + 1] : v_undef(STR("there is no next item"), V_UNDEF);
    if (str_is(name, "cycle")) return v_method(r, v, loop_cycle);
    if (str_is(name, "changed")) return v_method(r, v, loop_changed);
    return v_undef(name, V_LOOP);
}

/* The items a loop's condition lets through. */
static struct list *loop_items(struct run *r, const struct node *n)
{
    struct value v = eval(r, n->b);
    if (r->rc) return NULL;
    struct list *all = v_iterate(r, v);
    struct value out = v_list(r, V_LIST);
    struct scope *outer = r->scope;
    for (size_t i = 0; i < all->n && !r->rc; i++) {
        if (n->c) {
            scope_push(r, outer);
            assign(r, n->a, all->at[i]);
            if (r->rc || !v_truth(eval(r, n->c))) continue;
        }
        list_push(r, out.list, all->at[i]); /* a copy: the body may change the list */
    }
    r->scope = outer;
    return out.list;
}

static void exec_for(struct run *r, const struct node *n)
{
    struct scope *outer = r->scope;
    const struct list *items = loop_items(r, n);
    struct loop *l = run_alloc(r, sizeof *l);
    if (r->rc) return;
    l->items = items;
    for (l->i = 0; l->i < items->n && run_work(r, 1) && r->flow != FLOW_BREAK; l->i++) {
        r->flow = FLOW_ON;
        scope_push(r, outer);
        scope_set(r, r->scope, STR("loop"), (struct value){.kind = V_LOOP, .loop = l});
        assign(r, n->a, items->at[l->i]);
        exec_all(r, n->kids, n->n);
    }
    r->flow = FLOW_ON;
    if (!items->n && n->more) {
        scope_push(r, outer);
        exec_all(r, n->more->kids, n->more->n);
    }
    r->scope = outer;
}

/* What statements print, as a value, in a scope of their own. */
static struct value capture(struct run *r, const struct node *n, struct scope *parent)
{
    struct buf b = {0}, *out = r->out;
    struct scope *outer = r->scope;
    if (parent) scope_push(r, parent);
    r->out = &b;
    exec_all(r, n->kids, n->n);
    r->out = out;
    r->scope = outer;
    return run_take(r, &b);
}

struct str macro_name(struct value v) { return v.macro->node->name; }

static struct value call_macro(struct run *r, const struct macro *m, const struct args *a)
{
    const struct node *params = m->node->more;
    struct scope *outer = r->scope;
    struct value rest = v_list(r, V_TUPLE), other = v_dict(r, V_DICT), v;
    scope_push(r, m->scope);
    for (int32_t i = 0; i < params->n && !r->rc; i++) {
        const struct node *p = params->kids[i];
        bool given = i < a->n;
        v = given ? a->at[i] : v_undef(p->name, V_UNDEF);
        for (int32_t k = 0; k < a->n_named && !given; k++)
            if (str_eq(a->named[k].name, p->name)) v = a->named[k].val, given = true;
        if (!given && p->a) v = eval(r, p->a);
        scope_set(r, r->scope, p->name, v);
    }
    for (int32_t i = params->n; i < a->n; i++) list_push(r, rest.list, a->at[i]);
    for (int32_t k = 0; k < a->n_named && !r->rc; k++) {
        bool known = false;
        for (int32_t i = 0; i < params->n; i++)
            known |= str_eq(params->kids[i]->name, a->named[k].name);
        if (str_is(a->named[k].name, "caller"))
            scope_set(r, r->scope, STR("caller"), a->named[k].val);
        else if (!known)
            dict_set(r, other.dict, v_str(a->named[k].name), a->named[k].val);
    }
    scope_set(r, r->scope, STR("varargs"), rest);
    scope_set(r, r->scope, STR("kwargs"), other);
    v = capture(r, m->node, NULL);
    r->scope = outer;
    return v;
}

struct value v_call(struct run *r, struct value f, const struct args *a)
{
    struct value out = v_none();
    int32_t line = r->line;
    if (r->depth >= RUN_MAX_DEPTH) return run_stop(r, "400 levels of nesting");
    r->depth++;
    switch (f.kind) {
    case V_FUNCTION: out = f.function(r, v_none(), a); break;
    case V_METHOD:
        out = f.method->fn(r, f.method->self, a);
        if (out.kind == V_STR) out.safe = f.method->self.safe;
        break;
    case V_MACRO: out = call_macro(r, f.macro, a); break;
    case V_UNDEF: out = v_fail_undef(r, f); break;
    default: out = run_fail(r, "'%s' object is not callable", v_type(f));
    }
    r->depth--;
    r->line = line;
    return out;
}

static struct value make_macro(struct run *r, const struct node *n)
{
    struct macro *m = run_alloc(r, sizeof *m);
    *m = (struct macro){n, r->scope};
    return (struct value){.kind = V_MACRO, .macro = m};
}

static void print(struct run *r, struct value v)
{
    if (!r->rc) v_put(r, r->out, v);
}

static void exec_if(struct run *r, const struct node *n)
{
    for (int32_t i = 0; i < n->n && !r->rc; i++) {
        const struct node *branch = n->kids[i];
        if (branch->a && !v_truth(eval(r, branch->a))) continue;
        if (!r->rc) exec_all(r, branch->kids, branch->n);
        return;
    }
}

static void exec_with(struct run *r, const struct node *n)
{
    struct scope *outer = r->scope;
    struct scope *inner = (scope_push(r, outer), r->scope);
    for (int32_t i = 0; i < n->more->n && !r->rc; i++) { /* the values see the outer scope only */
        r->scope = outer;
        struct value v = eval(r, n->more->kids[i]->b);
        r->scope = inner;
        assign(r, n->more->kids[i]->a, v);
    }
    r->scope = inner;
    exec_all(r, n->kids, n->n);
    r->scope = outer;
}

static void exec(struct run *r, const struct node *n)
{
    struct named caller;
    struct value v;
    switch (n->kind) {
    case S_TEXT: run_put(r, r->out, n->name.p, n->name.n); return;
    case S_PRINT: print(r, eval(r, n->a)); return;
    case S_IF: exec_if(r, n); return;
    case S_FOR: exec_for(r, n); return;
    case S_SET:
        v = eval(r, n->b);
        assign(r, n->a, v);
        return;
    case S_SET_TEXT:
        v = capture(r, n, r->scope);
        assign(r, n->a, eval_filters(r, n->b, v));
        return;
    case S_MACRO: scope_set(r, r->scope, n->name, make_macro(r, n)); return;
    case S_CALL:
        caller = (struct named){STR("caller"), make_macro(r, n)};
        print(r, eval_call(r, n->a, &caller));
        return;
    case S_FILTER:
        v = capture(r, n, r->scope);
        print(r, eval_filters(r, n->b, v));
        return;
    case S_WITH: exec_with(r, n); return;
    case S_SCOPE: print(r, capture(r, n, r->scope)); return;
    case S_BREAK: r->flow = FLOW_BREAK; return;
    case S_CONTINUE: r->flow = FLOW_CONTINUE; return;
    default: run_fail(r, "this is no statement");
    }
}

void exec_all(struct run *r, struct node *const *kids, int32_t n)
{
    if (r->depth >= RUN_MAX_DEPTH) run_stop(r, "400 levels of nesting");
    r->depth++;
    for (int32_t i = 0; i < n && r->flow == FLOW_ON && run_work(r, 1); i++) {
        r->line = kids[i]->line;
        exec(r, kids[i]);
    }
    r->depth--;
}
