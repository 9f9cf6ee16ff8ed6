/* choice.c: see choice.h. */
#include "coordinator/api/choice.h"

void crd_choice_open(struct crd_choice *c, const struct crd_request *r,
                     const struct eng_tokenizer *t, const struct crd_prompt *prompt, int32_t index)
{
    *c = (struct crd_choice){.index = index,
                             .request = r,
                             .tokenizer = t,
                             .prompt = prompt,
                             .stop_id = -1,
                             .stop_string = -1};
    c->detok = eng_detok_open(t, r->stops, r->n_stops, r->include_stop, !r->skip_special);
    if (r->endpoint == ENDPOINT_CHAT) eng_detok_drop_first_space(c->detok);
}

void crd_choice_close(struct crd_choice *c)
{
    eng_detok_close(c->detok);
    buf_free(&c->text);
    buf_free(&c->ids);
    crd_logprobs_free(&c->logprobs);
}

void crd_choice_echo(struct crd_choice *c, const struct crd_prompt_logprobs *p)
{
    const struct eng_tokens *t = &c->prompt->tokens;
    c->opened = true;
    if (!c->request->echo) return;
    if (c->prompt->text)
        buf_put(&c->text, c->prompt->text, c->prompt->n_text);
    else
        eng_tokenizer_decode(c->tokenizer, t->ids, t->n, !c->request->skip_special, &c->text);
    if (!c->request->logprobs) return;
    struct result_token first = {.id = t->ids[0]};
    crd_logprobs_add(&c->logprobs, c->request, c->tokenizer, &first, false);
    for (int32_t i = 0; i < p->n; i++)
        crd_logprobs_add(&c->logprobs, c->request, c->tokenizer, &p->tokens[i], true);
}

/* The index among the stop ids, or -1. */
static int32_t find_stop_id(const struct sampling *s, int32_t id)
{
    for (int32_t i = 0; i < s->n_stop_ids; i++)
        if (s->stop_ids[i] == id) return i;
    return -1;
}

void crd_choice_push(struct crd_choice *c, const struct result_token *token)
{
    const struct crd_request *r = c->request;
    int32_t stop = find_stop_id(&r->sampling, token->id);
    if (r->score_only) return; /* generated because a step must generate; nobody asked for it */
    c->n_tokens++;
    if (r->logprobs) crd_logprobs_add(&c->logprobs, r, c->tokenizer, token, true);
    if (r->return_ids) buf_printf(&c->ids, "%s%d", c->ids.len ? "," : "", token->id);
    if (stop >= r->n_eog) c->stop_id = token->id;
    if (stop >= 0 && !(r->include_stop && stop >= r->n_eog)) return;
    c->stop_string = eng_detok_push(c->detok, token->id, &c->text);
    if (c->stop_string >= 0) c->finish = "stop";
}

void crd_choice_end(struct crd_choice *c, enum seq_finish why)
{
    if (c->finish) return;
    eng_detok_finish(c->detok, &c->text);
    c->finish = why == FINISH_STOP && !c->request->score_only ? "stop" : "length";
}
