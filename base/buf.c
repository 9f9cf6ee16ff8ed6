/* buf.c: see buf.h. Little-endian on the wire whatever the host. */
#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void buf_free(struct buf *b)
{
    if (!b) return;
    free(b->data);
    *b = (struct buf){0};
}

void buf_clear(struct buf *b)
{
    b->len = 0;
    if (b->data) b->data[0] = 0;
}

void buf_reserve(struct buf *b, size_t more)
{
    size_t need = b->len + more + 1;
    if (need <= b->cap) return;
    size_t cap = MAX(need, b->cap * 2);
    b->data = xrealloc(b->data, cap);
    b->cap = cap;
}

void buf_put(struct buf *b, const void *p, size_t n)
{
    buf_reserve(b, n);
    if (n) memcpy(b->data + b->len, p, n);
    b->len += n;
    b->data[b->len] = 0;
}

void buf_puts(struct buf *b, const char *s) { buf_put(b, s, strlen(s)); }
void buf_putc(struct buf *b, char c) { buf_put(b, &c, 1); }

void buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    ASSERT(n >= 0);
    buf_reserve(b, (size_t)n);
    vsnprintf((char *)b->data + b->len, (size_t)n + 1, fmt, again);
    va_end(again);
    b->len += (size_t)n;
}

static void put_le(struct buf *b, uint64_t v, size_t n)
{
    uint8_t le[8];
    for (size_t i = 0; i < n; i++) le[i] = (uint8_t)(v >> (8 * i));
    buf_put(b, le, n);
}

void buf_u8(struct buf *b, uint8_t v) { put_le(b, v, 1); }
void buf_u16(struct buf *b, uint16_t v) { put_le(b, v, 2); }
void buf_u32(struct buf *b, uint32_t v) { put_le(b, v, 4); }
void buf_u64(struct buf *b, uint64_t v) { put_le(b, v, 8); }

void buf_f32(struct buf *b, float v)
{
    uint32_t u;
    memcpy(&u, &v, 4);
    buf_u32(b, u);
}

const char *buf_str(struct buf *b) { return b->data ? (const char *)b->data : ""; }

char *buf_take(struct buf *b)
{
    char *s = b->data ? (char *)b->data : xstrdup("");
    *b = (struct buf){0};
    return s;
}

const void *rd_bytes(struct rd *r, size_t n)
{
    if (r->bad || rd_left(r) < n) {
        r->bad = true;
        return NULL;
    }
    const void *p = r->p;
    r->p += n;
    return p;
}

static uint64_t get_le(struct rd *r, size_t n)
{
    const uint8_t *p = rd_bytes(r, n);
    uint64_t v = 0;
    for (size_t i = 0; p && i < n; i++) v |= (uint64_t)p[i] << (8 * i);
    return v;
}

uint8_t rd_u8(struct rd *r) { return (uint8_t)get_le(r, 1); }
uint16_t rd_u16(struct rd *r) { return (uint16_t)get_le(r, 2); }
uint32_t rd_u32(struct rd *r) { return (uint32_t)get_le(r, 4); }
uint64_t rd_u64(struct rd *r) { return get_le(r, 8); }

float rd_f32(struct rd *r)
{
    uint32_t u = rd_u32(r);
    float v;
    memcpy(&v, &u, 4);
    return v;
}
