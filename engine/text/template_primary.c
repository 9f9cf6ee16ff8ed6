/* template_primary.c: the innermost of expressions: constants, names, brackets, and what may follow
 * them. */
#include "engine/text/template_ast.h"

#include <string.h>

static struct node *constant(struct parser *p, struct value v)
{
    struct node *n = node_new(p, E_CONST);
    n->val = v;
    return n;
}

/* The text after the opening bracket up to the closing one: named arguments must come last. */
static void parse_args(struct parser *p, struct node *call)
{
    while (!p->rc && !parse_op(p, ")")) {
        if (call->n && !parse_expect_op(p, ",")) return;
        if (parse_op(p, ")")) return;
        struct node *arg = NULL;
        if (tok_is_op(p->at, "*") || tok_is_op(p->at, "**")) {
            arg = node_new(p, E_SPREAD);
            arg->name = p->at++->s;
            arg->a = parse_expr(p);
        } else if (p->at->kind == T_NAME && tok_is_op(p->at + 1, "=")) {
            arg = node_new(p, E_NAMED);
            arg->name = p->at->s;
            p->at += 2;
            arg->a = parse_expr(p);
        } else {
            arg = parse_expr(p);
        }
        if (!p->rc) node_add(p, call, arg);
    }
}

static struct node *parse_call(struct parser *p, struct node *callee)
{
    struct node *n = node_new(p, E_CALL);
    n->a = callee;
    parse_args(p, n);
    return n;
}

static struct node *parse_list(struct parser *p)
{
    struct node *n = node_new(p, E_LIST);
    while (!p->rc && !parse_op(p, "]")) {
        if (n->n && !parse_expect_op(p, ",")) return NULL;
        if (parse_op(p, "]")) break;
        node_add(p, n, parse_expr(p));
    }
    return n;
}

static struct node *parse_dict(struct parser *p)
{
    struct node *n = node_new(p, E_DICT);
    while (!p->rc && !parse_op(p, "}")) {
        if (n->n && !parse_expect_op(p, ",")) return NULL;
        if (parse_op(p, "}")) break;
        struct node *key = parse_expr(p);
        parse_expect_op(p, ":");
        struct node *val = parse_expr(p);
        if (p->rc) return NULL;
        node_add(p, n, key);
        node_add(p, n, val);
    }
    return n;
}

static struct node *parse_bracketed(struct parser *p)
{
    if (parse_op(p, ")")) return node_new(p, E_TUPLE);
    struct node *n = parse_tuple(p, true);
    return parse_expect_op(p, ")") ? n : NULL;
}

struct node *parse_name(struct parser *p)
{
    static const struct {
        const char *name;
        enum value_kind kind;
        bool b;
    } constants[] = {{"true", V_BOOL, true},   {"True", V_BOOL, true},  {"false", V_BOOL, false},
                     {"False", V_BOOL, false}, {"none", V_NONE, false}, {"None", V_NONE, false}};
    struct str s = p->at->s;
    for (size_t i = 0; i < COUNT_OF(constants); i++)
        if (str_is(s, constants[i].name)) {
            p->at++;
            return constant(p, (struct value){.kind = constants[i].kind, .b = constants[i].b});
        }
    struct node *n = node_new(p, E_NAME);
    n->name = s;
    p->at++;
    return n;
}

static struct node *parse_strings(struct parser *p)
{
    struct buf b = {0};
    const struct tok *first = p->at;
    for (; p->at->kind == T_STRING; p->at++) buf_put(&b, p->at->s.p, p->at->s.n);
    struct str s = p->at == first + 1
                       ? first->s
                       : (struct str){arena_strndup(p->a, buf_str(&b), b.len), b.len};
    buf_free(&b);
    return constant(p, v_str(s));
}

static struct node *parse_primary(struct parser *p)
{
    const struct tok *t = p->at;
    switch (t->kind) {
    case T_NAME: return parse_name(p);
    case T_STRING: return parse_strings(p);
    case T_INT: p->at++; return constant(p, v_int(t->i));
    case T_FLOAT: p->at++; return constant(p, v_float(t->f));
    default: break;
    }
    if (parse_op(p, "(")) return parse_bracketed(p);
    if (parse_op(p, "[")) return parse_list(p);
    if (parse_op(p, "{")) return parse_dict(p);
    return parse_fail(p, "an expression");
}

static struct node *parse_subscript(struct parser *p)
{
    struct node *part[3] = {NULL, NULL, NULL};
    int colons = 0;
    for (; !p->rc && !tok_is_op(p->at, "]") && !tok_is_op(p->at, ",");) {
        if (parse_op(p, ":")) {
            if (++colons > 2) return parse_fail(p, "']'");
        } else {
            if (part[colons]) return parse_fail(p, "']'");
            part[colons] = parse_expr(p);
        }
    }
    if (!colons) return part[0] ? part[0] : parse_fail(p, "an index");
    struct node *n = node_new(p, E_SLICE);
    n->a = part[0], n->b = part[1], n->c = part[2];
    return n;
}

struct node *parse_dot(struct parser *p, struct node *on)
{
    struct node *n = node_new(p, p->at->kind == T_INT ? E_ITEM : E_ATTR);
    n->a = on;
    if (p->at->kind == T_INT)
        n->b = constant(p, v_int(p->at->i));
    else if (p->at->kind == T_NAME)
        n->name = p->at->s;
    else
        return parse_fail(p, "a name after '.'");
    p->at++;
    return n;
}

static struct node *parse_postfix(struct parser *p, struct node *n)
{
    while (!p->rc) {
        if (parse_op(p, ".")) {
            n = parse_dot(p, n);
        } else if (parse_op(p, "[")) {
            n = node_binary(p, E_ITEM, (struct str){0}, n, parse_subscript(p));
            if (tok_is_op(p->at, ","))
                return parse_refuse(p, "an index of several parts", STR(","));
            parse_expect_op(p, "]");
        } else if (parse_op(p, "(")) {
            n = parse_call(p, n);
        } else {
            break;
        }
    }
    return n;
}

/* A name of several words with dots, as filters and tests may have. */
static struct str dotted(struct parser *p)
{
    struct str s = p->at->s;
    if (p->at->kind != T_NAME)
        parse_fail(p, "a name");
    else
        p->at++;
    while (parse_op(p, ".")) {
        s.n = (size_t)(p->at->s.p + p->at->s.n - s.p);
        p->at++;
    }
    return s;
}

struct node *parse_filters(struct parser *p, struct node *on, bool first)
{
    while (!p->rc && (first || parse_op(p, "|"))) {
        struct node *n = node_new(p, E_FILTER);
        n->a = on;
        n->name = dotted(p);
        if (p->rc) return NULL;
        n->fn = filter_find(n->name);
        if (!n->fn) return parse_refuse(p, "the filter", n->name);
        if (parse_op(p, "(")) parse_args(p, n);
        on = n;
        first = false;
    }
    return on;
}

static bool begins_test_argument(const struct tok *t)
{
    if (t->kind == T_NAME)
        return !str_is(t->s, "else") && !str_is(t->s, "or") && !str_is(t->s, "and") &&
               !str_is(t->s, "if");
    return t->kind == T_STRING || t->kind == T_INT || t->kind == T_FLOAT || tok_is_op(t, "[") ||
           tok_is_op(t, "{");
}

static struct node *parse_test(struct parser *p, struct node *on)
{
    bool negate = parse_word(p, "not");
    struct node *n = node_new(p, E_TEST), *no;
    n->a = on;
    n->name = dotted(p);
    if (p->rc) return NULL;
    n->fn = test_find(n->name);
    if (!n->fn) return parse_refuse(p, "the test", n->name);
    if (parse_op(p, "("))
        parse_args(p, n);
    else if (begins_test_argument(p->at)) {
        if (tok_is_name(p->at, "is")) return parse_fail(p, "no chain of tests with 'is'");
        struct node *arg = parse_primary(p);
        node_add(p, n, parse_postfix(p, arg));
    }
    if (!negate) return n;
    no = node_new(p, E_NOT);
    no->a = n;
    return no;
}

static struct node *parse_suffixes(struct parser *p, struct node *n)
{
    while (!p->rc) {
        if (tok_is_op(p->at, "|"))
            n = parse_filters(p, n, false);
        else if (parse_word(p, "is"))
            n = parse_test(p, n);
        else if (parse_op(p, "("))
            n = parse_call(p, n);
        else
            break;
    }
    return n;
}

struct node *parse_unary(struct parser *p, bool suffixes)
{
    struct node *n;
    if (++p->depth > MAX_PARSE_DEPTH) return parse_fail(p, "fewer than 120 nested expressions");
    if (tok_is_op(p->at, "-") || tok_is_op(p->at, "+")) {
        n = node_new(p, tok_is_op(p->at++, "-") ? E_NEG : E_POS);
        n->a = parse_unary(p, false);
    } else {
        n = parse_postfix(p, parse_primary(p));
    }
    p->depth--;
    return suffixes ? parse_suffixes(p, n) : n;
}
