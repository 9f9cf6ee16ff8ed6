/* gbnf.c: see gbnf.h. Groups become rules of their own, so that they can be repeated. */
#include "engine/grammar/gbnf.h"

#include <string.h>

enum { DEEP = 200, MOST_TIMES = 100000 };

struct named {
    const char *p;
    size_t n;
    int32_t rule;
    bool defined;
    struct named *next;
};

struct gbnf {
    struct encoder *e;
    struct draft *d;
    const char *start, *p, *end;
    struct named *names;
    int depth;
};

/* What a repetition repeats. */
struct element {
    enum { TEXT, SET, RULE } kind;
    const char *text;
    size_t n;
    struct charset set;
    int32_t rule;
};

static enum err refuse(const struct gbnf *g, enum err e, const char *what)
{
    int line = 1;
    for (const char *c = g->start; c < g->p; c++) line += *c == '\n';
    err_set_text("GBNF, line %d: %s", line, what);
    return err_nonzero(e);
}

static void space(struct gbnf *g, bool lines)
{
    for (; g->p < g->end; g->p++) {
        if (*g->p == '#') {
            while (g->p < g->end && *g->p != '\n') g->p++;
            if (g->p == g->end) return;
        }
        if (*g->p != ' ' && *g->p != '\t' && !(lines && (*g->p == '\n' || *g->p == '\r'))) return;
    }
}

static bool take(struct gbnf *g, const char *s)
{
    size_t n = strlen(s);
    if ((size_t)(g->end - g->p) < n || memcmp(g->p, s, n)) return false;
    g->p += n;
    return true;
}

static bool is_name(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_';
}

static struct named *name(struct gbnf *g)
{
    const char *p = g->p;
    while (g->p < g->end && is_name(*g->p)) g->p++;
    size_t n = (size_t)(g->p - p);
    if (!n) return NULL;
    for (struct named *x = g->names; x; x = x->next)
        if (x->n == n && !memcmp(x->p, p, n)) return x;
    struct named *x = arena_alloc(g->e->a, sizeof *x);
    *x = (struct named){p, n, eng_draft_rule(g->d), false, g->names};
    return g->names = x;
}

/* ---- characters ---- */

static enum err character(struct gbnf *g, uint32_t *out)
{
    static const char from[] = "tnr", to[] = "\t\n\r";
    size_t len;
    if (take(g, "\\")) {
        char c = g->p < g->end ? *g->p++ : 0;
        int digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
        const char *known = strchr(from, c);
        if (c && known) return *out = (uint8_t)to[known - from], OK;
        if (c && strchr("\\\"[]^-", c)) return *out = (uint8_t)c, OK;
        if (!digits) return refuse(g, ERR_BAD_REQUEST, "this escape has no meaning");
        uint32_t v = 0;
        for (int i = 0; i < digits; i++) {
            char h = g->p < g->end ? *g->p++ : 0;
            int x = h >= '0' && h <= '9'                 ? h - '0'
                    : (h | 32) >= 'a' && (h | 32) <= 'f' ? (h | 32) - 'a' + 10
                                                         : -1;
            if (x < 0) return refuse(g, ERR_BAD_REQUEST, "a hexadecimal digit is missing");
            v = v << 4 | (uint32_t)x;
        }
        if (v > LAST_CODE_POINT || (v >= 0xD800 && v < 0xE000))
            return refuse(g, ERR_BAD_REQUEST, "not a code point");
        return *out = v, OK;
    }
    int32_t cp = eng_utf8_next(g->p, (size_t)(g->end - g->p), &len);
    if (cp < 0)
        return refuse(g, ERR_BAD_REQUEST, g->p == g->end ? "the text ends here" : "not UTF-8");
    g->p += len;
    return *out = (uint32_t)cp, OK;
}

static enum err literal(struct gbnf *g, struct element *x)
{
    enum err rc = OK;
    size_t k = 0, left = (size_t)(g->end - g->p);
    while (k < left && g->p[k] != '"') k += g->p[k] == '\\' ? 2 : 1;
    char *text = arena_alloc(g->e->a, k + 8); /* no escape is shorter than what it stands for */
    *x = (struct element){.kind = TEXT, .text = text};
    while (!take(g, "\"")) {
        uint32_t cp;
        TRY(character(g, &cp));
        x->n += eng_utf8_write(text + x->n, cp);
    }
out:
    return rc;
}

static enum err char_class(struct gbnf *g, struct element *x)
{
    enum err rc = OK;
    bool negated = take(g, "^");
    *x = (struct element){.kind = SET};
    while (!take(g, "]")) {
        uint32_t lo, hi;
        TRY(character(g, &lo));
        hi = lo;
        if (g->end - g->p >= 2 && g->p[0] == '-' && g->p[1] != ']') {
            g->p++;
            TRY(character(g, &hi));
            if (hi < lo) return refuse(g, ERR_BAD_REQUEST, "the range is upside down");
        }
        eng_charset_add(&x->set, g->e->a, lo, hi);
    }
    if (negated) eng_charset_negate(&x->set, g->e->a);
    eng_charset_tidy(&x->set);
out:
    return rc;
}

/* ---- structure ---- */

static enum err alternatives(struct gbnf *g, int32_t from, int32_t to, bool nested);

static enum err element(struct gbnf *g, struct element *x)
{
    enum err rc = OK;
    if (take(g, "\"")) return literal(g, x);
    if (take(g, "[")) return char_class(g, x);
    if (take(g, ".")) {
        *x = (struct element){.kind = SET};
        eng_charset_add(&x->set, g->e->a, 0, LAST_CODE_POINT);
        return OK;
    }
    *x = (struct element){.kind = RULE};
    if (take(g, "(")) {
        if (++g->depth > DEEP) return refuse(g, ERR_UNSUPPORTED, "groups are nested too deep");
        x->rule = eng_draft_rule(g->d);
        int32_t end = eng_draft_state(g->d);
        eng_draft_accept(g->d, end);
        space(g, true);
        TRY(alternatives(g, g->d->rules[x->rule], end, true));
        g->depth--;
        if (!take(g, ")")) rc = refuse(g, ERR_BAD_REQUEST, "the group is not closed by )");
        return rc;
    }
    struct named *ref = name(g);
    if (!ref)
        return refuse(g, ERR_BAD_REQUEST, "a literal, a class, a name or a group is needed here");
    x->rule = ref->rule;
out:
    return rc;
}

static void emit(struct gbnf *g, const struct element *x, int32_t from, int32_t to)
{
    if (x->kind == TEXT)
        eng_draft_text(g->d, from, x->text, x->n, to);
    else if (x->kind == SET)
        eng_encode_char(g->e, from, &x->set, false, to);
    else
        eng_draft_call(g->d, from, x->rule, to);
}

static bool number(struct gbnf *g, int32_t *out)
{
    const char *p = g->p;
    int64_t v = 0;
    for (; g->p < g->end && *g->p >= '0' && *g->p <= '9'; g->p++)
        if (v <= MOST_TIMES) v = v * 10 + (*g->p - '0');
    *out = (int32_t)MIN(v, (int64_t)MOST_TIMES + 1);
    return g->p > p;
}

static enum err times(struct gbnf *g, int32_t *min, int32_t *max)
{
    *min = *max = 1;
    if (take(g, "*"))
        *min = 0, *max = -1;
    else if (take(g, "+"))
        *max = -1;
    else if (take(g, "?"))
        *min = 0;
    else if (take(g, "{")) {
        if (!number(g, min)) return refuse(g, ERR_BAD_REQUEST, "{ needs a number");
        *max = *min;
        if (take(g, ",") && !number(g, max)) *max = -1;
        if (!take(g, "}")) return refuse(g, ERR_BAD_REQUEST, "{ is not closed by }");
        if (*max >= 0 && *max < *min)
            return refuse(g, ERR_BAD_REQUEST, "the repetition's bounds are upside down");
        if (*min > MOST_TIMES || *max > MOST_TIMES)
            return refuse(g, ERR_UNSUPPORTED, "more than 100000 repetitions");
    }
    return OK;
}

static int32_t repeat(struct gbnf *g, const struct element *x, int32_t from, int32_t min,
                      int32_t max)
{
    for (int32_t i = 0; i < min && !g->d->full; i++) {
        int32_t to = eng_draft_state(g->d);
        emit(g, x, from, to);
        from = to;
    }
    if (max < 0) {
        int32_t loop = eng_draft_state(g->d);
        eng_draft_empty(g->d, from, loop);
        emit(g, x, loop, loop);
        return loop;
    }
    int32_t end = eng_draft_state(g->d);
    eng_draft_empty(g->d, from, end);
    for (int32_t i = min; i < max && !g->d->full; i++) {
        int32_t to = eng_draft_state(g->d);
        emit(g, x, from, to);
        eng_draft_empty(g->d, to, end);
        from = to;
    }
    return end;
}

static enum err sequence(struct gbnf *g, int32_t from, int32_t to, bool nested)
{
    enum err rc = OK;
    while (g->p < g->end && !strchr("|)\n\r", *g->p)) {
        struct element x;
        int32_t min, max;
        TRY(element(g, &x));
        TRY(times(g, &min, &max));
        from = repeat(g, &x, from, min, max);
        space(g, nested);
    }
    eng_draft_empty(g->d, from, to);
out:
    return rc;
}

static enum err alternatives(struct gbnf *g, int32_t from, int32_t to, bool nested)
{
    enum err rc;
    for (;;) {
        int32_t start =
            eng_draft_state(g->d); /* loops of one alternative must not lead into another */
        eng_draft_empty(g->d, from, start);
        TRY(sequence(g, start, to, nested));
        if (!take(g, "|")) break;
        space(g, true);
    }
out:
    return rc;
}

static enum err rule(struct gbnf *g)
{
    enum err rc;
    struct named *x = name(g);
    if (!x) return refuse(g, ERR_BAD_REQUEST, "the name of a rule is needed here");
    if (x->defined) return refuse(g, ERR_BAD_REQUEST, "this rule stands twice");
    x->defined = true;
    space(g, false);
    if (!take(g, "::="))
        return refuse(g, ERR_BAD_REQUEST, "::= is needed behind the name of a rule");
    space(g, true);
    int32_t end = eng_draft_state(g->d);
    eng_draft_accept(g->d, end);
    TRY(alternatives(g, g->d->rules[x->rule], end, false));
    if (g->p < g->end && *g->p != '\n' && *g->p != '\r')
        rc = refuse(g, ERR_BAD_REQUEST, "a ) without its (");
    space(g, true);
out:
    return rc;
}

enum err eng_gbnf_build(struct encoder *e, const char *p, size_t n)
{
    enum err rc = OK;
    struct gbnf g = {.e = e, .d = e->d};
    g.start = g.p = arena_strndup(e->a, p, n);
    g.end = g.p + n;
    int32_t top = eng_draft_rule(e->d), end = eng_draft_state(e->d), root = -1;
    eng_draft_accept(e->d, end);
    space(&g, true);
    while (g.p < g.end) TRY(rule(&g));
    for (const struct named *x = g.names; x; x = x->next) {
        if (!x->defined)
            TRY(err_raise(ERR_BAD_REQUEST, "GBNF: the rule '%.*s' is used and stands nowhere",
                          (int)MIN(x->n, (size_t)60), x->p));
        if (x->n == 4 && !memcmp(x->p, "root", 4)) root = x->rule;
    }
    if (root < 0) TRY(err_raise(ERR_BAD_REQUEST, "GBNF: there is no rule 'root'"));
    eng_draft_call(e->d, e->d->rules[top], root, end);
out:
    return rc;
}
