/* test_schema_suite.c: the JSON Schema Test Suite: a schema that is compiled holds for its valid
 * instances and for no invalid one.
 *
 * Instances are written compactly, keys in the schema's order; "format" is an annotation, as draft
 * 2020-12 has it by default. A schema that is refused counts against the share. --verbose lists
 * refusals. */
#include "tests/grammar/support.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *const apart[] = {"unevaluated", "dynamicRef",  "refRemote",
                                    "vocabulary",  "uniqueItems", "not.json"};
static bool verbose;

struct tally {
    int tests, compiled, right, as_given;
};

static void one_group(const char *file, const json_t *group, uint32_t flags, struct tally *t)
{
    const json_t *schema = json_object_get(group, "schema"),
                 *tests = json_object_get(group, "tests"), *test;
    char *source = json_dumps(schema, JSON_ENCODE_ANY);
    struct eng_grammar *g = compile(GRAMMAR_SCHEMA, flags, source, NULL);
    /* a schema that nothing satisfies is understood, too */
    bool nothing = !g && strstr(err_text(), "no text satisfies");
    size_t i, n;
    if (verbose && !g && !nothing)
        printf("refused %s: %s (%zu)\n    %s\n", file,
               json_string_value(json_object_get(group, "description")), json_array_size(tests),
               err_text());
    json_array_foreach((json_t *)tests, i, test)
    {
        bool valid = json_is_true(json_object_get(test, "valid"));
        const json_t *data = json_object_get(test, "data");
        t->tests++;
        if (!g && !nothing) continue;
        char *text = dump_in_order(data, schema, &n),
             *given = json_dumps(data, JSON_ENCODE_ANY | JSON_COMPACT);
        bool yes = g && holds(g, text, n);
        t->compiled++;
        t->right += yes == valid;
        t->as_given += (g && holds(g, given, strlen(given))) == valid;
        if (yes != valid)
            printf("WRONG %s: %s: %s\n    schema %s\n    %s: %s, but it should be %s\n", file,
                   json_string_value(json_object_get(group, "description")),
                   json_string_value(json_object_get(test, "description")), source, text,
                   yes ? "accepted" : "refused", valid ? "accepted" : "refused");
        free(text);
        free(given);
    }
    eng_grammar_close(g);
    free(source);
}

static bool one_folder(const char *path, uint32_t flags, bool outside, struct tally *t)
{
    DIR *d = opendir(path);
    if (!d) return false;
    for (struct dirent *e; (e = readdir(d));) {
        char file[1200];
        json_error_t je;
        bool out = false;
        size_t i;
        json_t *group;
        for (i = 0; i < COUNT_OF(apart); i++) out |= strstr(e->d_name, apart[i]) != NULL;
        if (!strstr(e->d_name, ".json") || out != outside) continue;
        snprintf(file, sizeof file, "%s/%s", path, e->d_name);
        json_t *groups = json_load_file(file, JSON_DECODE_ANY | JSON_ALLOW_NUL, &je);
        if (!groups) continue; /* numbers beyond 64 bits */
        json_array_foreach(groups, i, group) one_group(e->d_name, group, flags, t);
        json_decref(groups);
    }
    closedir(d);
    return true;
}

static void show(const char *what, const struct tally *t)
{
    printf("%s: %d tests, %d (%.1f %%) of schemas that compile, %d right (%.1f %% of all); keys in "
           "any order: %d right\n",
           what, t->tests, t->compiled, 100.0 * t->compiled / MAX(t->tests, 1), t->right,
           100.0 * t->right / MAX(t->tests, 1), t->as_given);
}

static void a_compiled_schema_holds_for_valid_instances_alone(void **state)
{
    (void)state;
    struct tally t = {0}, rest = {0};
    if (!one_folder(shared("data/json/JSON-Schema-Test-Suite/tests/draft2020-12"),
                    GRAMMAR_COMPACT | GRAMMAR_FORMAT_NOTE, false, &t)) {
        printf("skipped: %s is not there\n", shared("data/json/JSON-Schema-Test-Suite"));
        skip();
    }
    one_folder(shared("data/json/JSON-Schema-Test-Suite/tests/draft2020-12"),
               GRAMMAR_COMPACT | GRAMMAR_FORMAT_NOTE, true, &rest);
    show("required tests", &t);
    show("unevaluated*, dynamicRef, refRemote, vocabulary, uniqueItems, not", &rest);
    assert_int_equal(t.right, t.compiled);
    assert_int_equal(rest.right, rest.compiled);
    assert_true(t.right >= 0.85 * t.tests);
}

static void formats_are_within_their_standards(void **state)
{
    (void)state;
    struct tally t = {0};
    if (!one_folder(shared("data/json/JSON-Schema-Test-Suite/tests/draft2020-12/optional/format"),
                    GRAMMAR_COMPACT, false, &t))
        skip();
    show("formats asserted", &t);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_compiled_schema_holds_for_valid_instances_alone),
        cmocka_unit_test(formats_are_within_their_standards),
    };
    verbose = argc > 1 && !strcmp(argv[1], "--verbose");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
