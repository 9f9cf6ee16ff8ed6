/* tool templates: what a published chat template writes for an assistant's calls is what its model writes; the style recognised from the
 * template reads it back, whole and byte by byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "coordinator/api/reply.h"
#include "engine/text/template.h"
#include "tests/text/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static json_t *call(const char *id, const char *name, json_t *args)
{
    return json_pack("{s:s,s:s,s:{s:s,s:o}}", "id", id, "type", "function", "function", "name", name, "arguments", args);
}

/* Two calls, or one for templates that refuse more. */
static json_t *conversation(int n_calls)
{
    json_t *calls = json_array(), *user = json_pack("{s:s,s:s}", "role", "user", "content", "hi"), *tools, *context;
    json_array_append_new(calls, call("abcdefgh1", "get_it", json_pack("{s:i,s:s}", "a", 1, "s", "\xC3\xA9 \"<x>\"")));
    if (n_calls > 1) json_array_append_new(calls, call("abcdefgh2", "put_it", json_pack("{s:[b]}", "list", 1)));
    tools = json_loads("[{\"type\":\"function\",\"function\":{\"name\":\"get_it\",\"description\":\"d\",\"parameters\":{\"type\":\"object\","
                       "\"properties\":{\"a\":{\"type\":\"integer\",\"description\":\"a\"},\"s\":{\"type\":\"string\",\"description\":\"s\"}},"
                       "\"required\":[\"a\"]}}},{\"type\":\"function\",\"function\":{\"name\":\"put_it\",\"description\":\"d\",\"parameters\":{"
                       "\"type\":\"object\",\"properties\":{\"list\":{\"type\":\"array\",\"description\":\"l\"}},\"required\":[]}}}]", 0, NULL);
    context = json_pack("{s:[o,{s:s,s:s,s:o}],s:o,s:s,s:s}", "messages", user, "role", "assistant", "content", "", "tool_calls", calls, "tools",
                        tools, "bos_token", "", "eos_token", "<EOS>");
    return context;
}

static char *render(const struct eng_template *t, json_t *context, bool prompt)
{
    struct buf out = {0};
    json_object_set_new(context, "add_generation_prompt", json_boolean(prompt));
    enum err rc = eng_template_render(t, context, 1722256496, &out);
    if (!rc) return buf_take(&out);
    buf_free(&out);
    return NULL;
}

/* What the assistant says: from where the prompt ends to its end mark. NULL: the template refuses, or does not show calls. */
static char *said_of(const struct eng_template *t, int n_calls)
{
    static const char *const ends[] = {"<EOS>", "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "</s>", "<｜end▁of▁sentence｜>", "<|end_of_text|>",
                                       "<end_of_turn>", "<|user|>", "<|end|>", "<|observation|>", "<turn|>"};
    json_t *context = conversation(n_calls), *prompt = json_copy(context), *first = json_array();
    json_array_append(first, json_array_get(json_object_get(context, "messages"), 0));
    json_object_set_new(prompt, "messages", first);
    char *whole = render(t, context, false), *before = render(t, prompt, true), *said = NULL;
    if (whole && before) {
        size_t n = 0;
        while (before[n] && before[n] == whole[n]) n++;
        for (size_t k = n; before[n] && k && !strchr("> \n", whole[k - 1]); k--)
            if (whole[k - 1] == '<') n = k - 1; /* the prompt goes on with another mark */
        said = xstrdup(whole + n);
        for (size_t i = 0; i < COUNT_OF(ends); i++)
            if (strstr(said, ends[i])) *strstr(said, ends[i]) = 0;
        if (!strstr(said, "get_it")) free(said), said = NULL;
    }
    free(whole);
    free(before);
    json_decref(context);
    json_decref(prompt);
    return said;
}

static json_t *calls_of(const char *source, const char *said, size_t piece)
{
    struct crd_style style = crd_style_of(source);
    json_t *context = conversation(2), *got = json_array();
    struct crd_reply_conf c = {.calls = style.calls, .think = style.think, .tools = json_object_get(context, "tools")};
    struct crd_reply *r = crd_reply_open(&c);
    struct crd_said to = {0};
    size_t n = strlen(said);
    for (size_t i = 0; i < n; i += piece) crd_reply_push(r, said + i, MIN(piece, n - i), &to);
    crd_reply_finish(r, &to);
    for (int32_t i = 0; i < to.n_calls; i++) {
        json_t *args = json_loads(buf_str(&to.calls[i].args), JSON_DECODE_ANY, NULL);
        json_array_append_new(got, json_pack("{s:s,s:o*}", "name", to.calls[i].name, "arguments", args));
    }
    crd_said_free(&to);
    crd_reply_close(r);
    json_decref(context);
    return got;
}

static json_t *wanted(int n_calls)
{
    json_t *context = conversation(n_calls), *list = json_array(), *c;
    size_t i;
    json_array_foreach(json_object_get(json_array_get(json_object_get(context, "messages"), 1), "tool_calls"), i, c)
        json_array_append(list, json_object_get(c, "function"));
    json_decref(context);
    return list;
}

/* True: its calls are read back; -1: it shows none. */
static int check(const char *name, const char *source)
{
    struct eng_template *t;
    int good = -1;
    struct crd_style style = crd_style_of(source);
    if (!style.takes_tools || eng_template_compile(&t, source, strlen(source))) return -1;
    for (int n = 2; n > 0 && good < 0; n--) {
        char *said = said_of(t, n);
        if (!said) continue;
        json_t *want = wanted(n), *whole = calls_of(source, said, strlen(said) + 1), *bytes = calls_of(source, said, 1);
        good = json_equal(whole, want) && json_equal(bytes, want);
        printf("%-66s %-12s %d call(s)%s\n", name, style.calls->name, n, good ? "" : " NOT READ");
        if (!good) printf("--- %s\n", said);
        json_decref(want);
        json_decref(whole);
        json_decref(bytes);
        free(said);
    }
    eng_template_close(t);
    return good;
}

static char *source_of(const char *name)
{
    char path[300];
    size_t n;
    snprintf(path, sizeof path, "data/%s", name);
    char *text = shared_read(path, &n);
    if (!text || !strstr(name, ".json")) return text;
    json_t *config = json_loads(text, 0, NULL);
    const char *source = json_string_value(json_object_get(config, "chat_template"));
    free(text);
    text = source ? xstrdup(source) : NULL;
    json_decref(config);
    return text;
}

static void calls_of_published_templates_are_read_back(void **state)
{
    size_t n;
    char *lines = shared_read("data/templates/golden_jinja2.jsonl", &n), *save = NULL;
    json_t *seen = json_object();
    int shown = 0, failed = 0;
    (void)state;
    if (!lines) skip();
    for (char *line = strtok_r(lines, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        json_t *g = json_loads(line, 0, NULL);
        const char *name = json_string_value(json_object_get(g, "template"));
        if (!json_object_get(seen, name)) {
            json_object_set_new(seen, name, json_true());
            char *source = source_of(name);
            assert_non_null(source);
            int good = check(name, source);
            shown += good >= 0;
            failed += good == 0;
            free(source);
        }
        json_decref(g);
    }
    printf("%zu templates, %d show calls, of %d they are not read back\n", json_object_size(seen), shown, failed);
    json_decref(seen);
    free(lines);
    assert_true(shown >= 10);
    assert_int_equal(failed, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(calls_of_published_templates_are_read_back)};
    return cmocka_run_group_tests_name("tool templates", tests, NULL, NULL);
}
