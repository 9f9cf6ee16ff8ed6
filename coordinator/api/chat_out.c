/* chat_out.c: choices as /v1/chat/completions shows them. */
#include "coordinator/api/answer_out.h"
#include "coordinator/api/json_out.h"

static void put_rest(struct crd_choice *c, bool finished, struct buf *out)
{
    buf_puts(out, ",\"logprobs\":");
    crd_logprobs_take(&c->logprobs, c->request, out);
    crd_answer_put_ids(c, out);
    crd_answer_put_finish(c, finished, out);
    buf_putc(out, '}');
}

static void put_content(struct crd_choice *c, struct buf *out)
{
    buf_puts(out, "\"content\":");
    json_out_text(out, buf_str(&c->text), c->text.len);
    buf_clear(&c->text);
}

static void delta(struct crd_choice *c, enum delta_kind kind, struct buf *out)
{
    buf_printf(out, "{\"index\":%d,\"delta\":{", c->index);
    if (kind == DELTA_OPEN) buf_puts(out, "\"role\":\"assistant\",\"content\":\"\"");
    if (kind == DELTA_TEXT) put_content(c, out);
    buf_putc(out, '}');
    put_rest(c, kind == DELTA_FINISH, out);
}

static void whole(struct crd_choice *c, struct buf *out)
{
    buf_printf(out, "{\"index\":%d,\"message\":{\"role\":\"assistant\",", c->index);
    put_content(c, out);
    buf_putc(out, '}');
    put_rest(c, true, out);
}

const struct crd_format crd_format_chat = {
    .id_prefix = "chatcmpl-",
    .object = "chat.completion",
    .chunk_object = "chat.completion.chunk",
    .opens = true,
    .ids_outside = true,
    .delta = delta,
    .whole = whole,
};
