/* json_out.c: see json_out.h. */
#include "coordinator/api/json_out.h"
#include "coordinator/api/json_check.h"
#include "engine/text/utf8.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void escape(struct buf *out, uint8_t c)
{
    switch (c) {
    case '"':
        buf_puts(out, "\\\"");
        break;
    case '\\':
        buf_puts(out, "\\\\");
        break;
    case '\n':
        buf_puts(out, "\\n");
        break;
    case '\r':
        buf_puts(out, "\\r");
        break;
    case '\t':
        buf_puts(out, "\\t");
        break;
    default:
        buf_printf(out, "\\u%04x", c);
    }
}

void json_out_text(struct buf *out, const char *s, size_t n)
{
    const uint8_t *p = (const uint8_t *)s;
    buf_putc(out, '"');
    for (size_t i = 0, len; i < n; i += len) {
        enum utf8_kind kind = utf8_step(p + i, n - i, &len);
        if (kind != UTF8_OK) {
            buf_puts(out, "\xEF\xBF\xBD");
            if (kind == UTF8_SHORT) break; /* the rest is the beginning of a character */
        } else if (len == 1 && (p[i] < 0x20 || p[i] == '"' || p[i] == '\\' || p[i] == 0x7f)) {
            escape(out, p[i]);
        } else {
            buf_put(out, p + i, len);
        }
    }
    buf_putc(out, '"');
}

void json_out_str(struct buf *out, const char *s)
{
    json_out_text(out, s, strlen(s));
}

void json_out_object(struct buf *out, const char *s, size_t n)
{
    size_t i = 0;
    while (i < n && s[i] && strchr(" \t\r\n", s[i])) i++;
    if (i < n && s[i] == '{' && crd_json_is(s, n))
        buf_put(out, s, n);
    else
        buf_puts(out, "{}");
}

static bool same_bits(float a, float b)
{
    return !memcmp(&a, &b, sizeof a);
}

void json_out_f32(struct buf *out, float v)
{
    char text[32];
    if (!isfinite(v)) {
        buf_puts(out, "null");
        return;
    }
    for (int digits = 6; digits <= 9;
         digits++) { /* %g leaves trailing zeros out: up to six digits this is shortest */
        snprintf(text, sizeof text, "%.*g", digits, (double)v);
        if (same_bits(strtof(text, NULL), v)) break;
    }
    buf_puts(out, text);
    if (!strpbrk(text, ".e")) buf_puts(out, ".0");
}

void json_out_time(struct buf *out, const struct timespec *t, int digits)
{
    struct tm tm;
    char text[32], parts[16];
    gmtime_r(&t->tv_sec, &tm);
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(parts, sizeof parts, "%09ld", t->tv_nsec);
    buf_printf(out, "\"%s%s%.*sZ\"", text, digits ? "." : "", digits, parts);
}

struct bounded {
    struct buf *out;
    size_t most; /* bytes that it may have then */
};

static int put_bounded(const char *s, size_t n, void *user)
{
    struct bounded *b = user;
    if (n > b->most - b->out->len) return -1;
    buf_put(b->out, s, n);
    return 0;
}

bool json_out_value(struct buf *out, const json_t *j, size_t most)
{
    struct bounded b = {out, out->len + most};
    return !json_dump_callback(j, put_bounded, &b, JSON_COMPACT | JSON_ENCODE_ANY);
}
