/* template_expr.c: the expressions of a template, by recursive descent, in Jinja's order of
 * binding: if-else, or, and, not, comparisons, + -, ~, * / // %, **, unary and suffixes
 * (template_primary.c). */
#include "engine/text/template_ast.h"

#include <string.h>

struct node *parse_fail(struct parser *p, const char *expected)
{
    const struct tok *t = p->at;
    if (!p->rc)
        p->rc = err_raise(ERR_BAD_FILE, "chat template, line %d: expected %s, found \"%.*s\"",
                          t->line, expected, (int)MIN(t->s.n, 60), t->s.p);
    return NULL;
}

struct node *parse_refuse(struct parser *p, const char *what, struct str name)
{
    if (!p->rc)
        p->rc = err_raise(ERR_UNSUPPORTED, "chat template, line %d: %s \"%.*s\" is not supported",
                          p->at->line, what, (int)MIN(name.n, 60), name.p);
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
bool tok_is_name(const struct tok *t, const char *name)
{
    return t->kind == T_NAME && str_is(t->s, name);
}

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

struct node *node_binary(struct parser *p, enum node_kind kind, struct str op, struct node *a,
                         struct node *b)
{
    struct node *n = node_new(p, kind);
    n->name = op, n->a = a, n->b = b;
    return n;
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
        n = node_binary(p, E_BINARY, str_of(*op), n, parse_unary(p, true));
    }
    return n;
}

static struct node *parse_product(struct parser *p)
{
    struct node *n = parse_power(p);
    for (const char *const *op; !p->rc && (op = op_in(p->at, products));) {
        p->at++;
        n = node_binary(p, E_BINARY, str_of(*op), n, parse_power(p));
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
        n = node_binary(p, E_BINARY, str_of(*op), n, parse_concat(p));
    }
    return n;
}

static bool compare_op(struct parser *p, struct str *op)
{
    static const char *const ops[] = {"==", "!=", "<", "<=", ">", ">=", NULL};
    if (op_in(p->at, ops)) return *op = p->at++->s, true;
    if (parse_word(p, "in")) return *op = STR("in"), true;
    if (tok_is_name(p->at, "not") && tok_is_name(p->at + 1, "in"))
        return p->at += 2, *op = STR("not in"), true;
    return false;
}

static struct node *parse_compare(struct parser *p)
{
    struct node *first = parse_sum(p), *n = NULL, *operand;
    for (struct str op; !p->rc && compare_op(p, &op);) {
        if (!n) n = node_binary(p, E_COMPARE, op, first, NULL);
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
    while (!p->rc && parse_word(p, "and")) n = node_binary(p, E_AND, STR("and"), n, parse_not(p));
    return n;
}

static struct node *parse_expr_no_cond(struct parser *p)
{
    struct node *n = parse_and(p);
    while (!p->rc && parse_word(p, "or")) n = node_binary(p, E_OR, STR("or"), n, parse_and(p));
    return n;
}

struct node *parse_expr(struct parser *p)
{
    if (p->rc || ++p->depth > MAX_PARSE_DEPTH)
        return parse_fail(p, "fewer than 120 nested expressions");
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
    return t->kind == T_BLOCK_END || t->kind == T_PRINT_END || tok_is_op(t, ")") ||
           tok_is_op(t, "=") || tok_is_name(t, "in");
}

struct node *parse_tuple(struct parser *p, bool cond)
{
    struct node *first = cond ? parse_expr(p) : parse_expr_no_cond(p), *n;
    if (p->rc || !tok_is_op(p->at, ",")) return first;
    n = node_new(p, E_TUPLE);
    node_add(p, n, first);
    while (parse_op(p, ",") && !ends_tuple(p->at))
        node_add(p, n, cond ? parse_expr(p) : parse_expr_no_cond(p));
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
