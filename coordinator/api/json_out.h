/* json_out.h: writing JSON as text: strings and numbers whose bytes are part of what we promise.
 *
 * Not a document model: answers are written in one pass, left to right. */
#ifndef COORDINATOR_API_JSON_OUT_H
#define COORDINATOR_API_JSON_OUT_H

#include "base/buf.h"

#include <jansson.h>
#include <stdbool.h>
#include <time.h>

/* Append s[n] as a JSON string. Bytes that are not UTF-8 become U+FFFD, so that the document always
 * is. */
void json_out_text(struct buf *out, const char *s, size_t n);
void json_out_str(struct buf *out, const char *s);
/* Append s[n] as it is when it is a JSON object, else {}. */
void json_out_object(struct buf *out, const char *s, size_t n);
/* Append the shortest decimal that reads back as the same f32, always with a point or an exponent,
 * so that equal text means equal bits. Infinities and NaN, which JSON lacks, become null. */
void json_out_f32(struct buf *out, float v);
/* Append a value without white space. False: it takes more than `most` bytes, and was not written to
 * its end. What stands in a value in many places is one thing in memory and many in the text. */
bool json_out_value(struct buf *out, const json_t *j, size_t most);
/* Append a time as RFC 3339 in UTC, with so many digits of the second's parts (0..9). */
void json_out_time(struct buf *out, const struct timespec *t, int digits);

#endif
