/* logprobs.c: see logprobs.h. */
#include "coordinator/api/logprobs.h"
#include "coordinator/api/json_out.h"

#include <string.h>

static const float LOWEST = -9999.0f; /* JSON has no minus infinity */

void crd_logprobs_put(struct buf *out, float v)
{
    json_out_f32(out, v > LOWEST ? v : LOWEST);
}

/* What a token is called: its text, or "token_id:N". */
void crd_logprobs_name(const struct crd_request *r, const struct eng_tokenizer *t, int32_t id,
                       struct buf *out)
{
    if (r->ids_as_names)
        buf_printf(out, "token_id:%d", id);
    else
        eng_tokenizer_piece(t, id, true, out);
}

static void put_bytes(struct buf *out, const struct buf *name)
{
    buf_putc(out, '[');
    for (size_t i = 0; i < name->len; i++) buf_printf(out, "%s%u", i ? "," : "", name->data[i]);
    buf_putc(out, ']');
}

/* "token":...,"logprob":...,"bytes":[...] */
static void chat_fields(struct buf *out, const struct crd_request *r, const struct eng_tokenizer *t,
                        int32_t id, float lp)
{
    struct buf name = {0};
    crd_logprobs_name(r, t, id, &name);
    buf_puts(out, "\"token\":");
    json_out_text(out, buf_str(&name), name.len);
    buf_puts(out, ",\"logprob\":");
    crd_logprobs_put(out, lp);
    buf_puts(out, ",\"bytes\":");
    put_bytes(out, &name);
    buf_free(&name);
}

static void put_entry(struct buf *out, const struct crd_request *r, const struct eng_tokenizer *t,
                      const struct result_token *token)
{
    buf_puts(out, out->len ? ",{" : "{");
    chat_fields(out, r, t, token->id, token->logprob);
    buf_puts(out, ",\"top_logprobs\":[");
    for (int32_t i = 0; i < token->n_top && i < r->sampling.n_logprobs; i++) {
        buf_puts(out, i ? ",{" : "{");
        chat_fields(out, r, t, token->top[i].id, token->top[i].logprob);
        buf_putc(out, '}');
    }
    buf_puts(out, "]}");
}

/* One key of an object whose keys are texts: different ids may have the same text, and only the
 * first counts. */
static void put_top(struct buf *out, struct buf *seen, const char *text, size_t n, float lp)
{
    struct buf key = {0};
    buf_putc(&key, '\n'); /* escaped inside strings, so this matches whole keys only */
    json_out_text(&key, text, n);
    buf_putc(&key, ':');
    if (!memmem(buf_str(seen), seen->len, key.data, key.len)) {
        if (seen->len) buf_putc(out, ',');
        buf_put(out, key.data + 1, key.len - 1);
        crd_logprobs_put(out, lp);
        buf_put(seen, key.data, key.len);
    }
    buf_free(&key);
}

static void add_tops(struct buf *out, const struct crd_request *r, const struct eng_tokenizer *t,
                     const struct result_token *token)
{
    struct buf name = {0}, seen = {0};
    buf_putc(out, '{');
    for (int32_t i = -1; i < token->n_top && i < r->sampling.n_logprobs;
         i++) { /* the chosen one first */
        buf_clear(&name);
        crd_logprobs_name(r, t, i < 0 ? token->id : token->top[i].id, &name);
        put_top(out, &seen, buf_str(&name), name.len,
                i < 0 ? token->logprob : token->top[i].logprob);
    }
    buf_putc(out, '}');
    buf_free(&name);
    buf_free(&seen);
}

static int64_t count_chars(const struct buf *text)
{
    int64_t n = 0;
    for (size_t i = 0; i < text->len; i++) n += (text->data[i] & 0xC0) != 0x80;
    return n;
}

static void add_completions(struct crd_logprobs *l, const struct crd_request *r,
                            const struct eng_tokenizer *t, const struct result_token *token,
                            bool known)
{
    const char *sep = l->n ? "," : "";
    struct buf name = {0};
    crd_logprobs_name(r, t, token->id, &name);
    for (int i = 0; i < 4; i++) buf_puts(&l->part[i], sep);
    buf_printf(&l->part[0], "%lld", (long long)l->n_chars);
    json_out_text(&l->part[2], buf_str(&name), name.len);
    if (known) {
        crd_logprobs_put(&l->part[1], token->logprob);
        add_tops(&l->part[3], r, t, token);
    } else {
        buf_puts(&l->part[1], "null");
        buf_puts(&l->part[3], "null");
    }
    l->n_chars += count_chars(&name);
    buf_free(&name);
}

void crd_logprobs_add(struct crd_logprobs *l, const struct crd_request *r,
                      const struct eng_tokenizer *t, const struct result_token *token, bool known)
{
    if (r->logprob_entries)
        put_entry(&l->part[0], r, t, token);
    else
        add_completions(l, r, t, token, known);
    l->n++;
}

void crd_logprobs_hold(struct crd_logprobs *l, const struct crd_request *r,
                       const struct eng_tokenizer *t, const struct result_token *token)
{
    put_entry(&l->held, r, t, token);
    l->n_held++;
}

void crd_logprobs_settle(struct crd_logprobs *l, bool text)
{
    if (text && l->n_held) {
        if (l->n) buf_putc(&l->part[0], ',');
        buf_put(&l->part[0], l->held.data, l->held.len);
        l->n += l->n_held;
    }
    buf_clear(&l->held);
    l->n_held = 0;
}

void crd_logprobs_take(struct crd_logprobs *l, const struct crd_request *r, struct buf *out)
{
    static const char *const names[] = {"{\"text_offset\":[", "],\"token_logprobs\":[",
                                        "],\"tokens\":[", "],\"top_logprobs\":["};
    bool chat = r->logprob_entries;
    if (!l->n) {
        buf_puts(out, "null");
        return;
    }
    for (int i = 0; i < (chat ? 1 : 4); i++) {
        buf_puts(out, chat ? "{\"content\":[" : names[i]);
        buf_put(out, l->part[i].data, l->part[i].len);
        buf_clear(&l->part[i]);
    }
    buf_puts(out, chat ? "],\"refusal\":null}" : "]}");
    l->n = 0;
}

void crd_logprobs_take_all(struct crd_logprobs *l, const struct crd_request *r, struct buf *out)
{
    if (r->chat && r->logprobs && !l->n)
        buf_puts(out, "{\"content\":[],\"refusal\":null}");
    else
        crd_logprobs_take(l, r, out);
}

void crd_logprobs_take_entries(struct crd_logprobs *l, struct buf *out)
{
    buf_put(out, l->part[0].data, l->part[0].len);
    buf_clear(&l->part[0]);
    l->n = 0;
}

void crd_logprobs_free(struct crd_logprobs *l)
{
    for (size_t i = 0; i < COUNT_OF(l->part); i++) buf_free(&l->part[i]);
    buf_free(&l->held);
}
