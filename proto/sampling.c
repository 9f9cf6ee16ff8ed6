/* sampling.c: see sampling.h. */
#include "proto/sampling.h"

#include <stdlib.h>
#include <string.h>

/* The arrays of a value, one after the other. */
static void arrays(struct sampling *s, void **at[4], size_t bytes[4])
{
    at[0] = (void **)&s->bias;
    bytes[0] = (size_t)s->n_bias * sizeof *s->bias;
    at[1] = (void **)&s->allowed;
    bytes[1] = (size_t)s->n_allowed * sizeof *s->allowed;
    at[2] = (void **)&s->bad;
    bytes[2] = (size_t)s->n_bad * sizeof *s->bad;
    at[3] = (void **)&s->breakers;
    bytes[3] = (size_t)s->n_breakers;
}

static struct sampling duplicate(const struct sampling *s, struct arena *a)
{
    struct sampling to = *s;
    void **at[4];
    size_t bytes[4];
    arrays(&to, at, bytes);
    for (int i = 0; i < 4; i++) {
        const void *from = *at[i];
        *at[i] = !bytes[i] ? NULL : a ? arena_alloc(a, bytes[i]) : xmalloc(bytes[i]);
        if (bytes[i]) memcpy(*at[i], from, bytes[i]);
    }
    return to;
}

struct sampling sampling_copy(const struct sampling *s)
{
    return duplicate(s, NULL);
}

struct sampling sampling_keep(const struct sampling *s, struct arena *a)
{
    return duplicate(s, a);
}

void sampling_free(struct sampling *s)
{
    void **at[4];
    size_t bytes[4];
    arrays(s, at, bytes);
    for (int i = 0; i < 4; i++) {
        free(*at[i]);
        *at[i] = NULL;
    }
    s->n_bias = s->n_allowed = s->n_bad = s->n_breakers = 0;
}

int64_t sampling_array_bytes(const struct sampling *s)
{
    return (int64_t)sizeof *s->bias * s->n_bias + (int64_t)sizeof(int32_t) * (s->n_allowed + s->n_bad) +
           s->n_breakers;
}
