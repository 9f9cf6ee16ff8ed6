/* generation: what goes in comes out, buffered and streamed alike. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "tests/api/support.h"

#include <stdlib.h>
#include <string.h>

static struct test_api t;

static int setup(void **state)
{
    (void)state;
    test_api_open(&t, 2);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    test_api_close(&t);
    return 0;
}

static void a_chat_is_answered(void **state)
{
    (void)state;
    test_api_say(&t, "Hello there", 11);
    test_api_plan(&t, (struct fake_plan){.n_cached = 5});
    json_t *a = test_api_ask(&t, ENDPOINT_CHAT, test_chat, "", 200);
    assert_string_equal(answer_content(a, 0), "Hello there");
    assert_string_equal(json_str(answer_choice(a, 0), "finish_reason"), "stop");
    assert_true(json_is_null(json_object_get(answer_choice(a, 0), "stop_reason")));
    assert_string_equal(json_str(a, "object"), "chat.completion");
    assert_int_equal(strncmp(json_str(a, "id"), "chatcmpl-", 9), 0);
    json_t *u = json_object_get(a, "usage");
    struct gen_request q = fake_last(t.fake);
    assert_int_equal(json_num(u, "completion_tokens"), 12);
    assert_int_equal(json_num(u, "prompt_tokens"), q.n_prompt);
    assert_int_equal(json_num(u, "total_tokens"), q.n_prompt + 12);
    assert_int_equal(json_num(json_object_get(u, "prompt_tokens_details"), "cached_tokens"), 5);
    assert_int_equal(json_num(json_object_get(a, "timings"), "predicted_n"), 12);
    assert_int_equal(q.prompt[0],
                     TOKEN_IM_START); /* the template's text, parsed with its control tokens */
    assert_int_equal(q.sampling.max_tokens, TEST_CONTEXT - q.n_prompt);
    assert_int_equal(q.tenant, 7);
    json_decref(a);
}

static void completions_take_four_shapes_of_prompt(void **state)
{
    static const struct {
        const char *prompt;
        int n;
        const char *texts[2];
    } cases[] = {
        {"\"abc\"", 1, {"<s>abc"}},
        {"[\"abc\",\"de\"]", 2, {"<s>abc", "<s>de"}},
        {"[65,66]", 1, {"ab"}},
        {"[[65,66],[67]]", 2, {"ab", "c"}},
    };
    (void)state;
    for (size_t k = 0; k < COUNT_OF(cases); k++) {
        char *body =
            xasprintf("{\"prompt\":%s,\"n\":2,\"skip_special_tokens\":false%%s}", cases[k].prompt);
        json_t *a = test_api_ask(&t, ENDPOINT_COMPLETIONS, body, "", 200);
        assert_int_equal(json_array_size(json_object_get(a, "choices")), 2 * cases[k].n);
        assert_string_equal(json_str(a, "object"), "text_completion");
        for (int i = 0; i < 2 * cases[k].n;
             i++) { /* the fake says the prompt; index = prompt * n + choice */
            assert_int_equal(json_num(answer_choice(a, (size_t)i), "index"), i);
            const char *want = cases[k].texts[i / 2], *got = answer_content(a, (size_t)i);
            if (*want == '<')
                assert_string_equal(got, want);
            else
                assert_int_equal(strlen(got), strlen(want));
        }
        json_decref(a);
        free(body);
    }
}

static void the_default_of_completions_is_sixteen_tokens(void **state)
{
    (void)state;
    test_api_say(&t, "0123456789012345678901234567890", 31);
    json_t *a = test_api_ask(&t, ENDPOINT_COMPLETIONS, "{\"prompt\":\"x\"%s}", "", 200);
    assert_string_equal(answer_content(a, 0), "0123456789012345");
    assert_string_equal(json_str(answer_choice(a, 0), "finish_reason"), "length");
    json_decref(a);
    a = test_api_ask(&t, ENDPOINT_COMPLETIONS, "{\"prompt\":\"x\"%s}",
                     ",\"max_tokens\":3,\"max_completion_tokens\":null", 200);
    assert_string_equal(answer_content(a, 0), "012");
    json_decref(a);
}

static void a_stop_string_ends_and_cancels(void **state)
{
    (void)state;
    test_api_say(&t, "one two three four five", 23);
    for (int stream = 0; stream < 2; stream++) {
        int32_t before = fake_cancelled(t.fake);
        json_t *a = test_api_ask(&t, ENDPOINT_CHAT, test_chat,
                                 stream ? ",\"stop\":[\"zzz\",\"thr\"],\"stream\":true,\"stream_"
                                          "options\":{\"include_usage\":true}"
                                        : ",\"stop\":[\"zzz\",\"thr\"]",
                                 200);
        assert_string_equal(answer_content(a, 0), "one two ");
        assert_string_equal(json_str(answer_choice(a, 0), "finish_reason"), "stop");
        assert_string_equal(json_str(answer_choice(a, 0), "stop_reason"), "thr");
        assert_int_equal(json_num(json_object_get(a, "usage"), "completion_tokens"), 11);
        json_decref(a);
        assert_true(fake_cancelled(t.fake) - before <= 1); /* the fake may have been faster */
    }
    json_t *a = test_api_ask(&t, ENDPOINT_CHAT, test_chat,
                             ",\"stop\":\"two\",\"include_stop_str_in_output\":true,\"n\":3", 200);
    for (size_t i = 0; i < 3; i++) assert_string_equal(answer_content(a, i), "one two");
    json_decref(a);
}

static void a_held_back_beginning_of_a_stop_is_not_lost(void **state)
{
    (void)state;
    test_api_say(&t, "abcSTO", 6);
    json_t *a =
        test_api_ask(&t, ENDPOINT_CHAT, test_chat, ",\"stop\":\"STOP\",\"stream\":true", 200);
    assert_string_equal(answer_content(a, 0), "abcSTO");
    json_decref(a);
}

static void a_stop_id_is_told(void **state)
{
    (void)state;
    test_api_say(&t, "abcdef", 6);
    char *more = xasprintf(",\"stop_token_ids\":[%d]", t.said.ids[3]);
    json_t *a = test_api_ask(&t, ENDPOINT_CHAT, test_chat, more, 200);
    assert_string_equal(answer_content(a, 0), "abc");
    assert_int_equal(json_num(answer_choice(a, 0), "stop_reason"), t.said.ids[3]);
    json_decref(a);
    free(more);
    struct gen_request q = fake_last(t.fake);
    assert_int_equal(q.sampling.n_stop_ids, 2);
    assert_int_equal(q.sampling.stop_ids[0], TOKEN_IM_END);
    a = test_api_ask(&t, ENDPOINT_CHAT, test_chat, ",\"ignore_eos\":true,\"max_tokens\":8", 200);
    assert_string_equal(answer_content(a, 0), "abcdefab");
    json_decref(a);
    q = fake_last(t.fake);
    assert_int_equal(q.sampling.n_stop_ids, 0);
}

static void parameters_reach_the_scheduler(void **state)
{
    (void)state;
    json_decref(
        test_api_ask(&t, ENDPOINT_CHAT, test_chat,
                     ",\"temperature\":0.5,\"top_p\":0.25,\"top_k\":-1,\"min_p\":0.125,\"seed\":"
                     "-9223372036854775808,\"n\":2,"
                     "\"presence_penalty\":1,\"frequency_penalty\":-2,\"repetition_penalty\":1."
                     "5,\"logit_bias\":{\"65\":200,\"66\":-1.5},"
                     "\"max_completion_tokens\":9,\"max_tokens\":4,\"min_tokens\":2,"
                     "\"priority\":-3,\"logprobs\":true,\"top_logprobs\":4,"
                     "\"cache_salt\":\"s\",\"model\":\"alias\",\"unknown_field\":{}",
                     200));
    struct gen_request q = fake_last(t.fake);
    const struct sampling *s = &q.sampling;
    assert_true(s->temperature == 0.5f && s->top_p == 0.25f && s->min_p == 0.125f && s->top_k == 0);
    assert_true(s->presence_penalty == 1 && s->frequency_penalty == -2 &&
                s->repetition_penalty == 1.5f);
    assert_true(s->seed == UINT64_C(1) << 63);
    assert_int_equal(s->max_tokens, 9);
    assert_int_equal(s->min_tokens, 2);
    assert_int_equal(s->n_logprobs, 4);
    assert_int_equal(s->n_bias, 2);
    assert_true(s->bias[0].id == 65 && s->bias[0].bias == 100 && s->bias[1].bias == -1.5f);
    assert_int_equal(q.n, 2);
    assert_int_equal(q.priority, -3);
    uint64_t salt = q.cache_salt;
    assert_true(salt != 0);
    json_decref(test_api_ask(&t, ENDPOINT_CHAT, test_chat, ",\"cache_salt\":\"s\"", 200));
    assert_true(fake_last(t.fake).cache_salt == salt);
    uint64_t seed = fake_last(t.fake).sampling.seed;
    json_decref(test_api_ask(&t, ENDPOINT_CHAT, test_chat,
                             ",\"cache_salt\":\"other\",\"temperature\":1e-30", 200));
    q = fake_last(t.fake);
    assert_true(q.cache_salt != salt);
    assert_true(q.sampling.seed != seed); /* drawn anew */
    assert_true(q.sampling.temperature == 0);
}

static void what_a_request_leaves_out_is_the_models(void **state)
{
    (void)state;
    struct sampling own = sampling_default();
    own.temperature = 0.5f, own.top_k = 7, own.repetition_penalty = 1.25f;
    t.api.defaults = &own;
    json_decref(test_api_ask(&t, ENDPOINT_CHAT, test_chat, "", 200));
    struct sampling s = fake_last(t.fake).sampling;
    assert_true(s.temperature == 0.5f && s.top_k == 7 && s.repetition_penalty == 1.25f);
    json_decref(test_api_ask(&t, ENDPOINT_CHAT, test_chat, ",\"temperature\":2,\"top_k\":null,\"repetition_penalty\":1", 200));
    s = fake_last(t.fake).sampling;
    assert_true(s.temperature == 2 && s.top_k == 7 && s.repetition_penalty == 1);
    json_t *a = test_api_ask(&t, ENDPOINT_RESPONSES, "{\"input\":\"hi\"%s}", "", 200);
    assert_true(json_real_value(json_object_get(a, "temperature")) == 0.5);
    assert_true(json_real_value(json_object_get(a, "top_p")) == 1.0);
    json_decref(a);
    t.api.defaults = NULL;
}

static void contents_may_be_parts(void **state)
{
    (void)state;
    json_decref(
        test_api_ask(&t, ENDPOINT_CHAT,
                     "{\"messages\":[{\"role\":\"system\",\"content\":\"S\"},{\"role\":\"user\","
                     "\"name\":\"bob\","
                     "\"content\":[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"text\","
                     "\"text\":\"b\"}]},{\"role\":\"assistant\",\"content\":null,"
                     "\"tool_calls\":[{\"id\":\"1\",\"type\":\"function\",\"function\":{"
                     "\"name\":\"f\",\"arguments\":\"{\\\"x\\\":1}\"}}]},"
                     "{\"role\":\"tool\",\"tool_call_id\":\"1\",\"content\":\"42\"}]%s}",
                     "", 200));
    struct gen_request q = fake_last(t.fake);
    struct buf text = {0};
    eng_tokenizer_decode(t.tokenizer, q.prompt, (size_t)q.n_prompt, true, &text);
    assert_non_null(strstr(buf_str(&text), "<|im_start|>system\nS<|im_end|>"));
    assert_non_null(strstr(buf_str(&text), "<|im_start|>user\na\nb<|im_end|>"));
    assert_non_null(strstr(buf_str(&text), "42"));
    assert_non_null(strstr(buf_str(&text), "<|im_start|>assistant\n"));
    buf_free(&text);
}

static void a_final_message_is_continued(void **state)
{
    (void)state;
    json_decref(
        test_api_ask(&t, ENDPOINT_CHAT,
                     "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\","
                     "\"content\":\"The answer "
                     "is\"}],\"add_generation_prompt\":false,\"continue_final_message\":true%s}",
                     "", 200));
    struct gen_request q = fake_last(t.fake);
    struct buf text = {0};
    eng_tokenizer_decode(t.tokenizer, q.prompt, (size_t)q.n_prompt, true, &text);
    assert_string_equal(buf_str(&text) + text.len - 13, "The answer is");
    buf_free(&text);
}

static void echo_repeats_the_prompt_with_its_logprobs(void **state)
{
    (void)state;
    test_api_say(&t, "XY", 2);
    for (int stream = 0; stream < 2; stream++) {
        json_t *a = test_api_ask(&t, ENDPOINT_COMPLETIONS,
                                 "{\"prompt\":[97,98,99,100],\"echo\":true,\"logprobs\":2,\"n\":2,"
                                 "\"return_token_ids\":true%s}",
                                 stream ? ",\"stream\":true" : "", 200);
        struct buf text = {0};
        const int32_t ids[] = {97, 98, 99, 100};
        eng_tokenizer_decode(t.tokenizer, ids, 4, false, &text);
        buf_puts(&text, "XY");
        for (size_t i = 0; i < 2; i++) {
            json_t *lp = json_object_get(answer_choice(a, i), "logprobs"),
                   *lps = json_object_get(lp, "token_logprobs");
            assert_string_equal(answer_content(a, i), buf_str(&text));
            assert_int_equal(json_array_size(lps), 7); /* 4 of the prompt, X, Y, the end */
            assert_true(json_is_null(json_array_get(lps, 0)));
            assert_true(json_is_null(json_array_get(json_object_get(lp, "top_logprobs"), 0)));
            assert_true(json_real_value(json_array_get(lps, 1)) < 0);
            assert_int_equal(
                json_integer_value(json_array_get(json_object_get(lp, "text_offset"), 4)), 4);
            assert_int_equal(json_array_size(json_object_get(answer_choice(a, i), "token_ids")), 3);
        }
        buf_free(&text);
        json_decref(a);
    }
    assert_int_equal(fake_last(t.fake).sampling.n_prompt_logprobs, 2);
}

static void max_tokens_zero_scores_the_prompt(void **state)
{
    (void)state;
    json_t *a = test_api_ask(
        &t, ENDPOINT_COMPLETIONS,
        "{\"prompt\":\"abc\",\"add_special_tokens\":false,\"echo\":true,\"logprobs\":1,"
        "\"max_tokens\":0%s}",
        "", 200);
    assert_string_equal(answer_content(a, 0), "abc");
    assert_string_equal(json_str(answer_choice(a, 0), "finish_reason"), "length");
    assert_int_equal(json_num(json_object_get(a, "usage"), "completion_tokens"), 0);
    assert_int_equal(json_array_size(json_object_get(
                         json_object_get(answer_choice(a, 0), "logprobs"), "tokens")),
                     3);
    json_decref(a);
}

static void what_bars_and_bends_reaches_the_sampler(void **state)
{
    (void)state;
    json_decref(test_api_ask(
        &t, ENDPOINT_CHAT, test_chat,
        ",\"typical_p\":0.5,\"xtc_probability\":0.25,\"xtc_threshold\":0.125,\"dry_multiplier\":0.75,"
        "\"dry_base\":1.5,\"dry_allowed_length\":3,\"dry_penalty_last_n\":64,\"repeat_penalty\":1.25,"
        "\"repeat_last_n\":32,\"bad_words\":[\"ab\",\"c\"],\"allowed_token_ids\":[5,7],"
        "\"prompt_logprobs\":2,\"thinking_token_budget\":9",
        200));
    struct sampling s = fake_last(t.fake).sampling;
    assert_true(s.typical_p == 0.5f && s.xtc_probability == 0.25f && s.xtc_threshold == 0.125f);
    assert_true(s.dry_multiplier == 0.75f && s.dry_base == 1.5f && s.repetition_penalty == 1.25f);
    assert_true(s.dry_allowed_length == 3 && s.dry_last_n == 64 && s.penalty_last_n == 32);
    assert_int_equal(s.n_breakers, 8); /* the usual four, each with its length */
    assert_memory_equal(s.breakers, "\1\n\1:\1\"\1*", 8);
    assert_true(s.n_allowed == 2 && s.allowed[0] == 5 && s.allowed[1] == 7);
    assert_true(s.n_bad == 5 && s.bad[0] == 2 && s.bad[3] == 1); /* bytes: no other form after a space */
    assert_int_equal(s.n_prompt_logprobs, 2);
    assert_int_equal(s.think_budget, -1); /* this template knows no thoughts */
    test_api_template(&t, "<think></think>{{ messages[0].content }}<think>");
    json_decref(test_api_ask(&t, ENDPOINT_CHAT, test_chat, ",\"thinking_token_budget\":9", 200));
    s = fake_last(t.fake).sampling;
    assert_true(s.think_budget == 9 && s.thinking && s.n_think_close == 8 && !s.n_breakers);
    json_decref(test_api_ask(&t, ENDPOINT_MESSAGES,
                             "{\"max_tokens\":20,\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],"
                             "\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":11}%s}",
                             "", 200));
    assert_int_equal(fake_last(t.fake).sampling.think_budget, 11);
}

static void prompt_logprobs_are_shown_as_known(void **state)
{
    (void)state;
    json_t *a = test_api_ask(&t, ENDPOINT_COMPLETIONS,
                             "{\"prompt\":[97,98,99,100],\"prompt_logprobs\":2%s}", "", 200),
           *list = json_object_get(answer_choice(a, 0), "prompt_logprobs"),
           *second = json_array_get(list, 1), *token = json_object_get(second, "98");
    assert_int_equal(json_array_size(list), 4);
    assert_true(json_is_null(json_array_get(list, 0)));
    assert_string_equal(json_str(token, "decoded_token"), "b");
    assert_true(json_num(token, "rank") >= 1 &&
                json_real_value(json_object_get(token, "logprob")) < 0);
    assert_in_range(json_object_size(second), 2, 3);
    json_decref(a);
    a = test_api_ask(&t, ENDPOINT_CHAT, test_chat, ",\"prompt_logprobs\":0", 200);
    assert_int_equal(json_array_size(json_object_get(a, "prompt_logprobs")),
                     json_num(json_object_get(a, "usage"), "prompt_tokens"));
    json_decref(a);
}

static void chat_logprobs_have_bytes_and_tops(void **state)
{
    (void)state;
    test_api_say(&t, "\xC3\xA9", 2); /* one character, two tokens */
    json_t *a =
        test_api_ask(&t, ENDPOINT_CHAT, test_chat, ",\"logprobs\":true,\"top_logprobs\":2", 200);
    json_t *list = json_object_get(json_object_get(answer_choice(a, 0), "logprobs"), "content"),
           *one = json_array_get(list, 0);
    assert_int_equal(json_array_size(list), 2);
    assert_int_equal(json_integer_value(json_array_get(json_object_get(one, "bytes"), 0)), 0xC3);
    assert_string_equal(json_str(one, "token"), "\xEF\xBF\xBD");
    assert_true((float)json_real_value(json_object_get(one, "logprob")) == -1.0f / 3.0f);
    assert_int_equal(json_array_size(json_object_get(one, "top_logprobs")), 2);
    assert_string_equal(answer_content(a, 0), "\xC3\xA9");
    json_decref(a);
    a = test_api_ask(&t, ENDPOINT_CHAT, test_chat,
                     ",\"logprobs\":true,\"return_tokens_as_token_ids\":true", 200);
    char *name = xasprintf("token_id:%d", t.said.ids[0]);
    list = json_object_get(json_object_get(answer_choice(a, 0), "logprobs"), "content");
    assert_string_equal(json_str(json_array_get(list, 0), "token"), name);
    free(name);
    json_decref(a);
}

static size_t n_entries(json_t *answer, const char *key)
{
    return json_array_size(
        json_object_get(json_object_get(answer_choice(answer, 0), "logprobs"), key));
}

static void the_end_token_is_no_entry_of_a_chat(void **state)
{
    (void)state;
    test_api_say(&t, "ab", 2);
    for (int streamed = 0; streamed < 2; streamed++) {
        char *more = xasprintf(",\"logprobs\":true%s",
                               streamed ? ",\"stream\":true,\"stream_options\":{\"include_usage\":true}" : "");
        json_t *a = test_api_ask(&t, ENDPOINT_CHAT, test_chat, more, 200);
        assert_int_equal(n_entries(a, "content"), 2);
        assert_int_equal(json_num(json_object_get(a, "usage"), "completion_tokens"), 3);
        json_decref(a);
        free(more);
    }
    json_t *a = test_api_ask(&t, ENDPOINT_CHAT, test_chat, /* a stop id that is shown has one */
                             ",\"logprobs\":true,\"stop_token_ids\":[98],\"include_stop_str_in_output\":true", 200);
    assert_int_equal(n_entries(a, "content"), 2);
    json_decref(a);
    a = test_api_ask(&t, ENDPOINT_CHAT, test_chat, ",\"logprobs\":true,\"stop_token_ids\":[98]", 200);
    assert_int_equal(n_entries(a, "content"), 1);
    json_decref(a);
    a = test_api_ask(&t, ENDPOINT_COMPLETIONS, "{\"prompt\":\"x\"%s}", ",\"logprobs\":0", 200);
    assert_int_equal(n_entries(a, "tokens"), 3);
    json_decref(a);
    t.said.n = 1; /* an answer of nothing has a list of nothing */
    t.said.ids[0] = TOKEN_IM_END;
    test_api_plan(&t, (struct fake_plan){0});
    a = test_api_ask(&t, ENDPOINT_CHAT, test_chat, ",\"logprobs\":true", 200);
    assert_true(json_is_array(
        json_object_get(json_object_get(answer_choice(a, 0), "logprobs"), "content")));
    assert_int_equal(n_entries(a, "content"), 0);
    json_decref(a);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_chat_is_answered),
        CASE(completions_take_four_shapes_of_prompt),
        CASE(the_default_of_completions_is_sixteen_tokens),
        CASE(a_stop_string_ends_and_cancels),
        CASE(a_held_back_beginning_of_a_stop_is_not_lost),
        CASE(a_stop_id_is_told),
        CASE(parameters_reach_the_scheduler),
        CASE(what_a_request_leaves_out_is_the_models),
        CASE(contents_may_be_parts),
        CASE(a_final_message_is_continued),
        CASE(echo_repeats_the_prompt_with_its_logprobs),
        CASE(max_tokens_zero_scores_the_prompt),
        CASE(what_bars_and_bends_reaches_the_sampler),
        CASE(prompt_logprobs_are_shown_as_known),
        CASE(chat_logprobs_have_bytes_and_tops),
        CASE(the_end_token_is_no_entry_of_a_chat),
    };
    return cmocka_run_group_tests_name("generation", tests, NULL, NULL);
}
