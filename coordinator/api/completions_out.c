/* completions_out.c: choices as /v1/completions shows them. */
#include "coordinator/api/json_out.h"
#include "coordinator/api/openai_out.h"

static void put(struct crd_choice *c, enum openai_part part, struct buf *out)
{
    buf_printf(out, "{\"index\":%d,\"text\":", c->index);
    json_out_text(out, buf_str(&c->said.text), c->said.text.len);
    buf_clear(&c->said.text);
    buf_puts(out, ",\"logprobs\":");
    crd_logprobs_take(&c->logprobs, c->request, out);
    crd_openai_put_ids(c, out);
    if (!c->prompt_ids_said) crd_openai_put_prompt_ids(c, out);
    c->prompt_ids_said = true;
    if (part == PART_WHOLE) crd_openai_put_scores(c, out);
    crd_openai_put_finish(c, part == PART_FINISH || part == PART_WHOLE, out);
    buf_putc(out, '}');
}

const struct crd_openai_kind crd_openai_completions = {
    .object = "text_completion",
    .chunk_object = "text_completion",
    .opens = false,
    .ids_outside = false,
    .put = put,
};

const struct crd_format crd_format_completions = {
    .id_prefix = "cmpl-",
    .stream_type = "text/event-stream; charset=utf-8",
    .begin = crd_openai_begin,
    .chunk = crd_openai_chunk,
    .end = crd_openai_end,
    .fail = crd_openai_fail,
    .whole = crd_openai_whole,
    .error = crd_api_error_json,
};
