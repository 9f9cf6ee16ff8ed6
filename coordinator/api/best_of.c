/* best_of.c: see best_of.h. */
#include "coordinator/api/best_of.h"
#include "coordinator/api/sampling_in.h"

#include <stdlib.h>
#include <string.h>

enum err crd_best_of_in(struct crd_request *r, const struct crd_api *api, struct crd_api_error *e)
{
    r->n_shown = r->n;
    if (r->best_of < 0 || r->best_of == r->n) return OK;
    if (r->best_of < r->n)
        return crd_api_refuse(e, 400, "best_of",
                              "best_of must be greater than or equal to n, got n=%d and best_of=%d.",
                              r->n, r->best_of);
    if (r->best_of > api->max_n)
        return crd_api_refuse(e, 400, "best_of", "best_of must be at most %d, got %d.", api->max_n,
                              r->best_of);
    if (r->stream)
        return crd_api_refuse(e, 400, "best_of",
                              "best_of other than n cannot be streamed: what is best is known at "
                              "the end.");
    r->n = r->best_of;
    r->sampling.n_logprobs = MAX(r->sampling.n_logprobs, 0);
    return OK;
}

static double mean(const struct crd_choice *c)
{
    return c->n_tokens ? c->sum_logprob / c->n_tokens : -1e30;
}

static int better(const void *a, const void *b)
{
    const struct crd_choice *x = a, *y = b;
    if (mean(x) != mean(y)) return mean(x) > mean(y) ? -1 : 1;
    return x->index < y->index ? -1 : 1;
}

int32_t crd_best_of(const struct crd_request *r, struct crd_choice choices[], int32_t n)
{
    if (!r->n_shown || r->n_shown == r->n) return n;
    struct crd_choice *sorted = xmalloc((size_t)n * sizeof *sorted);
    int32_t shown = 0, rest = n / r->n * r->n_shown;
    for (int32_t p = 0; p < n; p += r->n) {
        qsort(choices + p, (size_t)r->n, sizeof *choices, better);
        for (int32_t i = 0; i < r->n; i++)
            sorted[i < r->n_shown ? shown++ : rest++] = choices[p + i];
    }
    memcpy(choices, sorted, (size_t)n * sizeof *choices);
    for (int32_t i = 0; i < shown; i++) choices[i].index = i;
    free(sorted);
    return shown;
}
