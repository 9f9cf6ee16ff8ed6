/* scan.c: see scan.h. */
#include "proto/scan.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct scan scan_of(const char *message, const void *data, size_t n)
{
    return (struct scan){
        .r = rd_of(data, n), .message = message, .record = "header", .index = -1, .size = n};
}

void scan_at(struct scan *s, const char *record, int32_t index)
{
    s->record = record;
    s->index = index;
}

enum err scan_refuse(const struct scan *s, const char *fmt, ...)
{
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (s->index < 0)
        return err_raise(ERR_LINK_PROTOCOL, "%s: %s: %s", s->message, s->record, text);
    return err_raise(ERR_LINK_PROTOCOL, "%s: %s %" PRId32 ": %s", s->message, s->record, s->index,
                     text);
}

static enum err short_of(const struct scan *s, const char *field)
{
    return scan_refuse(s, "truncated before %s (%zu bytes in all)", field, s->size);
}

enum err scan_i32(struct scan *s, const char *field, int64_t lo, int64_t hi, int32_t *out)
{
    int32_t v = (int32_t)rd_u32(&s->r);
    if (s->r.bad) return short_of(s, field);
    if (v < lo || v > hi)
        return scan_refuse(s, "%s is %" PRId32 ", needed %" PRId64 "..%" PRId64, field, v, lo, hi);
    *out = v;
    return OK;
}

enum err scan_u16(struct scan *s, const char *field, uint16_t *out)
{
    uint16_t v = rd_u16(&s->r);
    if (s->r.bad) return short_of(s, field);
    *out = v;
    return OK;
}

enum err scan_u32(struct scan *s, const char *field, uint32_t *out)
{
    uint32_t v = rd_u32(&s->r);
    if (s->r.bad) return short_of(s, field);
    *out = v;
    return OK;
}

enum err scan_u64(struct scan *s, const char *field, uint64_t *out)
{
    uint64_t v = rd_u64(&s->r);
    if (s->r.bad) return short_of(s, field);
    *out = v;
    return OK;
}

enum err scan_f32_any(struct scan *s, const char *field, float *out)
{
    float v = rd_f32(&s->r);
    if (s->r.bad) return short_of(s, field);
    *out = v;
    return OK;
}

enum err scan_f32(struct scan *s, const char *field, float lo, float hi, float *out)
{
    float v = rd_f32(&s->r);
    if (s->r.bad) return short_of(s, field);
    if (!(v >= lo && v <= hi))
        return scan_refuse(s, "%s is %g, needed %g..%g", field, (double)v, (double)lo, (double)hi);
    *out = v;
    return OK;
}

enum err scan_bool(struct scan *s, const char *field, bool *out)
{
    uint8_t v = rd_u8(&s->r);
    if (s->r.bad) return short_of(s, field);
    if (v > 1) return scan_refuse(s, "%s is %u, needed 0 or 1", field, v);
    *out = v;
    return OK;
}

enum err scan_flags(struct scan *s, const char *field, uint32_t known, uint32_t *out)
{
    uint32_t v = rd_u32(&s->r);
    if (s->r.bad) return short_of(s, field);
    if (v & ~known) return scan_refuse(s, "%s has unknown bits 0x%" PRIx32, field, v & ~known);
    *out = v;
    return OK;
}

enum err scan_count(struct scan *s, const char *field, int64_t max, size_t min_bytes, int32_t *out)
{
    int32_t v = (int32_t)rd_u32(&s->r);
    if (s->r.bad) return short_of(s, field);
    if (v < 0 || v > max)
        return scan_refuse(s, "%s is %" PRId32 ", needed 0..%" PRId64, field, v, max);
    if ((uint64_t)v * min_bytes > rd_left(&s->r))
        return scan_refuse(s, "%s is %" PRId32 ", but %zu bytes are left", field, v,
                           rd_left(&s->r));
    *out = v;
    return OK;
}

enum err scan_copy(struct scan *s, const char *field, void *out, size_t n)
{
    const void *p = rd_bytes(&s->r, n);
    if (!p) return short_of(s, field);
    if (n) memcpy(out, p, n);
    return OK;
}

enum err scan_end(struct scan *s)
{
    if (rd_left(&s->r)) return scan_refuse(s, "%zu bytes follow the last record", rd_left(&s->r));
    return OK;
}
