#include "tests/api/support.h"
#include "coordinator/api/api_metrics.h"
#include "coordinator/api/calls_grammar.h"
#include "coordinator/api/text_pool.h"
#include "tests/text/support.h"

#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[] = {"test-model", "alias", NULL};

static void open_tokenizer(struct test_api *t)
{
    static const char *const more[] = {"<s>", "<|im_start|>", "<|im_end|>", NULL};
    static int32_t types[TEST_VOCAB];
    struct test_vocab v;
    test_vocab_bytes(&v, more, NULL);
    for (int i = 0; i < TEST_VOCAB; i++) types[i] = i < 256 ? TOKEN_NORMAL : TOKEN_CONTROL;
    v.src.types = types;
    v.src.bos = TOKEN_BOS;
    v.src.add_bos = true;
    v.src.eos = TOKEN_IM_END;
    enum err rc = eng_tokenizer_open(&t->tokenizer, &v.src);
    ASSERT(!rc);
    test_vocab_free(&v);
}

void test_api_open(struct test_api *t, int n_threads)
{
    const char *source = eng_template_builtin("chatml");
    *t = (struct test_api){0};
    open_tokenizer(t);
    ASSERT(source);
    enum err rc = eng_template_compile(&t->chat_template, source, strlen(source));
    ASSERT(!rc);
    t->fake = fake_open(t->tokenizer);
    t->api = (struct crd_api){
        .service = fake_service(t->fake),
        .tokenizer = t->tokenizer,
        .chat_template = t->chat_template,
        .template_source = source,
        .style = crd_style_of(source),
        .grammar_vocab = crd_grammar_vocab_open(t->tokenizer),
        .model = {.name = "test-model",
                  .arch = "llama",
                  .d_model = FAKE_DIM,
                  .pooling = POOL_LAST,
                  .n_vocab = TEST_VOCAB,
                  .context = 4096,
                  .n_params = 1234},
        .model_names = names,
        .max_context = TEST_CONTEXT,
        .max_n = TEST_MAX_N,
        .pooling = POOL_LAST,
        .stats = crd_api_stats_open(TEST_CONTEXT, TEST_ENGINES),
        .created_unix = 1700000000,
    };
    if (n_threads) rc = crd_text_pool_open(&t->api.pool, n_threads);
    ASSERT(!rc);
}

void test_api_template(struct test_api *t, const char *source)
{
    eng_template_close(t->chat_template);
    enum err rc = eng_template_compile(&t->chat_template, source, strlen(source));
    ASSERT(!rc);
    t->api.chat_template = t->chat_template;
    t->api.template_source = source;
    t->api.style = crd_style_of(source);
}

void test_api_close(struct test_api *t)
{
    crd_text_pool_close(t->api.pool);
    fake_close(t->fake);
    crd_api_stats_close(t->api.stats);
    eng_template_close(t->chat_template);
    crd_grammar_vocab_close(t->api.grammar_vocab);
    eng_tokenizer_close(t->tokenizer);
    eng_tokens_free(&t->said);
}

void test_api_plan(struct test_api *t, struct fake_plan plan)
{
    plan.say = t->said;
    fake_set(t->fake, &plan);
}

void test_api_say(struct test_api *t, const char *text, size_t n)
{
    eng_tokens_free(&t->said);
    eng_tokenizer_encode(t->tokenizer, text, n, 0, &t->said);
    test_api_plan(t, (struct fake_plan){0});
}

char *test_api_prompt(struct test_api *t)
{
    struct buf text = {0};
    struct gen_request q = fake_last(t->fake);
    eng_tokenizer_decode(t->tokenizer, q.prompt, (size_t)q.n_prompt, true, &text);
    return buf_take(&text);
}

static void wake(void *user)
{
    sem_post(user);
}

void test_api_run(struct test_api *t, enum crd_endpoint ep, const char *body, struct outcome *o)
{
    sem_t woken;
    sem_init(&woken, 0, 0);
    *o = (struct outcome){0};
    struct crd_generation *g =
        crd_generation_open(&t->api, ep, body, strlen(body), 7, NULL, wake, &woken);
    while (!crd_generation_run(g, &o->bytes, &o->status)) sem_wait(&woken);
    o->streaming = crd_generation_streaming(g);
    o->retry_after = crd_generation_retry_after(g);
    crd_generation_close(g);
    sem_destroy(&woken);
}

void outcome_free(struct outcome *o)
{
    buf_free(&o->bytes);
}

static json_t *bad(const char *why, const char *at)
{
    printf("stream: %s at: %.200s\n", why, at);
    return NULL;
}

static json_t *choice_at(json_t *whole, json_int_t index)
{
    json_t *list = json_object_get(whole, "choices");
    while ((json_int_t)json_array_size(list) <= index)
        json_array_append_new(list,
                              json_pack("{s:s,s:n,s:n}", "text", "", "logprobs", "finish_reason"));
    return json_array_get(list, (size_t)index);
}

static void append_text(json_t *to, const char *key, const json_t *piece)
{
    if (!json_is_string(piece)) return;
    char *all =
        xasprintf("%s%s", json_string_value(json_object_get(to, key)), json_string_value(piece));
    json_object_set_new(to, key, json_string(all));
    free(all);
}

static void extend_all(json_t *to, const char *key, const json_t *from)
{
    const char *k;
    json_t *list, *mine = json_object_get(to, key);
    if (!json_is_object(from)) return;
    if (!json_is_object(mine)) {
        json_object_set_new(to, key, json_deep_copy(from));
        return;
    }
    json_object_foreach((json_t *)(uintptr_t)from, k, list)
        json_array_extend(json_object_get(mine, k), list);
}

/* Parts of calls, by their index. */
static void take_calls(json_t *to, const json_t *parts)
{
    json_t *part, *calls = json_object_get(to, "calls");
    size_t i;
    if (!parts) return;
    if (!calls) json_object_set_new(to, "calls", calls = json_array());
    json_array_foreach((json_t *)(uintptr_t)parts, i, part)
    {
        size_t at = (size_t)json_integer_value(json_object_get(part, "index"));
        json_t *f = json_object_get(part, "function");
        ASSERT(at <= json_array_size(calls));
        if (at == json_array_size(calls)) {
            ASSERT(json_object_get(part, "id") && json_object_get(f, "name"));
            json_array_append_new(
                calls, json_pack("{s:O,s:s}", "name", json_object_get(f, "name"), "arguments", ""));
        }
        append_text(json_array_get(calls, at), "arguments", json_object_get(f, "arguments"));
    }
}

static bool take_choice(json_t *whole, const json_t *c, enum crd_endpoint ep)
{
    json_t *to = choice_at(whole, json_integer_value(json_object_get(c, "index")));
    const json_t *delta = json_object_get(c, "delta"), *ids = json_object_get(c, "token_ids");
    const json_t *finish = json_object_get(c, "finish_reason");
    if (!json_is_null(json_object_get(to, "finish_reason"))) return false; /* after its end */
    if (ep == ENDPOINT_CHAT && !json_object_get(to, "role")) {
        if (!json_object_get(delta, "role")) return false; /* the first says the role */
        json_object_set(to, "role", json_object_get(delta, "role"));
    }
    append_text(to, "text",
                ep == ENDPOINT_CHAT ? json_object_get(delta, "content")
                                    : json_object_get(c, "text"));
    if (json_object_get(delta, "reasoning_content") && !json_object_get(to, "thoughts"))
        json_object_set_new(to, "thoughts", json_string(""));
    append_text(to, "thoughts", json_object_get(delta, "reasoning_content"));
    take_calls(to, json_object_get(delta, "tool_calls"));
    extend_all(to, "logprobs", json_object_get(c, "logprobs"));
    if (ids && !json_object_get(to, "token_ids"))
        json_object_set_new(to, "token_ids", json_array());
    if (ids) json_array_extend(json_object_get(to, "token_ids"), (json_t *)(uintptr_t)ids);
    if (json_is_null(finish)) return true;
    json_object_set(to, "finish_reason", (json_t *)(uintptr_t)finish);
    json_object_set(to, "stop_reason", json_object_get(c, "stop_reason"));
    return ep == ENDPOINT_COMPLETIONS || !json_object_size(delta);
}

static bool take_event(json_t *whole, json_t *e, enum crd_endpoint ep)
{
    const char *object = ep == ENDPOINT_CHAT ? "chat.completion.chunk" : "text_completion";
    const char *id = json_string_value(json_object_get(e, "id")),
               *first = json_string_value(json_object_get(whole, "id"));
    json_t *c;
    size_t i;
    if (json_object_get(e, "error"))
        return json_object_set(whole, "error", json_object_get(e, "error")) == 0;
    if (strcmp(json_string_value(json_object_get(e, "object")), object)) return false;
    if (first && strcmp(first, id)) return false;
    json_object_set(whole, "id", json_object_get(e, "id"));
    if (json_is_object(json_object_get(e, "usage")))
        json_object_set(whole, "usage", json_object_get(e, "usage"));
    if (json_object_get(e, "timings"))
        json_object_set(whole, "timings", json_object_get(e, "timings"));
    json_array_foreach(json_object_get(e, "choices"), i,
                       c) if (!take_choice(whole, c, ep)) return false;
    return true;
}

json_t *stream_assemble(const char *p, enum crd_endpoint ep)
{
    json_t *whole = json_pack("{s:[]}", "choices");
    long no = 0;
    while (*p) {
        if (!strncmp(p, "id: ", 4)) { /* the gateway's: numbered from 1 */
            char *rest;
            if (strtol(p + 4, &rest, 10) != ++no || *rest != '\n')
                return json_decref(whole), bad("a wrong event id", p);
            p = rest + 1;
        }
        const char *end = strstr(p, "\n\n");
        if (!end) return json_decref(whole), bad("no end of event", p);
        if (*p == ':') {
            p = end + 2;
            continue;
        }
        if (strncmp(p, "data: ", 6)) return json_decref(whole), bad("no data", p);
        if (!strcmp(p, "data: [DONE]\n\n")) return whole;
        json_t *e = json_loadb(p + 6, (size_t)(end - p - 6), JSON_REJECT_DUPLICATES, NULL);
        bool good = e && take_event(whole, e, ep);
        json_decref(e);
        if (!good) return json_decref(whole), bad("unexpected event", p);
        p = end + 2;
    }
    json_decref(whole);
    return bad("no [DONE]", "the end");
}

const char test_chat[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]%s}";

json_t *test_api_ask(struct test_api *t, enum crd_endpoint ep, const char *format, const char *more,
                     int status)
{
    struct outcome o;
    struct buf body = {0};
    const char *at = strstr(format, "%s");
    buf_put(&body, format, (size_t)(at - format));
    buf_puts(&body, more);
    buf_puts(&body, at + 2);
    test_api_run(t, ep, buf_str(&body), &o);
    json_t *j = o.streaming
                    ? stream_assemble(buf_str(&o.bytes), ep)
                    : json_loadb(buf_str(&o.bytes), o.bytes.len, JSON_REJECT_DUPLICATES, NULL);
    if (!j || o.status != status)
        printf("%s\n -> %d %s\n", buf_str(&body), o.status, buf_str(&o.bytes));
    ASSERT(j && o.status == status);
    outcome_free(&o);
    buf_free(&body);
    return j;
}

json_t *answer_choice(json_t *answer, size_t i)
{
    return json_array_get(json_object_get(answer, "choices"), i);
}

const char *answer_content(json_t *answer, size_t i)
{
    json_t *c = answer_choice(answer, i), *message = json_object_get(c, "message");
    return json_string_value(message ? json_object_get(message, "content")
                                     : json_object_get(c, "text"));
}

const char *json_str(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

long json_num(const json_t *object, const char *key)
{
    return (long)json_integer_value(json_object_get(object, key));
}
