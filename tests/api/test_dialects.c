/* dialects: Anthropic's messages, OpenAI's responses, Ollama's chat and generate: requests
 * understood, answers in their form, streamed and whole alike. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "tests/api/support.h"

#include <stdlib.h>
#include <string.h>

static const char source[] =
    "{% if tools %}{{ tools | tojson }}<tool_call></tool_call>{% endif %}"
    "{% for m in messages %}{{ m.role }}:{{ m.content }}{% if m.tool_calls %}"
    "{% for c in m.tool_calls %}[{{ c.function.name }} {{ c.function.arguments.a }}]{% endfor %}"
    "{% endif %}{{ '\\n' }}{% endfor %}{% if enable_thinking is false %}<think></think>{% endif %}";

#define SAYS                                                                                       \
    "<think>hm</think>Well.\n<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":1}}</tool_call>"      \
    "<tool_call>{\"name\":\"g\",\"arguments\":{}}</tool_call>"

static struct test_api t;

static int setup(void **state)
{
    (void)state;
    test_api_open(&t, 1);
    test_api_template(&t, source);
    t.api.max_context = 2000;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    test_api_close(&t);
    return 0;
}

static char *run(enum crd_endpoint ep, const char *says, const char *body, int status)
{
    struct outcome o;
    test_api_say(&t, says, strlen(says));
    test_api_run(&t, ep, body, &o);
    if (o.status != status) printf("%s\n -> %d %s\n", body, o.status, buf_str(&o.bytes));
    assert_int_equal(o.status, status);
    char *text = buf_take(&o.bytes);
    return text ? text : xstrdup("");
}

static json_t *ask(enum crd_endpoint ep, const char *says, const char *body, int status)
{
    char *text = run(ep, says, body, status);
    json_t *j = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    if (!j) printf("no JSON: %s\n", text);
    assert_non_null(j);
    free(text);
    return j;
}

/* The k-th "data:" of a stream (or the k-th line, for NDJSON) of this type. Own: caller. */
static json_t *nth(const char *stream, const char *type, int k)
{
    for (const char *p = stream; *p;) {
        size_t n = strcspn(p, "\n");
        size_t skip = strncmp(p, "data: ", 6) ? 0 : 6;
        json_t *j = *p == '{' || skip ? json_loadb(p + skip, n - skip, 0, NULL) : NULL;
        assert_true(j || !skip);
        bool is = j && (!type || !strcmp(json_str(j, "type"), type)) && !k--;
        if (is) return j;
        json_decref(j);
        p += n + (p[n] == '\n');
    }
    return NULL;
}

static char *joined(const char *stream, const char *type, const char *a, const char *b)
{
    struct buf all = {0};
    json_t *j;
    for (int k = 0; (j = nth(stream, type, k)); k++) {
        const json_t *at = b ? json_object_get(j, a) : j;
        const char *s = json_str(at, b ? b : a);
        if (s) buf_puts(&all, s);
        json_decref(j);
    }
    buf_putc(&all, 0);
    return buf_take(&all);
}

#define is_text(expr, text)                                                                        \
    do {                                                                                           \
        char *got_ = (expr);                                                                       \
        assert_string_equal(got_, text);                                                           \
        free(got_);                                                                                \
    } while (0)

/* The tokens of entries, joined. */
static char *tokens_of(const json_t *entries)
{
    struct buf all = {0};
    json_t *one;
    size_t i;
    json_array_foreach((json_t *)(uintptr_t)entries, i, one) buf_puts(&all, json_str(one, "token"));
    buf_putc(&all, 0);
    return buf_take(&all);
}

/* ---- Anthropic ---- */

#define M_TOOLS                                                                                    \
    "\"tools\":[{\"name\":\"f\",\"input_schema\":{\"type\":\"object\"}},{\"name\":\"g\","          \
    "\"input_schema\":{}}],"
#define M_ASK "{\"max_tokens\":200," M_TOOLS "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"

static void messages_are_understood(void **state)
{
    (void)state;
    json_decref(ask(
        ENDPOINT_MESSAGES, "ok",
        "{\"max_tokens\":9,\"stop_sequences\":[\"X\"],\"system\":[{\"type\":\"text\",\"text\":"
        "\"S\"}],"
        "\"thinking\":{\"type\":\"disabled\"},\"messages\":["
        "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"q\"}]},"
        "{\"role\":\"assistant\",\"content\":[{\"type\":\"thinking\",\"thinking\":\"t\"},{\"type\":"
        "\"text\",\"text\":\"w\"},{\"type\":\"tool_use\",\"id\":\"i\",\"name\":\"f\",\"input\":{"
        "\"a\":"
        "7}}]},{\"role\":\"user\",\"content\":[{\"type\":\"tool_result\",\"tool_use_id\":\"i\","
        "\"content\":[{\"type\":\"text\",\"text\":\"r\"}]},{\"type\":\"text\",\"text\":\"and?\"}]}]"
        "}",
        200));
    is_text(test_api_prompt(&t),
            "system:S\nuser:q\nassistant:w[f 7]\ntool:r\nuser:and?\n<think></think>");
    assert_int_equal(fake_last(t.fake).sampling.max_tokens, 9);
}

static void a_message_has_blocks(void **state)
{
    (void)state;
    json_t *a = ask(ENDPOINT_MESSAGES, SAYS, M_ASK "}", 200), *c = json_object_get(a, "content");
    assert_string_equal(json_str(a, "type"), "message");
    assert_string_equal(json_str(a, "stop_reason"), "tool_use");
    assert_int_equal(json_array_size(c), 4);
    assert_string_equal(json_str(json_array_get(c, 0), "thinking"), "hm");
    assert_string_equal(json_str(json_array_get(c, 1), "text"), "Well.");
    assert_string_equal(json_str(json_array_get(c, 2), "name"), "f");
    assert_int_equal(json_num(json_object_get(json_array_get(c, 2), "input"), "a"), 1);
    assert_true(json_num(json_object_get(a, "usage"), "output_tokens") > 0);
    json_decref(a);
    a = ask(ENDPOINT_MESSAGES, "one STOP two",
            "{\"max_tokens\":99,\"stop_sequences\":[\"STOP\"],\"messages\":[{\"role\":\"user\","
            "\"content\":\"hi\"}]}",
            200);
    assert_string_equal(json_str(a, "stop_reason"), "stop_sequence");
    assert_string_equal(json_str(a, "stop_sequence"), "STOP");
    json_decref(a);
}

static void a_message_streams_its_blocks(void **state)
{
    (void)state;
    char *s = run(ENDPOINT_MESSAGES, SAYS, M_ASK ",\"stream\":true}", 200);
    is_text(joined(s, "content_block_delta", "delta", "thinking"), "hm");
    is_text(joined(s, "content_block_delta", "delta", "text"), "Well.");
    is_text(joined(s, "content_block_delta", "delta", "partial_json"), "{\"a\":1}{}");
    int opened = 0;
    for (json_t *j; (j = nth(s, "content_block_start", opened)); opened++) {
        assert_int_equal(json_num(j, "index"), opened);
        json_decref(j);
    }
    assert_int_equal(opened, 4);
    json_t *stop = nth(s, "content_block_stop", 3), *delta = nth(s, "message_delta", 0);
    assert_int_equal(json_num(stop, "index"), 3);
    assert_string_equal(json_str(json_object_get(delta, "delta"), "stop_reason"), "tool_use");
    assert_non_null(strstr(s, "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"));
    json_decref(stop);
    json_decref(delta);
    free(s);
}

static void a_messages_format_is_kept_to(void **state)
{
    (void)state;
    static const char *const ways[] = {"\"output_config\":{\"effort\":\"low\",\"format\":{\"type\":\"json_schema\",\"schema\":{\"type\":\"object\"}}}",
                                       "\"output_format\":{\"type\":\"json_schema\",\"schema\":{\"type\":\"object\"}}"};
    for (size_t i = 0; i < COUNT_OF(ways); i++) {
        char *body = xasprintf("{\"max_tokens\":9,\"metadata\":{\"user_id\":\"u\"},\"mcp_servers\":[],\"messages\":[{\"role\":\"user\","
                               "\"content\":\"q\"}],%s}", ways[i]);
        json_decref(ask(ENDPOINT_MESSAGES, "{}", body, 200));
        assert_int_not_equal(fake_last(t.fake).grammar.kind, GRAMMAR_NONE);
        free(body);
    }
    json_decref(ask(ENDPOINT_MESSAGES, "ok", "{\"max_tokens\":9,\"output_config\":{},\"messages\":[{\"role\":\"user\",\"content\":\"q\"}]}", 200));
    assert_int_equal(fake_last(t.fake).grammar.kind, GRAMMAR_NONE);
}

static void developers_speak_as_the_template_knows_them(void **state)
{
    (void)state;
    static const char body[] = "{\"messages\":[{\"role\":\"developer\",\"content\":\"D\"}],\"modalities\":[\"text\"]}";
    json_decref(ask(ENDPOINT_CHAT, "ok", body, 200));
    is_text(test_api_prompt(&t), "system:D\n");
    test_api_template(&t, "{% for m in messages %}{{ 'dev' if m.role == 'developer' else m.role }}:{{ m.content }}{% endfor %}");
    json_decref(ask(ENDPOINT_CHAT, "ok", body, 200));
    is_text(test_api_prompt(&t), "dev:D");
}

/* ---- Ollama ---- */

static void ollama_chat(void **state)
{
    (void)state;
    static const char body[] =
        "{\"model\":\"test-model:latest\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],"
        "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}],\"options\":{\"num_"
        "predict\":200,\"temperature\":0,\"stop\":[\"Q\"]},\"stream\":%s}";
    char *whole = xasprintf(body, "false"), *streamed = xasprintf(body, "true");
    json_t *a = ask(ENDPOINT_OLLAMA_CHAT, SAYS, whole, 200), *m = json_object_get(a, "message");
    assert_string_equal(json_str(m, "content"), "Well.");
    assert_string_equal(json_str(m, "thinking"), "hm");
    assert_int_equal(json_array_size(json_object_get(m, "tool_calls")), 2);
    assert_true(json_is_true(json_object_get(a, "done")));
    assert_string_equal(json_str(a, "done_reason"), "stop");
    assert_true(json_num(a, "eval_count") > 0);
    json_decref(a);
    char *s = run(ENDPOINT_OLLAMA_CHAT, SAYS, streamed, 200);
    is_text(joined(s, NULL, "message", "content"), "Well.");
    is_text(joined(s, NULL, "message", "thinking"), "hm");
    is_text(joined(s, NULL, "done_reason", NULL), "stop");
    free(s);
    free(whole);
    free(streamed);
}

static void ollama_generate(void **state)
{
    (void)state;
    json_t *a = ask(ENDPOINT_OLLAMA_GENERATE, "yes",
                    "{\"prompt\":\"hi\",\"system\":\"S\",\"stream\":false}", 200);
    assert_string_equal(json_str(a, "response"), "yes");
    is_text(test_api_prompt(&t), "system:S\nuser:hi\n");
    json_decref(a);
    char *s = run(ENDPOINT_OLLAMA_GENERATE, "<think>x", "{\"prompt\":\"hi\",\"raw\":true}", 200);
    is_text(joined(s, NULL, "response", NULL), "<think>x");
    is_text(test_api_prompt(&t), "<s>hi");
    free(s);
}

static void ollama_gives_logprobs(void **state)
{
    (void)state;
    static const struct {
        enum crd_endpoint ep;
        const char *body;
    } ways[] = {
        {ENDPOINT_OLLAMA_CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"logprobs\":true,\"top_logprobs\":2%s}"},
        {ENDPOINT_OLLAMA_GENERATE, "{\"prompt\":\"hi\",\"logprobs\":true,\"top_logprobs\":2%s}"},
        {ENDPOINT_OLLAMA_GENERATE, "{\"prompt\":\"hi\",\"raw\":true,\"logprobs\":true,\"top_logprobs\":2%s}"},
    };
    for (size_t i = 0; i < COUNT_OF(ways); i++) {
        char *whole = xasprintf(ways[i].body, ",\"stream\":false"), *streamed = xasprintf(ways[i].body, "");
        json_t *a = ask(ways[i].ep, "yes", whole, 200), *list = json_object_get(a, "logprobs"), *all = json_array(), *e;
        is_text(tokens_of(list), "yes");
        assert_int_equal(json_array_size(json_object_get(json_array_get(list, 0), "top_logprobs")), 2);
        char *s = run(ways[i].ep, "yes", streamed, 200);
        for (int k = 0; (e = nth(s, NULL, k)); k++, json_decref(e))
            if (json_object_get(e, "logprobs")) json_array_extend(all, json_object_get(e, "logprobs"));
        assert_true(json_equal(all, list));
        json_decref(all);
        json_decref(a);
        free(s);
        free(whole);
        free(streamed);
    }
    json_t *a = ask(ENDPOINT_OLLAMA_GENERATE, "yes", "{\"prompt\":\"hi\",\"stream\":false,\"options\":{\"num_predict\":-1}}", 200);
    assert_null(json_object_get(a, "logprobs"));
    assert_true(fake_last(t.fake).sampling.max_tokens > 1000); /* as many as fit */
    json_decref(a);
}

/* ---- Responses ---- */

#define R_ASK                                                                                      \
    "{\"input\":\"hi\",\"tools\":[{\"type\":\"function\",\"name\":\"f\",\"parameters\":{}},"       \
    "{\"type\":\"function\",\"name\":\"g\"}]"

static void responses_are_understood(void **state)
{
    (void)state;
    json_decref(
        ask(ENDPOINT_RESPONSES, "ok",
            "{\"instructions\":\"S\",\"store\":false,\"max_output_tokens\":9,\"input\":["
            "{\"role\":\"developer\",\"content\":\"D\"},{\"type\":\"message\",\"role\":"
            "\"user\",\"content\":[{\"type\":\"input_text\",\"text\":\"q\"}]},{\"type\":"
            "\"reasoning\",\"id\":\"r\",\"summary\":[]},{\"type\":\"function_call\",\"call_"
            "id\":\"c\",\"name\":\"f\",\"arguments\":\"{\\\"a\\\":7}\"},{\"type\":\"function_"
            "call_output\",\"call_id\":\"c\",\"output\":\"r\"}]}",
            200));
    is_text(test_api_prompt(&t), "system:S\nsystem:D\nuser:q\nassistant:[f 7]\ntool:r\n");
    assert_int_equal(fake_last(t.fake).sampling.max_tokens, 9);
}

static void a_response_has_items(void **state)
{
    (void)state;
    json_t *a = ask(ENDPOINT_RESPONSES, SAYS, R_ASK "}", 200), *o = json_object_get(a, "output");
    assert_string_equal(json_str(a, "object"), "response");
    assert_string_equal(json_str(a, "status"), "completed");
    assert_int_equal(json_array_size(o), 4);
    assert_string_equal(json_str(json_array_get(o, 0), "type"), "reasoning");
    assert_string_equal(
        json_str(json_array_get(json_object_get(json_array_get(o, 1), "content"), 0), "text"),
        "Well.");
    assert_string_equal(json_str(json_array_get(o, 2), "arguments"), "{\"a\":1}");
    json_decref(a);
    a = ask(ENDPOINT_RESPONSES, "one two three", "{\"input\":\"hi\",\"max_output_tokens\":3}", 200);
    assert_string_equal(json_str(a, "status"), "incomplete");
    json_decref(a);
}

static void a_response_streams_the_same(void **state)
{
    (void)state;
    char *s = run(ENDPOINT_RESPONSES, SAYS, R_ASK ",\"stream\":true}", 200);
    is_text(joined(s, "response.output_text.delta", "delta", NULL), "Well.");
    is_text(joined(s, "response.reasoning_text.delta", "delta", NULL), "hm");
    is_text(joined(s, "response.function_call_arguments.delta", "delta", NULL), "{\"a\":1}{}");
    json_t *end = nth(s, "response.completed", 0),
           *whole = ask(ENDPOINT_RESPONSES, SAYS, R_ASK "}", 200);
    json_t *a = json_object_get(json_object_get(end, "response"), "output"),
           *b = json_object_get(whole, "output");
    assert_int_equal(json_array_size(a), json_array_size(b));
    for (size_t i = 0; i < json_array_size(a); i++) {
        json_t *x = json_array_get(a, i), *y = json_array_get(b, i);
        json_object_del(x, "id"), json_object_del(y, "id");
        json_object_del(x, "call_id"), json_object_del(y, "call_id");
        assert_true(json_equal(x, y));
    }
    for (int k = 0; k < 5; k++) { /* events are numbered */
        char number[40];
        snprintf(number, sizeof number, "\"sequence_number\":%d,", k);
        assert_non_null(strstr(s, number));
    }
    json_decref(end);
    json_decref(whole);
    free(s);
}

static json_t *text_part(const json_t *response, size_t item)
{
    json_t *it = json_array_get(json_object_get(response, "output"), item);
    return json_array_get(json_object_get(it, "content"), 0);
}

static void logprobs_of_a_response_are_of_its_text(void **state)
{
    (void)state;
    static const char *const ways[] = {",\"include\":[\"message.output_text.logprobs\"]",
                                       ",\"top_logprobs\":2"};
    for (size_t i = 0; i < COUNT_OF(ways); i++) {
        char *body = xasprintf("%s%s%%s}", R_ASK, ways[i]), *whole = xasprintf(body, ""),
             *streamed = xasprintf(body, ",\"stream\":true");
        json_t *a = ask(ENDPOINT_RESPONSES, SAYS, whole, 200),
               *list = json_object_get(text_part(a, 1), "logprobs");
        is_text(tokens_of(list), "Well."); /* no thoughts, no calls, no marks, no end */
        assert_int_equal(json_array_size(json_object_get(json_array_get(list, 0), "top_logprobs")),
                         i ? 2 : 0);
        assert_int_equal(json_num(a, "top_logprobs"), i ? 2 : 0);
        char *s = run(ENDPOINT_RESPONSES, SAYS, streamed, 200);
        json_t *deltas = json_array(), *e;
        for (int k = 0; (e = nth(s, "response.output_text.delta", k)); k++, json_decref(e)) {
            assert_true(json_array_size(json_object_get(e, "logprobs")) > 0);
            json_array_extend(deltas, json_object_get(e, "logprobs"));
        }
        json_t *done = nth(s, "response.output_text.done", 0), *end = nth(s, "response.completed", 0);
        assert_true(json_equal(deltas, list));
        assert_true(json_equal(json_object_get(done, "logprobs"), list));
        assert_true(json_equal(
            json_object_get(text_part(json_object_get(end, "response"), 1), "logprobs"), list));
        json_decref(deltas);
        json_decref(done);
        json_decref(end);
        json_decref(a);
        free(s);
        free(body);
        free(whole);
        free(streamed);
    }
    json_t *a = ask(ENDPOINT_RESPONSES, SAYS, R_ASK "}", 200);
    assert_int_equal(json_array_size(json_object_get(text_part(a, 1), "logprobs")), 0);
    json_decref(a);
}

static void what_began_like_a_mark_has_its_logprobs(void **state)
{
    (void)state;
    static const char *const says[] = {"a <tool_calf> b", "<thin", "x\n\n<tool_call>\n{\"no\":1}</tool_call> y"};
    for (size_t i = 0; i < COUNT_OF(says); i++) {
        json_t *a = ask(ENDPOINT_RESPONSES, says[i], R_ASK ",\"top_logprobs\":1}", 200),
               *part = text_part(a, 0);
        assert_string_equal(json_str(part, "text"), says[i]);
        is_text(tokens_of(json_object_get(part, "logprobs")), says[i]);
        json_decref(a);
    }
}

static void a_response_says_what_it_was_asked(void **state)
{
    (void)state;
    json_t *a = ask(ENDPOINT_RESPONSES, "ok",
                    "{\"input\":\"hi\",\"user\":\"u\",\"prompt_cache_key\":\"k\",\"text\":{\"verbosity\":"
                    "\"medium\"},\"truncation\":\"disabled\",\"reasoning\":{\"effort\":\"low\",\"summary\":"
                    "\"auto\"},\"include\":[\"reasoning.encrypted_content\"],\"service_tier\":\"auto\","
                    "\"top_k\":3,\"repetition_penalty\":1.5,\"min_p\":0.25}",
                    200);
    assert_string_equal(json_str(a, "user"), "u");
    assert_string_equal(json_str(a, "prompt_cache_key"), "k");
    assert_true(json_is_null(json_object_get(a, "safety_identifier")));
    assert_string_equal(json_str(a, "service_tier"), "default");
    assert_int_equal(fake_last(t.fake).sampling.top_k, 3);
    assert_true(fake_last(t.fake).sampling.repetition_penalty == 1.5f);
    assert_true(fake_last(t.fake).sampling.min_p == 0.25f);
    json_decref(a);
}

/* ---- errors ---- */

static void errors_are_in_the_dialect(void **state)
{
    static const struct {
        enum crd_endpoint ep;
        const char *body, *says; /* a part of the answer */
    } rows[] = {
        {ENDPOINT_MESSAGES, "{",
         "\"type\":\"error\",\"error\":{\"type\":\"invalid_request_error\""},
        {ENDPOINT_MESSAGES, "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}",
         "\"param\":\"max_tokens\""},
        {ENDPOINT_MESSAGES,
         "{\"max_tokens\":1,\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":"
         "\"image\"}]}]}",
         "'image' are not supported"},
        {ENDPOINT_OLLAMA_CHAT, "{\"messages\":3}", "{\"error\":\"messages: Input should be"},
        {ENDPOINT_OLLAMA_GENERATE, "{\"prompt\":\"a\",\"images\":[\"x\"]}",
         "images are not supported"},
        {ENDPOINT_RESPONSES, "{\"input\":\"a\",\"max_output_tokens\":0}",
         "\"param\":\"max_output_tokens\""},
        {ENDPOINT_MESSAGES, "{\"max_tokens\":100000,\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}",
         "\"max_tokens is too large: 100000."},
        {ENDPOINT_RESPONSES, "{\"input\":\"a\",\"max_output_tokens\":100000}",
         "\"max_output_tokens is too large: 100000."},
        {ENDPOINT_OLLAMA_GENERATE, "{\"prompt\":\"a\",\"options\":{\"num_predict\":100000}}",
         "\"options.num_predict is too large: 100000."},
    };
    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        char *text = run(rows[i].ep, "x", rows[i].body, 400);
        if (!strstr(text, rows[i].says)) printf("row %zu: %s\n", i, text);
        assert_non_null(strstr(text, rows[i].says));
        free(text);
    }
}

static void a_failure_ends_a_stream_in_its_dialect(void **state)
{
    (void)state;
    static const struct {
        enum crd_endpoint ep;
        const char *body, *says;
    } rows[] = {
        {ENDPOINT_MESSAGES, M_ASK ",\"stream\":true}", "event: error\ndata: {\"type\":\"error\""},
        {ENDPOINT_OLLAMA_GENERATE, "{\"prompt\":\"a\",\"raw\":true}", "{\"error\":\""},
        {ENDPOINT_RESPONSES, R_ASK ",\"stream\":true}", "event: response.failed\n"},
    };
    test_api_say(&t, "some text", 9);
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct outcome o;
        test_api_plan(&t, (struct fake_plan){.fail_after = 4});
        test_api_run(&t, rows[i].ep, rows[i].body, &o);
        assert_int_equal(o.status, 200);
        if (!strstr(buf_str(&o.bytes), rows[i].says)) printf("%s\n", buf_str(&o.bytes));
        assert_non_null(strstr(buf_str(&o.bytes), rows[i].says));
        outcome_free(&o);
    }
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(messages_are_understood),
        T(a_message_has_blocks),
        T(a_message_streams_its_blocks),
        T(ollama_chat),
        T(ollama_generate),
        T(ollama_gives_logprobs),
        T(a_messages_format_is_kept_to),
        T(developers_speak_as_the_template_knows_them),
        T(responses_are_understood),
        T(a_response_has_items),
        T(a_response_streams_the_same),
        T(logprobs_of_a_response_are_of_its_text),
        T(what_began_like_a_mark_has_its_logprobs),
        T(a_response_says_what_it_was_asked),
        T(errors_are_in_the_dialect),
        T(a_failure_ends_a_stream_in_its_dialect),
    };
    return cmocka_run_group_tests_name("dialects", tests, NULL, NULL);
}
