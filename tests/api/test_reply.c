/* reply: text -> thoughts, content, calls; the same however the text was cut into pieces. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/rng.h"
#include "coordinator/api/reply.h"
#include "tests/support/env.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define THINK       "<think> </think>"
#define HERMES      "tools <tool_call>" THINK
#define BARE        "tools"
#define LLAMA       "tools <|python_tag|>"
#define MISTRAL     "tools [TOOL_CALLS]"
#define GRANITE     "tools <|tool_call|>"
#define DEEPSEEK    "tools <｜tool▁calls▁begin｜>" THINK
#define KIMI        "tools <|tool_calls_section_begin|>"
#define GLM "tools<tool_call><arg_key>"
#define CODER "tools<tool_call><parameter="
#define LFM2 "tools<|tool_list_start|>"
#define PY(x) "<|tool_call_start|>" x "<|tool_call_end|>"
#define FUNCTIONARY "tools <function="
#define DS(x)       "<｜tool▁call▁begin｜>" x "<｜tool▁call▁end｜>"
#define DS_ALL(x)   "<｜tool▁calls▁begin｜>" x "<｜tool▁calls▁end｜>"

/* What a template's text shows, what the model says, and what that is: thoughts|content|calls. */
static const struct row {
    const char *source, *says, *is;
} rows[] = {
    {HERMES, "Hello, world.", "|Hello, world.|"},
    {HERMES, "  Hello <b> \n", "|  Hello <b> \n|"},
    {HERMES, "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"}\\\"{\"}}\n</tool_call>",
     "||f({\"a\": \"}\\\"{\"})"},
    {HERMES, "Wait.\n\n<tool_call>{\"arguments\":[1,{\"x\":2}],\"name\":\"g-1.b\"}</tool_call>\n",
     "|Wait.|g-1.b([1,{\"x\":2}])"},
    {HERMES,
     "<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>\n<tool_call>{\"name\":\"g\"}</tool_"
     "call>Done.",
     "|Done.|f({})g({})"},
    {HERMES,
     "<tool_call>{\"name\":\"f\",\"arguments\":\"{\\\"q\\\": \\\"\\u00e9\\\"}\"}</tool_call>",
     "||f({\"q\": \"é\"})"},
    {HERMES, "<tool_call>{\"name\":\"f\",\"arguments\":null}</tool_call>", "||f({})"},
    {HERMES,
     "<tool_call>{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"b\":"
     "1.5}}}</tool_call>",
     "||f({\"b\":1.5})"},
    {HERMES, "<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":1}</tool_call> more",
     "| more|f({\"a\":1})"},
    {HERMES, "<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":[1", "||f({\"a\":[1)?"},
    {HERMES, "a <tool_call>not JSON</tool_call> b", "|a <tool_call>not JSON</tool_call> b|"},
    {HERMES, "<tool_call>{\"x\" 1}</tool_call>", "|<tool_call>{\"x\" 1}</tool_call>|"},
    {HERMES, "a <tool_ca", "|a <tool_ca|"},
    {HERMES, "x <tool_call>{\"na", "|x <tool_call>{\"na|"},
    {HERMES, "<tool_call></tool_call>", "|<tool_call></tool_call>|"},
    {HERMES, "{\"name\":\"f\",\"arguments\":{}}", "|{\"name\":\"f\",\"arguments\":{}}|"},
    {HERMES, "<<tool_call>{\"name\":\"f\"}</tool_call>", "|<|f({})"},
    {HERMES, "<tool_call>f\n<arg_key>k</arg_key>{\"a\":1}</tool_call>",
     "|<tool_call>f\n<arg_key>k</arg_key>{\"a\":1}</tool_call>|"},
    /* thoughts */
    {HERMES, "<think>\nHm, <b>.\n</think>\n\nYes.", "Hm, <b>.|Yes.|"},
    {HERMES, "\n<think>\n\n</think>\n\n", "||"},
    {HERMES, "<think>so</think><tool_call>{\"name\":\"f\"}</tool_call>", "so||f({})"},
    {HERMES, "<think><tool_call>{\"name\":\"f\"}</tool_call></think>a",
     "<tool_call>{\"name\":\"f\"}</tool_call>|a|"},
    {HERMES, "<think>never ends <", "never ends <||"},
    {HERMES, "the <think> tag</think>", "|the <think> tag</think>|"},
    {HERMES, "<think>a</think>b</think>c<think>", "a|b</think>c<think>|"},
    {"+" HERMES, "so it is\n</think>\n\nYes.", "so it is|Yes.|"},
    {"+" HERMES, "<think>so</think>Yes.", "so|Yes.|"},
    /* bare JSON */
    {LLAMA, "{\"name\": \"f\", \"parameters\": {\"a\": \"b\"}}", "||f({\"a\": \"b\"})"},
    {LLAMA, "{\"name\":\"f\",\"parameters\":{}}; {\"name\":\"g\",\"parameters\":{\"x\":1}}",
     "||f({})g({\"x\":1})"},
    {LLAMA, "<|python_tag|>{\"type\":\"function\",\"name\":\"f\",\"parameters\":{}}", "||f({})"},
    {LLAMA, "{\"name\":\"Anna\",\"age\":31}", "|{\"name\":\"Anna\",\"age\":31}|"},
    {LLAMA, "{\"age\":31}", "|{\"age\":31}|"},
    {LLAMA, "{}", "|{}|"},
    {LLAMA, "[1,2]", "|[1,2]|"},
    {LLAMA, "Take {\"name\":\"f\",\"parameters\":{}}", "|Take {\"name\":\"f\",\"parameters\":{}}|"},
    {BARE, " [{\"name\":\"f\",\"arguments\":{\"a\":[]}}, {\"name\":\"g\",\"arguments\":{}}]\n",
     "||f({\"a\":[]})g({})"},
    {BARE, "{\"name\":\"f\"", "||f()?"},
    {BARE, "{\"name\":", "|{\"name\":|"},
    /* the others */
    {MISTRAL,
     "[TOOL_CALLS][{\"name\":\"f\",\"arguments\":{\"a\":1}},{\"name\":\"g\",\"arguments\":"
     "{}}]",
     "||f({\"a\":1})g({})"},
    {MISTRAL, "[TOOL_CALLS] [{\"name\":\"f\",\"arguments\":{\"a\":1}, \"id\":\"123456789\"}]",
     "||f({\"a\":1})"},
    {MISTRAL, "Sure.[TOOL_CALLS]f[ARGS]{\"a\":1}[TOOL_CALLS]g[CALL_ID]abcdefghi[ARGS]{}",
     "|Sure.|f({\"a\":1})g({})"},
    {GRANITE, "<|tool_call|>[{\"name\":\"f\",\"arguments\":{\"a\":1}}]", "||f({\"a\":1})"},
    {DEEPSEEK,
     "Let me see." DS_ALL(DS("function<｜tool▁sep｜>f\n```json\n{\"a\":1}\n```") "\n" DS(
         "function<｜tool▁sep｜>g\n```json\n{}\n```")) " Good.",
     "|Let me see. Good.|f({\"a\":1})g({})"},
    {DEEPSEEK,
     "<think>hm</think>" DS_ALL(DS("f<｜tool▁sep｜>{\"a\":\"<｜\"}") DS("g<｜tool▁sep｜>{}")),
     "hm||f({\"a\":\"<｜\"})g({})"},
    {KIMI,
     "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{"
     "\"a\":1}<|tool_call_end|><|tool_call_begin|>functions.g:1<|tool_call_argument_begin|>{}<|"
     "tool_call_end|><|tool_calls_section_end|>",
     "||f({\"a\":1})g({})"},
    {FUNCTIONARY, "<function=f>{\"a\":1}</function><function=g>{}</function>",
     "||f({\"a\":1})g({})"},
    {GLM, "<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n<arg_key>s</arg_key>\n<arg_value>x "
     "\"y\"</arg_value>\n</tool_call>\n<tool_call>g\n</tool_call>",
     "||f({\"a\": 1, \"s\": \"x \\\"y\\\"\"})g({})"},
    {GLM, "So: <tool_call>f</tool_call> well", "|So: well|f({})"},
    {GLM, "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>", "||f({\"a\": 1})"},
    {GLM, "<tool_call>f <b>", "|<tool_call>f <b>|"},
    {GLM, "<tool_call>f <b></tool_call> no", "|<tool_call>f <b></tool_call> no|"},
    {CODER, "<tool_call>\n<function=f>\n<parameter=a>\n[1, 2]\n</parameter>\n<parameter=s>\na\nb\n</parameter>\n</function>\n</tool_call>",
     "||f({\"a\": [1, 2], \"s\": \"a\\nb\"})"},
    {CODER, "<tool_call>\n<function=f>\n<parameter=s>\n\nx\n\n</parameter>\n</function>\n</tool_call>", "||f({\"s\": \"\\nx\\n\"})"},
    {CODER, "<tool_call>\n<function=f>\n</function>", "||f({})"},
    {CODER, "<tool_call>\n<function=f>\n<parameter=s>\nx", "|<tool_call>\n<function=f>\n<parameter=s>\nx|"},
    {FUNCTIONARY, "if a <function= b>", "|if a <function= b>|"},
    {LFM2, "Let me see. " PY("[f(a=1, s=\"x, \\\"y\\\")\"), g()]") " Done.", "|Let me see. Done.|f({\"a\": 1, \"s\": \"x, \\\"y\\\")\"})g({})"},
    {LFM2, PY("[f(l=[1, 'b', (True, None)], d={'k': -1.5e3, \"j\": {}}, e=False,)]"),
     "||f({\"l\": [1, \"b\", [true, null]], \"d\": {\"k\": -1.5e3, \"j\": {}}, \"e\": false})"},
    {LFM2, PY("f(s='it\\'s \\u00e9\\x41\\n', t=\"\\ud83d\\ude00\")"), "||f({\"s\": \"it's \xC3\xA9" "A\\n\", \"t\": \"\xF0\x9F\x98\x80\"})"},
    {LFM2, PY("[{\"name\": \"f\", \"arguments\": {\"a\": 1}}, {\"name\": \"g\", \"arguments\": {}}]"), "||f({\"a\": 1})g({})"},
    {LFM2, "<|tool_call_start|>[f(a=1)]", "||f({\"a\": 1})"},
    {LFM2, "a " PY("[f(1)]") " b", "|a " PY("[f(1)]") " b|"},
    {LFM2, PY("[f(a=1, a=2)]"), "|" PY("[f(a=1, a=2)]") "|"},
    {LFM2, PY("[f(a=1), 2]"), "|" PY("[f(a=1), 2]") "|"},
    {LFM2, PY("[f(s='\\ud800')]"), "|" PY("[f(s='\\ud800')]") "|"},
    {LFM2, PY("[f(a=[[[]"), "|" PY("[f(a=[[[]") "|"},
    {LFM2, PY(""), "|" PY("") "|"},
};

static struct crd_reply *open_for(const struct row *row, json_t *tools)
{
    bool thinking = row->source[0] == '+';
    struct crd_style s = crd_style_of(row->source + thinking);
    struct crd_reply_conf c = {
        .calls = s.calls, .think = s.think, .thinking = thinking, .tools = tools};
    return crd_reply_open(&c);
}

/* Pieces end where cut(i) says. What leaves with each is put together, as a client would. */
static char *read_in_pieces(const struct row *row, json_t *tools, uint64_t seed, int mode)
{
    struct crd_reply *r = open_for(row, tools);
    struct crd_said said = {0};
    struct buf out = {0}, args[8] = {0}, text = {0}, thoughts = {0};
    size_t n = strlen(row->says), from = 0;
    for (size_t i = 1; i <= n + 1; i++) {
        bool cut = i >= n || mode == 1 || (mode == 2 && rng_at(seed, i, 0, 0) % 4 == 0);
        if (!cut) continue;
        if (i > n)
            crd_reply_finish(r, &said);
        else
            assert_false(crd_reply_push(r, row->says + from, i - from, &said));
        from = i;
        buf_put(&text, buf_str(&said.text), said.text.len);
        buf_put(&thoughts, buf_str(&said.thoughts), said.thoughts.len);
        buf_clear(&said.text);
        buf_clear(&said.thoughts);
        for (int32_t k = 0; k < said.n_calls; k++) {
            buf_put(&args[k], buf_str(&said.calls[k].args), said.calls[k].args.len);
            buf_clear(&said.calls[k].args);
        }
    }
    buf_printf(&out, "%s|%s|", buf_str(&thoughts), buf_str(&text));
    for (int32_t k = 0; k < said.n_calls; k++) {
        buf_printf(&out, "%s(%s)%s", said.calls[k].name, buf_str(&args[k]),
                   said.calls[k].complete ? "" : "?");
        buf_free(&args[k]);
    }
    buf_free(&text);
    buf_free(&thoughts);
    crd_said_free(&said);
    crd_reply_close(r);
    return buf_take(&out);
}

static json_t *offered(void)
{
    return json_pack("[{s:{s:s}},{s:{s:s}}]", "function", "name", "f", "function", "name", "g");
}

static void every_row_is_understood(void **state)
{
    json_t *tools = offered();
    int failed = 0;
    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        char *got = read_in_pieces(&rows[i], tools, 0, 0);
        if (strcmp(got, rows[i].is)) {
            printf("row %zu: %s\n  want %s\n  got  %s\n", i, rows[i].says, rows[i].is, got);
            failed++;
        }
        free(got);
    }
    json_decref(tools);
    assert_int_equal(failed, 0);
}

static void any_pieces_give_the_same(void **state)
{
    json_t *tools = offered();
    uint64_t seed = test_seed();
    int failed = 0;
    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        for (uint64_t k = 0; k < 60; k++) {
            char *got = read_in_pieces(&rows[i], tools, seed + k, k ? 2 : 1);
            if (strcmp(got, rows[i].is)) {
                printf("row %zu cut %llu: %s\n", i, (unsigned long long)k, got);
                failed++;
            }
            free(got);
        }
    json_decref(tools);
    assert_int_equal(failed, 0);
}

/* Rows cut, joined and damaged at random: whole or in pieces, the same. */
static void damaged_replies_too(void **state)
{
    json_t *tools = offered();
    uint64_t seed = test_seed();
    (void)state;
    for (uint64_t i = 0; i < 3000; i++) {
        const struct row *a = &rows[rng_at(seed, i, 1, 0) % COUNT_OF(rows)],
                         *b = &rows[rng_at(seed, i, 2, 0) % COUNT_OF(rows)];
        struct buf says = {0};
        buf_puts(&says, a->says);
        buf_puts(&says, b->says);
        for (uint64_t k = 0; k < rng_at(seed, i, 3, 0) % 4; k++) {
            uint64_t r = rng_at(seed, i, 4, k);
            says.data[r % says.len] = (uint8_t) "{}[]\",:<>|\\ fa\n"[(r >> 32) % 15];
        }
        struct row row = {a->source, buf_str(&says), NULL};
        char *whole = read_in_pieces(&row, tools, 0, 0), *bytes = read_in_pieces(&row, tools, 0, 1),
             *pieces = read_in_pieces(&row, tools, seed + i, 2);
        if (strcmp(whole, bytes) || strcmp(whole, pieces)) printf("%s\n", row.says);
        assert_string_equal(whole, bytes);
        assert_string_equal(whole, pieces);
        free(whole);
        free(bytes);
        free(pieces);
        buf_free(&says);
    }
    json_decref(tools);
}

static void a_first_call_can_be_the_last(void **state)
{
    struct crd_style s = crd_style_of(HERMES);
    struct crd_reply_conf c = {.calls = s.calls, .one_call = true};
    struct crd_reply *r = crd_reply_open(&c);
    struct crd_said said = {0};
    static const char text[] = "<tool_call>{\"name\":\"f\"}</tool_call><tool_call>{\"name\":\"g\"}";
    (void)state;
    assert_true(crd_reply_push(r, text, sizeof text - 1, &said));
    crd_reply_finish(r, &said);
    assert_int_equal(said.n_calls, 1);
    assert_int_equal(said.text.len, 0);
    crd_said_free(&said);
    crd_reply_close(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_is_understood),
        cmocka_unit_test(any_pieces_give_the_same),
        cmocka_unit_test(damaged_replies_too),
        cmocka_unit_test(a_first_call_can_be_the_last),
    };
    return cmocka_run_group_tests_name("reply", tests, NULL, NULL);
}
