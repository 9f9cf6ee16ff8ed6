/* sse.h: the events of a stream in OpenAI's form, out of its bytes as they come. */
#ifndef CLI_SSE_H
#define CLI_SSE_H

#include "base/buf.h"
#include "base/err.h"

#include <jansson.h>

struct sse {
    struct buf line; /* what has come of it */
    bool done;       /* "[DONE]" was said */
};

/* Every `data:` of the bytes, as a JSON object that on_event borrows; other lines (comments, names of events) are passed over. Err: on_event's, or
 * LINK_PROTOCOL: a line of more than 4 MiB, or data that is no JSON object. */
MUST_USE enum err sse_feed(struct sse *s, const void *data, size_t n, enum err (*on_event)(void *user, const json_t *event), void *user);
void sse_free(struct sse *s);

#endif
