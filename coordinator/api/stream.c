/* stream.c: the step STREAM: events to choices to bytes. */
#include "coordinator/api/generation_impl.h"
#include "base/clock.h"

#include <stdlib.h>

enum {
    SILENCE_US = 1000000
}; /* a stream that is not refused by then begins, so that it can be kept alive */

void crd_generation_start_stream(struct crd_generation *g, struct buf *out)
{
    g->status = 200;
    const struct crd_format *f = g->answer.format;
    if (f->begin) f->begin(&g->answer, g->choices, g->n_choices, out);
}

/* Is every choice's text settled? Then what is said next is the last. */
static bool all_settled(const struct crd_generation *g)
{
    for (int32_t i = 0; i < g->request.n_prompts; i++)
        if (g->subs[i].n_going) return false;
    return true;
}

static void speak(struct crd_generation *g, struct crd_choice *c, struct buf *out)
{
    if (!g->request.stream) return;
    if (!g->status) crd_generation_start_stream(g, out);
    const struct crd_format *f = g->answer.format;
    if (crd_choice_has_news(c)) f->chunk(&g->answer, c, DELTA_TEXT, false, out);
    if (c->finish) f->chunk(&g->answer, c, DELTA_FINISH, all_settled(g), out);
}

static void settle(struct crd_sub *s, bool by_text, int32_t choice)
{
    if (by_text) crd_sub_ended_by_text(s, choice);
    s->n_going--;
}

static void set_timings(struct crd_generation *g, const struct token_event *e)
{
    struct crd_timings *t = &g->answer.timings;
    bool known = e && (e->prefill_us || e->decode_us);
    if (!known && !g->first_us) return;
    t->prompt_us = known ? e->prefill_us : g->first_us - g->submitted_us;
    t->predicted_us = known ? e->decode_us : g->last_us - g->first_us;
}

static void on_token(struct crd_generation *g, struct crd_event *v, struct buf *out)
{
    struct crd_sub *s = v->sub;
    struct crd_choice *c = &s->choices[v->e.choice];
    int32_t before = c->n_tokens, thought = c->n_thought;
    if (c->finish) return; /* past its stop string, while other choices go on */
    g->last_us = clock_us();
    if (!g->first_us) g->first_us = g->last_us;
    if (!c->opened) crd_choice_echo(c, &s->prompt_logprobs);
    crd_choice_push(c, &v->token);
    g->answer.usage.n_completion += c->n_tokens - before;
    g->answer.usage.n_thought += c->n_thought - thought;
    if (c->finish) {
        settle(s, true, v->e.choice);
        set_timings(g, NULL);
    }
    speak(g, c, out);
    if (!s->n_going) crd_sub_cancel(s);
}

static void on_choice_end(struct crd_generation *g, struct crd_event *v, struct buf *out)
{
    struct crd_sub *s = v->sub;
    struct crd_choice *c = &s->choices[v->e.choice];
    if (v->e.choice == 0) {
        s->n_cached = v->e.n_cached;
        g->answer.usage.n_cached += s->n_cached;
        set_timings(g, &v->e);
    }
    g->answer.usage.n_foreseen += v->e.n_right;
    g->answer.usage.n_unforeseen += v->e.n_wrong;
    if (c->finish) return; /* its stop string ended it */
    if (!c->opened) crd_choice_echo(c, &s->prompt_logprobs);
    crd_choice_end(c, v->e.finish);
    if (c->vector) crd_choice_vector(c);
    settle(s, false, v->e.choice);
    speak(g, c, out);
    if (!s->n_going) crd_sub_cancel(s);
}

/* False: the generation failed. */
static bool on_finish(struct crd_generation *g, struct crd_event *v, struct buf *out)
{
    bool ours = v->e.err == ERR_CANCELLED && !v->sub->n_going;
    if (v->e.err && !ours) {
        crd_api_error_of(&g->error, v->e.err, v->text);
        return false;
    }
    if (v->e.choice >= 0) on_choice_end(g, v, out);
    return true;
}

enum crd_streamed crd_generation_stream(struct crd_generation *g, struct buf *out)
{
    bool all_finished, good = true;
    struct crd_inbox b = crd_generation_take(g, &all_finished);
    for (size_t i = 0; i < b.n; i++) {
        struct crd_event *v = &b.at[i];
        if (good && v->e.kind == EVENT_TOKEN) on_token(g, v, out);
        if (good && v->e.kind == EVENT_FINISH) good = on_finish(g, v, out);
        free(v->text);
    }
    free(b.at);
    if (!good) return STREAM_FAILED;
    if (all_finished) return STREAM_ENDED;
    if (g->request.stream && !g->status && clock_us() - g->submitted_us > SILENCE_US)
        crd_generation_start_stream(g, out);
    return STREAM_WAITS;
}
