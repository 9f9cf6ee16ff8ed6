/* completions_out.c: choices as /v1/completions shows them. */
#include "coordinator/api/answer_out.h"
#include "coordinator/api/json_out.h"

static void put(struct crd_choice *c, bool finished, struct buf *out)
{
    buf_printf(out, "{\"index\":%d,\"text\":", c->index);
    json_out_text(out, buf_str(&c->text), c->text.len);
    buf_clear(&c->text);
    buf_puts(out, ",\"logprobs\":");
    crd_logprobs_take(&c->logprobs, c->request, out);
    crd_answer_put_ids(c, out);
    if (!c->prompt_ids_said) crd_answer_put_prompt_ids(c, out);
    c->prompt_ids_said = true;
    crd_answer_put_finish(c, finished, out);
    buf_putc(out, '}');
}

static void delta(struct crd_choice *c, enum delta_kind kind, struct buf *out)
{
    put(c, kind == DELTA_FINISH, out);
}
static void whole(struct crd_choice *c, struct buf *out)
{
    put(c, true, out);
}

const struct crd_format crd_format_completions = {
    .id_prefix = "cmpl-",
    .object = "text_completion",
    .chunk_object = "text_completion",
    .opens = false,
    .ids_outside = false,
    .delta = delta,
    .whole = whole,
};
