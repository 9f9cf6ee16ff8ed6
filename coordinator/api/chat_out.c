/* chat_out.c: choices as /v1/chat/completions shows them. */
#include "coordinator/api/json_out.h"
#include "coordinator/api/openai_out.h"

static void put_rest(struct crd_choice *c, enum openai_part part, struct buf *out)
{
    buf_puts(out, ",\"logprobs\":");
    if (part == PART_WHOLE)
        crd_logprobs_take_all(&c->logprobs, c->request, out);
    else
        crd_logprobs_take(&c->logprobs, c->request, out);
    crd_openai_put_ids(c, out);
    crd_openai_put_finish(c, part == PART_FINISH || part == PART_WHOLE, out);
    buf_putc(out, '}');
}

static void put_text(const char *name, struct buf *text, struct buf *out)
{
    buf_printf(out, ",\"%s\":", name);
    json_out_text(out, buf_str(text), text->len);
}

/* Two names are in use for it. */
static void put_thoughts(struct crd_choice *c, struct buf *out)
{
    if (!c->said.thoughts.len) return;
    put_text("reasoning_content", &c->said.thoughts, out);
    put_text("reasoning", &c->said.thoughts, out);
    buf_clear(&c->said.thoughts);
}

static void put_function(struct crd_call *call, bool with_name, struct buf *out)
{
    buf_puts(out, "\"function\":{");
    if (with_name) {
        buf_puts(out, "\"name\":");
        json_out_str(out, call->name);
        buf_putc(out, ',');
    }
    buf_puts(out, "\"arguments\":");
    json_out_text(out, buf_str(&call->args), call->args.len);
    buf_puts(out, "}}");
    buf_clear(&call->args);
}

static void put_calls(struct crd_choice *c, bool streamed, struct buf *out)
{
    bool any = false;
    for (int32_t i = 0; i < c->said.n_calls; i++) {
        struct crd_call *call = &c->said.calls[i];
        if (call->announced && !call->args.len) continue;
        buf_puts(out, any ? "," : ",\"tool_calls\":[");
        any = true;
        buf_putc(out, '{');
        if (streamed) buf_printf(out, "\"index\":%d,", i);
        if (!call->announced) buf_printf(out, "\"id\":\"%s\",\"type\":\"function\",", call->id);
        put_function(call, !call->announced, out);
        call->announced = true;
    }
    if (any) buf_putc(out, ']');
}

static void put_delta(struct crd_choice *c, struct buf *out)
{
    size_t at = out->len;
    put_thoughts(c, out);
    if (c->said.text.len) put_text("content", &c->said.text, out);
    buf_clear(&c->said.text);
    put_calls(c, true, out);
    if (out->len > at)
        out->data[at] = '{'; /* in place of the first comma */
    else
        buf_putc(out, '{');
    buf_putc(out, '}');
}

static void put_message(struct crd_choice *c, struct buf *out)
{
    bool nothing = !c->said.text.len && (c->said.n_calls || c->said.thoughts.len);
    buf_puts(out, "{\"role\":\"assistant\"");
    if (nothing)
        buf_puts(out, ",\"content\":null");
    else
        put_text("content", &c->said.text, out);
    buf_puts(out, ",\"refusal\":null");
    put_thoughts(c, out);
    put_calls(c, false, out);
    buf_putc(out, '}');
}

static void put(struct crd_choice *c, enum openai_part part, struct buf *out)
{
    buf_printf(out, "{\"index\":%d,\"%s\":", c->index, part == PART_WHOLE ? "message" : "delta");
    if (part == PART_OPEN) buf_puts(out, "{\"role\":\"assistant\",\"content\":\"\"}");
    if (part == PART_DELTA) put_delta(c, out);
    if (part == PART_FINISH) buf_puts(out, "{}");
    if (part == PART_WHOLE) put_message(c, out);
    if (part == PART_OPEN) /* says nothing of a token yet, whether one has come or not: events must not depend on when */
        buf_puts(out, ",\"logprobs\":null,\"finish_reason\":null,\"stop_reason\":null}");
    else
        put_rest(c, part, out);
}

const struct crd_openai_kind crd_openai_chat = {
    .object = "chat.completion",
    .chunk_object = "chat.completion.chunk",
    .opens = true,
    .ids_outside = true,
    .put = put,
};

const struct crd_format crd_format_chat = {
    .id_prefix = "chatcmpl-",
    .stream_type = "text/event-stream; charset=utf-8",
    .begin = crd_openai_begin,
    .chunk = crd_openai_chunk,
    .end = crd_openai_end,
    .fail = crd_openai_fail,
    .whole = crd_openai_whole,
    .error = crd_api_error_json,
};
