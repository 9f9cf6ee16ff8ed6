/* template_expr.c: the expressions of a template, by recursive descent, in Jinja's order of binding:
 * if-else, or, and, not, comparisons, + -, ~, * / // %, **, unary, then . [] () | is. */
#include "engine/text/template_ast.h"

#include <string.h>

enum { MAX_PARSE_DEPTH = 120 };

struct node *parse_fail(struct parser *p, const char *expected)
{
    const struct tok *t = p->at;
    if (!p->rc)
        p->rc = err_raise(ERR_BAD_FILE, "chat template, line %d: expected %s, found \"%.*s\"", t->line, expected,
                          (int)MIN(t->s.n, 60), t->s.p);
    return NULL;
}

struct node *parse_refuse(struct parser *p, const char *what, struct str name)
{
    if (!p->rc)
        p->rc = err_raise(ERR_UNSUPPORTED, "chat template, line %d: %s \"%.*s\" is not supported", p->at->line, what,
                          (int)MIN(name.n, 60), name.p);
    return NULL;
}

struct node *node_new(struct parser *p, enum node_kind kind)
{
    struct node *n = arena_alloc(p->a, sizeof *n);
    n->kind = kind;
    n->line = p->at->line;
    return n;
}

void node_add(struct parser *p, struct node *n, struct node *kid)
{
    if (!kid) return;
    if (!(n->n & (n->n - 1))) { /* full at every power of two */
        struct node **kids = arena_alloc(p->a, sizeof *kids * (size_t)(n->n ? n->n * 2 : 1));
        if (n->n) memcpy(kids, n->kids, sizeof *kids * (size_t)n->n);
        n->kids = kids;
    }
    n->kids[n->n++] = kid;
}

bool tok_is_op(const struct tok *t, const char *op) { return t->kind == T_OP && str_is(t->s, op); }
bool tok_is_name(const struct tok *t, const char *name) { return t->kind == T_NAME && str_is(t->s, name); }

bool parse_op(struct parser *p, const char *op)
{
    if (p->rc || !tok_is_op(p->at, op)) return false;
    p->at++;
    return true;
}

bool parse_word(struct parser *p, const char *word)
{
    if (p->rc || !tok_is_name(p->at, word)) return false;
    p->at++;
    return true;
}

bool parse_expect_op(struct parser *p, const char *op)
{
    char expected[16] = "'";
    if (parse_op(p, op)) return true;
    strncat(strcat(expected, op), "'", 2);
    parse_fail(p, expected);
    return false;
}

static struct node *binary(struct parser *p, enum node_kind kind, struct str op, struct node *a, struct node *b)
{
    struct node *n = node_new(p, kind);
    n->name = op, n->a = a, n->b = b;
    return n;
}

static struct node *constant(struct parser *p, struct value v)
{
    struct node *n = node_new(p, E_CONST);
    n->val = v;
    return n;
}

/* The text after the opening bracket up to the closing one: named arguments must come last. */
void parse_args(struct parser *p, struct node *call)
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

static struct node *parse_name(struct parser *p)
{
    static const struct { const char *name; enum value_kind kind; bool b; } constants[] = {
        {"true", V_BOOL, true}, {"True", V_BOOL, true}, {"false", V_BOOL, false}, {"False", V_BOOL, false},
        {"none", V_NONE, false}, {"None", V_NONE, false}};
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
    struct str s = p->at == first + 1 ? first->s : (struct str){arena_strndup(p->a, buf_str(&b), b.len), b.len};
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

static struct node *parse_dot(struct parser *p, struct node *on)
{
    struct node *n = node_new(p, p->at->kind == T_INT ? E_ITEM : E_ATTR);
    n->a = on;
    if (p->at->kind == T_INT) n->b = constant(p, v_int(p->at->i));
    else if (p->at->kind == T_NAME) n->name = p->at->s;
    else return parse_fail(p, "a name after '.'");
    p->at++;
    return n;
}

static struct node *parse_postfix(struct parser *p, struct node *n)
{
    while (!p->rc) {
        if (parse_op(p, ".")) {
            n = parse_dot(p, n);
        } else if (parse_op(p, "[")) {
            n = binary(p, E_ITEM, (struct str){0}, n, parse_subscript(p));
            if (tok_is_op(p->at, ",")) return parse_refuse(p, "an index of several parts", STR(","));
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
    if (p->at->kind != T_NAME) parse_fail(p, "a name");
    else p->at++;
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
    if (t->kind == T_NAME) return !str_is(t->s, "else") && !str_is(t->s, "or") && !str_is(t->s, "and") && !str_is(t->s, "if");
    return t->kind == T_STRING || t->kind == T_INT || t->kind == T_FLOAT || tok_is_op(t, "[") || tok_is_op(t, "{");
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
    if (parse_op(p, "(")) parse_args(p, n);
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
        if (tok_is_op(p->at, "|")) n = parse_filters(p, n, false);
        else if (parse_word(p, "is")) n = parse_test(p, n);
        else if (parse_op(p, "(")) n = parse_call(p, n);
        else break;
    }
    return n;
}

static struct node *parse_unary(struct parser *p, bool suffixes)
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

/* One level of left-associative operators. */
static const char *const powers[] = {"**", NULL}, *const products[] = {"*", "/", "//", "%", NULL},
                  *const sums[] = {"+", "-", NULL};

static const char *const *op_in(const struct tok *t, const char *const *ops)
{
    for (; *ops; ops++)
        if (tok_is_op(t, *ops)) return ops;
    return NULL;
}

static struct node *parse_power(struct parser *p)
{
    struct node *n = parse_unary(p, true);
    for (const char *const *op; !p->rc && (op = op_in(p->at, powers));) {
        p->at++;
        n = binary(p, E_BINARY, str_of(*op), n, parse_unary(p, true));
    }
    return n;
}

static struct node *parse_product(struct parser *p)
{
    struct node *n = parse_power(p);
    for (const char *const *op; !p->rc && (op = op_in(p->at, products));) {
        p->at++;
        n = binary(p, E_BINARY, str_of(*op), n, parse_power(p));
    }
    return n;
}

static struct node *parse_concat(struct parser *p)
{
    struct node *first = parse_product(p), *n;
    if (p->rc || !tok_is_op(p->at, "~")) return first;
    n = node_new(p, E_CONCAT);
    node_add(p, n, first);
    while (parse_op(p, "~")) node_add(p, n, parse_product(p));
    return n;
}

static struct node *parse_sum(struct parser *p)
{
    struct node *n = parse_concat(p);
    for (const char *const *op; !p->rc && (op = op_in(p->at, sums));) {
        p->at++;
        n = binary(p, E_BINARY, str_of(*op), n, parse_concat(p));
    }
    return n;
}

static bool compare_op(struct parser *p, struct str *op)
{
    static const char *const ops[] = {"==", "!=", "<", "<=", ">", ">=", NULL};
    if (op_in(p->at, ops)) return *op = p->at++->s, true;
    if (parse_word(p, "in")) return *op = STR("in"), true;
    if (tok_is_name(p->at, "not") && tok_is_name(p->at + 1, "in")) return p->at += 2, *op = STR("not in"), true;
    return false;
}

static struct node *parse_compare(struct parser *p)
{
    struct node *first = parse_sum(p), *n = NULL, *operand;
    for (struct str op; !p->rc && compare_op(p, &op);) {
        if (!n) n = binary(p, E_COMPARE, op, first, NULL);
        operand = node_new(p, E_OPERAND);
        operand->name = op;
        operand->a = parse_sum(p);
        node_add(p, n, operand);
    }
    return n ? n : first;
}

static struct node *parse_not(struct parser *p)
{
    if (!parse_word(p, "not")) return parse_compare(p);
    struct node *n = node_new(p, E_NOT);
    if (++p->depth > MAX_PARSE_DEPTH) return parse_fail(p, "fewer than 120 nested expressions");
    n->a = parse_not(p);
    p->depth--;
    return n;
}

static struct node *parse_and(struct parser *p)
{
    struct node *n = parse_not(p);
    while (!p->rc && parse_word(p, "and")) n = binary(p, E_AND, STR("and"), n, parse_not(p));
    return n;
}

struct node *parse_expr_no_cond(struct parser *p)
{
    struct node *n = parse_and(p);
    while (!p->rc && parse_word(p, "or")) n = binary(p, E_OR, STR("or"), n, parse_and(p));
    return n;
}

struct node *parse_expr(struct parser *p)
{
    if (p->rc || ++p->depth > MAX_PARSE_DEPTH) return parse_fail(p, "fewer than 120 nested expressions");
    struct node *n = parse_expr_no_cond(p), *cond;
    while (!p->rc && parse_word(p, "if")) {
        cond = node_new(p, E_COND);
        cond->b = n;
        cond->a = parse_expr_no_cond(p);
        if (parse_word(p, "else")) cond->c = parse_expr(p);
        n = cond;
    }
    p->depth--;
    return n;
}

static bool ends_tuple(const struct tok *t)
{
    return t->kind == T_BLOCK_END || t->kind == T_PRINT_END || tok_is_op(t, ")") || tok_is_op(t, "=") || tok_is_name(t, "in");
}

struct node *parse_tuple(struct parser *p, bool cond)
{
    struct node *first = cond ? parse_expr(p) : parse_expr_no_cond(p), *n;
    if (p->rc || !tok_is_op(p->at, ",")) return first;
    n = node_new(p, E_TUPLE);
    node_add(p, n, first);
    while (parse_op(p, ",") && !ends_tuple(p->at)) node_add(p, n, cond ? parse_expr(p) : parse_expr_no_cond(p));
    return n;
}

static struct node *parse_one_target(struct parser *p)
{
    if (parse_op(p, "(")) {
        struct node *n = parse_target(p);
        return parse_expect_op(p, ")") ? n : NULL;
    }
    if (p->at->kind != T_NAME) return parse_fail(p, "a name to assign to");
    struct node *n = parse_name(p);
    if (n->kind != E_NAME) return parse_fail(p, "a name that may be assigned");
    return parse_op(p, ".") ? parse_dot(p, n) : n;
}

struct node *parse_target(struct parser *p)
{
    if (++p->depth > MAX_PARSE_DEPTH) return parse_fail(p, "fewer than 120 nested expressions");
    struct node *first = parse_one_target(p), *n;
    p->depth--;
    if (p->rc || !tok_is_op(p->at, ",")) return first;
    n = node_new(p, E_TUPLE);
    node_add(p, n, first);
    while (parse_op(p, ",") && !ends_tuple(p->at)) node_add(p, n, parse_one_target(p));
    return n;
}
