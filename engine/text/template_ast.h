/* template_ast.h: a chat template between its text and its running: tokens, then a tree. Private to
 * engine/text.
 *
 * Both live in the template's arena and point into its (normalized) text. Immutable once compiled.
 */
#ifndef ENGINE_TEXT_TEMPLATE_AST_H
#define ENGINE_TEXT_TEMPLATE_AST_H

#include "engine/text/template_value.h"

enum tok_kind {
    T_DATA,
    T_PRINT_BEGIN,
    T_PRINT_END,
    T_BLOCK_BEGIN,
    T_BLOCK_END,
    T_NAME,
    T_STRING,
    T_INT,
    T_FLOAT,
    T_OP,
    T_EOF
};

struct tok {
    enum tok_kind kind;
    int32_t line;
    struct str s; /* text, name, string's value; the operator's spelling */
    union {
        int64_t i;
        double f;
    };
};

/* Cut source into tokens ending with T_EOF. Own: *a. Err BAD_FILE with the line. */
MUST_USE enum err template_lex(struct arena *a, const char *source, size_t n, struct tok **out);

enum node_kind {
    /* expressions */
    E_CONST, /* val */
    E_NAME,  /* name */
    E_TUPLE,
    E_LIST, /* kids */
    E_DICT, /* kids: key, value, key, value, ... */
    E_COND, /* b if a else c (c NULL: undefined) */
    E_OR,
    E_AND, /* a, b */
    E_NOT,
    E_NEG,
    E_POS,     /* a */
    E_COMPARE, /* a, then kids: E_OPERAND{name: operator, a} */
    E_OPERAND,
    E_BINARY, /* name: operator; a, b */
    E_CONCAT, /* kids */
    E_ATTR,   /* a.name */
    E_ITEM,   /* a[b] */
    E_SLICE,  /* the b of an item: a:b:c, each or NULL */
    E_CALL,   /* a(kids) ; named arguments are E_NAMED{name, a} at the end of kids */
    E_NAMED,
    E_SPREAD, /* *a (name "*") or **a (name "**") among the arguments */
    E_FILTER, /* a|name(kids), fn; a NULL: the text of the enclosing block */
    E_TEST,   /* a is name(kids), fn */
    /* statements */
    S_TEXT,  /* name: the text */
    S_PRINT, /* a */
    S_IF,    /* kids: S_BRANCH{a: test or NULL, kids: body} */
    S_BRANCH,
    S_FOR,      /* for a in b if c: kids; otherwise: more (an S_SCOPE or NULL) */
    S_SET,      /* a = b */
    S_SET_TEXT, /* a = text of kids, through the filters b (or NULL) */
    S_MACRO,    /* name, params: kids of more (E_NAMED{name, a: default or NULL}); kids */
    S_CALL,     /* call(params: kids of more) a: kids */
    S_FILTER,   /* filter b: kids */
    S_WITH,     /* params: kids of more (S_SET); kids */
    S_SCOPE,    /* kids (generation) */
    S_BREAK,
    S_CONTINUE,
};

struct node {
    enum node_kind kind;
    int32_t line, n;
    struct str name;
    struct node *a, *b, *c, *more;
    struct node **kids; /* [n] */
    struct value val;
    value_fn fn;
};

/* Tokens to statements. Err BAD_FILE (line, what was expected), UNSUPPORTED (the construct). */
MUST_USE enum err template_parse(struct arena *a, const struct tok *toks, struct node **out);

/* Shared by the parts of the parser: template_parse.c (statements), template_expr.c (operators) and
 * template_primary.c (what they stand between). Each returns NULL once p->rc is set. */
enum { MAX_PARSE_DEPTH = 120 };
struct parser {
    struct arena *a;
    const struct tok *at;
    enum err rc;
    int32_t depth, loops;
};
struct node *parse_fail(struct parser *p, const char *expected);
struct node *parse_refuse(struct parser *p, const char *what, struct str name);
struct node *node_new(struct parser *p, enum node_kind kind);
void node_add(struct parser *p, struct node *n, struct node *kid);
bool tok_is_op(const struct tok *t, const char *op);
bool tok_is_name(const struct tok *t, const char *name);
bool parse_op(struct parser *p, const char *op);     /* take it if it comes */
bool parse_word(struct parser *p, const char *word); /* take it if it comes */
bool parse_expect_op(struct parser *p, const char *op);
struct node *node_binary(struct parser *p, enum node_kind kind, struct str op, struct node *a,
                         struct node *b);
struct node *parse_expr(struct parser *p);
struct node *parse_unary(struct parser *p,
                         bool suffixes);   /* suffixes: filters and tests may follow */
struct node *parse_name(struct parser *p); /* a name or a named constant */
struct node *parse_dot(struct parser *p, struct node *on); /* after the dot */
struct node *parse_tuple(struct parser *p,
                         bool cond);         /* a, b, c without brackets; a single one is itself */
struct node *parse_target(struct parser *p); /* what may be assigned */
struct node *parse_filters(struct parser *p, struct node *on, bool first_without_bar);

/* Run statements (template_exec.c). */
void exec_all(struct run *r, struct node *const *kids, int32_t n);
/* An expression's value (template_eval.c). `block`: what a filter without an operand works on. */
struct value eval(struct run *r, const struct node *n);
struct value eval_filters(struct run *r, const struct node *n, struct value block);
/* A call, with one more named argument if extra is given (the caller of a call block). */
struct value eval_call(struct run *r, const struct node *n, const struct named *extra);
/* Scopes (template_exec.c). */
void scope_push(struct run *r, struct scope *parent);
void scope_set(struct run *r, struct scope *s, struct str name, struct value v);
struct value *scope_find(struct run *r, struct str name);

#endif
