/* hf_regex.c: Oniguruma's expressions as PCRE2's.
 *
 * The two agree on nearly all that tokenizers use. What differs is rewritten: \s (PCRE2's takes
 * U+180E too, Oniguruma's does not), \h (a hexadecimal digit there, a blank here), ^ and $ (always
 * about lines there), \w and the classes in [:name:], which Oniguruma has by Unicode's properties. A class within a class is refused, for PCRE2 would
 * read it as text. */
#include "engine/text/hf_build.h"
#include "base/buf.h"

#include <string.h>

#define SPACE                                                                                      \
    "\\x{9}-\\x{D}\\x{20}\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}"    \
    "\\x{205F}\\x{3000}"
#define HEX "0-9a-fA-F"
#define WORD "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"
#define WORD_ALONE WORD "\\x{B2}\\x{B3}\\x{B9}\\x{BC}-\\x{BE}" /* outside of a class Latin-1's numbers are word, too */

static void escaped(struct buf *out, char c, bool in_class)
{
    const char *open = in_class ? "" : "[", *close = in_class ? "" : "]";
    if (c == 's')
        buf_printf(out, "%s" SPACE "%s", open, close);
    else if (c == 'h')
        buf_printf(out, "%s" HEX "%s", open, close);
    else if (c == 'w')
        buf_puts(out, in_class ? WORD : "[" WORD_ALONE "]");
    else if (c == 'S' && !in_class)
        buf_puts(out, "[^" SPACE "]");
    else if (c == 'W' && !in_class)
        buf_puts(out, "[^" WORD_ALONE "]");
    else
        buf_putc(out, '\\'), buf_putc(out, c);
}

/* [:name:] at p, within a class; returns how long that is. */
static size_t named_class(struct buf *out, const char *p)
{
    static const char *const named[][2] = {{"[:alnum:]", "\\p{Alphabetic}\\p{Nd}"}, {"[:alpha:]", "\\p{Alphabetic}"}, {"[:digit:]", "\\p{Nd}"},
                                           {"[:lower:]", "\\p{Lowercase}"},        {"[:punct:]", "\\p{P}\\p{S}"},   {"[:space:]", SPACE},
                                           {"[:upper:]", "\\p{Uppercase}"},        {"[:word:]", WORD},             {"[:xdigit:]", HEX}};
    for (size_t i = 0; i < COUNT_OF(named); i++) {
        size_t n = strlen(named[i][0]);
        if (strncmp(p, named[i][0], n)) continue;
        buf_puts(out, named[i][1]);
        return n;
    }
    const char *end = strstr(p, ":]");
    size_t n = end ? (size_t)(end - p) + 2 : 1;
    buf_put(out, p, n);
    return n;
}

enum err hf_regex_translate(struct arena *a, const char *regex, const char **out)
{
    struct buf b = {0};
    bool in_class = false;
    for (const char *p = regex; *p; p++) {
        bool nested = in_class && ((*p == '[' && p[1] != ':') || !strncmp(p, "\\W", 2));
        if (nested) {
            buf_free(&b);
            return err_raise(
                ERR_UNSUPPORTED,
                "tokenizer.json: a character class within another is not supported, at "
                "\"%.40s\"",
                p);
        }
        if (*p == '\\' && p[1])
            escaped(&b, *++p, in_class);
        else if (in_class && *p == '[')
            p += named_class(&b, p) - 1;
        else if (!in_class && *p == '$')
            buf_puts(&b, "(?=\\n|\\z)");
        else if (!in_class && *p == '^')
            buf_puts(&b, "(?<![^\\n])");
        else {
            if (*p == '[' && !in_class) {
                in_class = true;
                buf_putc(&b, *p);
                if (p[1] == '^') buf_putc(&b, *++p);
                continue;
            }
            if (*p == ']') in_class = false;
            buf_putc(&b, *p);
        }
    }
    *out = arena_strndup(a, buf_str(&b), b.len);
    buf_free(&b);
    return OK;
}

const char *hf_regex_literal(struct arena *a, const char *text)
{
    struct buf b = {0};
    for (const char *p = text; *p; p++) {
        bool word = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') ||
                    (*p >= '0' && *p <= '9') || (*p & 0x80);
        if (!word) buf_putc(&b, '\\');
        buf_putc(&b, *p);
    }
    const char *out = arena_strndup(a, buf_str(&b), b.len);
    buf_free(&b);
    return out;
}
