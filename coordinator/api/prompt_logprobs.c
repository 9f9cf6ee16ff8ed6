/* prompt_logprobs.c: see prompt_logprobs.h. */
#include "coordinator/api/prompt_logprobs.h"
#include "coordinator/api/json_out.h"
#include "coordinator/api/logprobs.h"

#include <stdlib.h>
#include <string.h>

void crd_prompt_logprobs_take(struct crd_prompt_logprobs *p, const struct result_score *scores,
                              int32_t n)
{
    if (p->n + n > p->cap) {
        p->cap = MAX(p->n + n, 2 * p->cap);
        p->at = xrealloc(p->at, (size_t)p->cap * sizeof *p->at);
    }
    for (int32_t i = 0; i < n; i++) {
        const struct result_score *s = &scores[i];
        struct crd_prompt_score *to = &p->at[p->n++];
        *to = (struct crd_prompt_score){
            .token = {.id = s->id, .logprob = s->logprob, .n_top = s->n_top}, .rank = s->rank};
        if (s->n_top) memcpy(to->token.top, s->top, (size_t)s->n_top * sizeof *s->top);
    }
}

void crd_prompt_logprobs_free(struct crd_prompt_logprobs *p)
{
    free(p->at);
    *p = (struct crd_prompt_logprobs){0};
}

static void put_one(const struct crd_request *r, const struct eng_tokenizer *t, int32_t id,
                    float logprob, int32_t rank, struct buf *out)
{
    struct buf name = {0};
    buf_printf(out, "\"%d\":{\"logprob\":", id);
    crd_logprobs_put(out, logprob);
    buf_printf(out, ",\"rank\":%d,\"decoded_token\":", rank);
    crd_logprobs_name(r, t, id, &name);
    json_out_text(out, buf_str(&name), name.len);
    buf_putc(out, '}');
    buf_free(&name);
}

void crd_prompt_logprobs_put(const struct crd_prompt_logprobs *p, const struct crd_request *r,
                             const struct eng_tokenizer *t, struct buf *out)
{
    buf_puts(out, "[null");
    for (int32_t i = 0; i < p->n; i++) {
        const struct result_token *k = &p->at[i].token;
        buf_puts(out, ",{");
        put_one(r, t, k->id, k->logprob, p->at[i].rank, out);
        for (int32_t j = 0; j < k->n_top && j < r->prompt_logprobs; j++) {
            if (k->top[j].id == k->id) continue;
            buf_putc(out, ',');
            put_one(r, t, k->top[j].id, k->top[j].logprob, j + 1, out);
        }
        buf_putc(out, '}');
    }
    buf_putc(out, ']');
}
