/* ollama_out.c: answers as Ollama's /api/chat and /api/generate give them: one JSON object a line.
 */
#include "coordinator/api/answer_out.h"
#include "base/clock.h"
#include "coordinator/api/json_out.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

void crd_ollama_error(const struct crd_api_error *e, struct buf *out)
{
    const char *leaf = strrchr(e->param, '.') ? strrchr(e->param, '.') + 1 : e->param;
    /* there is no place for the field at fault but the sentence */
    bool named = !*leaf || strstr(e->message, leaf);
    char *text = named ? NULL : xasprintf("%s: %s", e->param, e->message);
    buf_puts(out, "{\"error\":");
    json_out_str(out, named ? e->message : text);
    free(text);
    buf_putc(out, '}');
}

static void put_head(const struct crd_answer *a, struct buf *out)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    buf_puts(out, "{\"model\":");
    json_out_str(out, a->model);
    buf_puts(out, ",\"created_at\":");
    json_out_time(out, &now, 6);
}

static void put_field(const char *name, struct buf *text, struct buf *out)
{
    buf_printf(out, "\"%s\":", name);
    json_out_text(out, buf_str(text), text->len);
    buf_clear(text);
}

/* Calls go out whole. */
static void put_calls(struct crd_choice *c, struct buf *out)
{
    bool any = false;
    for (int32_t i = 0; i < c->said.n_calls; i++) {
        struct crd_call *call = &c->said.calls[i];
        if (call->announced || !(call->complete || c->finish)) continue;
        buf_puts(out, any ? "," : ",\"tool_calls\":[");
        buf_puts(out, "{\"function\":{\"name\":");
        json_out_str(out, call->name);
        buf_puts(out, ",\"arguments\":");
        json_out_object(out, buf_str(&call->args), call->args.len);
        buf_puts(out, "}}");
        call->announced = any = true;
        buf_clear(&call->args);
    }
    if (any) buf_putc(out, ']');
}

static void put_logprobs(struct crd_choice *c, struct buf *out)
{
    if (!c->logprobs.n) return;
    buf_puts(out, ",\"logprobs\":[");
    crd_logprobs_take_entries(&c->logprobs, out);
    buf_putc(out, ']');
}

static void put_said(const struct crd_answer *a, struct crd_choice *c, struct buf *out)
{
    bool chat = a->request->endpoint == ENDPOINT_OLLAMA_CHAT;
    put_logprobs(c, out);
    buf_puts(out, chat ? ",\"message\":{\"role\":\"assistant\"," : ",");
    put_field(chat ? "content" : "response", &c->said.text, out);
    if (c->said.thoughts.len) {
        buf_putc(out, ',');
        put_field("thinking", &c->said.thoughts, out);
    }
    if (!chat) return;
    put_calls(c, out);
    buf_putc(out, '}');
}

static void put_end(const struct crd_answer *a, const struct crd_choice *c, struct buf *out)
{
    const struct crd_usage *u = &a->usage;
    bool length = c->finish && !strcmp(c->finish, "length");
    buf_printf(out,
               ",\"done\":true,\"done_reason\":\"%s\",\"total_duration\":%lld,\"load_duration\":0,"
               "\"prompt_eval_count\":%lld,\"prompt_eval_duration\":%lld,\"eval_count\":%lld,"
               "\"eval_duration\":%lld}",
               length ? "length" : "stop", (long long)(clock_us() - a->arrived_us) * 1000,
               (long long)u->n_prompt, (long long)a->timings.prompt_us * 1000,
               (long long)u->n_completion, (long long)a->timings.predicted_us * 1000);
}

static bool has_news(const struct crd_choice *c)
{
    bool calls = false;
    for (int32_t i = 0; i < c->said.n_calls; i++)
        calls |= !c->said.calls[i].announced && c->said.calls[i].complete;
    return c->said.text.len || c->said.thoughts.len || calls;
}

static void chunk(struct crd_answer *a, struct crd_choice *c, enum delta_kind kind, bool last,
                  struct buf *out)
{
    (void)last;
    if (kind == DELTA_FINISH || !has_news(c)) return; /* the end says the rest */
    put_head(a, out);
    put_said(a, c, out);
    buf_puts(out, ",\"done\":false}\n");
}

static void whole(struct crd_answer *a, struct crd_choice choices[], int32_t n, struct buf *out)
{
    (void)n;
    put_head(a, out);
    put_said(a, &choices[0], out);
    put_end(a, &choices[0], out);
}

static void end(struct crd_answer *a, struct crd_choice choices[], int32_t n, struct buf *out)
{
    whole(a, choices, n, out);
    buf_putc(out, '\n');
}

static void fail(struct crd_answer *a, const struct crd_api_error *e, struct buf *out)
{
    (void)a;
    crd_ollama_error(e, out);
    buf_putc(out, '\n');
}

const struct crd_format crd_format_ollama = {
    .id_prefix = "",
    .stream_type = "application/x-ndjson",
    .chunk = chunk,
    .end = end,
    .fail = fail,
    .whole = whole,
    .error = crd_ollama_error,
};
