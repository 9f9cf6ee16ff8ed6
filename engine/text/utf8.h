/* utf8.h: one step over bytes that may or may not be UTF-8. Shared by splitter, tokenizers,
 * detokenizer and templates. Not here: properties of characters (utf8proc has them). */
#ifndef ENGINE_TEXT_UTF8_H
#define ENGINE_TEXT_UTF8_H

#include <stddef.h>
#include <stdint.h>

enum utf8_kind {
    UTF8_OK,    /* a whole character */
    UTF8_BAD,   /* bytes that no continuation can make valid: one U+FFFD (the "maximal subpart"
                   practice) */
    UTF8_SHORT, /* the bytes end inside a character that may still become valid */
};

/* What stands at p[0..n), n >= 1; *len is how many bytes that is. */
static inline enum utf8_kind utf8_step(const uint8_t *p, size_t n, size_t *len)
{
    uint8_t c = p[0], lo = 0x80, hi = 0xBF;
    *len = 1;
    if (c < 0x80) return UTF8_OK;
    if (c < 0xC2 || c > 0xF4) return UTF8_BAD;
    size_t need = c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
    if (c == 0xE0) lo = 0xA0; /* overlong */
    if (c == 0xED) hi = 0x9F; /* surrogates */
    if (c == 0xF0) lo = 0x90; /* overlong */
    if (c == 0xF4) hi = 0x8F; /* above U+10FFFF */
    for (size_t i = 1; i < need; i++) {
        *len = i;
        if (i == n) return UTF8_SHORT;
        if (p[i] < lo || p[i] > hi) return UTF8_BAD;
        lo = 0x80, hi = 0xBF;
    }
    *len = need;
    return UTF8_OK;
}

/* The code point of a valid character of len bytes. */
static inline uint32_t utf8_cp(const uint8_t *p, size_t len)
{
    if (len == 1) return p[0];
    uint32_t cp = p[0] & (0xFFu >> (len + 1));
    for (size_t i = 1; i < len; i++) cp = cp << 6 | (p[i] & 0x3F);
    return cp;
}

/* Write cp (a scalar value) to p[4]; returns its length. */
static inline size_t utf8_put(uint8_t p[4], uint32_t cp)
{
    if (cp < 0x80) return p[0] = (uint8_t)cp, (size_t)1;
    if (cp < 0x800) {
        p[0] = (uint8_t)(0xC0 | cp >> 6), p[1] = (uint8_t)(0x80 | (cp & 0x3F));
        return 2;
    }
    if (cp < 0x10000) {
        p[0] = (uint8_t)(0xE0 | cp >> 12), p[1] = (uint8_t)(0x80 | (cp >> 6 & 0x3F));
        p[2] = (uint8_t)(0x80 | (cp & 0x3F));
        return 3;
    }
    p[0] = (uint8_t)(0xF0 | cp >> 18), p[1] = (uint8_t)(0x80 | (cp >> 12 & 0x3F));
    p[2] = (uint8_t)(0x80 | (cp >> 6 & 0x3F)), p[3] = (uint8_t)(0x80 | (cp & 0x3F));
    return 4;
}

#endif
