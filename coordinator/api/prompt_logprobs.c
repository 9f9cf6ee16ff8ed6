/* prompt_logprobs.c: see prompt_logprobs.h. */
#include "coordinator/api/prompt_logprobs.h"
#include "base/base.h"

#include <math.h>

/* log(sum(exp(row))) */
static double log_sum(const float *row, int32_t n)
{
    double max = -INFINITY, sum = 0;
    for (int32_t i = 0; i < n; i++) max = MAX(max, (double)row[i]);
    for (int32_t i = 0; i < n; i++) sum += exp((double)row[i] - max);
    return max + log(sum);
}

/* The n_top best, best first; ties by id. */
static void best_of(const float *row, int32_t n, int32_t n_top, double norm,
                    struct result_token *out)
{
    for (int32_t id = 0; id < n; id++) {
        int32_t at = out->n_top;
        while (at && row[id] > row[out->top[at - 1].id]) at--;
        if (at == n_top) continue;
        out->n_top = MIN(out->n_top + 1, n_top);
        for (int32_t i = out->n_top - 1; i > at; i--) out->top[i] = out->top[i - 1];
        out->top[at] = (struct result_logprob){.id = id};
    }
    for (int32_t i = 0; i < out->n_top; i++)
        out->top[i].logprob = (float)((double)row[out->top[i].id] - norm);
}

void crd_prompt_logprobs_take(struct crd_prompt_logprobs *p, const float *rows, int32_t n_rows,
                              int32_t n_vocab, const int32_t *prompt, int32_t n_prompt,
                              int32_t n_top)
{
    if (!p->tokens) p->tokens = xcalloc((size_t)n_prompt, sizeof *p->tokens);
    for (int32_t i = 0; i < n_rows; i++) {
        const float *row = rows + (int64_t)i * n_vocab;
        int32_t next = ++p->n_rows;
        if (next >= n_prompt || prompt[next] >= n_vocab) continue;
        double norm = log_sum(row, n_vocab);
        struct result_token *t = &p->tokens[p->n++];
        *t = (struct result_token){.id = prompt[next],
                                   .logprob = (float)((double)row[prompt[next]] - norm)};
        best_of(row, n_vocab, MIN(n_top, LIMIT_LOGPROBS), norm, t);
    }
}
