/* responses_out.c: answers as /v1/responses gives them: a list of items, streamed as numbered
 * events about items that are added, grow and are done. What is done is kept, as the end repeats it
 * all. */
#include "coordinator/api/answer_out.h"
#include "coordinator/api/json_out.h"

#include <stdlib.h>
#include <string.h>

/* ---- items ---- */

static const char *const prefixes[] = {
    [BLOCK_NONE] = "", [BLOCK_THOUGHTS] = "rs", [BLOCK_TEXT] = "msg", [BLOCK_CALL] = "fc"};

static void put_item_id(const struct crd_answer *a, enum block_kind kind, int32_t index,
                        struct buf *out)
{
    buf_printf(out, "\"%s_%s_%d\"", prefixes[kind], a->id + strlen("resp_"), index);
}

/* logprobs: entries; NULL: none. */
static void put_part(enum block_kind kind, struct buf *text, struct buf *logprobs, struct buf *out)
{
    if (kind == BLOCK_TEXT)
        buf_printf(out,
                   "{\"type\":\"output_text\",\"annotations\":[],\"logprobs\":[%s],\"text\":",
                   logprobs ? buf_str(logprobs) : "");
    else
        buf_puts(out, "{\"type\":\"reasoning_text\",\"text\":");
    json_out_text(out, buf_str(text), text->len);
    buf_putc(out, '}');
}

/* An item with the text it has; text NULL: it has just begun. */
static void put_item(const struct crd_answer *a, enum block_kind kind, int32_t index,
                     const struct crd_call *call, struct buf *text, struct buf *logprobs,
                     struct buf *out)
{
    buf_puts(out, "{\"id\":");
    put_item_id(a, kind, index, out);
    buf_printf(out, ",\"status\":\"%s\"", text ? "completed" : "in_progress");
    if (kind == BLOCK_CALL) {
        buf_printf(out, ",\"type\":\"function_call\",\"call_id\":\"%s\",\"name\":", call->id);
        json_out_str(out, call->name);
        buf_puts(out, ",\"arguments\":");
        json_out_text(out, text ? buf_str(text) : "", text ? text->len : 0);
    } else {
        buf_puts(out, kind == BLOCK_TEXT
                          ? ",\"type\":\"message\",\"role\":\"assistant\",\"content\":["
                          : ",\"type\":\"reasoning\",\"summary\":[],\"content\":[");
        if (text) put_part(kind, text, logprobs, out);
        buf_putc(out, ']');
    }
    buf_putc(out, '}');
}

/* ---- the response itself ---- */

static void echo(const struct crd_answer *a, const char *name, const char *otherwise,
                 struct buf *out)
{
    const json_t *j = json_object_get(a->request->given, name);
    char *text = j && !json_is_null(j) ? json_dumps(j, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;
    buf_printf(out, ",\"%s\":%s", name, text ? text : otherwise);
    free(text);
}

/* As given, else what is done. */
static void echo_number(const struct crd_answer *a, const char *name, float v, struct buf *out)
{
    struct buf text = {0};
    json_out_f32(&text, v);
    echo(a, name, buf_str(&text), out);
    buf_free(&text);
}

static void put_usage(const struct crd_usage *u, struct buf *out)
{
    buf_printf(
        out,
        ",\"usage\":{\"input_tokens\":%lld,\"input_tokens_details\":{\"cached_tokens\":%lld},"
        "\"output_tokens\":%lld,\"output_tokens_details\":{\"reasoning_tokens\":%lld},"
        "\"total_tokens\":%lld}",
        (long long)u->n_prompt, (long long)u->n_cached, (long long)u->n_completion,
        (long long)u->n_thought, (long long)(u->n_prompt + u->n_completion));
}

/* What the client gave for itself. */
static const char *const as_given[] = {"user", "safety_identifier", "prompt_cache_key",
                                       "max_tool_calls"};

static void put_response(struct crd_answer *a, const char *status, const struct crd_api_error *e,
                         struct buf *out)
{
    buf_puts(out, "{\"id\":");
    json_out_str(out, a->id);
    buf_printf(out, ",\"object\":\"response\",\"created_at\":%lld,\"status\":\"%s\",\"model\":",
               (long long)a->created, status);
    json_out_str(out, a->model);
    buf_puts(out, ",\"error\":");
    if (e) {
        buf_printf(out, "{\"code\":\"%s\",\"message\":",
                   e->status == 500 ? "server_error" : "server_unavailable");
        json_out_str(out, e->message);
        buf_putc(out, '}');
    } else {
        buf_puts(out, "null");
    }
    buf_printf(out, ",\"incomplete_details\":%s",
               strcmp(status, "incomplete") ? "null" : "{\"reason\":\"max_output_tokens\"}");
    buf_printf(out, ",\"output\":[%s]", buf_str(&a->blocks.done));
    echo(a, "instructions", "null", out);
    echo(a, "max_output_tokens", "null", out);
    echo(a, "metadata", "{}", out);
    echo(a, "parallel_tool_calls", "true", out);
    echo(a, "reasoning", "{\"effort\":null,\"summary\":null}", out);
    echo_number(a, "temperature", a->request->sampling.temperature, out);
    echo(a, "text", "{\"format\":{\"type\":\"text\"}}", out);
    echo(a, "tool_choice", "\"auto\"", out);
    echo(a, "tools", "[]", out);
    echo(a, "top_logprobs", "0", out);
    echo_number(a, "top_p", a->request->sampling.top_p, out);
    for (size_t i = 0; i < COUNT_OF(as_given); i++) echo(a, as_given[i], "null", out);
    buf_puts(out, ",\"previous_response_id\":null,\"store\":false,\"background\":false,"
                  "\"truncation\":\"disabled\",\"service_tier\":\"default\"");
    if (strcmp(status, "in_progress"))
        put_usage(&a->usage, out);
    else
        buf_puts(out, ",\"usage\":null");
    buf_putc(out, '}');
}

static const char *status_of(const struct crd_choice *c)
{
    return strcmp(c->finish, "length") ? "completed" : "incomplete";
}

static void keep_item(struct crd_answer *a, enum block_kind kind, int32_t index,
                      const struct crd_call *call, struct buf *text, struct buf *logprobs)
{
    if (a->blocks.done.len) buf_putc(&a->blocks.done, ',');
    put_item(a, kind, index, call, text, logprobs, &a->blocks.done);
}

static void whole(struct crd_answer *a, struct crd_choice choices[], int32_t n, struct buf *out)
{
    struct crd_said *s = &choices[0].said;
    int32_t index = 0;
    (void)n;
    crd_logprobs_take_entries(&choices[0].logprobs, &a->blocks.logprobs);
    if (s->thoughts.len) keep_item(a, BLOCK_THOUGHTS, index++, NULL, &s->thoughts, NULL);
    if (s->text.len || (!s->n_calls && !s->thoughts.len))
        keep_item(a, BLOCK_TEXT, index++, NULL, &s->text, &a->blocks.logprobs);
    for (int32_t i = 0; i < s->n_calls; i++)
        keep_item(a, BLOCK_CALL, index++, &s->calls[i], &s->calls[i].args, NULL);
    put_response(a, status_of(&choices[0]), NULL, out);
}

/* ---- streamed ---- */

static void event(struct crd_answer *a, const char *type, struct buf *out)
{
    buf_printf(out, "event: response.%s\ndata: {\"type\":\"response.%s\",\"sequence_number\":%lld",
               type, type, (long long)a->blocks.n_events++);
}

static void about_item(struct crd_answer *a, const char *type, struct buf *out)
{
    struct crd_blocks *b = &a->blocks;
    event(a, type, out);
    buf_printf(out, ",\"output_index\":%d,\"item_id\":", b->n - 1);
    put_item_id(a, b->open, b->n - 1, out);
    if (b->open != BLOCK_CALL) buf_puts(out, ",\"content_index\":0");
}

static void end_event(struct buf *out)
{
    buf_puts(out, "}\n\n");
}

static void response_event(struct crd_answer *a, const char *type, const char *status,
                           const struct crd_api_error *e, struct buf *out)
{
    event(a, type, out);
    buf_puts(out, ",\"response\":");
    put_response(a, status, e, out);
    end_event(out);
}

static void begin(struct crd_answer *a, struct crd_choice choices[], int32_t n, struct buf *out)
{
    (void)choices, (void)n;
    response_event(a, "created", "in_progress", NULL, out);
    response_event(a, "in_progress", "in_progress", NULL, out);
}

/* What an item's text is called in the events about it. */
static const struct {
    const char *delta, *done, *field;
} texts[] = {
    [BLOCK_THOUGHTS] = {"reasoning_text.delta", "reasoning_text.done", "text"},
    [BLOCK_TEXT] = {"output_text.delta", "output_text.done", "text"},
    [BLOCK_CALL] = {"function_call_arguments.delta", "function_call_arguments.done", "arguments"},
};

static void close_item(struct crd_answer *a, const struct crd_said *s, struct buf *out)
{
    struct crd_blocks *b = &a->blocks;
    if (b->open == BLOCK_NONE) return;
    const struct crd_call *call = b->open == BLOCK_CALL ? &s->calls[b->call] : NULL;
    about_item(a, texts[b->open].done, out);
    buf_printf(out, ",\"%s\":", texts[b->open].field);
    json_out_text(out, buf_str(&b->so_far), b->so_far.len);
    if (b->open == BLOCK_TEXT) buf_printf(out, ",\"logprobs\":[%s]", buf_str(&b->logprobs));
    end_event(out);
    if (b->open != BLOCK_CALL) {
        about_item(a, "content_part.done", out);
        buf_puts(out, ",\"part\":");
        put_part(b->open, &b->so_far, &b->logprobs, out);
        end_event(out);
    }
    event(a, "output_item.done", out);
    buf_printf(out, ",\"output_index\":%d,\"item\":", b->n - 1);
    put_item(a, b->open, b->n - 1, call, &b->so_far, &b->logprobs, out);
    end_event(out);
    keep_item(a, b->open, b->n - 1, call, &b->so_far, &b->logprobs);
    buf_clear(&b->so_far);
    buf_clear(&b->logprobs);
    b->open = BLOCK_NONE;
}

static void open_item(struct crd_answer *a, enum block_kind kind, const struct crd_said *s,
                      int32_t call, struct buf *out)
{
    struct crd_blocks *b = &a->blocks;
    struct buf none = {0};
    if (b->open == kind && kind != BLOCK_CALL) return;
    close_item(a, s, out);
    b->open = kind;
    b->call = call;
    event(a, "output_item.added", out);
    buf_printf(out, ",\"output_index\":%d,\"item\":", b->n++);
    put_item(a, kind, b->n - 1, kind == BLOCK_CALL ? &s->calls[call] : NULL, NULL, NULL, out);
    end_event(out);
    if (kind == BLOCK_CALL) return;
    about_item(a, "content_part.added", out);
    buf_puts(out, ",\"part\":");
    put_part(kind, &none, NULL, out);
    end_event(out);
}

/* The entries of the tokens that a piece of text came of. */
static void put_logprobs(struct crd_blocks *b, struct crd_logprobs *l, struct buf *out)
{
    struct buf entries = {0};
    crd_logprobs_take_entries(l, &entries);
    buf_printf(out, ",\"logprobs\":[%s]", buf_str(&entries));
    if (b->logprobs.len && entries.len) buf_putc(&b->logprobs, ',');
    buf_put(&b->logprobs, entries.data, entries.len);
    buf_free(&entries);
}

/* logprobs: of text; NULL for what has none. */
static void put_delta(struct crd_answer *a, struct buf *text, struct crd_logprobs *logprobs,
                      struct buf *out)
{
    struct crd_blocks *b = &a->blocks;
    if (!text->len) return;
    about_item(a, texts[b->open].delta, out);
    buf_puts(out, ",\"delta\":");
    json_out_text(out, buf_str(text), text->len);
    if (logprobs) put_logprobs(b, logprobs, out);
    end_event(out);
    buf_put(&b->so_far, buf_str(text), text->len);
    buf_clear(text);
}

static void chunk(struct crd_answer *a, struct crd_choice *c, enum delta_kind kind, bool last,
                  struct buf *out)
{
    struct crd_said *s = &c->said;
    (void)last;
    if (s->thoughts.len) {
        open_item(a, BLOCK_THOUGHTS, s, 0, out);
        put_delta(a, &s->thoughts, NULL, out);
    }
    if (s->text.len) {
        open_item(a, BLOCK_TEXT, s, 0, out);
        put_delta(a, &s->text, &c->logprobs, out);
    }
    for (int32_t i = 0; i < s->n_calls; i++) {
        struct crd_call *call = &s->calls[i];
        if (!call->announced) open_item(a, BLOCK_CALL, s, i, out);
        call->announced = true;
        put_delta(a, &call->args, NULL, out);
    }
    if (kind == DELTA_FINISH) close_item(a, s, out);
}

static void end(struct crd_answer *a, struct crd_choice choices[], int32_t n, struct buf *out)
{
    const char *status = status_of(&choices[0]);
    (void)n;
    response_event(a, status, status, NULL, out);
}

static void fail(struct crd_answer *a, const struct crd_api_error *e, struct buf *out)
{
    response_event(a, "failed", "failed", e, out);
}

const struct crd_format crd_format_responses = {
    .id_prefix = "resp_",
    .stream_type = "text/event-stream; charset=utf-8",
    .begin = begin,
    .chunk = chunk,
    .end = end,
    .fail = fail,
    .whole = whole,
    .error = crd_api_error_json,
};
