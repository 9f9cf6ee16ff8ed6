/* structural tags: formats composed of texts, schemas and free text with triggers hold for the texts they describe; what is out of form is refused
 * with its path. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "coordinator/api/structural_tag.h"
#include "engine/grammar/grammar.h"
#include "tests/api/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct test_api t;

static int setup(void **state)
{
    (void)state;
    test_api_open(&t, 1);
    t.api.max_context = 4000;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    test_api_close(&t);
    return 0;
}

/* Does the grammar of a request with this field hold for the text? */
static bool allows(const char *field, const char *text)
{
    char more[4000];
    snprintf(more, sizeof more, ",%s", field);
    test_api_say(&t, "x", 1);
    json_decref(test_api_ask(&t, ENDPOINT_CHAT, test_chat, more, 200));
    struct gen_request q = fake_last(t.fake);
    struct eng_grammar *g;
    if (eng_grammar_compile(&g, &q.grammar, NULL)) fail_msg("%s: %s", field, err_text());
    struct eng_grammar_state *s = eng_grammar_state_open(g);
    size_t n = strlen(text);
    bool good = eng_grammar_advance(s, text, n) == n && eng_grammar_accepts(s);
    eng_grammar_state_close(s);
    eng_grammar_close(g);
    return good;
}

#define NEW(f)   "\"response_format\":{\"type\":\"structural_tag\",\"format\":" f "}"
#define INT      "{\"type\":\"json_schema\",\"json_schema\":{\"type\":\"integer\"}}"
#define TAG(b, c, e) "{\"type\":\"tag\",\"begin\":\"" b "\",\"content\":" c ",\"end\":\"" e "\"}"
#define TWO      "[" TAG("<f=a>", INT, "</f>") "," TAG("<f=b>", "{\"type\":\"regex\",\"pattern\":\"[x-z]+\"}", "</f>") "]"
#define TRIG(more) "{\"type\":\"triggered_tags\",\"triggers\":[\"<f=\"],\"tags\":" TWO more "}"
#define TEXT     "{\"type\":\"any_text\"}"
#define MANY(format) "{\"type\":\"repeat\",\"min\":256,\"max\":256,\"content\":" format "}"
#define LIT(v)   "{\"type\":\"const_string\",\"value\":\"" v "\"}"

static void formats_hold_for_what_they_describe(void **state)
{
    (void)state;
    static const struct {
        const char *field, *yes[4], *no[5];
    } rows[] = {
        /* the older form, here and there */
        {"\"response_format\":{\"type\":\"structural_tag\",\"structures\":[{\"begin\":\"<f=a>\",\"schema\":{\"type\":\"object\","
         "\"properties\":{\"c\":{\"type\":"
         "\"string\"}},\"required\":[\"c\"]},\"end\":\"</f>\"},{\"begin\":\"<f=b>\",\"end\":\"</f>\"}],\"triggers\":[\"<f=\"]}",
         {"", "I call <f=a>{\"c\":\"x\"}</f> and <f=b>[1]</f>.", "a < b", "<f=b>null</f><f=b>1</f>"},
         {"<f=a>{}</f>", "<f=c>", "x <f=", "<f=b>1"}},
        {"\"structured_outputs\":{\"structural_tag\":\"{\\\"type\\\":\\\"structural_tag\\\",\\\"format\\\":{\\\"type\\\":\\\"const_string\\\","
         "\\\"value\\\":\\\"ab\\\"}}\"}",
         {"ab", "ab", "ab", "ab"},
         {"a", "abc"}},
        {"\"structured_outputs\":{\"structural_tag\":{\"type\":\"structural_tag\",\"format\":" INT "}}", {"1", "-7", "0", "12"}, {"x", "1.5"}},
        /* the newer one */
        {NEW(INT), {"1", "0", "-1", "123"}, {"", "x"}},
        {NEW("{\"type\":\"grammar\",\"grammar\":\"root ::= \\\"a\\\"+\"}"), {"a", "aa", "aaa", "a"}, {"", "b"}},
        {NEW(TEXT), {"", "any", "<f=a>", "x\ny"}, {"\x80"}},
        {NEW("{\"type\":\"any_text\",\"excludes\":[\"<f=\",\"!\"]}"), {"", "<f", "<<f", "f="}, {"a<f=", "!", "<<f="}},
        {NEW(TAG("<t>", TEXT, "</t>")), {"<t></t>", "<t>a<b></t>", "<t><t></t>", "<t></</t>"}, {"<t>", "<t>a", "<t>a</t>b</t>", "a"}},
        {NEW("{\"type\":\"tag\",\"begin\":\"<t>\",\"content\":" INT ",\"end\":[\"</t>\",\"</u>\"]}"),
         {"<t>1</t>", "<t>1</u>", "<t>0</t>", "<t>-3</u>"}, {"<t>1", "<t></t>", "<t>1</v>"}},
        {NEW("{\"type\":\"tag\",\"begin\":\"\",\"content\":" INT ",\"end\":\"\"}"), {"1", "0", "2", "3"}, {""}},
        {NEW("{\"type\":\"sequence\",\"elements\":[" LIT("A: ") "," INT "," TAG("<t>", TEXT, "</t>") "]}"),
         {"A: 1<t>x</t>", "A: 12<t></t>", "A: 0<t>A</t>", "A: 1<t>1</t>"}, {"A: 1", "1<t></t>", "A: <t></t>"}},
        {NEW("{\"type\":\"or\",\"elements\":[" LIT("yes") "," LIT("no") "," INT "]}"), {"yes", "no", "1", "22"}, {"", "yesno", "maybe"}},
        {NEW("{\"type\":\"sequence\",\"elements\":[{\"type\":\"optional\",\"content\":" LIT("a") "},{\"type\":\"star\","
             "\"content\":" LIT("b") "},{\"type\":\"plus\",\"content\":" LIT("c") "}]}"),
         {"c", "ac", "abbc", "bccc"},
         {"", "a", "aac", "cb"}},
        {NEW("{\"type\":\"repeat\",\"min\":1,\"max\":3,\"content\":" LIT("ab") "}"), {"ab", "abab", "ababab", "ab"}, {"", "abababab", "aba"}},
        {NEW("{\"type\":\"repeat\",\"min\":2,\"max\":-1,\"content\":" LIT("a") "}"), {"aa", "aaa", "aaaaaaa", "aa"}, {"", "a"}},
        {NEW(TRIG("")), {"", "words", "x <f=a>1</f> y<f=b>zx</f>", "< f"}, {"<f=", "<f=a>x</f>", "<f=a>1", "<f=c>"}},
        {NEW(TRIG(",\"at_least_one\":true")), {"<f=a>1</f>", "<f=b>x</f> words", "<f=a>1</f><f=a>2</f>", "<f=a>1</f>x<f=b>y</f>"},
         {"", "words<f=a>1</f>", "words"}},
        {NEW(TRIG(",\"stop_after_first\":true")), {"", "words", "words<f=a>1</f>", "<f=b>x</f>"}, {"<f=a>1</f>x", "<f=a>1</f><f=a>1</f>"}},
        {NEW(TRIG(",\"at_least_one\":true,\"stop_after_first\":true")), {"<f=a>1</f>", "<f=b>x</f>", "<f=a>0</f>", "<f=b>y</f>"},
         {"", "x<f=a>1</f>", "<f=a>1</f>x"}},
        {NEW(TRIG(",\"excludes\":[\"bad\"]")), {"", "ba d", "<f=a>1</f>b", "ad"}, {"bad", "x bad"}},
        {NEW(TAG("<r>", TRIG(""), "</r>")), {"<r></r>", "<r>x<f=a>1</f>y</r>", "<r></</r>", "<r><f=b>x</f></r>"},
         {"<r>", "<r>x</r>y</r>", "<r><f=a></r>", "<r><f=a>1</f>"}},
        {NEW("{\"type\":\"tags_with_separator\",\"tags\":" TWO ",\"separator\":\", \"}"),
         {"", "<f=a>1</f>", "<f=a>1</f>, <f=b>x</f>", "<f=b>x</f>, <f=b>x</f>, <f=a>0</f>"}, {"x", "<f=a>1</f>,", "<f=a>1</f><f=a>1</f>"}},
        {NEW("{\"type\":\"tags_with_separator\",\"tags\":" TWO ",\"separator\":\"\",\"at_least_one\":true,\"stop_after_first\":true}"),
         {"<f=a>1</f>", "<f=b>x</f>", "<f=a>2</f>", "<f=b>z</f>"}, {"", "<f=a>1</f><f=a>1</f>"}},
        {NEW("{\"type\":\"dispatch\",\"rules\":[[\"<f=a>\"," INT "],[\"<g>\"," LIT("!") "]]}"), {"", "x<f=a>1y", "<g>!<g>!", "<f"}, {"<g>", "<f=a>x", "x<g>?"}},
        {NEW("{\"type\":\"dispatch\",\"rules\":[[\"<g>\"," LIT("!") "]],\"loop\":false}"), {"", "x", "x<g>!", "<g>!"}, {"<g>!x", "<g>"}},
        {NEW(TAG("<r>", "{\"type\":\"dispatch\",\"rules\":[[\"<g>\"," LIT("!") "]],\"excludes\":[\"</r>\"]}", "</r>")),
         {"<r></r>", "<r>a<g>!b</r>", "<r>a</r>", "<r><g>!</r>"}, {"<r>a</r>b", "<r><g></r>"}},
        /* the styles of two families */
        {NEW("{\"type\":\"json_schema\",\"style\":\"qwen_xml\",\"json_schema\":{\"type\":\"object\",\"properties\":{\"c\":{\"type\":\"string\"},"
             "\"n\":{\"type\":\"integer\"}},\"required\":[\"c\"],"
             "\"additionalProperties\":false}}"),
         {"<parameter=c>\nany\n</parameter>\n", "<parameter=c>\n\n</parameter>\n<parameter=n>\n1\n</parameter>\n",
          "<parameter=c>\n<b>\n</parameter>\n", "<parameter=c>\n1\n</parameter>\n"},
         {"", "<parameter=n>\n1\n</parameter>\n", "<parameter=c>x</parameter>"}},
        {NEW("{\"type\":\"json_schema\",\"style\":\"glm_xml\",\"json_schema\":{\"type\":\"object\",\"properties\":{\"n\":{\"type\":\"integer\"}},"
             "\"additionalProperties\":false}}"),
         {"", "<arg_key>n</arg_key>\n<arg_value>1</arg_value>\n", "<arg_key>n</arg_key>\n<arg_value>-5</arg_value>\n", ""},
         {"<arg_key>n</arg_key>\n<arg_value>x</arg_value>\n"}},
        /* control tokens: of the vocabulary, by name, number, and within texts */
        {NEW("{\"type\":\"tag\",\"begin\":{\"type\":\"token\",\"token\":\"<|im_start|>\"},\"content\":{\"type\":\"any_tokens\"},"
             "\"end\":{\"type\":\"token\",\"token\":256}}"),
         {"\xFF<|im_start|>x\xFF<s>", "\xFF<|im_start|>\xFF<s>", "\xFF<|im_start|><s>\xFF<s>", "\xFF<|im_start|>1\xFF<s>"},
         {"<|im_start|>x<s>", "\xFF<|im_start|>x<s>", "\xFF<|im_start|>x\xFF<s>y"}},
        {NEW("{\"type\":\"token_triggered_tags\",\"trigger_tokens\":[\"<s>\"],\"tags\":[{\"type\":\"tag\",\"begin\":{\"type\":\"token\","
             "\"token\":\"<s>\"},\"content\":" INT ",\"end\":\"!\"}]}"),
         {"", "<s>", "x\xFF<s>1!y", "\xFF<s>1!\xFF<s>2!"},
         {"\xFF<s>x!", "\xFF<s>", "\xFF<|im_start|>"}},
        {NEW("{\"type\":\"token_dispatch\",\"rules\":[[257," INT "]]}"), {"", "x", "\xFF<|im_start|>1", "x\xFF<|im_start|>2y"},
         {"\xFF<|im_start|>", "\xFF<s>1"}},
        {NEW(TRIG("")) ",\"stop\":\"never\"", {"", "x", "<f=a>1</f>", "y"}, {"<f=x>"}},
        {NEW("{\"type\":\"triggered_tags\",\"triggers\":[\"<s>f\"],\"tags\":[" TAG("<s>f=", INT, ".") "]}"),
         {"", "x\xFF<s>f=1.y", "<s>f", "\xFF<s>f=2."}, {"\xFF<s>f=x", "\xFF<s>"}},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        for (size_t k = 0; k < 4; k++)
            if (!allows(rows[i].field, rows[i].yes[k])) fail_msg("%s refuses: %s", rows[i].field, rows[i].yes[k]);
        for (size_t k = 0; k < 5 && rows[i].no[k]; k++)
            if (allows(rows[i].field, rows[i].no[k])) fail_msg("%s allows: %s", rows[i].field, rows[i].no[k]);
    }
}

static void what_is_out_of_form_is_refused_with_its_path(void **state)
{
    (void)state;
    static const struct {
        const char *field, *param, *says;
    } rows[] = {
        {"\"response_format\":{\"type\":\"structural_tag\"}", "response_format", "response_format.format: a format, an object"},
        {"\"response_format\":{\"type\":\"structural_tag\",\"structures\":[],\"triggers\":[\"a\"]}", "response_format",
         "response_format.structures: a list is needed"},
        {"\"response_format\":{\"type\":\"structural_tag\",\"structures\":[{\"begin\":\"a\"}],\"triggers\":[\"a\"]}", "response_format",
         "response_format.structures.0.end: a text"},
        {"\"response_format\":{\"type\":\"structural_tag\",\"structures\":[{\"begin\":\"a\",\"end\":\"b\",\"schema\":3}],\"triggers\":[\"a\"]}",
         "response_format", "structures.0.schema: a JSON schema"},
        {"\"response_format\":{\"type\":\"structural_tag\",\"structures\":[{\"begin\":\"a\",\"end\":\"b\",\"schema\":{\"type\":\"array\","
         "\"uniqueItems\":true}}],\"triggers\":[\"a\"]}", "response_format",
         "response_format.structures.0.schema: JSON Schema, #/uniqueItems"},
        {"\"response_format\":{\"type\":\"structural_tag\",\"structures\":[{\"begin\":\"a\",\"end\":\"b\"}]}", "response_format",
         "response_format.triggers: a list is needed"},
        {"\"response_format\":{\"type\":\"structural_tag\",\"structures\":[{\"begin\":\"a\",\"end\":\"b\"}],\"triggers\":[\"c\"]}",
         "response_format", "one of them begins no tag"},
        {"\"response_format\":{\"type\":\"structural_tag\",\"structures\":[{\"begin\":\"ab\",\"end\":\"b\"}],\"triggers\":[\"a\",\"ab\"]}",
         "response_format", "structures.0.begin: more than one of the triggers"},
        {"\"response_format\":{\"type\":\"structural_tag\",\"structures\":[{\"begin\":\"a\",\"end\":\"b\"},{\"begin\":\"c\",\"end\":\"b\"}],"
         "\"triggers\":[\"a\"]}", "response_format", "structures.1.begin: none of the triggers"},
        {NEW("{}"), "response_format", "response_format.format.type: Field required"},
        {NEW("{\"type\":\"exclude_token\"}"), "response_format", "response_format.format.type: no such format"},
        {NEW("{\"type\":\"any_text\",\"max_tokens\":5}"), "response_format", "response_format.format.max_tokens: is not supported"},
        {NEW("{\"type\":\"sequence\",\"elements\":[" INT ",{\"type\":\"regex\",\"pattern\":3}]}"), "response_format",
         "response_format.format.elements.1.pattern: a text"},
        {NEW("{\"type\":\"regex\",\"pattern\":\"(\"}"), "response_format", "not closed"},
        {NEW("{\"type\":\"json_schema\",\"json_schema\":{\"type\":\"integer\"},\"any_order\":true}"), "response_format", "response_format.format.any_order"},
        {NEW("{\"type\":\"json_schema\",\"json_schema\":{\"$dynamicRef\":\"#x\"}}"), "response_format",
         "response_format.format.json_schema: JSON Schema, #/$dynamicRef"},
        {NEW("{\"type\":\"json_schema\",\"json_schema\":true,\"style\":\"yaml\"}"), "response_format", "response_format.format.style"},
        {NEW("{\"type\":\"repeat\",\"min\":2,\"max\":1,\"content\":" INT "}"), "response_format", "response_format.format.max"},
        {NEW("{\"type\":\"repeat\",\"min\":2,\"content\":" INT "}"), "response_format", "response_format.format.max: an integer"},
        /* a small request, whose text would have terabytes */
        {NEW(MANY(MANY(MANY(MANY(MANY(LIT("a"))))))), "response_format", "response_format takes more than 1048576 bytes"},
        {NEW("{\"type\":\"token\",\"token\":9999}"), "response_format", "response_format.format.token: the vocabulary has no such token"},
        {NEW("{\"type\":\"tag\",\"begin\":\"a\",\"content\":" INT "}"), "response_format", "response_format.format.end: Field required"},
        {NEW("{\"type\":\"tag\",\"begin\":\"a\",\"content\":" INT ",\"end\":\"b\",\"x\":1}"), "response_format", "response_format.format.x: is not supported"},
        {NEW("{\"type\":\"dispatch\",\"rules\":[[\"\"," INT "]]}"), "response_format", "response_format.format.rules.0: a pattern"},
        {"\"structured_outputs\":{\"structural_tag\":\"{\"}", "structured_outputs", "structured_outputs.structural_tag: Input should be a structural tag"},
        {"\"structural_tag\":7", "structural_tag", "structural_tag: Input should be a structural tag"},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        char more[3000];
        snprintf(more, sizeof more, ",%s", rows[i].field);
        json_t *a = test_api_ask(&t, ENDPOINT_CHAT, test_chat, more, 400), *e = json_object_get(a, "error");
        assert_string_equal(json_str(e, "param"), rows[i].param);
        if (!strstr(json_str(e, "message"), rows[i].says)) fail_msg("%s: %s", rows[i].field, json_str(e, "message"));
        json_decref(a);
    }
}

/* Each tag is held against each trigger: the lists are short, or the request is refused at once. */
static void so_many_tags_are_refused(void **state)
{
    (void)state;
    static const char *const lists[] = {"tags", "triggers"};
    for (size_t l = 0; l < COUNT_OF(lists); l++) {
        struct buf more = {0};
        size_t n_tags = l ? 1 : STRUCTURAL_TAGS + 1, n_triggers = l ? STRUCTURAL_TAGS + 1 : 1;
        buf_puts(&more, ",\"response_format\":{\"type\":\"structural_tag\",\"format\":{\"type\":\"triggered_tags\",\"triggers\":[");
        for (size_t i = 0; i < n_triggers; i++) buf_printf(&more, "%s\"t%zu\"", i ? "," : "", i);
        buf_puts(&more, "],\"tags\":[");
        for (size_t i = 0; i < n_tags; i++)
            buf_printf(&more, "%s{\"begin\":\"t0%zu\",\"content\":{\"type\":\"any_text\"},\"end\":\"e\"}", i ? "," : "", i);
        buf_puts(&more, "]}}");
        json_t *a = test_api_ask(&t, ENDPOINT_CHAT, test_chat, buf_str(&more), 400);
        if (!strstr(json_str(json_object_get(a, "error"), "message"), "at most 1024"))
            fail_msg("%s: %s", lists[l], json_str(json_object_get(a, "error"), "message"));
        json_decref(a);
        buf_clear(&more);
        buf_printf(&more, ",\"response_format\":{\"type\":\"structural_tag\",\"format\":{\"type\":\"tag\",\"begin\":\"b\","
                   "\"content\":{\"type\":\"any_text\"%s", l ? "},\"end\":[" : ",\"excludes\":[");
        for (size_t i = 0; i <= STRUCTURAL_TAGS; i++) buf_printf(&more, "%s\"t%zu\"", i ? "," : "", i);
        buf_puts(&more, l ? "]}}" : "]},\"end\":\"e\"}}");
        a = test_api_ask(&t, ENDPOINT_CHAT, test_chat, buf_str(&more), 400);
        if (!strstr(json_str(json_object_get(a, "error"), "message"), l ? "format.end: at most 1024" : "excludes: at most 1024"))
            fail_msg("%zu: %s", l, json_str(json_object_get(a, "error"), "message"));
        json_decref(a);
        buf_free(&more);
    }
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(formats_hold_for_what_they_describe),
        T(what_is_out_of_form_is_refused_with_its_path),
        T(so_many_tags_are_refused),
    };
    return cmocka_run_group_tests_name("structural tags", tests, NULL, NULL);
}
