/* regex_parse.c: text of a regular expression -> tree. Recursive descent; groups at most DEEP deep.
 */
#include "engine/grammar/dfa.h"
#include "engine/grammar/regex_tree.h"

#include <stdlib.h>
#include <string.h>

enum { DEEP = 200, MOST_TIMES = 100000 };

struct reader {
    struct arena *a;
    const char *start, *p, *end;
    int depth;
};

static enum err refuse(const struct reader *r, enum err e, const char *what)
{
    err_set_text("regular expression, byte %td: %s", r->p - r->start, what);
    return err_nonzero(e);
}

static bool take(struct reader *r, const char *s)
{
    size_t n = strlen(s);
    if ((size_t)(r->end - r->p) < n || memcmp(r->p, s, n)) return false;
    r->p += n;
    return true;
}

static struct regex_node *node(struct reader *r, enum regex_kind kind)
{
    struct regex_node *x = arena_alloc(r->a, sizeof *x);
    x->kind = kind;
    return x;
}

static void append(struct regex_node *to, struct regex_node *x)
{
    *(to->last ? &to->last->next : &to->first) = x;
    to->last = x;
}

/* ---- characters ---- */

static enum err hex(struct reader *r, int digits, uint32_t *out)
{
    uint32_t v = 0;
    for (int i = 0; i < digits; i++) {
        char c = r->p < r->end ? *r->p++ : 0;
        int d = c >= '0' && c <= '9'                 ? c - '0'
                : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                                     : -1;
        if (d < 0) return refuse(r, ERR_BAD_REQUEST, "a hexadecimal digit is missing");
        v = v << 4 | (uint32_t)d;
    }
    *out = v;
    return OK;
}

static enum err unicode_escape(struct reader *r, uint32_t *cp)
{
    enum err rc;
    uint32_t low;
    if (take(r, "{")) {
        char *end;
        unsigned long v = strtoul(r->p, &end, 16);
        if (end == r->p || end >= r->end || *end != '}' || v > LAST_CODE_POINT)
            return refuse(r, ERR_BAD_REQUEST, "\\u{ needs a code point and }");
        *cp = (uint32_t)v;
        r->p = end + 1;
        return OK;
    }
    TRY(hex(r, 4, cp));
    if (*cp >= 0xD800 && *cp < 0xDC00 && take(r, "\\u")) {
        TRY(hex(r, 4, &low));
        *cp = 0x10000 + ((*cp - 0xD800) << 10) + (low & 0x3FF);
    }
out:
    return rc;
}

static void add_spaces(struct charset *s, struct arena *a)
{
    static const struct char_range spaces[] = {
        {9, 13},          {32, 32},         {0xA0, 0xA0},     {0x1680, 0x1680}, {0x2000, 0x200A},
        {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F}, {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};
    for (size_t i = 0; i < COUNT_OF(spaces); i++) eng_charset_add(s, a, spaces[i].lo, spaces[i].hi);
}

/* \d and its kin; false: not one of them. */
static bool class_escape(struct reader *r, char c, struct charset *s)
{
    struct charset own = {0};
    if (c == 0 || !strchr("dDwWsS", c)) return false;
    if ((c | 32) != 's') eng_charset_add(&own, r->a, '0', '9');
    if ((c | 32) == 'w') {
        eng_charset_add(&own, r->a, 'A', 'Z');
        eng_charset_add(&own, r->a, '_', '_');
        eng_charset_add(&own, r->a, 'a', 'z');
    }
    if ((c | 32) == 's') add_spaces(&own, r->a);
    if (c < 'a') eng_charset_negate(&own, r->a);
    eng_charset_add_all(s, r->a, &own);
    return true;
}

static enum err property(struct reader *r, bool negated, struct charset *s)
{
    struct charset own = {0};
    const char *close =
        r->p < r->end && *r->p == '{' ? memchr(r->p, '}', (size_t)(r->end - r->p)) : NULL;
    if (!close) return refuse(r, ERR_BAD_REQUEST, "\\p needs {a general category}");
    const char *name = r->p + 1, *eq = memchr(name, '=', (size_t)(close - name));
    if (eq) name = eq + 1;
    if (!eng_charset_category(&own, r->a, name, (int32_t)MIN(close - name, 64)))
        return refuse(
            r, ERR_UNSUPPORTED,
            "this Unicode property is not known here; general categories (L, Lu, Nd, ...) are");
    if (negated) eng_charset_negate(&own, r->a);
    eng_charset_add_all(s, r->a, &own);
    r->p = close + 1;
    return OK;
}

/* After the backslash: a class into *s (single false), or one character into *cp. */
static enum err escape(struct reader *r, bool in_class, struct charset *s, uint32_t *cp,
                       bool *single)
{
    static const char from[] = "tnvfr", to[] = "\t\n\v\f\r";
    if (r->p == r->end) return refuse(r, ERR_BAD_REQUEST, "nothing follows the backslash");
    char c = *r->p++;
    const char *known = strchr(from, c);
    *single = false;
    if (class_escape(r, c, s)) return OK;
    if (c == 'p' || c == 'P') return property(r, c == 'P', s);
    *single = true;
    if (c && known) return *cp = (uint8_t)to[known - from], OK;
    if (c == 'x') return hex(r, 2, cp);
    if (c == 'u') return unicode_escape(r, cp);
    if (c == '0') return *cp = 0, OK;
    if (c == 'b' && in_class) return *cp = '\b', OK;
    if (c == 'c' && r->p < r->end && ((*r->p | 32) >= 'a' && (*r->p | 32) <= 'z'))
        return *cp = (uint8_t)*r->p++ & 31, OK;
    if (c >= '1' && c <= '9') return refuse(r, ERR_UNSUPPORTED, "back-references are not regular");
    if (c == 'k') return refuse(r, ERR_UNSUPPORTED, "back-references are not regular");
    if (c == 'b' || c == 'B') return refuse(r, ERR_UNSUPPORTED, "\\b and \\B are not supported");
    if (c == 'A' || c == 'Z' || c == 'z')
        return refuse(r, ERR_UNSUPPORTED, "\\A and \\Z are not supported: use ^ and $");
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))
        return refuse(r, ERR_BAD_REQUEST, "this escape has no meaning");
    r->p--;
    size_t len;
    int32_t v = eng_utf8_next(r->p, (size_t)(r->end - r->p), &len);
    if (v < 0) return refuse(r, ERR_BAD_REQUEST, "not UTF-8");
    r->p += len;
    *cp = (uint32_t)v;
    return OK;
}

static enum err character(struct reader *r, bool in_class, struct charset *s, uint32_t *cp,
                          bool *single)
{
    size_t len;
    *single = true;
    if (take(r, "\\")) return escape(r, in_class, s, cp, single);
    int32_t v = eng_utf8_next(r->p, (size_t)(r->end - r->p), &len);
    if (v < 0) return refuse(r, ERR_BAD_REQUEST, "not UTF-8");
    r->p += len;
    *cp = (uint32_t)v;
    return OK;
}

static enum err char_class(struct reader *r, struct regex_node *x)
{
    enum err rc = OK;
    bool negated = take(r, "^"), single, ends;
    while (!take(r, "]")) {
        uint32_t lo = 0, hi = 0;
        if (r->p == r->end) return refuse(r, ERR_BAD_REQUEST, "the class is not closed by ]");
        TRY(character(r, true, &x->set, &lo, &single));
        hi = lo;
        if (r->end - r->p >= 2 && r->p[0] == '-' && r->p[1] != ']') {
            r->p++;
            TRY(character(r, true, &x->set, &hi, &ends));
            if (!single || !ends) { /* \d-x: the dash stands for itself */
                eng_charset_add(&x->set, r->a, '-', '-');
                if (single) eng_charset_add(&x->set, r->a, lo, lo);
                if (ends) eng_charset_add(&x->set, r->a, hi, hi);
                continue;
            }
            if (hi < lo) return refuse(r, ERR_BAD_REQUEST, "the range is upside down");
        }
        if (single) eng_charset_add(&x->set, r->a, lo, hi);
    }
    if (negated) eng_charset_negate(&x->set, r->a);
    eng_charset_tidy(&x->set);
out:
    return rc;
}

/* ---- structure ---- */

static enum err alternation(struct reader *r, struct regex_node **out);

static enum err group(struct reader *r, struct regex_node **out)
{
    enum err rc = OK;
    if (take(r, "?")) {
        if (take(r, "<=") || take(r, "<!") || take(r, "=") || take(r, "!"))
            return refuse(r, ERR_UNSUPPORTED, "look-around is not supported");
        if (take(r, "<") || take(r, "P<")) {
            const char *close = memchr(r->p, '>', (size_t)(r->end - r->p));
            if (!close) return refuse(r, ERR_BAD_REQUEST, "the group's name is not closed by >");
            r->p = close + 1;
        } else if (!take(r, ":")) {
            return refuse(r, ERR_UNSUPPORTED, "only (?: and (?<name> are supported after (?");
        }
    }
    if (++r->depth > DEEP) return refuse(r, ERR_UNSUPPORTED, "groups are nested too deep");
    TRY(alternation(r, out));
    r->depth--;
    if (!take(r, ")")) rc = refuse(r, ERR_BAD_REQUEST, "the group is not closed by )");
out:
    return rc;
}

static enum err atom(struct reader *r, struct regex_node **out)
{
    struct regex_node *x;
    uint32_t cp = 0;
    bool single;
    if (take(r, "(")) return group(r, out);
    if (take(r, "^")) return *out = node(r, REGEX_BEGIN), OK;
    if (take(r, "$")) return *out = node(r, REGEX_END), OK;
    if (strchr("*+?", *r->p) && *r->p)
        return refuse(r, ERR_BAD_REQUEST, "there is nothing to repeat");
    *out = x = node(r, REGEX_SET);
    if (take(r, "[")) return char_class(r, x);
    if (take(r, ".")) {
        static const struct char_range line_ends[] = {{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}};
        for (size_t i = 0; i < COUNT_OF(line_ends); i++)
            eng_charset_add(&x->set, r->a, line_ends[i].lo, line_ends[i].hi);
        eng_charset_negate(&x->set, r->a);
        return OK;
    }
    enum err e = character(r, false, &x->set, &cp, &single);
    if (!e && single) eng_charset_add(&x->set, r->a, cp, cp);
    if (!e) eng_charset_tidy(&x->set);
    return e;
}

static bool number(struct reader *r, int32_t *out)
{
    const char *p = r->p;
    int64_t v = 0;
    for (; r->p < r->end && *r->p >= '0' && *r->p <= '9'; r->p++)
        if (v <= MOST_TIMES) v = v * 10 + (*r->p - '0');
    *out = (int32_t)MIN(v, (int64_t)MOST_TIMES + 1);
    return r->p > p;
}

/* "{m}", "{m,}", "{m,n}"; anything else after { is a literal brace, as browsers have it. */
static bool braces(struct reader *r, int32_t *min, int32_t *max)
{
    const char *back = r->p;
    if (take(r, "{") && number(r, min)) {
        *max = *min;
        if (take(r, ",") && !number(r, max)) *max = -1;
        if (take(r, "}")) return true;
    }
    r->p = back;
    return false;
}

static enum err repeated(struct reader *r, struct regex_node **out)
{
    enum err rc;
    struct regex_node *x;
    TRY(atom(r, &x));
    for (;;) {
        int32_t min, max;
        if (take(r, "*"))
            min = 0, max = -1;
        else if (take(r, "+"))
            min = 1, max = -1;
        else if (take(r, "?"))
            min = 0, max = 1;
        else if (!braces(r, &min, &max))
            break;
        if (min > MOST_TIMES || max > MOST_TIMES)
            return refuse(r, ERR_UNSUPPORTED, "more than 100000 repetitions");
        if (max >= 0 && max < min)
            return refuse(r, ERR_BAD_REQUEST, "the repetition's bounds are upside down");
        if (take(r, "+"))
            return refuse(r, ERR_UNSUPPORTED, "possessive repetition is not supported");
        take(r, "?");
        if (x->kind == REGEX_BEGIN || x->kind == REGEX_END)
            return refuse(r, ERR_BAD_REQUEST, "an anchor cannot be repeated");
        struct regex_node *rep = node(r, REGEX_REPEAT);
        append(rep, x);
        rep->min = min;
        rep->max = max;
        x = rep;
    }
    *out = x;
out:
    return rc;
}

static enum err alternation(struct reader *r, struct regex_node **out)
{
    enum err rc = OK;
    struct regex_node *any = node(r, REGEX_ANY), *x = NULL;
    do {
        struct regex_node *all = node(r, REGEX_ALL);
        append(any, all);
        while (r->p < r->end && *r->p != '|' && *r->p != ')') {
            TRY(repeated(r, &x));
            append(all, x);
        }
    } while (take(r, "|"));
    *out = any;
out:
    return rc;
}

enum err eng_regex_parse(struct arena *a, const char *p, size_t n, struct regex_node **out)
{
    enum err rc;
    struct reader r = {.a = a};
    r.start = r.p = arena_strndup(a, p, n);
    r.end = r.p + n;
    TRY(alternation(&r, out));
    if (r.p < r.end) rc = refuse(&r, ERR_BAD_REQUEST, "a ) without its (");
out:
    return rc;
}
