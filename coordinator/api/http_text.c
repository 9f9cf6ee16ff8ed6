/* http_text.c: POST /tokenize, /detokenize, /apply-template and /v1/messages/count_tokens: the work
 * is done by a text thread, the connection sleeps meanwhile. */
#include "coordinator/api/answer_out.h"
#include "coordinator/api/chat_in.h"
#include "coordinator/api/completions_in.h"
#include "coordinator/api/http.h"
#include "coordinator/api/json_out.h"
#include "coordinator/api/request.h"
#include "coordinator/api/text_pool.h"
#include "coordinator/api/translate.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

/* Held by the exchange and by the job, freed by the second to let go. */
struct text_call {
    struct crd_api *api;
    enum err (*work)(struct text_call *c, json_t *body);
    const struct crd_format *format; /* of errors */
    struct buf body, out;
    struct crd_api_error error;
    struct gw_waker *waker;
    _Atomic bool done;
    _Atomic int refs;
};

static void unref(struct text_call *c)
{
    if (atomic_fetch_sub(&c->refs, 1) != 1) return;
    buf_free(&c->body);
    buf_free(&c->out);
    crd_api_error_clear(&c->error);
    gw_waker_free(c->waker);
    free(c);
}

static void text_job(void *arg)
{
    struct text_call *c = arg;
    json_t *body = NULL;
    enum err rc;
    TRY(crd_request_object(&body, buf_str(&c->body), c->body.len, &c->error));
    TRY(crd_request_model(c->api, body, &c->error));
    TRY(c->work(c, body));
out:
    if (rc) crd_api_error_of(&c->error, rc, err_text());
    json_decref(body);
    atomic_store(&c->done, true);
    gw_wake(c->waker);
    unref(c);
}

static bool text_run(void *self, struct buf *out, int32_t *status, const char **type,
                     const char **headers)
{
    struct text_call *c = self;
    (void)headers;
    if (!atomic_load(&c->done)) return false;
    *type = "application/json";
    *status = c->error.status ? c->error.status : 200;
    if (c->error.status)
        c->format->error(&c->error, out);
    else
        buf_put(out, c->out.data, c->out.len);
    return true;
}

static void text_closed(void *self, bool client_left)
{
    (void)client_left;
    unref(self);
}

static void start(struct crd_api *api, struct gw_exchange *x, const struct gw_request *r,
                  enum err (*work)(struct text_call *c, json_t *body))
{
    static const struct gw_stream_ops ops = {text_run, text_closed};
    struct text_call *c = xcalloc(1, sizeof *c);
    *c = (struct text_call){.api = api,
                            .work = work,
                            .format = crd_format_at(r->path),
                            .refs = 2,
                            .waker = gw_exchange_waker(x)};
    buf_put(&c->body, r->body, r->n_body);
    crd_text_pool_run(api->pool, text_job, c);
    gw_stream(x, &ops, c);
}

/* *out keeps its value when the field is absent or null. */
static enum err flag(struct text_call *c, const json_t *body, const char *name, bool *out)
{
    const json_t *j = json_object_get(body, name);
    if (!j || json_is_null(j)) return OK;
    if (!json_is_boolean(j))
        return crd_api_malformed(&c->error, name, "%s: Input should be a valid boolean", name);
    *out = json_is_true(j);
    return OK;
}

static void put_tokens(struct text_call *c, const struct eng_tokens *t, bool with_texts)
{
    struct buf *out = &c->out, piece = {0};
    buf_printf(out, "{\"count\":%zu,\"max_model_len\":%d,\"tokens\":[", t->n,
               crd_request_context(c->api));
    for (size_t i = 0; i < t->n; i++) buf_printf(out, "%s%d", i ? "," : "", t->ids[i]);
    buf_puts(out, "],\"token_strs\":");
    for (size_t i = 0; with_texts && i < t->n; i++) {
        buf_clear(&piece);
        eng_tokenizer_piece(c->api->tokenizer, t->ids[i], true, &piece);
        buf_putc(out, i ? ',' : '[');
        json_out_text(out, buf_str(&piece), piece.len);
    }
    buf_puts(out, !with_texts ? "null}" : t->n ? "]}" : "[]}");
    buf_free(&piece);
}

/* Messages rendered as a chat request's would be; r is to be closed in any case. */
static enum err render(struct crd_request *r, struct text_call *c, json_t *body)
{
    enum err rc;
    *r = (struct crd_request){
        .endpoint = ENDPOINT_CHAT, .chat = true, .body = json_incref(body),
        .truncate_prompt = REQUEST_NO_TRUNCATION};
    TRY(flag(c, body, "continue_final_message", &r->continue_final));
    r->add_generation_prompt = !r->continue_final;
    TRY(flag(c, body, "add_generation_prompt", &r->add_generation_prompt));
    TRY(flag(c, body, "add_special_tokens", &r->add_special));
    if (r->add_generation_prompt && r->continue_final)
        TRY(crd_api_refuse(
            &c->error, 400, "continue_final_message",
            "Cannot set both `continue_final_message` and `add_generation_prompt` to True."));
    TRY(crd_chat_in(r, c->api, &c->error));
    TRY(crd_chat_render(r, c->api, time(NULL), &c->error));
out:
    return rc;
}

static enum err tokenize_chat(struct text_call *c, json_t *body)
{
    struct crd_request r = {0};
    bool texts = false;
    enum err rc;
    TRY(flag(c, body, "return_token_strs", &texts));
    TRY(render(&r, c, body));
    TRY(crd_prompts_tokenize(&r, c->api, &c->error));
    put_tokens(c, &r.prompts[0].tokens, texts);
out:
    crd_request_close(&r);
    return rc;
}

static enum err apply_template(struct text_call *c, json_t *body)
{
    struct crd_request r;
    enum err rc;
    TRY(render(&r, c, body));
    buf_puts(&c->out, "{\"prompt\":");
    json_out_text(&c->out, r.prompts[0].text, r.prompts[0].n_text);
    buf_putc(&c->out, '}');
out:
    crd_request_close(&r);
    return rc;
}

/* Anthropic's: the body of a message that is not to be generated. */
static enum err count_tokens(struct text_call *c, json_t *given)
{
    struct crd_request r = {0};
    json_t *body = NULL;
    enum err rc;
    json_object_set_new(given, "max_tokens", json_integer(1));
    TRY(crd_translate(&crd_messages_in, given, &body, &c->error));
    TRY(render(&r, c, body));
    TRY(crd_prompts_tokenize(&r, c->api, &c->error));
    buf_printf(&c->out, "{\"input_tokens\":%zu}", r.prompts[0].tokens.n);
out:
    if (rc) crd_translate_error(&crd_messages_in, &c->error);
    crd_request_close(&r);
    json_decref(body);
    return rc;
}

static enum err tokenize(struct text_call *c, json_t *body)
{
    const json_t *text = json_object_get(body, "prompt");
    struct eng_tokens t = {0};
    bool special = true, texts = false;
    if (json_object_get(body, "messages")) return tokenize_chat(c, body);
    if (!text) text = json_object_get(body, "content"); /* llama-server's name for it */
    if (!text) return crd_api_malformed(&c->error, "prompt", "prompt: Field required");
    if (!json_is_string(text))
        return crd_api_malformed(&c->error, "prompt", "prompt: Input should be a valid string");
    if (flag(c, body, "add_special_tokens", &special) || flag(c, body, "return_token_strs", &texts))
        return ERR_BAD_REQUEST;
    unsigned flags = TOKENIZE_PARSE_SPECIAL | (special ? TOKENIZE_ADD_SPECIAL : 0);
    eng_tokenizer_encode(c->api->tokenizer, json_string_value(text), json_string_length(text),
                         flags, &t);
    put_tokens(c, &t, texts);
    eng_tokens_free(&t);
    return OK;
}

static enum err detokenize(struct text_call *c, json_t *body)
{
    const json_t *list = json_object_get(body, "tokens"), *j;
    struct eng_tokens t = {0};
    struct buf text = {0};
    size_t i;
    enum err rc = OK;
    if (!json_is_array(list))
        return crd_api_malformed(&c->error, "tokens",
                                 "tokens: Input should be a list of token ids");
    json_array_foreach(list, i, j)
    {
        json_int_t id = json_integer_value(j);
        if (!json_is_integer(j) || id < 0 || id >= eng_tokenizer_size(c->api->tokenizer)) {
            rc = crd_api_refuse(&c->error, 400, "tokens", "tokens.%zu is not the id of a token", i);
            goto out;
        }
        eng_tokens_push(&t, (int32_t)id);
    }
    eng_tokenizer_decode(c->api->tokenizer, t.ids, t.n, true, &text);
    buf_puts(&c->out, "{\"prompt\":");
    json_out_text(&c->out, buf_str(&text), text.len);
    buf_puts(&c->out, ",\"content\":");
    json_out_text(&c->out, buf_str(&text), text.len);
    buf_putc(&c->out, '}');
out:
    buf_free(&text);
    eng_tokens_free(&t);
    return rc;
}

void crd_http_tokenize(void *api, struct gw_exchange *x, const struct gw_request *r)
{
    start(api, x, r, tokenize);
}
void crd_http_apply_template(void *api, struct gw_exchange *x, const struct gw_request *r)
{
    start(api, x, r, apply_template);
}
void crd_http_count_tokens(void *api, struct gw_exchange *x, const struct gw_request *r)
{
    start(api, x, r, count_tokens);
}
void crd_http_detokenize(void *api, struct gw_exchange *x, const struct gw_request *r)
{
    start(api, x, r, detokenize);
}
