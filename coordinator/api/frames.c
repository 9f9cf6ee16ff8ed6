/* frames.c: see frames.h. */
#include "coordinator/api/frames.h"

#include <stdlib.h>
#include <string.h>

void crd_frames_free(struct crd_frames *f)
{
    buf_free(&f->bytes);
    free(f->at);
    *f = (struct crd_frames){0};
}

static void begin_event(struct crd_frames *f)
{
    if (f->n_at == f->cap_at) {
        f->cap_at = MAX(f->cap_at * 2, (size_t)16);
        f->at = xrealloc(f->at, f->cap_at * sizeof *f->at);
    }
    f->at[f->n_at++] = crd_frames_end(f);
    buf_printf(&f->bytes, "id: %lld\n", (long long)++f->n);
}

void crd_frames_add(struct crd_frames *f, const void *bytes, size_t n, bool events)
{
    const char *p = bytes, *end = p + n;
    if (!events) {
        buf_put(&f->bytes, bytes, n);
        return;
    }
    while (p < end) {
        const char *stop = memmem(p, (size_t)(end - p), "\n\n", 2);
        stop = stop ? stop + 2 : end;
        begin_event(f);
        buf_put(&f->bytes, p, (size_t)(stop - p));
        p = stop;
    }
}

bool crd_frames_find(const struct crd_frames *f, int64_t no, uint64_t *at)
{
    if (no > f->n) *at = crd_frames_end(f);
    else if (no > f->first) *at = f->at[no - 1 - f->first];
    else return false;
    return true;
}

void crd_frames_drop(struct crd_frames *f)
{
    f->dropped += f->bytes.len;
    f->first = f->n;
    f->n_at = 0;
    buf_clear(&f->bytes);
}

void crd_frames_settle(struct crd_frames *f)
{
    if (f->bytes.len) {
        f->bytes.cap = f->bytes.len + 1; /* and its NUL */
        f->bytes.data = xrealloc(f->bytes.data, f->bytes.cap);
    }
    if (f->n_at) f->at = xrealloc(f->at, (f->cap_at = f->n_at) * sizeof *f->at);
}

size_t crd_frames_size(const struct crd_frames *f)
{
    return f->bytes.cap + f->cap_at * sizeof *f->at;
}
