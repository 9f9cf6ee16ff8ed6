/* test_grammar.c: claims about each front end, about states and masks. */
#include "tests/grammar/support.h"

#include "base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct row {
    const char *grammar, *yes[6], *no[6];
};

static void check(enum grammar_kind kind, uint32_t flags, const struct row *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        for (int k = 0; k < 6 && rows[i].yes[k]; k++)
            if (!matches(kind, flags, rows[i].grammar, rows[i].yes[k]))
                fail_msg("%s refuses %s", rows[i].grammar, rows[i].yes[k]);
        for (int k = 0; k < 6 && rows[i].no[k]; k++)
            if (matches(kind, flags, rows[i].grammar, rows[i].no[k]))
                fail_msg("%s accepts %s", rows[i].grammar, rows[i].no[k]);
    }
}

static void a_regex_matches_whole_texts(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"a{2}", {"aa"}, {"a", "aaa", ""}},
        {"(foo|ba[rz])+", {"foo", "barbazfoo"}, {"", "ba", "foob"}},
        {"^[0-9]{3}-[0-9]{4}$", {"555-1234"}, {"5551234", "555-12345"}},
        {"\\d+(\\.\\d{1,2})?", {"1", "10.25"}, {"1.", "1.234"}},
        {"[^a-z]\\w*", {"A_1", "1"}, {"a", ""}},
        {".", {"x", "\xC3\xA9", "\xF0\x9F\x98\x80"}, {"\n", "xy", "\xC3"}},
        {"\\u00e9|\\x41|\\u{1F600}", {"\xC3\xA9", "A", "\xF0\x9F\x98\x80"}, {"e"}},
        {"(?:ab){2,3}?c*", {"abab", "abababccc"}, {"ab", "abababab"}},
        {"\\p{Lu}\\p{Ll}+", {"Hello", "\xC3\x89t\xC3\xA9"}, {"hello", "HE"}},
        {"x*", {"", "xxxx"}, {"y"}},
        {"a(b|)c", {"abc", "ac"}, {"abbc"}},
    };
    check(GRAMMAR_REGEX, 0, rows, COUNT_OF(rows));
}

static void what_a_regex_cannot_be_is_refused_with_its_place(void **state)
{
    (void)state;
    static const struct {
        const char *text, *say;
    } rows[] = {
        {"(a)\\1", "byte 5: back-references"},
        {"(?=a)b", "look-around"},
        {"a\\b", "\\b"},
        {"(a", "not closed"},
        {"a)", "without its ("},
        {"[z-a]", "upside down"},
        {"*a", "nothing to repeat"},
        {"a{3,1}", "upside down"},
        {"[a", "not closed"},
        {"(?i)a", "(?:"},
        {"a++", "possessive"},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        assert_null(compile(GRAMMAR_REGEX, 0, rows[i].text, NULL));
        if (!strstr(err_text(), rows[i].say)) fail_msg("%s: %s", rows[i].text, err_text());
    }
}

static void a_choice_is_one_of_its_strings(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"[\"yes\", \"no\", \"not now\"]", {"yes", "no", "not now"}, {"", "not", "yesno"}}};
    check(GRAMMAR_CHOICE, 0, rows, COUNT_OF(rows));
    assert_null(compile(GRAMMAR_CHOICE, 0, "[]", NULL));
    assert_null(compile(GRAMMAR_CHOICE, 0, "[1]", NULL));
}

static void gbnf_rules_repeat_and_recur(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"root ::= \"a\" | \"(\" root \")\"", {"a", "(((a)))"}, {"(a", "a)", "()"}},
        {"root ::= item{2,3} # comment\nitem ::= [a-c] \"\\n\"",
         {"a\nb\n", "a\nb\nc\n"},
         {"a\n", "d\nd\n"}},
        {"root ::= (\"x\" | \"y\"\n | \"z\")* \".\"", {".", "xyz."}, {"xyz"}},
        {"root ::= [^\\n\\x80-\\U0010FFFF]+", {"abc"}, {"a\n", "\xC3\xA9"}},
        {"root ::= . \"\\u20AC\" digit?\ndigit ::= [0-9]",
         {"a\xE2\x82\xAC", "\xC3\xA9\xE2\x82\xAC"
                           "7"},
         {"\xE2\x82\xAC"}},
        {"root ::= e? \"b\"\ne ::= \"a\"*", {"b", "aaab"}, {"a"}},
        {"root ::= \"a\" root | \"\"", {"", "aaaa"}, {"b"}},
    };
    check(GRAMMAR_GBNF, 0, rows, COUNT_OF(rows));
    static const struct {
        const char *text, *say;
    } bad[] = {
        {"root ::= root \"a\" | \"b\"", "left-recursive"},
        {"root ::= x", "'x' is used"},
        {"a ::= \"b\"", "no rule 'root'"},
        {"root ::= \"a\nroot ::= \"b\"", "stands twice"},
        {"root ::= (\"a\"", "not closed"},
        {"root ::= a a\na ::= b? a \"x\" | \"y\"\nb ::= \"c\"", "left-recursive"},
        {"root ::= a\na ::= \"x\" a", "no text satisfies"},
        {"root = \"a\"", "::="},
    };
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        assert_null(compile(GRAMMAR_GBNF, 0, bad[i].text, NULL));
        if (i != 3 && !strstr(err_text(), bad[i].say)) fail_msg("%s: %s", bad[i].text, err_text());
    }
}

static void json_schemas_hold_for_their_values(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":"
         "\"string\"}},\"required\":[\"a\"],\"additionalProperties\":false}",
         {"{\"a\":1}", "{\"a\":-7,\"b\":\"x\\n\\u00e9\"}"},
         {"{}", "{\"b\":\"x\"}", "{\"b\":\"x\",\"a\":1}", "{\"a\":1.5}", "{\"a\":1,\"c\":2}",
          "{\"a\":1,}"}},
        {"{\"properties\":{\"a\":{\"type\":\"null\"}},\"additionalProperties\":{\"type\":"
         "\"integer\"},\"type\":\"object\"}",
         {"{}", "{\"a\":null,\"z\":1}", "{\"z\":1}"},
         {"{\"a\":1}", "{\"\\u0061\":1}", "{\"z\":null}"}},
        {"{\"type\":\"array\",\"items\":{\"enum\":[1,\"x\",null]},\"minItems\":1,\"maxItems\":2}",
         {"[1]", "[\"x\",null]"},
         {"[]", "[1,1,1]", "[2]"}},
        {"{\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/c\"},\"uniqueItems\":true,\"$defs\":{\"c\":{\"enum\":[\"a\",\"b\",1,null]}}}",
         {"[]", "[\"a\"]", "[null,\"b\",1,\"a\"]"},
         {"[\"a\",\"a\"]", "[1,\"b\",1]", "[1,1.0]", "[\"c\"]"}},
        {"{\"type\":\"array\",\"items\":{\"enum\":[1,2,3,4,5,6,7,8]},\"uniqueItems\":true,\"minItems\":2,\"maxItems\":9}",
         {"[1,2]", "[8,7,6,5,4,3,2,1]", "[3,1,2]"},
         {"[1]", "[1,2,3,4,5,6,7,8,1]", "[1,2,1]"}},
        {"{\"type\":\"integer\",\"minimum\":-3,\"exclusiveMaximum\":12}",
         {"-3", "0", "11", "7"},
         {"-4", "12", "100", "1.5", "01"}},
        {"{\"type\":\"number\",\"minimum\":0.5,\"maximum\":1.25}",
         {"0.5", "1", "1.250", "0.75"},
         {"0.49", "1.251", "0", "2", "-1"}},
        {"{\"type\":\"integer\",\"multipleOf\":15}", {"0", "30", "-45"}, {"1", "20"}},
        {"{\"$ref\":\"#/$defs/"
         "n\",\"$defs\":{\"n\":{\"type\":\"object\",\"properties\":{\"v\":{\"type\":\"integer\"},"
         "\"next\":{\"$ref\":\"#/$defs/"
         "n\"}},\"required\":[\"v\"],\"additionalProperties\":false}}}",
         {"{\"v\":1}", "{\"v\":1,\"next\":{\"v\":2,\"next\":{\"v\":3}}}"},
         {"{\"v\":1,\"next\":{}}"}},
        {"{\"type\":\"string\",\"pattern\":\"^[a-z]+$\",\"minLength\":2,\"maxLength\":4}",
         {"\"ab\"", "\"abcd\""},
         {"\"a\"", "\"abcde\"", "\"aB\"", "ab"}},
        {"{\"type\":\"string\",\"format\":\"date\"}",
         {"\"2024-02-29\""},
         {"\"2023-02-29\"", "\"2024-13-01\"", "\"x\""}},
        {"{\"type\":\"string\",\"maxLength\":3}",
         {"\"\"", "\"\\u00e9\\ud83d\\ude00x\""},
         {"\"abcd\"", "\"\\ud83d\"", "\"\x01\""}},
        {"{\"oneOf\":[{\"type\":\"object\",\"properties\":{\"k\":{\"const\":\"a\"},\"x\":{\"type\":"
         "\"integer\"}},\"required\":[\"k\",\"x\"],\"additionalProperties\":false},"
         "{\"type\":\"object\",\"properties\":{\"k\":{\"const\":\"b\"}},\"required\":[\"k\"],"
         "\"additionalProperties\":false}]}",
         {"{\"k\":\"a\",\"x\":1}", "{\"k\":\"b\"}"},
         {"{\"k\":\"a\"}", "{\"k\":\"b\",\"x\":1}", "{\"k\":\"c\"}"}},
        {"{\"prefixItems\":[{\"const\":1},{\"const\":2}],\"items\":false,\"type\":\"array\"}",
         {"[]", "[1]", "[1,2]"},
         {"[2]", "[1,2,3]"}},
        {"{\"type\":\"array\",\"items\":{\"type\":\"integer\"},\"contains\":{\"const\":7},"
         "\"maxContains\":1}",
         {"[7]", "[1,7,2]"},
         {"[]", "[1]", "[7,7]"}},
    };
    check(GRAMMAR_SCHEMA, GRAMMAR_COMPACT, rows, COUNT_OF(rows));
    static const struct row spaced[] = {
        {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"array\"}},\"required\":[\"a\"],"
         "\"additionalProperties\":false}",
         {"{\"a\":[]}", "{ \"a\" : [ 1, 2 ] }", "{\n  \"a\": [\n    1\n  ]\n}"},
         {" {\"a\":[]}", "{\"a\":[]} "}}};
    check(GRAMMAR_SCHEMA, 0, spaced, COUNT_OF(spaced));
    assert_false(matches(GRAMMAR_SCHEMA, GRAMMAR_COMPACT, spaced[0].grammar, "{\"a\": []}"));
}

static void what_a_schema_cannot_have_is_refused_by_name_and_place(void **state)
{
    (void)state;
    static const struct {
        const char *text, *say;
    } rows[] = {
        {"{\"properties\":{\"a/b\":{\"uniqueItems\":true}}}", "#/properties/a~1b/uniqueItems"},
        {"{\"items\":{\"enum\":[1,2,3,4,5,6,7,8,9]},\"uniqueItems\":true}", "#/uniqueItems: only items of an enum with at most 8 values"},
        {"{\"not\":{\"items\":{\"enum\":[1]},\"uniqueItems\":true}}", "#/not/uniqueItems"},
        {"{\"items\":{\"unevaluatedProperties\":false}}", "#/items/unevaluatedProperties"},
        {"{\"$ref\":\"http://x/y\"}", "#/$ref"},
        {"{\"$ref\":\"#/nowhere\"}", "leads nowhere"},
        {"{\"$ref\":\"#\"}", "without end"},
        {"{\"properties\":{\"a\":{\"pattern\":\"(?=x)\"}}}", "#/properties/a/pattern"},
        {"{\"properties\":{\"a\":{\"format\":\"iri\"}}}", "#/properties/a/format"},
        {"{\"type\":\"strange\"}", "#/type"},
        {"{\"properties\":[]}", "#/properties"},
        {"{\"minLength\":-1}", "#/minLength"},
        {"{\"required\":\"a\"}", "#/required"},
        {"{\"anyOf\":{}}", "#/anyOf"},
        {"{", "not JSON"},
        {"[]", "a schema is an object"},
        {"false", "no text satisfies"},
        {"{\"type\":\"object\",\"properties\":{\"a\":{\"$ref\":\"#\"}},\"required\":[\"a\"]}",
         "no text satisfies"},
        {"{\"type\":\"object\",\"minProperties\":3}", "#/minProperties"},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        assert_null(compile(GRAMMAR_SCHEMA, 0, rows[i].text, NULL));
        if (!strstr(err_text(), rows[i].say)) fail_msg("%s: %s", rows[i].text, err_text());
    }
}

static void a_state_tells_where_a_text_leaves_the_grammar(void **state)
{
    (void)state;
    struct eng_grammar *g = compile(GRAMMAR_CHOICE, 0, "[\"abc\", \"abd\"]", NULL);
    struct eng_grammar_state *s = eng_grammar_state_open(g), *t;
    struct buf b = {0};
    assert_int_equal(eng_grammar_need(s), 3);
    assert_int_equal(eng_grammar_advance(s, "abx", 3), 2);
    eng_grammar_explain(s, &b);
    assert_string_equal(buf_str(&b), "'c', 'd'");
    t = eng_grammar_state_copy(s);
    assert_int_equal(eng_grammar_advance(t, "d", 1), 1);
    assert_true(eng_grammar_accepts(t));
    assert_false(eng_grammar_accepts(s));
    buf_clear(&b);
    eng_grammar_explain(t, &b);
    assert_string_equal(buf_str(&b), "the end of the text");
    eng_grammar_state_close(s);
    eng_grammar_state_close(t);
    buf_free(&b);
    eng_grammar_close(g);
}

/* ---- masks ---- */

static const struct {
    enum grammar_kind kind;
    const char *text;
} many[] = {
    {GRAMMAR_JSON, NULL},
    {GRAMMAR_JSON_OBJECT, NULL},
    {GRAMMAR_REGEX, "[a-z]+(, [a-z ]{0,9})*"},
    {GRAMMAR_REGEX, "hello( world)*\\n?"},
    {GRAMMAR_REGEX, "(?:[A-Z][a-z]+ ){2,12}\\d{4}\\."},
    {GRAMMAR_REGEX, "(?:.{1,30}\\n)+"},
    {GRAMMAR_REGEX, "[^<]*<[\\w\\u00C0-\\u024F]+>"},
    {GRAMMAR_CHOICE, "[\"true\", \"false\", \"abc\", \"ab\"]"},
    {GRAMMAR_GBNF, "root ::= \"{\" pair (\", \" pair)* \"}\"\npair ::= \"\\\"\" [a-z]+ \"\\\":\" "
                   "v\nv ::= [0-9]+ | root | \"[\" v? \"]\""},
    {GRAMMAR_SCHEMA,
     "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\",\"maxLength\":40},\"n\":{"
     "\"type\":\"integer\",\"minimum\":0,\"maximum\":2024},"
     "\"when\":{\"type\":\"string\",\"format\":\"date\"},\"tags\":{\"type\":\"array\",\"items\":{"
     "\"enum\":[\"a\",\"abc\",\"hello world\"]},\"maxItems\":3}},"
     "\"required\":[\"name\",\"n\"],\"additionalProperties\":{\"type\":\"boolean\"}}"},
    {GRAMMAR_SCHEMA,
     "{\"$ref\":\"#/$defs/"
     "t\",\"$defs\":{\"t\":{\"type\":\"array\",\"items\":{\"anyOf\":[{\"$ref\":\"#/$defs/"
     "t\"},{\"type\":\"null\"},{\"type\":\"string\",\"pattern\":\"^[a-z0-9]*$\"}]}}}}"},
    {GRAMMAR_PARTS, "{\"free\":{\"on\":[[\"<a>\",{\"seq\":[{\"regex\":\"[0-9]+\"},\"</a>\"]}],[\"the\",\" \"]],\"not\":[\"  \"]}}"},
    {GRAMMAR_PARTS, "{\"schema\":{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\"},\"n\":{\"type\":\"integer\"}},"
     "\"required\":[\"a\"]},\"args\":{\"open\":"
                    "\"<p=\",\"mid\":\">\\n\",\"close\":\"\\n</p>\\n\",\"raw\":\"</p>\"}}"},
    {GRAMMAR_PARTS, "{\"seq\":[{\"any\":[\"\",{\"seq\":[\"<t>\",{\"until\":\"</t>\"}]}]},{\"some\":{"
                    "\"any\":[{\"seq\":[\"{f:\",{\"schema\":{\"type\":\"object\",\"properties\":{"
                    "\"a\":{\"type\":\"string\"}},\"required\":[\"a\"]}},\"}\"]},{\"regex\":\"[0-9]+\"},{"
                    "\"gbnf\":\"root ::= [a-c]{2} | \\\"(\\\" root \\\")\\\"\"}]},\"sep\":\", \"}]}"},
};

static void parts_are_put_together(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"{\"seq\":[\"a\",{\"any\":[\"b\",{\"text\":\"cd\"}]},{\"regex\":\"x*\"}]}",
         {"ab", "acdxx"},
         {"a", "abcd", "abxa"}},
        {"{\"some\":{\"regex\":\"[0-9]\"},\"sep\":\", \"}", {"1", "1, 2, 3"}, {"", "1,", "12"}},
        {"{\"some\":\"ab\"}", {"ab", "ababab"}, {"", "aba"}},
        {"{\"seq\":[{\"until\":\"aab\"},\"!\"]}",
         {"aab!", "aaab!", "x\xC3\xA9 abaab!"},
         {"aab", "aabaab!", "ab!", "\xFF" "aab!"}},
        {"{\"seq\":[{\"until\":{\"token\":\"</t>\"}},\"!\"]}",
         {"\xFF</t>!", "a</t>b\xFF</t>!"},
         {"a</t>!", "a\xFF</t>"}},
        {"{\"until\":[{\"token\":\"</t>\"},\"!\"]}", {"\xFF</t>!", "a</t>!\xFF</t>!"}, {"\xFF</t>", "\xFF</t>a!"}},
        {"{\"free\":{}}", {"", "any \xC3\xA9"}, {"\xFF<t>", "\x80"}},
        {"{\"free\":{\"on\":[[\"<f=\",{\"seq\":[{\"any\":[\"a>1\",\"b>2\"]},\"</f>\"]}]]}}",
         {"", "x <f <f<f=a>1</f> y<f=b>2</f>", "<<f=a>1</f>", "ends in <f", "</f>"},
         {"<f=", "<f=c>", "<f=a>1</f", "x<f=a>2</f>"}},
        {"{\"free\":{\"on\":[[\"<f=\",\"1>\"]],\"once\":true}}", {"", "x<f=1>"}, {"x<f=1>y", "<f=2>"}},
        {"{\"free\":{\"on\":[[\"<f=\",\"1>\"]],\"end\":[\"</r>\",{\"token\":\"E\"}]}}",
         {"</r>", "a<f=1>b</r>", "a\xFF" "E", "<f=1><f=1>\xFF" "E"},
         {"", "a", "a</r>b", "<f=1>", "a\xFF" "E</r>"}},
        {"{\"free\":{\"on\":[[\"<f=\",\"1>\"]],\"end\":[\"</r>\",\"!\"],\"once\":true}}", {"a</r>", "<f=1></r>", "a<f=1>!"}, {"<f=1>a</r>"}},
        {"{\"free\":{\"not\":[\"aba\"],\"on\":[[\"bab\",\"!\"]]}}",
         {"ab", "bab!", "bab!aab", "bbab!"},
         {"aba", "bab", "xaba", "cabab!"}},
        {"{\"free\":{\"on\":[[{\"token\":\"<c>\"},{\"schema\":{\"type\":\"null\"}}]]}}",
         {"x\xFF<c>nully\xFF<c>null", "<c>x"},
         {"\xFF<c>x", "\xFF<c>"}},
        {"{\"free\":{\"on\":[[[\"a\",{\"token\":\"<c>\"},\"b\"],\"!\"]]}}", {"a", "xaa\xFF<c>b!a", "ab"}, {"a\xFF<c>", "\xFF<c>b!", "a\xFF<c>xb!"}},
        {"{\"schema\":{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\"},\"n\":{\"type\":\"integer\"},\"e\":{\"enum\":[\"x\",null]}},"
         "\"required\":[\"a\"],\"additionalProperties\":false},\"args\":{\"open\":\"<p=\",\"mid\":\">\",\"close\":\"</p>\",\"raw\":\"</p>\"}}",
         {"<p=a></p>", "<p=a>it's \"raw\" </b> </p </p>", "<p=a>1</p><p=n>-7</p><p=e>\"x\"</p>", "<p=a>[1</p><p=e>null</p>"},
         {"", "<p=n>1</p>", "<p=a>x</p>y</p>", "<p=a>1</p><p=n>one</p>", "<p=a>x</p><p=e>x</p>", "<p=a>x</p><p=b>1</p>"}},
        {"{\"schema\":{\"type\":\"object\",\"properties\":{\"c\":{\"type\":\"string\",\"enum\":[\"x "
         "y\",\"z\"]},\"l\":{\"type\":\"array\",\"items\":{\"type\":\"string\"}}},"
         "\"additionalProperties\":{\"type\":\"boolean\"}},\"args\":{\"open\":\"<\",\"mid\":\":\",\"close\":\">\",\"raw\":\">\"}}",
         {"", "<c:x y>", "<c:z><l:[\"a\", \"<b\"]>", "<l:[]><o:true>", "<p:false><q:true>"},
         {"<c:\"z\">", "<l:[\">\"]>", "<o:1>", "<c:z><c:z>"}},
        {"{\"schema\":{\"type\":\"object\",\"properties\":{\"s\":{\"type\":\"string\"},\"b\":{\"type\":[\"boolean\",\"null\"]},"
         "\"l\":{\"type\":\"array\",\"items\":{\"type\":"
         "\"boolean\"}}},\"additionalProperties\":false},\"args\":{\"mid\":\"=\",\"sep\":\", \",\"python\":true}}",
         {"", "s=\"a\\\"b\"", "s=\"\", b=True, l=[False, True]", "b=None"},
         {"s=a", "b=true", "b=True,l=[]", "s=\"a\" b=True"}},
        {"{\"seq\":[{\"token\":\"[C]\"},{\"schema\":{\"enum\":[1,\"[C]\"]}}]}",
         {"\xFF[C]1", "\xFF[C]\"[C]\""},
         {"[C]1", "1", "\xFF[C]"}},
        {"{\"seq\":[{\"schema\":{\"type\":\"boolean\"}},{\"schema\":{\"type\":\"null\"}},{\"gbnf\":"
         "\"root ::= a a\\na ::= [x-z]\"},{\"gbnf\":\"root ::= a\\na ::= [0-9]\"}]}",
         {"truenullxy1", "falsenullzz0"},
         {"nulltruexy1", "truenullxyz"}},
    };
    check(GRAMMAR_PARTS, 0, rows, COUNT_OF(rows));
    static const struct {
        const char *text, *say;
    } bad[] = {
        {"7", "is needed"},
        {"{\"any\":[]}", "no alternative"},
        {"{\"until\":\"\"}", "needs a text or a token"},
        {"{\"seq\":[{\"schema\":{\"uniqueItems\":true},\"of\":\"f's\"}]}", "f's: JSON Schema, #/uniqueItems"},
        {"{\"regex\":\"(\"}", "not closed"},
        {"{\"until\":[]}", "needs a text or a token"},
        {"{\"free\":{\"on\":[\"x\"]}}", "pairs"},
        {"{\"free\":{\"not\":[\"\"]}}", "needs a text or a token"},
        {"{\"schema\":{\"properties\":{\"a>b\":true}},\"of\":\"f's\",\"args\":{\"mid\":\">\"}}", "f's: JSON Schema, #/properties: the key \"a>b\""},
    };
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        assert_null(compile(GRAMMAR_PARTS, 0, bad[i].text, NULL));
        if (!strstr(err_text(), bad[i].say)) fail_msg("%s: %s", bad[i].text, err_text());
    }
}

/* Bit by bit: is the token what a state that tries it says? */
static void assert_mask(struct eng_grammar_state *s, const uint64_t *mask, int32_t n)
{
    uint64_t *copy = malloc(((size_t)n / 64 + 1) * sizeof *copy);
    memcpy(copy, mask, ((size_t)n / 64 + 1) * sizeof *copy);
    for (int32_t i = 0; i < n; i++) {
        struct eng_grammar_state *t = eng_grammar_state_copy(s);
        bool yes = eng_grammar_advance_token(t, i);
        eng_grammar_state_close(t);
        if (yes != (bool)(copy[i / 64] >> (i % 64) & 1))
            fail_msg("token %d: mask %d, state %d", i, !yes, yes);
    }
    free(copy);
}

static int32_t pick(const uint64_t *mask, int32_t n, uint64_t dice)
{
    int32_t allowed = 0;
    for (int32_t i = 0; i < n; i++) allowed += mask[i / 64] >> (i % 64) & 1;
    if (!allowed) return -1;
    int32_t k = (int32_t)(dice % (uint64_t)allowed);
    for (int32_t i = 0; i < n; i++)
        if (mask[i / 64] >> (i % 64) & 1 && !k--) return i;
    return -1;
}

static void a_mask_is_what_every_token_alone_would_say(void **state)
{
    (void)state;
    struct eng_grammar_vocab *v = small_vocab();
    for (size_t i = 0; i < COUNT_OF(many); i++) {
        struct eng_grammar *g = compile(many[i].kind, i % 2 ? GRAMMAR_COMPACT : 0, many[i].text, v);
        if (!g) fail_msg("%s", err_text());
        struct eng_grammar_state *s = eng_grammar_state_open(g);
        for (int step = 0; step < 40; step++) {
            const uint64_t *mask = eng_grammar_mask(s);
            int32_t id = pick(mask, 299, rng_at(7, i, (uint64_t)step, 0));
            assert_mask(s, mask, 300);
            if (id < 0 || !eng_grammar_advance_token(s, id)) break;
        }
        eng_grammar_state_close(s);
        eng_grammar_close(g);
    }
    eng_grammar_vocab_close(v);
}

/* Tokens of letters, digits, spaces, quotes and characters of several bytes, many of them cut or not UTF-8 at all, that share long
 * beginnings. */
static void many_tokens_bytes(void *user, int32_t id, struct buf *out)
{
    static const char *const bits[] = {"a", "b", "the", "ing", "A", "Zo", "0", "19", " ", "  ", "\n", "_", "-", "<", ">", "\"", "\\", ", ",
                                       "\xC3\xA9", "\xC3", "\xE2\x82\xAC", "\xE2\x82", "\xF0\x9F\x98\x80", "\xF0\x9F", "\x80", "\xFF", "{", ":"};
    (void)user;
    if (id < 256) {
        buf_putc(out, (char)id);
        return;
    }
    /* every second one goes on from the one before */
    uint64_t stem = (uint64_t)id / 16;
    for (uint64_t i = 0; i < 1 + stem % 4; i++) buf_puts(out, bits[rng_at(1, stem, i, 0) % 12]);
    for (uint64_t i = 0; i < (uint64_t)id % 4; i++) buf_puts(out, bits[rng_at(2, (uint64_t)id, i, 0) % COUNT_OF(bits)]);
}

static void a_mask_of_many_tokens_is_what_each_alone_would_say(void **state)
{
    (void)state;
    struct eng_grammar_vocab *v;
    const int32_t n = 6000, eog = n - 1;
    eng_grammar_vocab_open(&v, n, many_tokens_bytes, NULL, &eog, 1);
    for (size_t i = 0; i < COUNT_OF(many); i++) {
        struct eng_grammar *g = compile(many[i].kind, i % 2 ? GRAMMAR_COMPACT : 0, many[i].text, v);
        if (!g) fail_msg("%s", err_text());
        struct eng_grammar_state *s = eng_grammar_state_open(g);
        for (int step = 0; step < 24; step++) {
            const uint64_t *mask = eng_grammar_mask(s);
            int32_t id = pick(mask, n - 1, rng_at(8, i, (uint64_t)step, 0));
            assert_mask(s, mask, n);
            if (id < 0 || !eng_grammar_advance_token(s, id)) break;
        }
        eng_grammar_state_close(s);
        eng_grammar_close(g);
    }
    eng_grammar_vocab_close(v);
}

/* The way that is promised: its first token leads to a state that needs one token less. */
static void the_shortest_way_gets_shorter_by_one(void **state)
{
    (void)state;
    struct eng_grammar_vocab *v = small_vocab();
    for (size_t i = 0; i < COUNT_OF(many); i++) {
        struct eng_grammar *g = compile(many[i].kind, 0, many[i].text, v);
        struct eng_grammar_state *s = eng_grammar_state_open(g);
        for (int step = 0; step < 20; step++) {
            int32_t n = eng_grammar_need_tokens(s, v, INT32_MAX), found = 0;
            assert_true(n <= eng_grammar_need(s));
            assert_int_equal(n == 0, eng_grammar_need(s) == 0);
            for (int32_t id = 0; n && id < 299 && !found; id++) {
                struct eng_grammar_state *t = eng_grammar_state_copy(s);
                if (eng_grammar_advance_token(t, id))
                    found = eng_grammar_need_tokens(t, v, INT32_MAX) == n - 1;
                eng_grammar_state_close(t);
            }
            assert_true(!n || found);
            int32_t id = pick(eng_grammar_mask(s), 299, rng_at(9, i, (uint64_t)step, 0));
            if (id < 0 || !eng_grammar_advance_token(s, id)) break;
        }
        eng_grammar_state_close(s);
        eng_grammar_close(g);
    }
    eng_grammar_vocab_close(v);
}

/* Whoever asks for a way of few tokens does not pay for a text of a million bytes, nor for one that may be read in thousands of ways. */
static void a_long_way_is_not_walked_to_its_end(void **state)
{
    (void)state;
    struct eng_grammar_vocab *v = small_vocab();
    struct grammar_size size;
    for (int ambiguous = 0; ambiguous < 2; ambiguous++) {
        struct buf text = {0};
        buf_puts(&text, "root ::= \"");
        for (int i = 0; i < 100000 && !ambiguous; i++) buf_putc(&text, 'x');
        buf_puts(&text, "\"");
        for (int i = 0; i < 3000 && ambiguous; i++) buf_puts(&text, " [a-z]* \"x\"");
        struct eng_grammar *g = compile(GRAMMAR_GBNF, 0, buf_str(&text), v);
        struct eng_grammar_state *s = eng_grammar_state_open(g);
        assert_int_equal(eng_grammar_need(s), ambiguous ? 3000 : 100000);
        assert_int_equal(eng_grammar_need_tokens(s, v, 10), INT32_MAX);
        eng_grammar_size(g, &size);
        assert_true(size.n_sets < 100);
        assert_int_equal(eng_grammar_need_tokens(s, v, INT32_MAX), ambiguous ? INT32_MAX : 100000);
        eng_grammar_size(g, &size);
        assert_true(size.n_sets < (ambiguous ? 2900 : 100010));
        eng_grammar_state_close(s);
        eng_grammar_close(g);
        buf_free(&text);
    }
    eng_grammar_vocab_close(v);
}

/* A walk that must end in time: with so many tokens left nothing longer is begun. */
static void walk(size_t i, struct eng_grammar_vocab *v, uint64_t seed)
{
    struct eng_grammar *g = compile(many[i].kind, seed % 2 ? GRAMMAR_COMPACT : 0, many[i].text, v),
                       *again = compile(many[i].kind, seed % 2 ? GRAMMAR_COMPACT : 0, many[i].text,
                                        NULL);
    struct eng_grammar_state *s = eng_grammar_state_open(g);
    struct buf text = {0};
    json_error_t je;
    int32_t left = 20 + (int32_t)(seed % 100);
    if (seed % 3 == 0 || eng_grammar_need_tokens(s, v, INT32_MAX) > left) left = eng_grammar_need_tokens(s, v, INT32_MAX);
    for (; !eng_grammar_ended(s); left--) {
        assert_true(left >= 0);
        int32_t id =
            pick(eng_grammar_mask_within(s, left - 1), 300, rng_at(seed, i, (uint64_t)left, 1));
        if (id < 0)
            fail_msg("seed %llu: grammar %zu: no token after '%s', %d left",
                     (unsigned long long)seed, i, buf_str(&text), left);
        assert_true(eng_grammar_advance_token(s, id));
        if (id < 256)
            buf_putc(&text, (char)id);
        else if (id < 299) {
            /* the bytes of the token, as a parser will see them */
            static const char *const words[] = {
                "{\"", "\":",   "\", \"", "\":\"",   "\"}",      "},{",
                "[[",  "]]",    "true",   "false",   "null",     "name",
                "00",  "12",    "-1",     ".5",      "e+",       "  ",
                "\n",  "\n  ",  "hello",  " world",  "\xC3\xA9", "\xE2\x82\xAC",
                "\\n", "\\u00", "abc",    "ab",      "2024",     "-01-",
                ": ",  ", ",    "\"a\"",  "\"a\":1", "[]",       "{}"};
            buf_puts(&text, words[id - 256]);
        }
    }
    if (!holds(again, (char *)text.data, text.len))
        fail_msg("seed %llu: grammar %zu does not hold for '%s'", (unsigned long long)seed, i,
                 buf_str(&text));
    if (many[i].kind <= GRAMMAR_SCHEMA) {
        json_t *j = json_loadb(buf_str(&text), text.len, JSON_DECODE_ANY | JSON_ALLOW_NUL, &je);
        if (!j && !strstr(je.text, "too big") && !strstr(je.text, "overflow") &&
            !strstr(je.text, "NUL byte in object key"))
            fail_msg("seed %llu: not JSON: %s: '%s'", (unsigned long long)seed, je.text,
                     buf_str(&text));
        json_decref(j);
    }
    eng_grammar_state_close(s);
    eng_grammar_close(g);
    eng_grammar_close(again);
    buf_free(&text);
}

static void random_walks_end_in_time_with_texts_of_the_grammar(void **state)
{
    (void)state;
    struct eng_grammar_vocab *v = small_vocab();
    for (uint64_t seed = 1; seed <= 40; seed++)
        for (size_t i = 0; i < COUNT_OF(many); i++) walk(i, v, seed);
    eng_grammar_vocab_close(v);
}

static void long_texts_do_not_grow_memory_without_end(void **state)
{
    (void)state;
    struct eng_grammar_vocab *v = small_vocab();
    struct eng_grammar *g = compile(GRAMMAR_JSON, 0, NULL, v);
    struct eng_grammar_state *s = NULL, *other = eng_grammar_state_open(g);
    struct grammar_size z;
    int32_t most = 0, before = 0;
    bool forgot = false;
    assert_int_equal(eng_grammar_advance(other, "{\"a\":[1,", 8), 8);
    for (uint64_t round = 0; round < 60;
         round++) { /* ever new stacks: which bracket is which differs from round to round */
        eng_grammar_state_close(s);
        s = eng_grammar_state_open(g);
        for (uint64_t i = 0; i < 4000; i++) {
            bool array = rng_at(3, round, i, 0) & 1;
            assert_int_equal(eng_grammar_advance(s, array ? "[" : "{\"a\":", array ? 1 : 5),
                             array ? 1 : 5);
        }
        assert_true(eng_grammar_mask(s)['[' / 64] >> ('[' % 64) & 1);
        eng_grammar_size(g, &z);
        forgot |= z.n_sets < before;
        before = z.n_sets;
        most = MAX(most, z.n_sets);
    }
    assert_true(forgot && most < 1 << 19);
    assert_int_equal(eng_grammar_advance(other, "2]}", 3), 3);
    assert_true(eng_grammar_accepts(other));
    eng_grammar_state_close(s);
    eng_grammar_state_close(other);
    eng_grammar_close(g);
    eng_grammar_vocab_close(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_regex_matches_whole_texts),
        cmocka_unit_test(what_a_regex_cannot_be_is_refused_with_its_place),
        cmocka_unit_test(a_choice_is_one_of_its_strings),
        cmocka_unit_test(gbnf_rules_repeat_and_recur),
        cmocka_unit_test(json_schemas_hold_for_their_values),
        cmocka_unit_test(what_a_schema_cannot_have_is_refused_by_name_and_place),
        cmocka_unit_test(a_state_tells_where_a_text_leaves_the_grammar),
        cmocka_unit_test(parts_are_put_together),
        cmocka_unit_test(the_shortest_way_gets_shorter_by_one),
        cmocka_unit_test(a_long_way_is_not_walked_to_its_end),
        cmocka_unit_test(a_mask_is_what_every_token_alone_would_say),
        cmocka_unit_test(a_mask_of_many_tokens_is_what_each_alone_would_say),
        cmocka_unit_test(random_walks_end_in_time_with_texts_of_the_grammar),
        cmocka_unit_test(long_texts_do_not_grow_memory_without_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
