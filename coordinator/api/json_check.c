/* json_check.c: see json_check.h. */
#include "coordinator/api/json_check.h"
#include "base/base.h"
#include "engine/text/utf8.h"

#include <ctype.h>
#include <string.h>

struct reader {
    const char *p, *end;
    int depth;
};

static void spaces(struct reader *r)
{
    while (r->p < r->end && strchr(" \t\r\n", *r->p) && *r->p) r->p++;
}

static bool take(struct reader *r, char c)
{
    if (r->p == r->end || *r->p != c) return false;
    r->p++;
    return true;
}

static bool digits(struct reader *r)
{
    const char *from = r->p;
    while (r->p < r->end && isdigit((unsigned char)*r->p)) r->p++;
    return r->p > from;
}

static bool number(struct reader *r)
{
    take(r, '-');
    if (!take(r, '0') && !digits(r)) return false;
    if (take(r, '.') && !digits(r)) return false;
    if (r->p < r->end && (*r->p == 'e' || *r->p == 'E')) {
        r->p++;
        if (!take(r, '+')) take(r, '-');
        return digits(r);
    }
    return true;
}

/* Four hexadecimal digits; -1: they are not. */
static int32_t hex4(struct reader *r)
{
    int32_t v = 0;
    if (r->end - r->p < 4) return -1;
    for (int i = 0; i < 4; i++) {
        int c = tolower((unsigned char)*r->p++);
        if (!isxdigit(c)) return -1;
        v = v << 4 | (c <= '9' ? c - '0' : c - 'a' + 10);
    }
    return v;
}

static bool escape(struct reader *r)
{
    if (r->p == r->end || !*r->p) return false;
    if (strchr("\"\\/bfnrt", *r->p)) return r->p++, true;
    if (*r->p++ != 'u') return false;
    int32_t v = hex4(r);
    if (v < 0 || (v >= 0xDC00 && v < 0xE000)) return false;
    if (v < 0xD800 || v >= 0xE000) return true;
    if (!take(r, '\\') || !take(r, 'u')) return false;
    v = hex4(r);
    return v >= 0xDC00 && v < 0xE000;
}

static bool string(struct reader *r)
{
    size_t len;
    while (r->p < r->end && *r->p != '"') {
        if ((unsigned char)*r->p < 0x20) return false;
        if (*r->p == '\\') {
            r->p++;
            if (!escape(r)) return false;
        } else if (utf8_step((const uint8_t *)r->p, (size_t)(r->end - r->p), &len) != UTF8_OK) {
            return false;
        } else {
            r->p += len;
        }
    }
    return take(r, '"');
}

static bool value(struct reader *r);

static bool members(struct reader *r, char close, bool keys)
{
    spaces(r);
    if (take(r, close)) return true;
    do {
        spaces(r);
        if (keys) {
            if (!take(r, '"') || !string(r)) return false;
            spaces(r);
            if (!take(r, ':')) return false;
        }
        if (!value(r)) return false;
        spaces(r);
    } while (take(r, ','));
    return take(r, close);
}

static bool word(struct reader *r, const char *what)
{
    size_t n = strlen(what);
    if ((size_t)(r->end - r->p) < n || memcmp(r->p, what, n)) return false;
    r->p += n;
    return true;
}

static bool value(struct reader *r)
{
    bool good;
    spaces(r);
    if (r->depth == JSON_CHECK_DEEP) return false;
    r->depth++;
    if (take(r, '{'))
        good = members(r, '}', true);
    else if (take(r, '['))
        good = members(r, ']', false);
    else if (take(r, '"'))
        good = string(r);
    else
        good = word(r, "true") || word(r, "false") || word(r, "null") || number(r);
    r->depth--;
    return good;
}

bool crd_json_is(const char *text, size_t n)
{
    struct reader r = {text, text + n, 0};
    if (!value(&r)) return false;
    spaces(&r);
    return r.p == r.end;
}
