/* template_parse.c: the statements of a template. */
#include "engine/text/template_ast.h"

#include <string.h>

enum { MAX_BLOCK_DEPTH = 100 };

static struct node *parse_statement(struct parser *p);

static bool expect_block_end(struct parser *p)
{
    if (p->rc) return false;
    if (p->at->kind != T_BLOCK_END) return parse_fail(p, "'%}'"), false;
    p->at++;
    return true;
}

static bool at_tag(const struct parser *p, const char *const *words)
{
    if (p->at->kind != T_BLOCK_BEGIN) return false;
    for (; *words; words++)
        if (tok_is_name(p->at + 1, *words)) return true;
    return false;
}

/* Statements up to a tag with one of the words; that tag's "{%" is taken, its word is next. */
static void parse_body(struct parser *p, struct node *into, const char *const *ends)
{
    if (++p->depth > MAX_BLOCK_DEPTH) parse_fail(p, "fewer than 100 nested blocks");
    while (!p->rc && !at_tag(p, ends)) {
        if (p->at->kind == T_EOF) {
            char expected[64] = "'{% ";
            strncat(strncat(expected, ends[0], 40), " %}'", 5);
            parse_fail(p, expected);
            break;
        }
        node_add(p, into, parse_statement(p));
    }
    p->depth--;
    p->at += !p->rc;
}

static void end_tag(struct parser *p)
{
    if (p->rc) return;
    p->at++;
    expect_block_end(p);
}

/* "%}", the body, and the closing tag. */
static struct node *parse_block(struct parser *p, struct node *n, const char *end)
{
    const char *const ends[] = {end, NULL};
    if (expect_block_end(p)) parse_body(p, n, ends);
    end_tag(p);
    return n;
}

static struct node *parse_if(struct parser *p)
{
    static const char *const ends[] = {"endif", "elif", "else", NULL};
    struct node *n = node_new(p, S_IF);
    bool last = false;
    while (!p->rc) {
        struct node *branch = node_new(p, S_BRANCH);
        if (!last) branch->a = parse_tuple(p, true);
        if (!expect_block_end(p)) return NULL;
        parse_body(p, branch, ends);
        node_add(p, n, branch);
        if (p->rc || tok_is_name(p->at, "endif")) break;
        if (last) return parse_fail(p, "'{% endif %}'");
        last = tok_is_name(p->at++, "else");
    }
    end_tag(p);
    return n;
}

static struct node *parse_for(struct parser *p)
{
    static const char *const ends[] = {"endfor", "else", NULL}, *const end[] = {"endfor", NULL};
    struct node *n = node_new(p, S_FOR);
    n->a = parse_target(p);
    if (!parse_word(p, "in")) return parse_fail(p, "'in'");
    n->b = parse_tuple(p, false);
    if (parse_word(p, "if")) n->c = parse_expr(p);
    if (tok_is_name(p->at, "recursive")) return parse_refuse(p, "the loop modifier", p->at->s);
    if (!expect_block_end(p)) return NULL;
    p->loops++;
    parse_body(p, n, ends);
    p->loops--;
    if (!p->rc && parse_word(p, "else")) {
        n->more = node_new(p, S_SCOPE);
        if (expect_block_end(p)) parse_body(p, n->more, end);
    }
    end_tag(p);
    return n;
}

static struct node *parse_set(struct parser *p)
{
    struct node *n = node_new(p, S_SET);
    n->a = parse_target(p);
    if (parse_op(p, "=")) {
        n->b = parse_tuple(p, true);
        return expect_block_end(p) ? n : NULL;
    }
    n->kind = S_SET_TEXT;
    n->b = parse_filters(p, NULL, false);
    return parse_block(p, n, "endset");
}

/* (a, b=1, ...) */
static struct node *parse_params(struct parser *p)
{
    struct node *n = node_new(p, S_SCOPE);
    if (!parse_expect_op(p, "(")) return NULL;
    while (!p->rc && !parse_op(p, ")")) {
        if (n->n && !parse_expect_op(p, ",")) return NULL;
        if (parse_op(p, ")")) break;
        struct node *param = node_new(p, E_NAMED);
        if (p->at->kind != T_NAME) return parse_fail(p, "a parameter's name");
        param->name = p->at++->s;
        if (parse_op(p, "=")) param->a = parse_expr(p);
        node_add(p, n, param);
    }
    return n;
}

static struct node *parse_macro(struct parser *p)
{
    struct node *n = node_new(p, S_MACRO);
    int32_t loops = p->loops;
    if (p->at->kind != T_NAME) return parse_fail(p, "the macro's name");
    n->name = p->at++->s;
    n->more = parse_params(p);
    p->loops = 0; /* a loop around a macro is not the macro's */
    parse_block(p, n, "endmacro");
    p->loops = loops;
    return n;
}

static struct node *parse_call_block(struct parser *p)
{
    struct node *n = node_new(p, S_CALL);
    int32_t loops = p->loops;
    if (tok_is_op(p->at, "("))
        n->more = parse_params(p);
    else
        n->more = node_new(p, S_SCOPE);
    n->name = STR("caller");
    n->a = parse_expr(p);
    if (!p->rc && n->a->kind != E_CALL) return parse_fail(p, "a call");
    p->loops = 0;
    parse_block(p, n, "endcall");
    p->loops = loops;
    return n;
}

static struct node *parse_filter_block(struct parser *p)
{
    struct node *n = node_new(p, S_FILTER);
    n->b = parse_filters(p, NULL, true);
    return parse_block(p, n, "endfilter");
}

static struct node *parse_with(struct parser *p)
{
    struct node *n = node_new(p, S_WITH);
    n->more = node_new(p, S_SCOPE);
    while (!p->rc && p->at->kind != T_BLOCK_END) {
        struct node *set = node_new(p, S_SET);
        if (n->more->n && !parse_expect_op(p, ",")) return NULL;
        set->a = parse_target(p);
        if (!parse_expect_op(p, "=")) return NULL;
        set->b = parse_expr(p);
        node_add(p, n->more, set);
    }
    return parse_block(p, n, "endwith");
}

static struct node *parse_generation(struct parser *p)
{
    return parse_block(p, node_new(p, S_SCOPE), "endgeneration");
}

static struct node *parse_jump(struct parser *p, enum node_kind kind)
{
    if (!p->loops) return parse_fail(p, "break and continue inside a loop only");
    struct node *n = node_new(p, kind);
    return expect_block_end(p) ? n : NULL;
}
static struct node *parse_break(struct parser *p) { return parse_jump(p, S_BREAK); }
static struct node *parse_continue(struct parser *p) { return parse_jump(p, S_CONTINUE); }

static struct node *parse_tag(struct parser *p)
{
    static const struct {
        const char *word;
        struct node *(*parse)(struct parser *p);
    } tags[] = {{"if", parse_if},           {"for", parse_for},
                {"set", parse_set},         {"macro", parse_macro},
                {"call", parse_call_block}, {"filter", parse_filter_block},
                {"with", parse_with},       {"generation", parse_generation},
                {"break", parse_break},     {"continue", parse_continue}};
    struct str word = p->at->s;
    if (p->at->kind != T_NAME) return parse_fail(p, "a statement's name after '{%'");
    for (size_t i = 0; i < COUNT_OF(tags); i++)
        if (str_is(word, tags[i].word)) {
            p->at++;
            return tags[i].parse(p);
        }
    if (word.n > 3 && !memcmp(word.p, "end", 3)) return parse_fail(p, "no closing tag here");
    return parse_refuse(p, "the statement", word);
}

static struct node *parse_statement(struct parser *p)
{
    struct node *n = node_new(p, S_TEXT);
    const struct tok *t = p->at++;
    switch (t->kind) {
    case T_DATA: n->name = t->s; return n;
    case T_BLOCK_BEGIN: return parse_tag(p);
    case T_PRINT_BEGIN:
        n->kind = S_PRINT;
        n->a = parse_tuple(p, true);
        if (!p->rc && p->at->kind != T_PRINT_END) return parse_fail(p, "'}}'");
        p->at += !p->rc;
        return n;
    default: p->at--; return parse_fail(p, "text or a tag");
    }
}

enum err template_parse(struct arena *a, const struct tok *toks, struct node **out)
{
    struct parser p = {.a = a, .at = toks};
    struct node *root = node_new(&p, S_SCOPE);
    while (!p.rc && p.at->kind != T_EOF) node_add(&p, root, parse_statement(&p));
    *out = root;
    return p.rc;
}
