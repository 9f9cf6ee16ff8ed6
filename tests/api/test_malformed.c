/* malformed: every field of every dialect, wrong in every way: a table, multiplied out. Each
 * request is refused with the status and the field at fault; none reaches the service, none is a
 * 500. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "tests/api/support.h"

#include <stdlib.h>
#include <string.h>

/* What a field is, as bits of what is wrong with it. */
enum {
    NO_STR = 1,
    NO_INT = 2,
    NO_REAL = 4,
    NO_BOOL = 8,
    NO_LIST = 16,
    NO_OBJ = 32,
    NUMBER = NO_STR | NO_BOOL | NO_LIST | NO_OBJ,
    INTEGER = NUMBER | NO_REAL,
    FLAG = NO_STR | NO_INT | NO_LIST | NO_OBJ,
    STRING = NO_INT | NO_BOOL | NO_LIST | NO_OBJ,
    LIST = NO_STR | NO_INT | NO_BOOL | NO_OBJ,
    OBJECT = NO_STR | NO_INT | NO_BOOL | NO_LIST,
    STRING_OR_LIST = NO_INT | NO_BOOL | NO_OBJ,
    STRING_OR_OBJECT = NO_INT | NO_BOOL | NO_LIST,
};
static const struct {
    int bit;
    const char *value;
} wrong[] = {{NO_STR, "\"a string\""}, {NO_INT, "7"},       {NO_REAL, "1.5"},
             {NO_BOOL, "true"},        {NO_LIST, "[true]"}, {NO_OBJ, "{\"a\":1}"}};

struct field {
    const char *name;
    int type;
    const char *values; /* more values that are refused, separated by '~' */
};
#define TOO_LONG_SALT                                                                              \
    "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" \
    "aaaaaa"                                                                                       \
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\""
#define COMMON                                                                                     \
    {"temperature", NUMBER, "-0.1"}, {"top_p", NUMBER, "0~1.1"}, {"top_k", INTEGER, "-2"},         \
        {"min_p", NUMBER, "-0.1~1.1"}, {"presence_penalty", NUMBER, "-2.1~2.1"},                   \
        {"frequency_penalty", NUMBER, "-2.1~2.1"}, {"repetition_penalty", NUMBER, "0"},            \
        {"n", INTEGER, "0~9"}, {"max_tokens", INTEGER, "0~-1~100000"},                             \
        {"max_completion_tokens", INTEGER, "0"}, {"min_tokens", INTEGER, "-1~299"},                \
        {"truncate_prompt_tokens", INTEGER, "-2"}, {"priority", INTEGER, NULL},                    \
        {"ignore_eos", FLAG, NULL}, {"stream", FLAG, NULL}, {"return_token_ids", FLAG, NULL},      \
        {"return_tokens_as_token_ids", FLAG, NULL}, {"include_stop_str_in_output", FLAG, NULL},    \
        {"skip_special_tokens", FLAG, NULL}, {"add_special_tokens", FLAG, NULL},                   \
        {"seed", INTEGER, NULL}, {"stop", STRING_OR_LIST, "\"\"~[\"\"]~[[]]"},                     \
        {"stop_token_ids", LIST, "[259]~[-1]~[\"a\"]~[1.5]"},                                      \
        {"logit_bias", OBJECT, "{\"a\":1}~{\"300\":1}~{\"1\":\"x\"}~{\"\":1}"},                    \
        {"stream_options", OBJECT, "{}"}, {"model", STRING, NULL},                                 \
        {"cache_salt", STRING, "\"\"~\"a@b\"~" TOO_LONG_SALT},                                     \
        {"response_format", OBJECT, "{\"type\":\"json_schema\"}~{\"type\":\"nonsense\"}"},         \
        {"user", STRING, NULL}, {"metadata", OBJECT, NULL},                                        \
    {                                                                                              \
        "best_of", INTEGER, "3"                                                                    \
    }

static const struct field chat[] = {
    COMMON,
    {"messages", LIST,
     "[]~[{}]~[[]]~[{\"role\":\"user\"}]~[{\"role\":7,\"content\":\"a\"}]~[{\"role\":\"user\","
     "\"content\":7}]~[{\"role\":\"user\",\"content\":[7]}]~[{\"role\":\"user\",\"content\":[{"
     "\"type\":"
     "\"image_url\"}]}]~[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":[]}]}]~null"},
    {"logprobs", FLAG, NULL},
    {"top_logprobs", INTEGER, "-1~21~3"},
    {"add_generation_prompt", FLAG, NULL},
    {"continue_final_message", FLAG, "true"},
    {"chat_template_kwargs", OBJECT, NULL},
    {"documents", LIST, NULL},
    {"reasoning_effort", STRING, NULL},
    {"include_reasoning", FLAG, NULL},
    {"parallel_tool_calls", FLAG, NULL},
    {"tools", LIST,
     "[]~[{}]~[{\"type\":7}]~[{\"type\":\"web\"}]~[{\"function\":7}]~[{\"function\":{}}]~[{"
     "\"function\":"
     "{\"name\":7}}]~[{\"function\":{\"name\":\"\"}}]~[{\"function\":{\"name\":\"a "
     "b\"}}]~[{\"function\":{"
     "\"name\":\"f\",\"parameters\":7}}]"},
    {"tool_choice", NO_INT | NO_BOOL | NO_LIST, "\"auto\"~\"required\"~{\"type\":\"function\"}"},
    {NULL, 0, NULL},
};
static const struct field completions[] = {
    COMMON,
    {"prompt", NO_BOOL | NO_OBJ | NO_INT | NO_REAL,
     "\"\"~[]~[[]]~[\"\"]~[259]~[-1]~[1,\"a\"]~[[\"a\"]]~[{}]~null"},
    {"logprobs", INTEGER, "-1~21"},
    {"echo", FLAG, NULL},
    {"suffix", 0, "\"a\""},
    {NULL, 0, NULL},
};
static const struct field messages[] = {
    {"max_tokens", INTEGER, "0~-1~100000~null"},
    {"temperature", NUMBER, "-1"},
    {"top_p", NUMBER, "0~2"},
    {"top_k", INTEGER, "-2"},
    {"stop_sequences", NO_INT | NO_BOOL | NO_OBJ, "[\"\"]~[7]"},
    {"stream", FLAG, NULL},
    {"model", STRING, NULL},
    {"thinking", OBJECT | NO_OBJ, NULL},
    {"tools", LIST,
     "[{}]~[{\"type\":\"bash\"}]~[{\"name\":7}]~[{\"name\":\"f\",\"input_schema\":7}]"},
    {"tool_choice", OBJECT | NO_OBJ, "{\"type\":\"any\"}~{\"type\":\"tool\",\"name\":\"g\"}"},
    {"messages", LIST,
     "[]~[{}]~[{\"role\":\"user\"}]~[{\"role\":\"user\",\"content\":[{\"type\":\"image\"}]}]~[{"
     "\"role\":"
     "\"user\",\"content\":[{}]}]~[{\"role\":\"user\",\"content\":[{\"type\":\"tool_result\","
     "\"content\":7}]}]"},
    {NULL, 0, NULL},
};
static const struct field responses[] = {
    {"max_output_tokens", INTEGER, "0~100000"},
    {"temperature", NUMBER, "-1"},
    {"top_p", NUMBER, "0~2"},
    {"stream", FLAG, NULL},
    {"model", STRING, NULL},
    {"user", STRING, NULL},
    {"parallel_tool_calls", FLAG, NULL},
    {"instructions", STRING, NULL},
    {"text", OBJECT, "{\"format\":7}~{\"format\":{}}"},
    {"tools", LIST,
     "[{}]~[{\"type\":\"web_search\"}]~[{\"type\":\"function\"}]~[{\"type\":\"function\","
     "\"name\":\"a b\"}]"},
    {"tool_choice", NO_INT | NO_LIST | NO_BOOL, "\"required\""},
    {"previous_response_id", 0, "\"resp_1\""},
    {"conversation", 0, "\"conv_1\""},
    {"background", 0, "true"},
    {"input", NO_INT | NO_BOOL | NO_OBJ,
     "[]~[7]~[{}]~[{\"role\":\"user\"}]~[{\"type\":\"item_reference\"}]~[{\"role\":\"user\","
     "\"content\":[{"
     "\"type\":\"input_image\"}]}]~null"},
    {NULL, 0, NULL},
};
static const struct field ollama[] = {
    {"messages", LIST, "[]~[{}]~[{\"role\":\"user\",\"content\":\"a\",\"images\":[\"x\"]}]"},
    {"options", OBJECT, NULL},
    {"stream", FLAG, NULL},
    {"think", NO_INT | NO_LIST | NO_OBJ, NULL},
    {"format", NO_INT | NO_LIST | NO_BOOL | NO_STR, NULL},
    {"tools", NO_STR | NO_INT | NO_BOOL | NO_OBJ, "[{}]"},
    {"model", STRING, NULL},
    {NULL, 0, NULL},
};

static const struct dialect {
    enum crd_endpoint ep;
    const char *name;
    const struct field *fields;
    const char *base[3]; /* fields of a good request, in place of which a bad one is put */
    const char *values[3];
    bool no_param; /* errors of this dialect do not name the field apart */
} dialects[] = {
    {ENDPOINT_CHAT, "chat", chat, {"messages"}, {"[{\"role\":\"user\",\"content\":\"a\"}]"}, false},
    {ENDPOINT_COMPLETIONS, "completions", completions, {"prompt"}, {"\"a\""}, false},
    {ENDPOINT_MESSAGES,
     "messages",
     messages,
     {"messages", "max_tokens"},
     {"[{\"role\":\"user\",\"content\":\"a\"}]", "5"},
     false},
    {ENDPOINT_RESPONSES, "responses", responses, {"input"}, {"\"a\""}, false},
    {ENDPOINT_OLLAMA_CHAT,
     "ollama",
     ollama,
     {"messages"},
     {"[{\"role\":\"user\",\"content\":\"a\"}]"},
     true},
};

static struct test_api t;
static int n_rows, n_bad;

static int setup(void **state)
{
    (void)state;
    test_api_open(&t, 0);
    test_api_say(&t, "x", 1);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    test_api_close(&t);
    return 0;
}

static void expect(const struct dialect *d, const char *body, const char *param)
{
    struct outcome o;
    test_api_run(&t, d->ep, body, &o);
    json_t *j = json_loads(buf_str(&o.bytes), 0, NULL), *e = json_object_get(j, "error");
    const char *got = json_str(e, "param");
    bool named = d->no_param ? json_is_string(e) : param ? got && !strcmp(got, param) : !got;
    n_rows++;
    if (o.status != 400 || !named) {
        printf("%s: %s\n  -> %d %s\n", d->name, body, o.status, buf_str(&o.bytes));
        n_bad++;
    }
    json_decref(j);
    outcome_free(&o);
}

static void try_value(const struct dialect *d, const char *name, const char *value, size_t n)
{
    struct buf body = {0};
    buf_printf(&body, "{\"%s\":%.*s", name, (int)n, value);
    for (size_t i = 0; i < COUNT_OF(d->base) && d->base[i]; i++)
        if (strcmp(d->base[i], name)) buf_printf(&body, ",\"%s\":%s", d->base[i], d->values[i]);
    buf_putc(&body, '}');
    expect(d, buf_str(&body), name);
    buf_free(&body);
}

static void try_field(const struct dialect *d, const struct field *f)
{
    for (size_t i = 0; i < COUNT_OF(wrong); i++)
        if (f->type & wrong[i].bit) try_value(d, f->name, wrong[i].value, strlen(wrong[i].value));
    for (const char *p = f->values; p && *p;) {
        size_t n = strcspn(p, "~");
        try_value(d, f->name, p, n);
        p += n + (p[n] == '~');
    }
}

/* Documents that are none, whatever the dialect. */
static void try_documents(const struct dialect *d)
{
    static const char *const bodies[] = {
        "",
        " ",
        "null",
        "7",
        "\"a\"",
        "[]",
        "{",
        "{\"a\"",
        "{\"a\":",
        "{\"a\":1",
        "{\"a\":1,}",
        "{\"a\":1}}",
        "{\"a\":1,\"a\":2}",
        "{'a':1}",
        "{\"a\":01}",
        "{\"a\":nul}",
        "{\"a\":NaN}",
        "{\"a\":1e999}",
        "{\"a\":\"\t\"}",
        "{\"a\":\"\\x\"}",
        "{\"a\":\"\\ud800\"}",
        "{\"a\":\"\xC3\"}",
        "{\"a\":\"\xED\xA0\x80\"}",
        "{\"a\":\"\xF4\x90\x80\x80\"}",
        "\xEF\xBB\xBF{}",
        "{\"a\":\"\\u0000\"}",
        "{\"a\":123456789012345678901234567890}",
    };
    for (size_t i = 0; i < COUNT_OF(bodies); i++) expect(d, bodies[i], NULL);
    struct buf deep = {0};
    for (int i = 0; i < 200; i++) buf_puts(&deep, "{\"a\":");
    expect(d, buf_str(&deep), NULL);
    buf_free(&deep);
}

static void every_wrong_field_is_named(void **state)
{
    (void)state;
    n_rows = n_bad = 0;
    for (size_t i = 0; i < COUNT_OF(dialects); i++) {
        for (const struct field *f = dialects[i].fields; f->name; f++) try_field(&dialects[i], f);
        try_documents(&dialects[i]);
    }
    printf("%d requests\n", n_rows);
    assert_true(n_rows >= 300);
    assert_int_equal(n_bad, 0);
    assert_int_equal(fake_submitted(t.fake), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_wrong_field_is_named, setup, teardown),
    };
    return cmocka_run_group_tests_name("malformed", tests, NULL, NULL);
}
