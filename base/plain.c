/* plain.c: see plain.h. */
#include "base/plain.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum { PIECE = 4 * 4 + 1 }; /* the most that one character becomes: \xNN of four bytes, and NUL */

/* Bytes of the character at p, or 0: it is none (cut short, too long, a surrogate, beyond the last). */
static size_t character(const uint8_t *p, size_t n, uint32_t *cp)
{
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    size_t len = *p < 0x80 ? 1 : *p >= 0xc2 && *p < 0xe0 ? 2 : *p >= 0xe0 && *p < 0xf0 ? 3 : *p >= 0xf0 && *p < 0xf5 ? 4 : 0;
    if (!len || len > n) return 0;
    *cp = len == 1 ? *p : *p & (0x7fu >> len);
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80) return 0;
        *cp = *cp << 6 | (p[i] & 0x3f);
    }
    return *cp < least[len] || (*cp >= 0xd800 && *cp < 0xe000) || *cp > 0x10ffff ? 0 : len;
}

static bool steers(uint32_t cp)
{
    return cp < 0x20 || (cp >= 0x7f && cp < 0xa0) || cp == 0x200e || cp == 0x200f || cp == 0x061c || (cp >= 0x2028 && cp <= 0x202e) ||
           (cp >= 0x2066 && cp <= 0x2069);
}

/* The next character's text; returns the bytes it was. */
static size_t next(const uint8_t *p, size_t n, bool line, char out[PIECE])
{
    uint32_t cp = 0;
    size_t len = character(p, n, &cp);
    if (len && (!steers(cp) || (!line && (cp == '\n' || cp == '\t')))) {
        memcpy(out, p, len);
        out[len] = 0;
        return len;
    }
    const char *named = len == 1 && line ? strchr("\nn\rr\tt", (int)cp) : NULL;
    if (cp && named) snprintf(out, PIECE, "\\%c", named[1]);
    else
        for (size_t i = 0; i < MAX(len, 1); i++) snprintf(out + 4 * i, 5, "\\x%02x", p[i]);
    return MAX(len, 1);
}

char *plain(char out[], size_t cap, const char *text, size_t n)
{
    char piece[PIECE];
    size_t at = 0;
    for (size_t i = 0; i < n;) {
        i += next((const uint8_t *)text + i, n - i, true, piece);
        size_t len = strlen(piece);
        if (at + len >= cap) break;
        memcpy(out + at, piece, len);
        at += len;
    }
    out[at] = 0;
    return out;
}

void plain_write(FILE *f, const char *text, size_t n)
{
    char piece[PIECE];
    for (size_t i = 0; i < n;) {
        i += next((const uint8_t *)text + i, n - i, false, piece);
        fputs(piece, f);
    }
}
