/* template_chars.c: text as characters: what Python's str knows of Unicode and chat templates use.
 *
 * Case is mapped character by character (utf8proc) plus the one mapping to several characters that
 * ordinary text contains, German sharp s. */
#include "engine/text/template_value.h"
#include "engine/text/utf8.h"

#include <string.h>
#include <utf8proc.h>

bool ch_is_space(uint32_t cp)
{
    return (cp >= 9 && cp <= 13) || (cp >= 28 && cp <= 32) || cp == 0x85 || cp == 0xA0 ||
           cp == 0x1680 || (cp >= 0x2000 && cp <= 0x200A) || cp == 0x2028 || cp == 0x2029 ||
           cp == 0x202F || cp == 0x205F || cp == 0x3000;
}

uint32_t str_next(struct str s, size_t *at)
{
    const uint8_t *p = (const uint8_t *)s.p + *at;
    size_t len;
    enum utf8_kind kind = utf8_step(p, s.n - *at, &len);
    *at += len;
    return kind == UTF8_OK ? utf8_cp(p, len) : 0xFFFD;
}

size_t str_chars(struct str s)
{
    size_t n = 0;
    for (size_t at = 0; at < s.n; n++) str_next(s, &at);
    return n;
}

struct str str_slice(struct str s, size_t from, size_t to)
{
    size_t at = 0, i = 0, start;
    for (; i < from && at < s.n; i++) str_next(s, &at);
    start = at;
    for (; i < to && at < s.n; i++) str_next(s, &at);
    return (struct str){s.p + start, at - start};
}

static bool in_set(uint32_t cp, const struct str *chars)
{
    if (!chars) return ch_is_space(cp);
    for (size_t at = 0; at < chars->n;)
        if (str_next(*chars, &at) == cp) return true;
    return false;
}

struct str str_strip(struct str s, unsigned sides, const struct str *chars)
{
    size_t at = 0, end = s.n;
    while ((sides & STRIP_LEFT) && at < s.n) {
        size_t next = at;
        if (!in_set(str_next(s, &next), chars)) break;
        at = next;
    }
    while ((sides & STRIP_RIGHT) && end > at) {
        size_t start = end - 1, next;
        while (start > at && ((uint8_t)s.p[start] & 0xC0) == 0x80) start--;
        next = start;
        if (!in_set(str_next((struct str){s.p, end}, &next), chars)) break;
        end = start;
    }
    return (struct str){s.p + at, end - at};
}

size_t str_find(struct str s, struct str what, size_t from)
{
    if (from > s.n) return SIZE_MAX;
    if (!what.n) return from;
    const char *hit = memmem(s.p + from, s.n - from, what.p, what.n);
    return hit ? (size_t)(hit - s.p) : SIZE_MAX;
}

static bool is_cased(uint32_t cp)
{
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    return c == UTF8PROC_CATEGORY_LU || c == UTF8PROC_CATEGORY_LL || c == UTF8PROC_CATEGORY_LT;
}

static void put_case(struct run *r, struct buf *b, uint32_t cp, enum case_op op)
{
    uint8_t u[4];
    utf8proc_int32_t c = (utf8proc_int32_t)cp;
    if (cp == 0xDF && op != CASE_LOWER) {
        run_puts(r, b, op == CASE_TITLE ? "Ss" : "SS");
        return;
    }
    if (op == CASE_UPPER)
        c = utf8proc_toupper(c);
    else if (op == CASE_TITLE)
        c = utf8proc_totitle(c);
    else
        c = utf8proc_tolower(c);
    run_put(r, b, (char *)u, utf8_put(u, (uint32_t)c));
}

struct value str_case(struct run *r, struct str s, enum case_op op)
{
    struct buf b = {0};
    bool inside = false;
    for (size_t at = 0; at < s.n && !r->rc;) {
        bool first = at == 0;
        uint32_t cp = str_next(s, &at);
        enum case_op one = op;
        if (op == CASE_TITLE) one = inside ? CASE_LOWER : CASE_TITLE;
        if (op == CASE_CAPITALIZE) one = first ? CASE_TITLE : CASE_LOWER;
        if (op == CASE_SWAP)
            one = utf8proc_tolower((utf8proc_int32_t)cp) == (utf8proc_int32_t)cp ? CASE_UPPER
                                                                                 : CASE_LOWER;
        put_case(r, &b, cp, one);
        inside = is_cased(cp);
    }
    return run_take(r, &b);
}

struct value str_escape(struct run *r, struct str s)
{
    struct buf b = {0};
    for (size_t i = 0; i < s.n && !r->rc; i++) {
        switch (s.p[i]) {
        case '&': run_puts(r, &b, "&amp;"); break;
        case '<': run_puts(r, &b, "&lt;"); break;
        case '>': run_puts(r, &b, "&gt;"); break;
        case '\'': run_puts(r, &b, "&#39;"); break;
        case '"': run_puts(r, &b, "&#34;"); break;
        default: run_put(r, &b, s.p + i, 1);
        }
    }
    struct value out = run_take(r, &b);
    out.safe = true;
    return out;
}

static bool ends_line(uint32_t cp)
{
    return (cp >= 10 && cp <= 13) || (cp >= 0x1C && cp <= 0x1E) || cp == 0x85 || cp == 0x2028 ||
           cp == 0x2029;
}

struct list *str_lines(struct run *r, struct str s, bool keep_ends)
{
    struct value out = v_list(r, V_LIST);
    for (size_t at = 0, start = 0; at < s.n && !r->rc;) {
        size_t end = at;
        uint32_t cp = str_next(s, &at);
        bool last = at >= s.n;
        if (!ends_line(cp)) {
            if (last) list_push(r, out.list, v_str((struct str){s.p + start, at - start}));
            continue;
        }
        if (cp == '\r' && !last && s.p[at] == '\n') at++;
        list_push(r, out.list, v_str((struct str){s.p + start, (keep_ends ? at : end) - start}));
        start = at;
    }
    return out.list;
}
