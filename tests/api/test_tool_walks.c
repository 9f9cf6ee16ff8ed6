/* tool walks: a model that says anything at all within the mask, in every syntax of calls: with a call required, and with strict tools, what it
 * said is read back as calls of tools that were offered, with arguments of their schemas. The tools are those of the Berkeley
 * Function-Calling Leaderboard. TEST_WALKS=1 takes every one of them (default: every 40th). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/rng.h"
#include "coordinator/api/reply.h"
#include "engine/grammar/grammar.h"
#include "engine/grammar_vocab.h"
#include "tests/api/support.h"
#include "tests/text/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BUDGET = 700 };

static const char *const sources[] = {
    "tools<tool_call>", "tools<|python_tag|>", "tools[TOOL_CALLS]", "tools[TOOL_CALLS][ARGS]", "tools<|tool_call|>", "tools<function=",
    "tools<｜tool▁calls▁begin｜>```json", "tools<｜tool▁calls▁begin｜>", "tools<|tool_calls_section_begin|>", "{{ tools }}",
    "tools<tool_call><arg_key>", "tools<tool_call><parameter=", "tools<|tool_list_start|>",
};

/* The data set names Python's types. */
static json_t *to_schema(const json_t *j, bool names)
{
    static const char *const types[][2] = {{"dict", "object"}, {"float", "number"}, {"tuple", "array"}, {"list", "array"}};
    json_t *out, *v;
    const char *key;
    size_t i;
    if (json_is_array(j)) {
        out = json_array();
        json_array_foreach((json_t *)(uintptr_t)j, i, v) json_array_append_new(out, to_schema(v, false));
        return out;
    }
    if (!json_is_object(j)) return json_incref((json_t *)(uintptr_t)j);
    out = json_object();
    json_object_foreach((json_t *)(uintptr_t)j, key, v)
    {
        const char *type = json_string_value(v);
        if (names || !strcmp(key, "properties") || !type || strcmp(key, "type")) {
            bool as_is = !names && (!strcmp(key, "enum") || !strcmp(key, "default") || !strcmp(key, "required"));
            json_object_set_new(out, key, as_is ? json_incref(v) : to_schema(v, !names && !strcmp(key, "properties")));
            continue;
        }
        for (i = 0; i < COUNT_OF(types); i++)
            if (!strcmp(types[i][0], type)) type = types[i][1];
        if (strcmp(type, "any")) json_object_set_new(out, key, json_string(type));
    }
    return out;
}

/* The tools of a line of the data set, as a request has them. */
static json_t *tools_of(const char *line, bool strict)
{
    json_t *j = json_loads(line, 0, NULL), *f, *tools = json_array();
    size_t i;
    json_array_foreach(json_object_get(j, "function"), i, f)
        json_array_append_new(tools, json_pack("{s:s,s:{s:O,s:b,s:o}}", "type", "function", "function", "name", json_object_get(f, "name"), "strict",
                                               strict, "parameters", to_schema(json_object_get(f, "parameters"), false)));
    json_decref(j);
    return tools;
}

static int32_t pick(const uint64_t *mask, int32_t n, uint64_t dice)
{
    int32_t all[TEST_VOCAB], k = 0;
    for (int32_t i = 0; i < n; i++)
        if (mask[i / 64] >> (i % 64) & 1) all[k++] = i;
    return k ? all[dice % (uint64_t)k] : -1;
}

/* What a model says that draws by lot; letters rather than bytes of no character, so that there is something to read. */
static void say(const struct grammar_source *src, const struct eng_grammar_vocab *v, const struct eng_tokenizer *t, const char *begin, uint64_t seed,
                struct buf *out)
{
    struct eng_grammar *g;
    if (eng_grammar_compile(&g, src, v)) fail_msg("%s", err_text());
    struct eng_grammar_state *s = eng_grammar_state_open(g);
    size_t begun = strlen(begin);
    assert_int_equal(eng_grammar_advance(s, begin, begun), begun);
    buf_put(out, begin, begun);
    for (int32_t left = BUDGET; !eng_grammar_ended(s); left--) {
        int32_t id = pick(eng_grammar_mask_within(s, left - 1), TEST_VOCAB, rng_at(seed, (uint64_t)left, 0, 0));
        if (id < 0) fail_msg("nothing is allowed behind: %s", buf_str(out));
        assert_true(eng_grammar_advance_token(s, id));
        if (!eng_grammar_ended(s)) eng_tokenizer_piece(t, id, true, out);
    }
    eng_grammar_state_close(s);
    eng_grammar_close(g);
}

static void check_arguments(const json_t *tools, const struct crd_call *c, const char *said)
{
    json_t *tool, *schema = NULL;
    size_t i;
    json_array_foreach((json_t *)(uintptr_t)tools, i, tool)
    {
        const json_t *f = json_object_get(tool, "function");
        if (!strcmp(json_str(f, "name"), c->name)) schema = json_object_get(f, "parameters");
    }
    if (!schema) fail_msg("%s is no tool that was offered: %s", c->name, said);
    char *text = json_dumps(schema, 0);
    struct grammar_source src = {.kind = GRAMMAR_SCHEMA, .text = text, .n = (int32_t)strlen(text)};
    struct eng_grammar *g;
    if (eng_grammar_compile(&g, &src, NULL)) fail_msg("%s", err_text());
    struct eng_grammar_state *s = eng_grammar_state_open(g);
    const size_t n = c->args.len, taken = eng_grammar_advance(s, c->args.data, n);
    if (taken != n || !eng_grammar_accepts(s))
        fail_msg("%s(%.*s) leaves its schema at byte %zu\nschema: %s\nsaid: %s", c->name, (int)n, (const char *)c->args.data, taken, text, said);
    eng_grammar_state_close(s);
    eng_grammar_close(g);
    free(text);
}

/* The calls of what was said, whole or byte by byte. */
static void read_back(struct test_api *t, const json_t *tools, struct buf *said, size_t piece, struct crd_said *to)
{
    struct crd_reply_conf c = {.calls = t->api.style.calls, .think = t->api.style.think, .tools = tools};
    struct crd_reply *r = crd_reply_open(&c);
    for (size_t i = 0; i < said->len; i += piece) crd_reply_push(r, buf_str(said) + i, MIN(piece, said->len - i), to);
    crd_reply_finish(r, to);
    crd_reply_close(r);
}

static void walk(struct test_api *t, const struct eng_grammar_vocab *v, json_t *tools, const char *choice, const char *begin, uint64_t seed)
{
    char *list = json_dumps(tools, 0), *more = malloc(strlen(list) + 100);
    struct buf said = {0};
    struct crd_said whole = {0}, bytes = {0};
    sprintf(more, ",\"tools\":%s,\"tool_choice\":\"%s\"", list, choice);
    test_api_say(t, "x", 1);
    json_decref(test_api_ask(t, ENDPOINT_CHAT, test_chat, more, 200));
    struct gen_request q = fake_last(t->fake);
    say(&q.grammar, v, t->tokenizer, begin, seed, &said);
    read_back(t, tools, &said, said.len + 1, &whole);
    read_back(t, tools, &said, 1, &bytes);
    if (!whole.n_calls || whole.n_calls != bytes.n_calls || (whole.text.len && !strcmp(choice, "required")))
        fail_msg("%d calls, %d byte by byte, %zu bytes of text: %s", whole.n_calls, bytes.n_calls, whole.text.len, buf_str(&said));
    for (int32_t i = 0; i < whole.n_calls; i++) {
        assert_true(whole.calls[i].complete);
        assert_string_equal(buf_str(&whole.calls[i].args), buf_str(&bytes.calls[i].args));
        check_arguments(tools, &whole.calls[i], buf_str(&said));
    }
    crd_said_free(&whole);
    crd_said_free(&bytes);
    buf_free(&said);
    free(list);
    free(more);
}

/* Tools with all that the syntaxes may get wrong, when the data set is not there. */
static const char odd[] =
    "{\"function\":[{\"name\":\"w\",\"parameters\":{\"type\":\"dict\",\"properties\":{\"s\":{\"type\":\"string\"},\"n\":{\"type\":\"float\"},"
    "\"i\":{\"type\":\"integer\"},"
    "\"u\":{\"type\":[\"string\",\"null\",\"number\"]},\"e\":{\"type\":\"string\",\"enum\":[\"1\",\"a "
    "b\",\"true\"]},\"m\":{\"enum\":[\"1\",2,null]},\"l\":{\"type\":\"array\",\"items\":{"
    "\"type\":\"string\"}},\"o\":{\"type\":\"dict\",\"properties\":{\"type\":{\"type\":\"boolean\"}}},\"any\":{\"type\":\"any\"}},"
    "\"required\":[\"s\",\"n\",\"u\",\"m\",\"l\",\"any\"]}},"
    "{\"name\":\"a.b-c\",\"parameters\":{\"type\":\"dict\",\"properties\":{}}}]}";

static int walks;

static void of_a_line(struct test_api *t, const struct eng_grammar_vocab *v, const char *line, uint64_t seed)
{
    json_t *tools = tools_of(line, true);
    for (size_t i = 0; i < COUNT_OF(sources); i++) {
        test_api_template(t, sources[i]);
        walk(t, v, tools, "required", "", seed);
        /* and of its own accord: nothing but the mark has been said */
        const struct crd_call_style *c = t->api.style.calls;
        walk(t, v, tools, "auto", c->open && !c->bare ? c->open : "{", seed + 1);
        walks += 2;
    }
    json_decref(tools);
}

static void whatever_is_said_is_calls_of_the_tools_offered(void **state)
{
    (void)state;
    struct test_api t;
    test_api_open(&t, 0);
    t.api.max_context = 100000;
    struct eng_grammar_vocab *v = eng_grammar_vocab_of(t.tokenizer, TEST_VOCAB);
    for (uint64_t i = 0; i < 12; i++) of_a_line(&t, v, odd, 100 * i);
    const char *all = getenv("TEST_WALKS"), *files[] = {"data/prompts/bfcl/BFCL_v4_simple_python.json", "data/prompts/bfcl/BFCL_v4_parallel.json"};
    for (size_t f = 0; f < COUNT_OF(files); f++) {
        size_t n;
        char *text = shared_read(files[f], &n), *save = NULL;
        uint64_t i = 0;
        for (char *line = text ? strtok_r(text, "\n", &save) : NULL; line; line = strtok_r(NULL, "\n", &save), i++)
            if ((all && *all == '1') || i % 40 == 7) of_a_line(&t, v, line, i);
        if (!text) printf("%s is not there\n", files[f]);
        free(text);
    }
    printf("%d walks\n", walks);
    eng_grammar_vocab_close(v);
    test_api_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(whatever_is_said_is_calls_of_the_tools_offered)};
    return cmocka_run_group_tests_name("tool walks", tests, NULL, NULL);
}
