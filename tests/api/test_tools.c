/* tools, thoughts: a model that calls functions and thinks aloud, streamed and whole. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "tests/api/support.h"

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
                     t.said.n + 1);
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

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(calls_are_taken_out_of_the_text),  T(a_stream_says_the_same),
        T(without_tools_a_call_is_text),     T(one_call_ends_the_reply_when_asked),
        T(a_reply_cut_short_says_length),    T(thoughts_stand_apart),
        T(the_prompt_may_begin_or_end_them), T(a_template_without_tools_is_told_in_words),
    };
    return cmocka_run_group_tests_name("tools", tests, NULL, NULL);
}
