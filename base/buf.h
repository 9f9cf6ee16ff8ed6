/* buf.h: a growing byte buffer (writing), and a bounds-checked little-endian reader (reading).
 * Both are values; a zeroed one is empty. */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include "base/base.h"

#include <stdbool.h>
#include <stdint.h>

struct buf {
    uint8_t *data; /* Own: the buf; NUL is kept after the last byte, so text can be read as a string */
    size_t len, cap;
};

void buf_free(struct buf *b);              /* NULL-safe; leaves it empty */
void buf_clear(struct buf *b);             /* keeps the memory */
void buf_reserve(struct buf *b, size_t more);
void buf_put(struct buf *b, const void *p, size_t n);
void buf_puts(struct buf *b, const char *s);
void buf_putc(struct buf *b, char c);
void buf_printf(struct buf *b, const char *fmt, ...) PRINTF(2, 3);
void buf_u8(struct buf *b, uint8_t v);
void buf_u16(struct buf *b, uint16_t v);
void buf_u32(struct buf *b, uint32_t v);
void buf_u64(struct buf *b, uint64_t v);
void buf_f32(struct buf *b, float v);
const char *buf_str(struct buf *b);        /* "" when empty */
char *buf_take(struct buf *b);             /* the bytes, NUL-terminated; Own: caller; the buf is empty */

/* A reader over bytes it does not own. After the first short read `bad` stays set and every value is 0,
 * so a decoder checks once at the end. */
struct rd {
    const uint8_t *p, *end;
    bool bad;
};

static inline struct rd rd_of(const void *p, size_t n)
{
    return (struct rd){(const uint8_t *)p, (const uint8_t *)p + n, false};
}
static inline size_t rd_left(const struct rd *r) { return (size_t)(r->end - r->p); }
const void *rd_bytes(struct rd *r, size_t n); /* NULL (and bad) when fewer are left */
uint8_t rd_u8(struct rd *r);
uint16_t rd_u16(struct rd *r);
uint32_t rd_u32(struct rd *r);
uint64_t rd_u64(struct rd *r);
float rd_f32(struct rd *r);

#endif
