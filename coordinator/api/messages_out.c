/* messages_out.c: answers as Anthropic's /v1/messages gives them: a list of blocks, streamed as
 * blocks that open, grow and close. */
#include "coordinator/api/answer_out.h"
#include "coordinator/api/json_out.h"

#include <string.h>

static const char *error_type(int32_t status)
{
    switch (status) {
    case 401:
        return "authentication_error";
    case 404:
        return "not_found_error";
    case 429:
        return "rate_limit_error";
    case 500:
        return "api_error";
    case 503:
        return "overloaded_error";
    default:
        return "invalid_request_error";
    }
}

static void put_error(const struct crd_api_error *e, struct buf *out)
{
    buf_printf(
        out, "{\"type\":\"error\",\"error\":{\"type\":\"%s\",\"message\":", error_type(e->status));
    json_out_str(out, e->message);
    buf_puts(out, ",\"param\":");
    if (e->param[0])
        json_out_str(out, e->param);
    else
        buf_puts(out, "null");
    buf_puts(out, "}}");
}

/* ---- parts of a message ---- */

static void put_usage(const struct crd_usage *u, struct buf *out)
{
    buf_printf(out,
               ",\"usage\":{\"input_tokens\":%lld,\"cache_creation_input_tokens\":0,"
               "\"cache_read_input_tokens\":%lld,\"output_tokens\":%lld}",
               (long long)(u->n_prompt - u->n_cached), (long long)u->n_cached,
               (long long)u->n_completion);
}

static void put_stop(const struct crd_choice *c, struct buf *out)
{
    static const struct {
        const char *ours, *theirs;
    } reasons[] = {{"stop", "end_turn"}, {"length", "max_tokens"}, {"tool_calls", "tool_use"}};
    const char *reason = "end_turn";
    if (!c) {
        buf_puts(out, "\"stop_reason\":null,\"stop_sequence\":null");
        return;
    }
    for (size_t i = 0; i < COUNT_OF(reasons); i++)
        if (!strcmp(c->finish, reasons[i].ours)) reason = reasons[i].theirs;
    if (c->stop_string >= 0) reason = "stop_sequence";
    buf_printf(out, "\"stop_reason\":\"%s\",\"stop_sequence\":", reason);
    if (c->stop_string >= 0)
        json_out_str(out, c->request->stops[c->stop_string]);
    else
        buf_puts(out, "null");
}

static void put_head(const struct crd_answer *a, struct buf *out)
{
    buf_puts(out, "{\"id\":");
    json_out_str(out, a->id);
    buf_puts(out, ",\"type\":\"message\",\"role\":\"assistant\",\"model\":");
    json_out_str(out, a->model);
    buf_puts(out, ",\"content\":[");
}

static void put_named(const struct crd_call *call, struct buf *out)
{
    buf_printf(out, "{\"type\":\"tool_use\",\"id\":\"%s\",\"name\":", call->id);
    json_out_str(out, call->name);
    buf_puts(out, ",\"input\":");
}

/* ---- whole ---- */

static void whole(struct crd_answer *a, struct crd_choice choices[], int32_t n, struct buf *out)
{
    struct crd_choice *c = &choices[0];
    struct crd_said *s = &c->said;
    const char *sep = "";
    (void)n;
    put_head(a, out);
    if (s->thoughts.len) {
        buf_puts(out, "{\"type\":\"thinking\",\"thinking\":");
        json_out_text(out, buf_str(&s->thoughts), s->thoughts.len);
        buf_puts(out, ",\"signature\":\"\"}");
        sep = ",";
    }
    if (s->text.len || (!s->n_calls && !s->thoughts.len)) {
        buf_printf(out, "%s{\"type\":\"text\",\"text\":", sep);
        json_out_text(out, buf_str(&s->text), s->text.len);
        buf_putc(out, '}');
        sep = ",";
    }
    for (int32_t i = 0; i < s->n_calls; i++, sep = ",") {
        buf_puts(out, sep);
        put_named(&s->calls[i], out);
        json_out_object(out, buf_str(&s->calls[i].args), s->calls[i].args.len);
        buf_putc(out, '}');
    }
    buf_puts(out, "],");
    put_stop(c, out);
    put_usage(&a->usage, out);
    buf_putc(out, '}');
}

/* ---- streamed ---- */

static void event(const char *name, struct buf *out)
{
    buf_printf(out, "event: %s\ndata: {\"type\":\"%s\"", name, name);
}
static void end_event(struct buf *out)
{
    buf_puts(out, "}\n\n");
}

static void begin(struct crd_answer *a, struct crd_choice choices[], int32_t n, struct buf *out)
{
    (void)choices, (void)n;
    struct crd_usage before = a->usage;
    before.n_completion = 0; /* a stream begins with its first token or because it was silent for long: its first event is the same */
    event("message_start", out);
    buf_puts(out, ",\"message\":");
    put_head(a, out);
    buf_puts(out, "],");
    put_stop(NULL, out);
    put_usage(&before, out);
    buf_putc(out, '}');
    end_event(out);
    event("ping", out);
    end_event(out);
}

static void close_block(struct crd_answer *a, struct buf *out)
{
    struct crd_blocks *b = &a->blocks;
    if (b->open == BLOCK_NONE) return;
    event("content_block_stop", out);
    buf_printf(out, ",\"index\":%d", b->n - 1);
    end_event(out);
    b->open = BLOCK_NONE;
}

static void open_block(struct crd_answer *a, enum block_kind kind, const struct crd_call *call,
                       struct buf *out)
{
    struct crd_blocks *b = &a->blocks;
    if (b->open == kind && kind != BLOCK_CALL) return;
    close_block(a, out);
    event("content_block_start", out);
    buf_printf(out, ",\"index\":%d,\"content_block\":", b->n++);
    if (call) {
        put_named(call, out);
        buf_puts(out, "{}}");
    } else {
        buf_puts(out, kind == BLOCK_TEXT
                          ? "{\"type\":\"text\",\"text\":\"\"}"
                          : "{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"}");
    }
    end_event(out);
    b->open = kind;
}

static void put_delta(struct crd_answer *a, const char *type, const char *field, struct buf *text,
                      struct buf *out)
{
    event("content_block_delta", out);
    buf_printf(out, ",\"index\":%d,\"delta\":{\"type\":\"%s\",\"%s\":", a->blocks.n - 1, type,
               field);
    json_out_text(out, buf_str(text), text->len);
    buf_putc(out, '}');
    end_event(out);
    buf_clear(text);
}

static void chunk(struct crd_answer *a, struct crd_choice *c, enum delta_kind kind, bool last,
                  struct buf *out)
{
    struct crd_said *s = &c->said;
    (void)last;
    if (s->thoughts.len) {
        open_block(a, BLOCK_THOUGHTS, NULL, out);
        put_delta(a, "thinking_delta", "thinking", &s->thoughts, out);
    }
    if (s->text.len) {
        open_block(a, BLOCK_TEXT, NULL, out);
        put_delta(a, "text_delta", "text", &s->text, out);
    }
    for (int32_t i = 0; i < s->n_calls; i++) {
        struct crd_call *call = &s->calls[i];
        if (!call->announced) open_block(a, BLOCK_CALL, call, out);
        call->announced = true;
        if (call->args.len) put_delta(a, "input_json_delta", "partial_json", &call->args, out);
    }
    if (kind == DELTA_FINISH) close_block(a, out);
}

static void end(struct crd_answer *a, struct crd_choice choices[], int32_t n, struct buf *out)
{
    (void)n;
    event("message_delta", out);
    buf_puts(out, ",\"delta\":{");
    put_stop(&choices[0], out);
    buf_putc(out, '}');
    put_usage(&a->usage, out);
    end_event(out);
    event("message_stop", out);
    end_event(out);
}

static void fail(struct crd_answer *a, const struct crd_api_error *e, struct buf *out)
{
    (void)a;
    buf_puts(out, "event: error\ndata: ");
    put_error(e, out);
    buf_puts(out, "\n\n");
}

const struct crd_format crd_format_messages = {
    .id_prefix = "msg_",
    .stream_type = "text/event-stream; charset=utf-8",
    .begin = begin,
    .chunk = chunk,
    .end = end,
    .fail = fail,
    .whole = whole,
    .error = put_error,
};
