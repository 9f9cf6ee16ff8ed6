/* sse.c: see sse.h. */
#include "cli/sse.h"

#include <string.h>

enum { LONGEST_LINE = 4 << 20 };

static enum err take_line(struct sse *s, enum err (*on_event)(void *user, const json_t *event), void *user)
{
    const char *line = buf_str(&s->line);
    if (strncmp(line, "data:", 5)) return OK;
    line += 5 + strspn(line + 5, " ");
    if (!strcmp(line, "[DONE]")) {
        s->done = true;
        return OK;
    }
    json_t *event = json_loads(line, 0, NULL);
    enum err rc = json_is_object(event) ? on_event(user, event)
                                        : err_raise(ERR_LINK_PROTOCOL, "the server streams what is no JSON object: %.80s", line);
    json_decref(event);
    return rc;
}

enum err sse_feed(struct sse *s, const void *data, size_t n, enum err (*on_event)(void *user, const json_t *event), void *user)
{
    for (const char *p = data, *end = p + n; p < end;) {
        const char *newline = memchr(p, '\n', (size_t)(end - p)), *stop = newline ? newline : end;
        if (s->line.len + (size_t)(stop - p) > LONGEST_LINE)
            return err_raise(ERR_LINK_PROTOCOL, "the server streams a line of more than %d bytes", LONGEST_LINE);
        buf_put(&s->line, p, (size_t)(stop - p));
        if (!newline) return OK;
        p = newline + 1;
        while (s->line.len && s->line.data[s->line.len - 1] == '\r') s->line.data[--s->line.len] = 0;
        enum err rc = take_line(s, on_event, user);
        buf_clear(&s->line);
        if (rc) return rc;
    }
    return OK;
}

void sse_free(struct sse *s) { buf_free(&s->line); }
