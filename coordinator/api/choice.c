/* choice.c: see choice.h. */
#include "coordinator/api/choice.h"
#include "base/rng.h"

#include <stdlib.h>
#include <string.h>

void crd_choice_open(struct crd_choice *c, const struct crd_request *r,
                     const struct eng_tokenizer *t, const struct crd_prompt *prompt, int32_t index)
{
    *c = (struct crd_choice){.index = index,
                             .request = r,
                             .tokenizer = t,
                             .prompt = prompt,
                             .stop_id = -1,
                             .stop_string = -1};
    struct crd_reply_conf how = r->reply;
    how.id_seed = rng_mix(how.id_seed ^ (uint64_t)index);
    if (how.calls || how.think) c->reply = crd_reply_open(&how);
    /* marks of calls and thoughts are often control tokens: push lets only these through */
    c->detok =
        eng_detok_open(t, r->stops, r->n_stops, r->include_stop, c->reply || !r->skip_special);
    if (r->chat) eng_detok_drop_first_space(c->detok);
}

void crd_choice_close(struct crd_choice *c)
{
    eng_detok_close(c->detok);
    crd_reply_close(c->reply);
    crd_said_free(&c->said);
    buf_free(&c->ids);
    crd_logprobs_free(&c->logprobs);
    free(c->vector);
}

void crd_choice_echo(struct crd_choice *c, const struct crd_prompt_logprobs *p)
{
    const struct eng_tokens *t = &c->prompt->tokens;
    c->opened = true;
    if (!c->request->echo) return;
    if (c->prompt->text)
        buf_put(&c->said.text, c->prompt->text, c->prompt->n_text);
    else
        eng_tokenizer_decode(c->tokenizer, t->ids, t->n, !c->request->skip_special, &c->said.text);
    if (!c->request->logprobs) return;
    struct result_token first = {.id = t->ids[0]};
    crd_logprobs_add(&c->logprobs, c->request, c->tokenizer, &first, false);
    for (int32_t i = 0; i < p->n; i++)
        crd_logprobs_add(&c->logprobs, c->request, c->tokenizer, &p->at[i].token, true);
}

/* The index among the stop ids, or -1. */
static int32_t find_stop_id(const struct sampling *s, int32_t id)
{
    for (int32_t i = 0; i < s->n_stop_ids; i++)
        if (s->stop_ids[i] == id) return i;
    return -1;
}

/* A control token that means nothing to the reader of the reply. */
static bool is_noise(const struct crd_choice *c, int32_t id)
{
    const struct crd_request *r = c->request;
    struct buf piece = {0};
    if (!c->reply || !r->skip_special) return false;
    if (eng_tokenizer_type(c->tokenizer, id) != TOKEN_CONTROL) return false;
    eng_tokenizer_piece(c->tokenizer, id, true, &piece);
    bool mark = crd_style_is_mark(r->reply.calls, r->reply.think, buf_str(&piece));
    buf_free(&piece);
    return !mark;
}

/* Text that is certain goes on to the reader of the reply. True: the reply is over. */
static bool take_text(struct crd_choice *c, struct buf *text)
{
    bool before = crd_reply_thinking(c->reply),
         over = crd_reply_push(c->reply, buf_str(text), text->len, &c->said);
    c->n_thought += before || crd_reply_thinking(c->reply);
    return over;
}

/* Of a token that is shown, or (Responses) of one that may turn out to be shown. */
static void add_logprobs(struct crd_choice *c, const struct result_token *token)
{
    const struct crd_request *r = c->request;
    if (!r->logprobs) return;
    if (r->text_logprobs)
        crd_logprobs_hold(&c->logprobs, r, c->tokenizer, token);
    else
        crd_logprobs_add(&c->logprobs, r, c->tokenizer, token, true);
}

/* Text came of the tokens that wait, or none can come any more. */
static void settle_logprobs(struct crd_choice *c, size_t n_before, bool ended)
{
    bool grew = c->said.text.len > n_before;
    if (!c->request->text_logprobs) return;
    if (grew || ended || (!eng_detok_holds(c->detok) && !(c->reply && crd_reply_holds(c->reply))))
        crd_logprobs_settle(&c->logprobs, grew);
}

static void finish(struct crd_choice *c, const char *why)
{
    size_t n_before = c->said.text.len;
    if (c->reply) crd_reply_finish(c->reply, &c->said);
    if (c->request->hide_thoughts) buf_clear(&c->said.thoughts);
    c->finish = c->said.n_calls && !strcmp(why, "stop") ? "tool_calls" : why;
    settle_logprobs(c, n_before, true);
}

bool crd_choice_has_news(const struct crd_choice *c)
{
    if (c->said.text.len || c->said.thoughts.len) return true;
    for (int32_t i = 0; i < c->said.n_calls; i++)
        if (!c->said.calls[i].announced || c->said.calls[i].args.len) return true;
    return false;
}

void crd_choice_push(struct crd_choice *c, const struct result_token *token)
{
    const struct crd_request *r = c->request;
    int32_t stop = find_stop_id(&r->sampling, token->id);
    if (r->score_only) return; /* generated because a step must generate; nobody asked for it */
    c->n_tokens++;
    c->sum_logprob += (double)token->logprob;
    bool ends = stop >= 0 && !(r->include_stop && stop >= r->n_eog);
    bool noise = !ends && is_noise(c, token->id);
    /* an end that is not shown is no token of a chat's message; completions list what was drawn:
     * harnesses count on one entry for max_tokens 1 */
    if (!r->logprob_entries || !(ends || (noise && r->text_logprobs))) add_logprobs(c, token);
    if (r->return_ids) buf_printf(&c->ids, "%s%d", c->ids.len ? "," : "", token->id);
    if (stop >= r->n_eog) c->stop_id = token->id;
    if (ends || noise) return;
    struct buf text = {0};
    bool over = false;
    size_t n_before = c->said.text.len;
    c->stop_string = eng_detok_push(c->detok, token->id, c->reply ? &text : &c->said.text);
    if (c->reply) over = take_text(c, &text);
    if (r->hide_thoughts) buf_clear(&c->said.thoughts);
    buf_free(&text);
    settle_logprobs(c, n_before, false);
    if (over || c->stop_string >= 0) finish(c, "stop");
}

void crd_choice_end(struct crd_choice *c, enum seq_finish why)
{
    if (c->finish) return;
    struct buf text = {0};
    size_t n_before = c->said.text.len;
    eng_detok_finish(c->detok, c->reply ? &text : &c->said.text);
    if (c->reply) crd_reply_push(c->reply, buf_str(&text), text.len, &c->said);
    buf_free(&text);
    settle_logprobs(c, n_before, false);
    finish(c, why == FINISH_STOP && !c->request->score_only ? "stop" : "length");
}
