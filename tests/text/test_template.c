/* Chat templates: what Python's Jinja2 renders, for a table of small cases and for the shared
 * templates. */
#include "engine/text/template.h"
#include "tests/text/support.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { NOW = 1722256496 }; /* 2024-07-29 12:34:56 */

static enum err render(const char *source, json_t *context, struct buf *out)
{
    struct eng_template *t = NULL;
    enum err rc = eng_template_compile(&t, source, strlen(source));
    if (!rc) rc = eng_template_render(t, context, NOW, out);
    eng_template_close(t);
    return rc;
}

struct small {
    const char *source, *want;
};

#include "tests/text/template_cases.h"

static const char context_text[] =
    "{\"a\": 1, \"f\": 2.5, \"s\": \"Hello\", \"u\": \"h\\u00e9\\u4e00\", \"n\": null, \"t\": true,"
    " \"l\": [3, 1, 2], \"d\": {\"k\": \"v\", \"items\": 5, \"z\": [1, {\"q\": \"'\"}]},"
    " \"ms\": [{\"role\": \"user\", \"content\": \" hi \"}, {\"role\": \"bot\", \"content\": "
    "\"yo\", \"x\": {\"y\": 7}}]}";

static void small_cases_render_as_in_python(void **s)
{
    json_t *context = json_loads(context_text, 0, NULL);
    int bad = 0;
    (void)s;
    assert_non_null(context);
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct buf out = {0};
        enum err rc = render(cases[i].source, context, &out);
        const char *got = rc ? err_text() : buf_str(&out);
        bool error = !strncmp(cases[i].want, "ERROR", 5);
        if (error ? rc == OK : rc || strcmp(got, cases[i].want)) {
            printf("template: %s\n  got:  %s\n  want: %s\n", cases[i].source, got, cases[i].want);
            bad++;
        }
        buf_free(&out);
    }
    printf("%zu cases\n", COUNT_OF(cases));
    json_decref(context);
    assert_int_equal(bad, 0);
}

/* The text of a golden's template: a .jinja file, or the chat_template of a tokenizer_config.json.
 */
static char *template_text(const char *name)
{
    char path[300];
    size_t n;
    snprintf(path, sizeof path, "data/%s", name);
    if (!strstr(name, ".json")) return shared_read(path, &n);
    json_t *config = shared_json(path);
    char *text =
        config ? xstrdup(json_string_value(json_object_get(config, "chat_template"))) : NULL;
    json_decref(config);
    return text;
}

static bool check_golden(json_t *g)
{
    char path[300];
    const char *name = json_string_value(json_object_get(g, "template"));
    const char *context_name = json_string_value(json_object_get(g, "context"));
    const char *want = json_string_value(json_object_get(g, "rendered"));
    const char *error = json_string_value(json_object_get(g, "expect_error"));
    struct buf out = {0};
    if (error && !strncmp(error, "TemplateError: ", 15)) error += 15; /* the exception's class */
    snprintf(path, sizeof path, "data/templates/contexts/%s.json", context_name);
    char *source = template_text(name);
    json_t *context = shared_json(path);
    assert_non_null(source);
    assert_non_null(context);
    enum err rc = render(source, context, &out);
    bool ok = error ? rc == ERR_BAD_REQUEST && !strcmp(err_text(), error)
                    : !rc && !strcmp(buf_str(&out), want);
    if (!ok)
        printf("%s with %s\n--- got\n%s\n--- want\n%s\n", name, context_name,
               rc ? err_text() : buf_str(&out), error ? error : want);
    buf_free(&out);
    json_decref(context);
    free(source);
    return ok;
}

static void shared_templates_render_as_in_python(void **s)
{
    size_t n;
    int count = 0, bad = 0;
    char *lines = shared_read("data/templates/golden_jinja2.jsonl", &n), *save = NULL;
    (void)s;
    if (!lines) skip();
    for (char *line = strtok_r(lines, "\n", &save); line;
         line = strtok_r(NULL, "\n", &save), count++) {
        json_t *g = json_loads(line, 0, NULL);
        assert_non_null(g);
        bad += !check_golden(g);
        json_decref(g);
    }
    printf("%d goldens, %d differ\n", count, bad);
    free(lines);
    assert_true(count > 200);
    assert_int_equal(bad, 0);
}

static enum err render_error(const char *source)
{
    json_t *context = json_object();
    struct buf out = {0};
    enum err rc = render(source, context, &out);
    assert_int_equal(out.len, 0); /* nothing on failure */
    buf_free(&out);
    json_decref(context);
    return rc;
}

static void bad_templates_are_refused_with_the_line(void **s)
{
    static const struct {
        const char *source;
        enum err rc;
        const char *says;
    } bad[] = {
        {"a\nb{% if x %}", ERR_BAD_FILE, "line 2"},
        {"{{ 1 + }}", ERR_BAD_FILE, "expression"},
        {"{% endif %}", ERR_BAD_FILE, "closing"},
        {"{{ 'a }}", ERR_BAD_FILE, "string"},
        {"{# x", ERR_BAD_FILE, "comment"},
        {"{% raw %}x", ERR_BAD_FILE, "raw"},
        {"{{ a", ERR_BAD_FILE, "'{{'"},
        {"{{ (1] }}", ERR_BAD_FILE, "bracket"},
        {"{% break %}", ERR_BAD_FILE, "loop"},
        {"{% include 'x' %}", ERR_UNSUPPORTED, "include"},
        {"{{ 1|nope }}", ERR_UNSUPPORTED, "nope"},
        {"{{ 1 is nope }}", ERR_UNSUPPORTED, "nope"},
        {"{% for x in y recursive %}{% endfor %}", ERR_UNSUPPORTED, "recursive"},
        {"{{ \xC2\xA7 $ }}", ERR_BAD_FILE, "0x24"},
        {"{% macro %}{% endmacro %}", ERR_BAD_FILE, "name"},
    };
    (void)s;
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        enum err rc = render_error(bad[i].source);
        if (rc != bad[i].rc || !strstr(err_text(), bad[i].says))
            fail_msg("%s: %d %s", bad[i].source, rc, err_text());
    }
}

static void every_bound_holds(void **s)
{
    static const char *const endless[] = {
        "{% for i in range(9999999999) %}{% endfor %}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ 'aaaaaaaaaa' * 999999999 }}",
        "{{ [0] * 999999999999 }}",
        "{% set ns = namespace(s='aaaaaaaa') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s "
        "%}{% endfor %}",
        "{% set l = [] %}{{ l.append(l) }}{{ l }}",
        "{% set l = [] %}{{ l.append(l) }}{{ l|tojson }}",
        "{% set l = [] %}{{ l.append(l) }}{{ l == [l] }}",
        "{{ 'x'|center(99999999999) }}",
        "{{ 'x'|indent(99999999999, true) }}",
        "{{ 'a'|replace('', 'aaaaaaaaaaaaaaaaa' * 9999999) }}",
        "{% set ns = namespace(l=[1]) %}{% for i in range(99) %}{% set ns.l = [ns.l, ns.l] %}{% "
        "endfor %}{{ ns.l }}",
    };
    (void)s;
    for (size_t i = 0; i < COUNT_OF(endless); i++) {
        enum err rc = render_error(endless[i]);
        if (rc != ERR_TOO_LONG) fail_msg("%s: %d %s", endless[i], rc, err_text());
    }
}

static void nesting_is_bounded_at_compile_time(void **s)
{
    static const char *const deep[][2] = {{"(", ")"},   {"[", "]"},   {"-", ""},
                                          {"not ", ""}, {"{1:", "}"}, {"a(", ")"}};
    (void)s;
    for (size_t i = 0; i < COUNT_OF(deep); i++) {
        struct buf b = {0};
        buf_puts(&b, "{{ ");
        for (int k = 0; k < 5000; k++) buf_puts(&b, deep[i][0]);
        buf_puts(&b, "1");
        for (int k = 0; k < 5000; k++) buf_puts(&b, deep[i][1]);
        buf_puts(&b, " }}");
        assert_int_equal(render_error(buf_str(&b)), ERR_BAD_FILE);
        buf_clear(&b);
        for (int k = 0; k < 5000; k++) buf_puts(&b, "{% if 1 %}");
        assert_int_equal(render_error(buf_str(&b)), ERR_BAD_FILE);
        buf_clear(&b);
        buf_puts(&b, "{{ 1");
        for (int k = 0; k < 5000; k++) buf_puts(&b, " + 1");
        buf_puts(&b, " }}");
        assert_int_equal(render_error(buf_str(&b)), ERR_TOO_LONG);
        buf_free(&b);
    }
}

static void raise_exception_is_the_error_text(void **s)
{
    (void)s;
    assert_int_equal(render_error("{{ raise_exception('Roles must alternate!') }}"),
                     ERR_BAD_REQUEST);
    assert_string_equal(err_text(), "Roles must alternate!");
    assert_int_equal(render_error("\n{{ nothing.x }}"), ERR_BAD_REQUEST);
    assert_string_equal(err_text(), "chat template, line 2: 'nothing' is undefined");
}

/* A filter of llama.cpp's templates for DeepSeek V3.2 and others: arguments of calls as text. */
static void from_json_opens_texts(void **s)
{
    json_t *context = json_pack("{s:s}", "a", "{\"city\": \"Z\\u00fcrich\", \"n\": [1, 2.5, null, true]}");
    struct buf out = {0};
    (void)s;
    assert_int_equal(render("{% set d = a | from_json %}{% for k, v in d.items() %}{{ k }}={{ v | tojson }};{% endfor %}{{ '7' | from_json + 1 }}",
                            context, &out), OK);
    assert_string_equal(buf_str(&out), "city=\"Z\xC3\xBCrich\";n=[1, 2.5, null, true];8");
    buf_clear(&out);
    assert_int_equal(render("{{ '{' | from_json }}", context, &out), ERR_BAD_REQUEST);
    assert_non_null(strstr(err_text(), "from_json: no JSON: '{'"));
    assert_int_equal(render("{% set t = '[' ~ '1,' * 100000 ~ '1]' %}{% for i in range(1000) %}{% set x = t | from_json %}{% endfor %}",
                            context, &out), ERR_TOO_LONG);
    buf_free(&out);
    json_decref(context);
}

static void builtin_templates_render(void **s)
{
    static const char *const names[] = {"chatml", "llama-2", "llama-3", "mistral",
                                        "zephyr", "phi-3",   "gemma",   "vicuna"};
    json_t *c = json_loads(
        "{\"bos_token\": \"<s>\", \"eos_token\": \"</s>\", \"add_generation_prompt\": true, "
        "\"messages\": ["
        "{\"role\": \"system\", \"content\": \"S\"}, {\"role\": \"user\", \"content\": \"U\"}]}",
        0, NULL);
    (void)s;
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        struct buf out = {0};
        assert_non_null(eng_template_builtin(names[i]));
        if (render(eng_template_builtin(names[i]), c, &out))
            fail_msg("%s: %s", names[i], err_text());
        assert_non_null(strstr(buf_str(&out), "U"));
        assert_non_null(strstr(buf_str(&out), "S"));
        if (!i)
            assert_string_equal(buf_str(&out), "<|im_start|>system\nS<|im_end|>\n<|im_start|>"
                                               "user\nU<|im_end|>\n<|im_start|>assistant\n");
        if (i == 1)
            assert_string_equal(buf_str(&out), "<s>[INST] <<SYS>>\nS\n<</SYS>>\n\nU [/INST]");
        buf_free(&out);
    }
    assert_null(eng_template_builtin("none"));
    json_decref(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_cases_render_as_in_python),
        cmocka_unit_test(shared_templates_render_as_in_python),
        cmocka_unit_test(bad_templates_are_refused_with_the_line),
        cmocka_unit_test(every_bound_holds),
        cmocka_unit_test(nesting_is_bounded_at_compile_time),
        cmocka_unit_test(raise_exception_is_the_error_text),
        cmocka_unit_test(from_json_opens_texts), cmocka_unit_test(builtin_templates_render),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
