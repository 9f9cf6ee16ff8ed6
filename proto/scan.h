/* scan.h: a reader that checks every number as it reads it, and names the record when it refuses.
 *
 * On top of buf.h's bounded reader: a value outside its range, a count larger than the bytes that
 * are left, or the end of the data becomes ERR_LINK_PROTOCOL with a sentence such as "step plan:
 * start 3: slot is 4096, needed 0..1023". Used by the packed forms of this folder only. */
#ifndef PROTO_SCAN_H
#define PROTO_SCAN_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct scan {
    struct rd r;
    const char *message;   /* "step plan" */
    const char *record;    /* "start", or "header" */
    int32_t index;         /* of the record */
    size_t size;           /* of the whole message, for the sentence */
};

struct scan scan_of(const char *message, const void *data, size_t n);
/* Which record the next values belong to; only for sentences. */
void scan_at(struct scan *s, const char *record, int32_t index);

/* Each reads one little-endian value; *out is written only on success. lo and hi are both allowed;
 * NaN never is. */
MUST_USE enum err scan_i32(struct scan *s, const char *field, int64_t lo, int64_t hi, int32_t *out);
MUST_USE enum err scan_u16(struct scan *s, const char *field, uint16_t *out);
MUST_USE enum err scan_u32(struct scan *s, const char *field, uint32_t *out);
MUST_USE enum err scan_u64(struct scan *s, const char *field, uint64_t *out);
MUST_USE enum err scan_f32(struct scan *s, const char *field, float lo, float hi, float *out);
MUST_USE enum err scan_f32_any(struct scan *s, const char *field, float *out);
MUST_USE enum err scan_bool(struct scan *s, const char *field, bool *out);
/* Flags: a bit outside `known` is refused. */
MUST_USE enum err scan_flags(struct scan *s, const char *field, uint32_t known, uint32_t *out);
/* How many records follow: at most max, and at most what the bytes left can hold at min_bytes
 * each. */
MUST_USE enum err scan_count(struct scan *s, const char *field, int64_t max, size_t min_bytes,
                             int32_t *out);
/* n raw bytes, copied to out. */
MUST_USE enum err scan_copy(struct scan *s, const char *field, void *out, size_t n);
/* Nothing may follow. */
MUST_USE enum err scan_end(struct scan *s);
/* A sentence of the caller's own, with message and record before it. */
enum err scan_refuse(const struct scan *s, const char *fmt, ...) PRINTF(2, 3);

#endif
