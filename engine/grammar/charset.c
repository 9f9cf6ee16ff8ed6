/* charset.c: see charset.h. */
#include "engine/grammar/charset.h"

#include "engine/grammar/dfa.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

static void push(struct charset *s, struct arena *a, uint32_t lo, uint32_t hi)
{
    if (lo > hi) return;
    if (s->n == s->cap) {
        struct char_range *old = s->r;
        s->cap = MAX(8, 2 * s->cap);
        s->r = arena_alloc(a, (size_t)s->cap * sizeof *s->r);
        if (s->n) memcpy(s->r, old, (size_t)s->n * sizeof *old);
    }
    s->r[s->n++] = (struct char_range){lo, hi};
}

void eng_charset_add(struct charset *s, struct arena *a, uint32_t lo, uint32_t hi)
{
    hi = MIN(hi, (uint32_t)LAST_CODE_POINT);
    if (lo > hi) return;
    if (lo < 0xD800) push(s, a, lo, MIN(hi, 0xD7FFu));
    if (hi > 0xDFFF) push(s, a, MAX(lo, 0xE000u), hi);
}

void eng_charset_add_all(struct charset *s, struct arena *a, const struct charset *other)
{
    for (int32_t i = 0; i < other->n; i++) push(s, a, other->r[i].lo, other->r[i].hi);
}

static int by_start(const void *a, const void *b)
{
    const struct char_range *x = a, *y = b;
    return x->lo < y->lo ? -1 : x->lo > y->lo;
}

void eng_charset_tidy(struct charset *s)
{
    int32_t n = 0;
    if (s->n > 1) qsort(s->r, (size_t)s->n, sizeof *s->r, by_start);
    for (int32_t i = 0; i < s->n; i++) {
        if (n && s->r[i].lo <= s->r[n - 1].hi + 1)
            s->r[n - 1].hi = MAX(s->r[n - 1].hi, s->r[i].hi);
        else
            s->r[n++] = s->r[i];
    }
    s->n = n;
}

void eng_charset_negate(struct charset *s, struct arena *a)
{
    struct charset out = {0};
    uint32_t at = 0;
    eng_charset_tidy(s);
    for (int32_t i = 0; i < s->n; i++) {
        if (s->r[i].lo > at) eng_charset_add(&out, a, at, s->r[i].lo - 1);
        at = s->r[i].hi + 1;
    }
    eng_charset_add(&out, a, at, LAST_CODE_POINT);
    *s = out;
}

bool eng_charset_has(const struct charset *s, uint32_t cp)
{
    int32_t lo = 0, hi = s->n;
    while (lo < hi) {
        int32_t mid = (lo + hi) / 2;
        if (s->r[mid].hi < cp)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < s->n && s->r[lo].lo <= cp;
}

bool eng_charset_category(struct charset *s, struct arena *a, const char *name, int32_t n)
{
    static const struct {
        const char *name, *shorter;
    } names[] = {
        {"Letter", "L"},
        {"Uppercase_Letter", "Lu"},
        {"Lowercase_Letter", "Ll"},
        {"Mark", "M"},
        {"Number", "N"},
        {"digit", "Nd"},
        {"Decimal_Number", "Nd"},
        {"Punctuation", "P"},
        {"punct", "P"},
        {"Symbol", "S"},
        {"Separator", "Z"},
        {"Other", "C"},
    };
    char want[32] = "";
    if (n < 1 || n >= (int32_t)sizeof want) return false;
    memcpy(want, name, (size_t)n);
    for (size_t i = 0; i < COUNT_OF(names); i++)
        if (!strcmp(want, names[i].name)) strcpy(want, names[i].shorter);
    bool found = false;
    for (uint32_t cp = 0, len = (uint32_t)strlen(want); len <= 2 && cp <= LAST_CODE_POINT; cp++) {
        if (strncmp(utf8proc_category_string((utf8proc_int32_t)cp), want, len)) continue;
        eng_charset_add(s, a, cp, cp);
        found = true;
        if (s->n > 1 && s->r[s->n - 2].hi + 1 == s->r[s->n - 1].lo)
            s->r[s->n - 2].hi = s->r[s->n - 1].hi, s->n--;
    }
    return found;
}
