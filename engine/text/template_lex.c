/* template_lex.c: Jinja's lexical rules with trim_blocks and lstrip_blocks on.
 *
 * I1  line ends are \n and one at the end of the source is dropped.
 * I2  after a block or comment tag one line end goes (trim_blocks) unless the tag ends with +; with
 * - all blanks go. I3  before a block or comment tag blanks go when nothing else is on the line
 * (lstrip_blocks), unless it begins with +; with - all blanks go, whatever line they are on. Print
 * tags only know -. */
#include "engine/text/template_ast.h"
#include "engine/text/utf8.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct lexer {
    struct arena *a;
    struct str src;
    size_t at;
    int32_t line;
    struct tok *toks;
    size_t n, cap;
    bool line_starts; /* what was read last ended with a line end */
    enum err rc;
};

static void lex_fail(struct lexer *x, const char *what)
{
    if (!x->rc) x->rc = err_raise(ERR_BAD_FILE, "chat template, line %d: %s", x->line, what);
}

static struct tok *push(struct lexer *x, enum tok_kind kind, struct str s)
{
    if (x->n == x->cap) {
        size_t cap = x->cap ? x->cap * 2 : 256;
        struct tok *toks = arena_alloc(x->a, cap * sizeof *toks);
        if (x->n) memcpy(toks, x->toks, x->n * sizeof *toks);
        x->toks = toks, x->cap = cap;
    }
    x->toks[x->n] = (struct tok){.kind = kind, .line = x->line, .s = s};
    return &x->toks[x->n++];
}

static bool at_text(const struct lexer *x, size_t at, const char *s)
{
    size_t n = strlen(s);
    return at + n <= x->src.n && !memcmp(x->src.p + at, s, n);
}

static void advance(struct lexer *x, size_t to)
{
    for (; x->at < to; x->at++) x->line += x->src.p[x->at] == '\n';
}

static size_t skip_blanks(const struct lexer *x, size_t at)
{
    while (at < x->src.n) {
        size_t next = at;
        if (!ch_is_space(str_next(x->src, &next))) break;
        at = next;
    }
    return at;
}

/* Where a tag that closes at `at` with `close` ends, after trimming; 0: it does not close here. */
static size_t tag_end(const struct lexer *x, size_t at, const char *close, bool trim)
{
    size_t n = strlen(close);
    if (at_text(x, at, "-") && at_text(x, at + 1, close)) return skip_blanks(x, at + 1 + n);
    if (trim && at_text(x, at, "+") && at_text(x, at + 1, close)) return at + 1 + n;
    if (!at_text(x, at, close)) return 0;
    return at + n + (trim && at_text(x, at + n, "\n"));
}

static void finish_tag(struct lexer *x, size_t end)
{
    advance(x, end);
    x->line_starts = x->src.p[end - 1] == '\n';
}

/* The text before a tag; sign: the tag's -, + or 0; print: a print tag. */
static void push_text(struct lexer *x, size_t end, char sign, bool print)
{
    struct str s = {x->src.p + x->at, end - x->at};
    if (sign == '-') {
        s = str_strip(s, STRIP_RIGHT, NULL);
    } else if (sign != '+' && !print) {
        const char *nl = s.n ? memrchr(s.p, '\n', s.n) : NULL;
        size_t line = nl ? (size_t)(nl - s.p) + 1 : 0;
        struct str last = {s.p + line, s.n - line};
        if ((nl || x->line_starts) && !str_strip(last, STRIP_LEFT, NULL).n) s.n = line;
    }
    if (s.n) push(x, T_DATA, s);
    advance(x, end);
}

static char sign_at(const struct lexer *x, size_t at)
{
    return at < x->src.n && (x->src.p[at] == '-' || x->src.p[at] == '+') ? x->src.p[at] : 0;
}

static void lex_comment(struct lexer *x)
{
    for (size_t at = x->at; at < x->src.n; at++) {
        size_t end = tag_end(x, at, "#}", true);
        if (!end) continue;
        finish_tag(x, end);
        return;
    }
    lex_fail(x, "a comment is not closed: '#}' is missing");
}

/* "{% word %}" at `at`: where it ends, or 0. */
static size_t word_tag(const struct lexer *x, size_t at, const char *word, bool trim)
{
    if (!at_text(x, at, "{%")) return 0;
    at += 2;
    at = skip_blanks(x, at + (sign_at(x, at) != 0));
    if (!at_text(x, at, word)) return 0;
    at = skip_blanks(x, at + strlen(word));
    return tag_end(x, at, "%}", trim);
}

static void lex_raw(struct lexer *x, size_t begin_end)
{
    advance(x, begin_end);
    for (size_t at = x->at; at < x->src.n; at++) {
        size_t end = word_tag(x, at, "endraw", true);
        if (!end) continue;
        x->line_starts = x->src.p[x->at - 1] == '\n';
        push_text(x, at, sign_at(x, at + 2), false);
        finish_tag(x, end);
        return;
    }
    lex_fail(x, "a raw block is not closed: '{% endraw %}' is missing");
}

static void put_escape(struct lexer *x, struct buf *b, const char *p, const char *end, size_t *used)
{
    static const char plain[] = "n\nt\tr\r\\\\'\'\"\"a\ab\bf\fv\v";
    uint8_t u[4];
    size_t digits = *p == 'x' ? 2 : *p == 'u' ? 4 : *p == 'U' ? 8 : 0, n = 0;
    uint32_t cp = 0;
    *used = 1;
    for (const char *e = plain; *e; e += 2)
        if (*e == *p) return buf_putc(b, e[1]);
    if (*p == '\n') return; /* a line end after a backslash joins lines */
    if (*p >= '0' && *p <= '7') {
        for (; n < 3 && p + n < end && p[n] >= '0' && p[n] <= '7'; n++)
            cp = cp * 8 + (uint32_t)(p[n] - '0');
        *used = n;
    } else if (digits) {
        for (; n < digits && p + 1 + n < end && isxdigit((unsigned char)p[1 + n]); n++)
            cp =
                cp * 16 + (uint32_t)(p[1 + n] <= '9' ? p[1 + n] - '0' : (p[1 + n] | 32) - 'a' + 10);
        *used = 1 + n;
        if (n < digits || cp > 0x10FFFF || (cp >= 0xD800 && cp < 0xE000))
            lex_fail(x, "a bad \\x, \\u or \\U in a string");
    } else {
        buf_putc(b, '\\');
        return buf_putc(b, *p);
    }
    if (!x->rc) buf_put(b, u, utf8_put(u, cp));
}

static void lex_string(struct lexer *x, char quote)
{
    struct buf b = {0};
    size_t at = x->at + 1, used;
    while (at < x->src.n && x->src.p[at] != quote && !x->rc) {
        if (x->src.p[at] == '\\' && at + 1 < x->src.n) {
            put_escape(x, &b, x->src.p + at + 1, x->src.p + x->src.n, &used);
            at += 1 + used;
        } else {
            buf_putc(&b, x->src.p[at++]);
        }
    }
    if (at >= x->src.n) lex_fail(x, "a string is not closed");
    push(x, T_STRING, (struct str){arena_strndup(x->a, buf_str(&b), b.len), b.len});
    buf_free(&b);
    if (!x->rc) advance(x, at + 1);
}

static void lex_number(struct lexer *x)
{
    char text[64];
    size_t at = x->at, n = 0;
    bool real = false, attr = x->at && x->src.p[x->at - 1] == '.'; /* a.0.5: no reals after a dot */
    for (; at < x->src.n && n < sizeof text - 1; at++) {
        char c = x->src.p[at];
        bool digit_next = at + 1 < x->src.n && isdigit((unsigned char)x->src.p[at + 1]);
        if (c == '_' && digit_next) continue;
        if (c == '.' && !real && !attr && digit_next)
            real = true;
        else if ((c == 'e' || c == 'E') && !attr &&
                 (digit_next || (sign_at(x, at + 1) && at + 2 < x->src.n &&
                                 isdigit((unsigned char)x->src.p[at + 2])))) {
            real = true;
            text[n++] = c;
            if (!digit_next) text[n++] = x->src.p[++at];
            continue;
        } else if (!isdigit((unsigned char)c))
            break;
        text[n++] = c;
    }
    text[n] = 0;
    errno = 0;
    struct tok *t = push(x, real ? T_FLOAT : T_INT, (struct str){x->src.p + x->at, at - x->at});
    if (real)
        t->f = strtod(text, NULL);
    else
        t->i = strtoll(text, NULL, 10);
    if (!real && errno) lex_fail(x, "a whole number does not fit 64 bits");
    advance(x, at);
}

static bool is_name_byte(char c, bool first)
{
    return isalpha((unsigned char)c) || c == '_' || (unsigned char)c >= 0x80 ||
           (!first && isdigit((unsigned char)c));
}

static void lex_operator(struct lexer *x, char *stack, int *depth)
{
    static const char *const two[] = {"**", "//", "==", "!=", ">=", "<="};
    char c = x->src.p[x->at];
    size_t n = 1;
    for (size_t i = 0; i < COUNT_OF(two); i++)
        if (at_text(x, x->at, two[i])) n = 2;
    if (!c || !strchr("+-/*%~[](){}><=.:|,;!", c) || (c == '!' && n == 1)) {
        x->rc = err_raise(ERR_BAD_FILE, "chat template, line %d: unexpected character 0x%02x",
                          x->line, (uint8_t)c);
        return;
    }
    if (strchr("([{", c)) {
        if (*depth == 127)
            lex_fail(x, "brackets are nested more than 127 deep");
        else
            stack[(*depth)++] = c == '(' ? ')' : c == '[' ? ']' : '}';
    } else if (strchr(")]}", c)) {
        if (!*depth || stack[--*depth] != c) lex_fail(x, "a closing bracket has no opening one");
    }
    push(x, T_OP, (struct str){x->src.p + x->at, n});
    advance(x, x->at + n);
}

/* Inside {{ }} or {% %}. */
static void lex_code(struct lexer *x, bool print)
{
    char stack[128];
    int depth = 0;
    while (!x->rc) {
        size_t end =
            x->at < x->src.n && !depth ? tag_end(x, x->at, print ? "}}" : "%}", !print) : 0;
        if (end) {
            push(x, print ? T_PRINT_END : T_BLOCK_END, (struct str){x->src.p + x->at, 2});
            finish_tag(x, end);
            return;
        }
        advance(x, skip_blanks(x, x->at));
        if (x->at >= x->src.n) {
            lex_fail(x, print ? "'{{' is not closed by '}}'" : "'{%' is not closed by '%}'");
            return;
        }
        if (!depth && tag_end(x, x->at, print ? "}}" : "%}", !print)) continue;
        char c = x->src.p[x->at];
        if (c == '\'' || c == '"')
            lex_string(x, c);
        else if (isdigit((unsigned char)c))
            lex_number(x);
        else if (is_name_byte(c, true)) {
            size_t at = x->at;
            while (at < x->src.n && is_name_byte(x->src.p[at], false)) at++;
            push(x, T_NAME, (struct str){x->src.p + x->at, at - x->at});
            advance(x, at);
        } else {
            lex_operator(x, stack, &depth);
        }
    }
}

static struct str normalize(struct arena *a, const char *p, size_t n)
{
    char *out = arena_alloc(a, n + 1);
    size_t m = 0;
    for (size_t i = 0; i < n; i++) {
        if (p[i] != '\r')
            out[m++] = p[i];
        else if (i + 1 == n || p[i + 1] != '\n')
            out[m++] = '\n';
    }
    if (m && out[m - 1] == '\n') m--;
    out[m] = 0;
    return (struct str){out, m};
}

static size_t next_tag(const struct lexer *x)
{
    for (size_t at = x->at; at + 1 < x->src.n; at++) {
        const char *hit = memchr(x->src.p + at, '{', x->src.n - at - 1);
        if (!hit) break;
        at = (size_t)(hit - x->src.p);
        if (hit[1] == '{' || hit[1] == '%' || hit[1] == '#') return at;
    }
    return x->src.n;
}

enum err template_lex(struct arena *a, const char *source, size_t n, struct tok **out)
{
    struct lexer x = {.a = a, .src = normalize(a, source, n), .line = 1, .line_starts = true};
    while (!x.rc) {
        size_t at = next_tag(&x), raw_end;
        if (at >= x.src.n) break;
        char kind = x.src.p[at + 1], sign = sign_at(&x, at + 2);
        push_text(&x, at, sign, kind == '{');
        if ((raw_end = word_tag(&x, at, "raw", false))) {
            lex_raw(&x, raw_end);
            continue;
        }
        advance(&x, at + 2 + (sign != 0));
        if (kind == '#') {
            lex_comment(&x);
            continue;
        }
        push(&x, kind == '{' ? T_PRINT_BEGIN : T_BLOCK_BEGIN, (struct str){x.src.p + at, 2});
        lex_code(&x, kind == '{');
    }
    if (!x.rc && x.at < x.src.n) push(&x, T_DATA, (struct str){x.src.p + x.at, x.src.n - x.at});
    push(&x, T_EOF, STR("the end of the template"));
    *out = x.toks;
    return x.rc;
}
