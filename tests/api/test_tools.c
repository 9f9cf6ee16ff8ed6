/* tools, thoughts: a model that calls functions and thinks aloud, streamed and whole. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "engine/grammar/grammar.h"
#include "tests/api/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A template like Qwen3's, in short. */
static const char source[] =
    "{% if tools %}{{ tools | tojson }}<tool_call></tool_call>{% endif %}"
    "{% for m in messages %}{{ m.role }}:{{ m.content }}{% if m.tool_calls %}"
    "{% for c in m.tool_calls %}[{{ c.function.name }} {{ c.function.arguments.a }}]{% endfor %}"
    "{% endif %}\n{% endfor %}"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>{% endif %}"
    "{% if enable_thinking is defined and enable_thinking == 'open' %}<think>\n{% endif %}";

#define TOOLS                                                                                      \
    ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}},{\"type\":\"function\","    \
    "\"function\":{\"name\":\"g\"}}]"
#define CALL  "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"\xC3\xA9\"}}\n</tool_call>"
#define CALLS CALL "\n<tool_call>{\"name\":\"g\",\"arguments\":{}}</tool_call>"

static struct test_api t;

static int setup(void **state)
{
    (void)state;
    test_api_open(&t, 1);
    test_api_template(&t, source);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    test_api_close(&t);
    return 0;
}

static json_t *ask(const char *says, const char *more)
{
    test_api_say(&t, says, strlen(says));
    return test_api_ask(&t, ENDPOINT_CHAT, test_chat, more, 200);
}

static void calls_are_taken_out_of_the_text(void **state)
{
    (void)state;
    json_t *a = ask("Let me see.\n" CALLS, TOOLS), *c = answer_choice(a, 0),
           *m = json_object_get(c, "message"), *calls = json_object_get(m, "tool_calls");
    assert_string_equal(json_str(m, "content"), "Let me see.");
    assert_string_equal(json_str(c, "finish_reason"), "tool_calls");
    assert_int_equal(json_array_size(calls), 2);
    const json_t *f = json_object_get(json_array_get(calls, 0), "function");
    assert_string_equal(json_str(f, "name"), "f");
    assert_string_equal(json_str(f, "arguments"), "{\"a\": \"\xC3\xA9\"}");
    assert_string_equal(json_str(json_array_get(calls, 0), "type"), "function");
    assert_null(json_object_get(json_array_get(calls, 0), "index"));
    assert_string_not_equal(json_str(json_array_get(calls, 0), "id"),
                            json_str(json_array_get(calls, 1), "id"));
    json_decref(a);
    a = ask(CALL, TOOLS);
    assert_true(
        json_is_null(json_object_get(json_object_get(answer_choice(a, 0), "message"), "content")));
    json_decref(a);
}

static void a_stream_says_the_same(void **state)
{
    (void)state;
    json_t *a = ask("<think>\nhm\n</think>\n\nSo:\n\n" CALLS, TOOLS ",\"stream\":true,\"n\":2,"
                                                                    "\"logprobs\":true"),
           *c = answer_choice(a, 1), *calls = json_object_get(c, "calls");
    assert_string_equal(json_str(c, "text"), "So:");
    assert_string_equal(json_str(c, "thoughts"), "hm");
    assert_string_equal(json_str(c, "finish_reason"), "tool_calls");
    assert_int_equal(json_array_size(calls), 2);
    assert_string_equal(json_str(json_array_get(calls, 0), "name"), "f");
    assert_string_equal(json_str(json_array_get(calls, 0), "arguments"), "{\"a\": \"\xC3\xA9\"}");
    assert_string_equal(json_str(json_array_get(calls, 1), "arguments"), "{}");
    /* every token's logprob left with some chunk */
    assert_int_equal(json_array_size(json_object_get(json_object_get(c, "logprobs"), "content")),
                     t.said.n);
    json_decref(a);
}

static void without_tools_a_call_is_text(void **state)
{
    (void)state;
    json_t *a = ask(CALL, TOOLS ",\"tool_choice\":\"none\"");
    assert_string_equal(answer_content(a, 0), CALL);
    assert_string_equal(json_str(answer_choice(a, 0), "finish_reason"), "stop");
    json_decref(a);
    a = ask(CALL, "");
    assert_string_equal(answer_content(a, 0), CALL);
    json_decref(a);
}

static void one_call_ends_the_reply_when_asked(void **state)
{
    (void)state;
    json_t *a = ask(CALLS " and more", TOOLS ",\"parallel_tool_calls\":false"),
           *c = answer_choice(a, 0);
    assert_int_equal(json_array_size(json_object_get(json_object_get(c, "message"), "tool_calls")),
                     1);
    assert_string_equal(json_str(c, "finish_reason"), "tool_calls");
    assert_true(json_num(json_object_get(a, "usage"), "completion_tokens") < (long)t.said.n);
    json_decref(a);
}

static void a_reply_cut_short_says_length(void **state)
{
    (void)state;
    json_t *a = ask("<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":1}",
                    TOOLS ",\"max_tokens\":40"),
           *c = answer_choice(a, 0), *m = json_object_get(c, "message");
    assert_string_equal(json_str(c, "finish_reason"), "length");
    assert_int_equal(json_array_size(json_object_get(m, "tool_calls")), 1);
    json_decref(a);
}

static void thoughts_stand_apart(void **state)
{
    (void)state;
    json_t *a = ask("<think>\n2+2\n</think>\n\n4", ""),
           *m = json_object_get(answer_choice(a, 0), "message");
    assert_string_equal(json_str(m, "content"), "4");
    assert_string_equal(json_str(m, "reasoning_content"), "2+2");
    assert_string_equal(json_str(m, "reasoning"), "2+2");
    assert_int_equal(
        json_num(json_object_get(json_object_get(a, "usage"), "completion_tokens_details"),
                 "reasoning_tokens"),
        strlen("<think>\n2+2\n</think>") - strlen("<think"));
    json_decref(a);
    a = ask("<think>\n2+2\n</think>\n\n4", ",\"include_reasoning\":false");
    m = json_object_get(answer_choice(a, 0), "message");
    assert_string_equal(json_str(m, "content"), "4");
    assert_null(json_object_get(m, "reasoning_content"));
    json_decref(a);
}

static void the_prompt_may_begin_or_end_them(void **state)
{
    (void)state;
    json_t *a = ask("2+2</think>4", ",\"chat_template_kwargs\":{\"enable_thinking\":\"open\"}"),
           *m = json_object_get(answer_choice(a, 0), "message");
    assert_string_equal(json_str(m, "reasoning_content"), "2+2");
    assert_string_equal(json_str(m, "content"), "4");
    json_decref(a);
    a = ask("4", ",\"chat_template_kwargs\":{\"enable_thinking\":false}");
    m = json_object_get(answer_choice(a, 0), "message");
    assert_null(json_object_get(m, "reasoning_content"));
    assert_string_equal(json_str(m, "content"), "4");
    json_decref(a);
}

static void a_template_without_tools_is_told_in_words(void **state)
{
    (void)state;
    test_api_template(&t, "{% for m in messages %}{{ m.role }}:{{ m.content }}\n{% endfor %}");
    t.api.max_context = 4000;
    test_api_say(&t, CALL, strlen(CALL));
    json_t *a = test_api_ask(
        &t, ENDPOINT_CHAT,
        "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"},{\"role\":\"assistant\",\"tool_"
        "calls\":[{\"id\":\"1\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":"
        "\"{\\\"a\\\":1}\"}}]},{\"role\":\"tool\",\"tool_call_id\":\"1\",\"content\":\"ok\"}]%s}",
        TOOLS, 200);
    char *prompt = test_api_prompt(&t);
    assert_non_null(strstr(prompt, "user:# Tools"));
    assert_non_null(strstr(prompt, "</tool_call>\n\nhi\n"));
    assert_non_null(strstr(prompt, "assistant:<tool_call>\n{\"name\": \"f\", \"arguments\": "));
    assert_non_null(strstr(prompt, "user:<tool_response>\nok\n</tool_response>"));
    assert_int_equal(json_array_size(json_object_get(
                         json_object_get(answer_choice(a, 0), "message"), "tool_calls")),
                     1);
    free(prompt);
    json_decref(a);
}

static void an_escaped_nul_is_a_letter_like_any_other(void **state)
{
    (void)state;
    /* in arguments that a client sends back: they are opened for the template */
    test_api_say(&t, "ok", 2);
    json_decref(test_api_ask(&t, ENDPOINT_CHAT,
                             "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"},{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"1\","
                             "\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"a\\\":\\\"x\\\\u0000y\\\"}\"}}]}]%s}",
                             TOOLS, 200));
    struct gen_request q = fake_last(t.fake);
    bool seen = false;
    for (int32_t i = 2; i < q.n_prompt; i++)
        seen |= q.prompt[i - 2] == 'x' && q.prompt[i - 1] == 0 && q.prompt[i] == 'y';
    assert_true(seen);
    /* in what the model writes: as a value it stays, in a name there is no such tool */
    json_t *a = ask("<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":\"x\\u0000y\"}}</tool_call>", TOOLS),
           *calls = json_object_get(json_object_get(answer_choice(a, 0), "message"), "tool_calls");
    assert_string_equal(json_str(json_object_get(json_array_get(calls, 0), "function"), "arguments"),
                        "{\"a\":\"x\\u0000y\"}");
    json_decref(a);
    static const char *const none[] = {"<tool_call>{\"name\":\"f\\u0000x\",\"arguments\":{}}</tool_call>",
                                       "<tool_call>{\"name\\u0000\":\"f\",\"arguments\":{}}</tool_call>"};
    for (size_t i = 0; i < COUNT_OF(none); i++) {
        a = ask(none[i], TOOLS);
        assert_string_equal(answer_content(a, 0), none[i]);
        json_decref(a);
    }
}

static void arguments_that_are_no_json_are_no_object(void **state)
{
    (void)state;
    static const char says[] = "<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":1\0}}</tool_call>";
    struct outcome o;
    test_api_say(&t, says, sizeof says - 1);
    test_api_run(&t, ENDPOINT_MESSAGES, "{\"max_tokens\":90,\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],"
                 "\"tools\":[{\"name\":\"f\",\"input_schema\":{}}]}", &o);
    assert_int_equal(o.status, 200);
    json_t *j = json_loadb((const char *)o.bytes.data, o.bytes.len, 0, NULL);
    assert_non_null(j);
    assert_null(memchr(o.bytes.data, 0, o.bytes.len));
    json_decref(j);
    outcome_free(&o);
}

/* ---- calls that must be made ---- */

#define SCHEMAS                                                                                    \
    ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"type\":"      \
    "\"object\",\"properties\":{\"a\":{\"type\":\"integer\"}},\"required\":[\"a\"],"               \
    "\"additionalProperties\":false}}},{\"type\":\"function\",\"function\":{\"name\":\"g.h\"}}]"

/* Does the grammar of the request, submitted with these fields, hold for the text? */
static bool allows(const char *more, const char *text)
{
    t.api.max_context = 4000;
    json_decref(ask("x", more));
    struct gen_request q = fake_last(t.fake);
    struct eng_grammar *g;
    if (eng_grammar_compile(&g, &q.grammar, NULL)) fail_msg("%s", err_text());
    struct eng_grammar_state *s = eng_grammar_state_open(g);
    size_t n = strlen(text);
    bool good = eng_grammar_advance(s, text, n) == n && eng_grammar_accepts(s);
    eng_grammar_state_close(s);
    eng_grammar_close(g);
    return good;
}

/* By template: what the model must write, and what the reply's reader makes of it. */
static void required_calls_are_written_in_the_templates_own_syntax(void **state)
{
    (void)state;
    static const struct {
        const char *source, *one, *two; /* two: NULL: one call only */
    } rows[] = {
        {"tools<tool_call>", "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>",
         "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>\n<tool_call>\n{"
         "\"name\": \"g.h\", \"arguments\": {}}\n</tool_call>"},
        {"tools<|python_tag|>", "{\"name\": \"f\", \"parameters\": {\"a\": 1}}", NULL},
        {"tools[TOOL_CALLS]", "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {\"a\": 1}}]",
         "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {\"a\": 1}}, {\"name\": \"g.h\", "
         "\"arguments\": {}}]"},
        {"tools[TOOL_CALLS][ARGS]", "[TOOL_CALLS]f[ARGS]{\"a\": 1}",
         "[TOOL_CALLS]f[ARGS]{\"a\": 1}[TOOL_CALLS]g.h[ARGS]{}"},
        {"tools<|tool_call|>", "<|tool_call|>[{\"name\": \"f\", \"arguments\": {\"a\": 1}}]",
         "<|tool_call|>[{\"name\": \"f\", \"arguments\": {\"a\": 1}}, {\"name\": \"g.h\", "
         "\"arguments\": {}}]"},
        {"tools<|tool_call|><|/tool_call|>",
         "<|tool_call|>[{\"name\": \"f\", \"arguments\": {\"a\": 1}}]<|/tool_call|>",
         "<|tool_call|>[{\"name\": \"f\", \"arguments\": {\"a\": 1}}, {\"name\": \"g.h\", "
         "\"arguments\": {}}]<|/tool_call|>"},
        {"tools<function=", "<function=f>{\"a\": 1}</function>",
         "<function=f>{\"a\": 1}</function><function=g.h>{}</function>"},
        {"tools<｜tool▁calls▁begin｜>```json",
         "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"a\": 1}\n```"
         "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
         "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"a\": 1}\n```"
         "<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>g.h\n```json\n{}\n```"
         "<｜tool▁call▁end｜><｜tool▁calls▁end｜>"},
        {"tools<｜tool▁calls▁begin｜>",
         "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\": 1}<｜tool▁call▁end｜>"
         "<｜tool▁calls▁end｜>",
         "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\": 1}<｜tool▁call▁end｜>"
         "<｜tool▁call▁begin｜>g.h<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"},
        {"tools<|tool_calls_section_begin|>",
         "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{"
         "\"a\": 1}<|tool_call_end|><|tool_calls_section_end|>",
         "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{"
         "\"a\": 1}<|tool_call_end|><|tool_call_begin|>functions.g.h:1<|tool_call_argument_begin|>{}"
         "<|tool_call_end|><|tool_calls_section_end|>"},
        {"{{ tools }}", "{\"name\": \"f\", \"arguments\": {\"a\": 1}}", NULL},
        {"{{ tools }}\"parameters\": ", "{\"name\": \"f\", \"parameters\": {\"a\": 1}}", NULL},
        {"tools<tool_call><arg_key>", "<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n</tool_call>",
         "<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n</tool_call>\n<tool_call>g.h\n</tool_call>"},
        {"tools<tool_call><parameter=", "<tool_call>\n<function=f>\n<parameter=a>\n1\n</parameter>\n</function>\n</tool_call>",
         "<tool_call>\n<function=f>\n<parameter=a>\n1\n</parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=g.h>\n</function>\n</tool_call>"},
        {"tools<|tool_list_start|>", "<|tool_call_start|>[f(a=1)]<|tool_call_end|>", "<|tool_call_start|>[f(a=1), g.h()]<|tool_call_end|>"},
        {"knows none", "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>", NULL},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        test_api_template(&t, rows[i].source);
        if (!allows(SCHEMAS ",\"tool_choice\":\"required\"", rows[i].one))
            fail_msg("%s: %s", rows[i].source, rows[i].one);
        assert_false(allows(SCHEMAS ",\"tool_choice\":\"required\"", "x"));
        const char *g_only = ",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"g.h\"}}";
        char more[2000];
        snprintf(more, sizeof more, "%s%s", SCHEMAS, g_only);
        assert_false(allows(more, rows[i].one));
#define ALLOWED(mode, names) ",\"tool_choice\":{\"type\":\"allowed_tools\",\"allowed_tools\":{\"mode\":\"" mode "\",\"tools\":[" names "]}}"
#define TOOL(name) "{\"type\":\"function\",\"function\":{\"name\":\"" name "\"}}"
        assert_false(allows(SCHEMAS ALLOWED("required", TOOL("g.h")), rows[i].one));
        assert_true(allows(SCHEMAS ALLOWED("required", TOOL("g.h") "," TOOL("f")), rows[i].one));
        assert_true(allows(SCHEMAS ALLOWED("required", TOOL("f")), rows[i].one));
        assert_false(allows(SCHEMAS ALLOWED("required", TOOL("f")), "x"));
        if (!rows[i].two) continue;
        assert_false(allows(SCHEMAS ALLOWED("required", TOOL("f")), rows[i].two)); /* the second is not allowed */
        if (!allows(SCHEMAS ",\"tool_choice\":\"required\"", rows[i].two))
            fail_msg("%s: %s", rows[i].source, rows[i].two);
        assert_false(allows(SCHEMAS ",\"tool_choice\":\"required\",\"parallel_tool_calls\":false",
                            rows[i].two));
        json_t *a = ask(rows[i].two, SCHEMAS ",\"tool_choice\":\"required\""),
               *m = json_object_get(answer_choice(a, 0), "message"),
               *calls = json_object_get(m, "tool_calls");
        if (json_array_size(calls) != 2) fail_msg("%s: read as %s", rows[i].two, json_dumps(m, 0));
        const json_t *f = json_object_get(json_array_get(calls, 1), "function");
        assert_string_equal(json_str(f, "name"), "g.h");
        assert_string_equal(json_str(f, "arguments"), "{}");
        assert_true(json_is_null(json_object_get(m, "content")));
        json_decref(a);
    }
}

static void the_model_is_shown_the_tools_it_may_call_alone(void **state)
{
    (void)state;
    static const char *const ways[] = {SCHEMAS, SCHEMAS ALLOWED("auto", TOOL("g.h")), SCHEMAS ALLOWED("required", TOOL("g.h"))};
    test_api_template(&t, "{% for m in messages %}{{ m.role }}:{{ m.content }}\n{% endfor %}"); /* tools are listed in words */
    t.api.max_context = 4000;
    for (size_t i = 0; i < COUNT_OF(ways); i++) {
        json_decref(ask("hi", ways[i]));
        char *prompt = test_api_prompt(&t);
        assert_non_null(strstr(prompt, "\"g.h\""));
        assert_int_equal(strstr(prompt, "\"f\"") != NULL, i == 0);
        free(prompt);
    }
}

static void arguments_are_of_the_tools_schemas(void **state)
{
    (void)state;
#define IN(args) "<tool_call>\n{\"name\": \"f\", \"arguments\": " args "}\n</tool_call>"
    static const char req[] = SCHEMAS ",\"tool_choice\":\"required\",\"temperature\":0";
    assert_true(allows(req, IN("{\"a\":-7}")));
    assert_false(allows(req, IN("{\"a\":\"7\"}")));
    assert_false(allows(req, IN("{}")));
    assert_false(allows(req, IN("{\"a\":1,\"b\":2}")));
    assert_true(allows(req, "<tool_call>\n{\"name\": \"g.h\", \"arguments\": {\"x\":[]}}\n</tool_call>"));
    assert_false(allows(req, "<tool_call>\n{\"name\": \"g.h\", \"arguments\": 1}\n</tool_call>"));
}

/* A tool with everything tags can get wrong: what the grammar writes, the reader reads, of the schema. */
#define WIDE                                                                                       \
    ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"w\",\"strict\":true,\"parameters\":{\"type\":\"object\",\"properties\":{" \
    "\"s\":{\"type\":\"string\"},\"c\":{\"type\":\"string\",\"enum\":[\"1\",\"two words\"]},\"u\":{\"type\":[\"string\",\"null\"]},"             \
    "\"b\":{\"type\":\"boolean\"},\"l\":{\"type\":\"array\",\"items\":{\"type\":\"string\"}}},\"required\":[\"s\",\"c\"],"                       \
    "\"additionalProperties\":false}}}]"

static void arguments_in_tags_are_of_the_schema_and_read_back(void **state)
{
    (void)state;
    static const struct {
        const char *source, *says, *args;
    } rows[] = {
        {"tools<tool_call><arg_key>",
         "<tool_call>w\n<arg_key>s</arg_key>\n<arg_value>12</arg_value>\n<arg_key>c</arg_key>\n<arg_value>1</arg_value>\n"
         "<arg_key>u</arg_key>\n<arg_value>\"12\"</arg_value>\n<arg_key>l</arg_key>\n<arg_value>[\"a\"]</arg_value>\n</tool_call>",
         "{\"s\": \"12\", \"c\": \"1\", \"u\": \"12\", \"l\": [\"a\"]}"},
        {"tools<tool_call><parameter=",
         "<tool_call>\n<function=w>\n<parameter=s>\n\ntrue\n \n</parameter>\n<parameter=c>\ntwo words\n</parameter>\n"
         "<parameter=u>\nnull\n</parameter>\n<parameter=b>\ntrue\n</parameter>\n</function>\n</tool_call>",
         "{\"s\": \"\\ntrue\\n \", \"c\": \"two words\", \"u\": null, \"b\": true}"},
        {"tools<|tool_list_start|>", "<|tool_call_start|>[w(s=\"a\\n\\\"b\\u00e9\", c=\"1\", u=None, b=True, l=[\"x\", \"y\"])]<|tool_call_end|>",
         "{\"s\": \"a\\n\\\"b\xC3\xA9\", \"c\": \"1\", \"u\": null, \"b\": true, \"l\": [\"x\", \"y\"]}"},
    };
    static const struct {
        const char *source, *says;
    } not[] = {
        {"tools<tool_call><arg_key>", "<tool_call>w\n<arg_key>c</arg_key>\n<arg_value>1</arg_value>\n</tool_call>"},
        {"tools<tool_call><arg_key>",
         "<tool_call>w\n<arg_key>s</arg_key>\n<arg_value>x</arg_value>\n<arg_key>c</arg_key>\n<arg_value>2</arg_value>\n</tool_call>"},
        {"tools<tool_call><parameter=",
         "<tool_call>\n<function=w>\n<parameter=s>\nx\n</parameter>\n<parameter=c>\n1\n</parameter>\n"
         "<parameter=b>\nyes\n</parameter>\n</function>\n</tool_call>"},
        {"tools<|tool_list_start|>", "<|tool_call_start|>[w(s=a, c=\"1\")]<|tool_call_end|>"},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        test_api_template(&t, rows[i].source);
        if (!allows(WIDE ",\"tool_choice\":\"required\"", rows[i].says)) fail_msg("%s: %s", rows[i].source, rows[i].says);
        json_t *a = ask(rows[i].says, WIDE ",\"tool_choice\":\"required\""),
               *calls = json_object_get(json_object_get(answer_choice(a, 0), "message"), "tool_calls");
        assert_int_equal(json_array_size(calls), 1);
        assert_string_equal(json_str(json_object_get(json_array_get(calls, 0), "function"), "arguments"), rows[i].args);
        json_decref(a);
    }
    for (size_t i = 0; i < COUNT_OF(not); i++) {
        test_api_template(&t, not[i].source);
        if (allows(WIDE ",\"tool_choice\":\"required\"", not[i].says)) fail_msg("%s", not[i].says);
    }
}

/* tool_choice auto: words as the model likes, and once a call has begun it is of its schema, if the tool asks for it. */
static void strict_tools_bind_what_is_called_and_nothing_else(void **state)
{
    (void)state;
#define STRICT                                                                                     \
    ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"strict\":true,\"parameters\":{\"type\":\"object\",\"properties\":{\"a\":{" \
    "\"type\":\"integer\"}},\"required\":[\"a\"],\"additionalProperties\":false}}},{\"type\":\"function\",\"function\":{\"name\":\"g.h\"}}]"
#define DS2(args) "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>" args "<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
    static const struct {
        const char *source, *yes[3], *no[3];
    } rows[] = {
        {"tools<tool_call>",
         {"Words, {\"a\":1}, <tool", "Well.\n" IN("{\"a\":1}") "\nand " IN("{\"a\": 2}"),
          "<tool_call>\n{\"name\": \"g.h\", \"arguments\": {\"any\":[]}}\n</tool_call>"},
         {"Well.\n" IN("{\"a\":\"1\"}"), "<tool_call>\nwords", IN("{}")}},
        {"tools<tool_call><arg_key>",
         {"Words", "x <tool_call>f\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n</tool_call> y",
          "<tool_call>g.h\n<arg_key>any</arg_key>\n<arg_value>1</arg_value>\n</tool_call>"},
         {"x <tool_call>f\n<arg_key>a</arg_key>\n<arg_value>one</arg_value>\n</tool_call>", "<tool_call>f\n</tool_call>", "<tool_call>h\n</tool_call>"}},
        {"tools<tool_call><parameter=",
         {"Words", "x <tool_call>\n<function=f>\n<parameter=a>\n1\n</parameter>\n</function>\n</tool_call>",
          "<tool_call>\n<function=g.h>\n<parameter=b>\n{}\n</parameter>\n</function>\n</tool_call>"},
         {"<tool_call>\n<function=f>\n<parameter=a>\none\n</parameter>\n</function>\n</tool_call>",
          "<tool_call>\n<function=f>\n</function>\n</tool_call>", "<tool_call> "}},
        {"tools[TOOL_CALLS]",
         {"Words", "a [TOOL_CALLS][{\"name\": \"f\", \"arguments\": {\"a\": 1}}, {\"name\": \"g.h\", \"arguments\": {}}]", "[1, [TOOL"},
         {"[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {\"a\": true}}]", "[TOOL_CALLS][]", "[TOOL_CALLS]f"}},
        {"tools[TOOL_CALLS][ARGS]",
         {"Words", "a[TOOL_CALLS]f[ARGS]{\"a\": 1}[TOOL_CALLS]g.h[ARGS]{}", "[TOOL_CALLS]g.h[ARGS]{\"x\":1}"},
         {"[TOOL_CALLS]f[ARGS]{\"x\": 1}", "[TOOL_CALLS]x[ARGS]{}", "a[TOOL_CALLS]"}},
        {"tools<|tool_call|>",
         {"Words", "<|tool_call|>[{\"name\": \"f\", \"arguments\": {\"a\": 1}}]", "x<|tool_call|>[{\"name\": \"g.h\", \"arguments\": {}}]"},
         {"<|tool_call|>[{\"name\": \"f\", \"arguments\": {}}]", "<|tool_call|>x", "<|tool_call|>"}},
        {"tools<function=",
         {"if a < b", "x <function=f>{\"a\": 1}</function>", "<function=g.h>{}</function> y"},
         {"<function=f>{}</function>", "<function=x>{}</function>", "<function="}},
        {"tools<｜tool▁calls▁begin｜>", {"Words", "x" DS2("{\"a\": 1}"), DS2("{\"a\": -1}") "y"},
         {DS2("{}"), "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁begin｜>x"}},
        {"tools<|tool_calls_section_begin|>",
         {"Words", "x<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{\"a\": "
          "1}<|tool_call_end|><|tool_calls_section_end|>", "<|tool"},
         {"<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_calls_section_end|>",
          "<|tool_calls_section_begin|>", "<|tool_calls_section_begin|>x"}},
        {"tools<|tool_list_start|>",
         {"Words", "x <|tool_call_start|>[f(a=1), g.h(b=\"c\")]<|tool_call_end|>", "[f(a=true)]"},
         {"<|tool_call_start|>[f(a=True)]<|tool_call_end|>", "<|tool_call_start|>[]<|tool_call_end|>", "<|tool_call_start|>"}},
        {"tools<|python_tag|>",
         {"Words with {\"a\": 1}", "{\"name\": \"f\", \"parameters\": {\"a\": 1}}", "<|python_tag|>{\"name\": \"g.h\", \"parameters\": {\"x\": 1}}"},
         {"{\"name\": \"f\", \"parameters\": {}}", "Well <|python_tag|>{\"name\": \"f\", \"parameters\": {}}", "{\"any\": 1}"}},
        {"{{ tools }}", {"Words", "{\"name\": \"f\", \"arguments\": {\"a\": 1}}", ""}, {"{\"name\": \"f\", \"arguments\": {}}", " {\"x\": 1}", "[1]"}},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        test_api_template(&t, rows[i].source);
        for (size_t k = 0; k < 3; k++) {
            if (!allows(STRICT, rows[i].yes[k])) fail_msg("%s refuses: %s", rows[i].source, rows[i].yes[k]);
            if (allows(STRICT, rows[i].no[k])) fail_msg("%s allows: %s", rows[i].source, rows[i].no[k]);
        }
    }
    /* without strict nothing is bound; with one call at most, one */
    test_api_template(&t, source);
    json_decref(ask("x", SCHEMAS));
    assert_int_equal(fake_last(t.fake).grammar.kind, GRAMMAR_NONE);
    assert_false(allows(STRICT ",\"parallel_tool_calls\":false", IN("{\"a\":1}") "\n" IN("{\"a\":1}")));
    assert_true(allows(STRICT ",\"parallel_tool_calls\":false", "So: " IN("{\"a\":1}")));
    assert_true(allows(STRICT, "<think>\n<tool_call>?</think>" IN("{\"a\":1}")));
    assert_false(allows(STRICT ",\"response_format\":{\"type\":\"json_object\"}", IN("{}")));
    /* what a schema cannot have is refused, as it is when a call must be made */
    test_api_say(&t, "x", 1);
    json_t *a = test_api_ask(&t, ENDPOINT_CHAT, test_chat,
                             ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"strict\":true,"
                             "\"parameters\":{\"type\":\"object\",\"properties\":{"
                             "\"a\":{\"type\":\"array\",\"uniqueItems\":true}}}}}]", 400);
    assert_string_equal(json_str(json_object_get(a, "error"), "param"), "tools");
    assert_non_null(strstr(json_str(json_object_get(a, "error"), "message"), "tools.0.function.parameters: JSON Schema, #/properties/a/uniqueItems"));
    json_decref(a);
}

static void thoughts_may_stand_before_what_is_asked_for(void **state)
{
    (void)state;
    static const char req[] = SCHEMAS ",\"tool_choice\":\"required\"",
                      open[] = SCHEMAS ",\"tool_choice\":\"required\",\"chat_template_kwargs\":{"
                                       "\"enable_thinking\":\"open\"}",
                      json[] = ",\"response_format\":{\"type\":\"json_object\"}";
    assert_true(allows(req, "<think>\nhm\n</think>\n\n" IN("{\"a\":1}")));
    assert_true(allows(req, IN("{\"a\":1}")));
    assert_false(allows(req, "hm</think>" IN("{\"a\":1}")));
    assert_true(allows(open, "hm <b></think>\n\n" IN("{\"a\":1}")));
    assert_false(allows(open, IN("{\"a\":1}")));
    assert_true(allows(json, "<think>\n2</think>{}"));
    assert_true(allows(json, "{}"));
    json_t *a = ask("<think>2</think>{\"a\":2}", json);
    assert_string_equal(answer_content(a, 0), "{\"a\":2}");
    json_decref(a);
}

static void a_format_leaves_room_for_calls(void **state)
{
    (void)state;
    static const char both[] = SCHEMAS ",\"response_format\":{\"type\":\"json_object\"}";
    assert_true(allows(both, "{\"any\":1}"));
    assert_true(allows(both, IN("{\"b\":\"as in auto mode\"}")));
    assert_false(allows(both, "words"));
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(calls_are_taken_out_of_the_text),  T(a_stream_says_the_same),
        T(without_tools_a_call_is_text),     T(one_call_ends_the_reply_when_asked),
        T(a_reply_cut_short_says_length),    T(thoughts_stand_apart),
        T(the_prompt_may_begin_or_end_them), T(a_template_without_tools_is_told_in_words),
        T(an_escaped_nul_is_a_letter_like_any_other),
        T(arguments_that_are_no_json_are_no_object),
        T(required_calls_are_written_in_the_templates_own_syntax),
        T(the_model_is_shown_the_tools_it_may_call_alone),
        T(arguments_are_of_the_tools_schemas),
        T(arguments_in_tags_are_of_the_schema_and_read_back),
        T(strict_tools_bind_what_is_called_and_nothing_else),
        T(thoughts_may_stand_before_what_is_asked_for),
        T(a_format_leaves_room_for_calls),
    };
    return cmocka_run_group_tests_name("tools", tests, NULL, NULL);
}
