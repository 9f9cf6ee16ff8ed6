/* test_conf.c: every kind of option, its precedence, and every sentence the parser can say. */
#include "base/conf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

struct opts {
    bool fast;
    int64_t threads, cache;
    double rate;
    const char *model, *many;
    int32_t mode;
};

#define AT(f) offsetof(struct opts, f)
static const struct conf_opt table_a[] = {
    {"fast", CONF_FLAG, AT(fast), NULL, 0, 0, "", "a flag"},
    {"threads", CONF_INT, AT(threads), "2", 1, 64, "N", "a number", "n-threads t"},
    {"cache-size", CONF_SIZE, AT(cache), "1G", 0, 0, "SIZE", "a size"},
    {NULL, CONF_FLAG, 0, NULL, 0, 0, NULL, NULL},
};
static const struct conf_opt table_b[] = {
    {"", CONF_TITLE, 0, NULL, 0, 0, NULL, "the rest"},
    {"rate", CONF_FLOAT, AT(rate), "0.5", 0, 1, "X", "a float"},
    {"model", CONF_STR, AT(model), NULL, 0, 0, "FILE", "a string"},
    {"many", CONF_LIST, AT(many), NULL, 0, 0, "A,B", "may be given again"},
    {"mode", CONF_ENUM, AT(mode), "auto", 0, 0, "on|off=no|auto", "a choice"},
    {"an-option-whose-name-is-long", CONF_STR, AT(model), NULL, 0, 0, "MANY-WORDS",
     "explained at such length that a line of a hundred and twenty columns cannot hold it, and a second begins"},
    {NULL, CONF_FLAG, 0, NULL, 0, 0, NULL, NULL},
};
static const struct conf_opt *const groups[] = {table_a, table_b, NULL};
static const struct conf_table table = {
    "try", "try MODEL [FILE] [options]",
    "Tries.\nWhat is said of it takes more than the hundred and twenty columns that a page has where it is not on a terminal, so it is folded.\n"
    "  try model.gguf   an example stays as it is, however long, for it is there to be copied, and whoever wraps a command breaks it",
    groups, 0, 2};

static struct opts o;
static const char *args[2];
static int n_args;
static bool help;

static enum err parse_with(const struct conf_table *t, const char *const *words)
{
    static char command[] = "try";
    char *argv[16] = {command};
    int n = 1;
    for (; words[n - 1]; n++) argv[n] = (char *)words[n - 1];
    memset(&o, 0, sizeof o);
    return conf_parse(t, n, argv, &o, args, &n_args, &help);
}
#define parse(...) parse_with(&table, (const char *const[]){__VA_ARGS__, NULL})

static void defaults_hold_when_nothing_is_said(void **state)
{
    (void)state;
    assert_int_equal(parse_with(&table, (const char *const[]){NULL}), OK);
    assert_false(o.fast || help);
    assert_int_equal(o.threads, 2);
    assert_int_equal(o.cache, 1 << 30);
    assert_true(o.rate == 0.5);
    assert_null(o.model);
    assert_int_equal(o.mode, 2);
    assert_int_equal(n_args, 0);
}

static void both_spellings_set_every_type(void **state)
{
    (void)state;
    assert_int_equal(parse("--fast", "--threads", "8", "--cache-size=512M", "--rate", "0.25",
                           "--model=x", "--mode", "off"),
                     OK);
    assert_true(o.fast);
    assert_int_equal(o.threads, 8);
    assert_int_equal(o.cache, 512 << 20);
    assert_true(o.rate == 0.25);
    assert_string_equal(o.model, "x");
    assert_int_equal(o.mode, 1);
    assert_int_equal(parse("--fast=off", "--model", "--odd", "--mode=on"), OK);
    assert_false(o.fast);
    assert_string_equal(o.model, "--odd");
    assert_int_equal(o.mode, 0);
    assert_int_equal(parse("--mode", "no"), OK);
    assert_int_equal(o.mode, 1);
    assert_int_equal(parse("--fast=true"), OK);
    assert_true(o.fast);
}

static void positionals_mix_with_options(void **state)
{
    (void)state;
    assert_int_equal(parse("m.gguf", "--threads=3", "-"), OK);
    assert_int_equal(n_args, 2);
    assert_string_equal(args[0], "m.gguf");
    assert_string_equal(args[1], "-");
    assert_int_equal(parse("--", "--threads", "-x"), OK);
    assert_int_equal(n_args, 2);
    assert_string_equal(args[0], "--threads");
    assert_int_equal(o.threads, 2);
}

static void environment_stands_between_default_and_argument(void **state)
{
    (void)state;
    setenv("TESSERA_THREADS", "5", 1);
    setenv("TESSERA_CACHE_SIZE", "2K", 1);
    assert_int_equal(parse("--cache-size", "1K"), OK);
    assert_int_equal(o.threads, 5);
    assert_int_equal(o.cache, 1024);
    setenv("TESSERA_THREADS", "many", 1);
    assert_int_equal(parse("--fast"), ERR_BAD_CONFIG);
    assert_string_equal(err_text(),
                        "environment TESSERA_THREADS: --threads: 'many' is not a number");
    unsetenv("TESSERA_THREADS");
    unsetenv("TESSERA_CACHE_SIZE");
}

static void help_is_seen_anywhere_and_nothing_else_is_checked(void **state)
{
    (void)state;
    assert_int_equal(parse("--nonsense", "-h"), OK);
    assert_true(help);
    assert_int_equal(parse("--threads=9999", "--help"), OK);
    assert_true(help);
    assert_int_equal(parse("--", "--help"), OK);
    assert_false(help);
}

static void sizes_are_binary_and_whole(void **state)
{
    (void)state;
    static const struct {
        const char *s;
        int64_t want;
    } good[] = {{"0", 0},
                {"17", 17},
                {"1k", 1024},
                {"1K", 1024},
                {"1.5M", 3 << 19},
                {"8G", (int64_t)8 << 30},
                {"2GiB", (int64_t)2 << 30},
                {"2GB", (int64_t)2 << 30},
                {"1T", (int64_t)1 << 40}};
    static const char *const bad[] = {"",    "x",    "-1",  "1X",          "1Gx",
                                      "1 G", "1e30", "nan", "9000000000T", "inf"};
    int64_t v;
    for (size_t i = 0; i < COUNT_OF(good); i++) {
        assert_int_equal(conf_size(good[i].s, &v), OK);
        if (v != good[i].want) fail_msg("'%s' is %lld", good[i].s, (long long)v);
    }
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        v = 77;
        if (conf_size(bad[i], &v) != ERR_BAD_CONFIG)
            fail_msg("'%s' was taken as %lld", bad[i], (long long)v);
        assert_int_equal(v, 77);
    }
    assert_int_equal(conf_size("8X", &v), ERR_BAD_CONFIG);
    assert_string_equal(err_text(), "'8X' is not a size (try 512M or 8G)");
}

#define REFUSED(sentence, ...)                                                                     \
    do {                                                                                           \
        assert_int_equal(parse(__VA_ARGS__), ERR_BAD_CONFIG);                                      \
        assert_string_equal(err_text(), sentence);                                                 \
    } while (0)

static void every_refusal_names_the_option_and_the_value(void **state)
{
    (void)state;
    REFUSED("unknown option --thread: is --threads meant? (tessera try --help lists them)", "--thread", "3");
    REFUSED("unknown option --threadss: is --threads meant? (tessera try --help lists them)", "--threadss=3");
    REFUSED("unknown option --cache: is --cache-size meant? (tessera try --help lists them)", "--cache");
    REFUSED("unknown option --n-threads: here it is --threads (tessera try --help)", "--n-threads", "3");
    REFUSED("unknown option --t: here it is --threads (tessera try --help)", "--t");
    REFUSED("unknown option --gpus (tessera try --help lists them)", "--gpus");
    REFUSED("unknown option -- (tessera try --help lists them)", "--=3"); /* a title has no name, so it is no option */
    REFUSED("unknown option -t (tessera try --help lists them)", "-t");
    REFUSED("--threads needs a value (N)", "--threads");
    REFUSED("--mode needs a value (on|off=no|auto)", "a", "--mode");
    REFUSED("--threads: 'x' is not a number", "--threads", "x");
    REFUSED("--threads: '' is not a number", "--threads=");
    REFUSED("--threads: '3y' is not a number", "--threads=3y");
    REFUSED("--threads: '2.5' is not a whole number", "--threads=2.5");
    REFUSED("--threads: '99999999999999999999' is not a whole number",
            "--threads=99999999999999999999");
    REFUSED("--threads: 0 is outside 1..64", "--threads=0");
    REFUSED("--threads: -3 is outside 1..64", "--threads", "-3");
    REFUSED("--threads: 65 is outside 1..64", "--threads=65");
    REFUSED("--rate: 1.01 is outside 0..1", "--rate=1.01");
    REFUSED("--rate: nan is outside 0..1", "--rate=nan");
    REFUSED("--cache-size: '8X' is not a size (try 512M or 8G)", "--cache-size=8X");
    REFUSED("--mode: 'maybe' is not one of on|off=no|auto", "--mode", "maybe");
    REFUSED("--mode: 'o' is not one of on|off=no|auto", "--mode", "o");
    REFUSED("--mode: '' is not one of on|off=no|auto", "--mode=");
    REFUSED("--fast: 'yes' is neither on nor off", "--fast=yes");
    REFUSED("'c' is one argument too many: try MODEL [FILE] [options]", "a", "b", "c");
}

static void too_few_arguments_show_the_synopsis(void **state)
{
    (void)state;
    struct conf_table needs = table;
    needs.min_args = 1;
    assert_int_equal(parse_with(&needs, (const char *const[]){"--fast", NULL}), ERR_BAD_CONFIG);
    assert_string_equal(err_text(), "too few arguments: tessera try MODEL [FILE] [options]");
}

static void help_page_lists_every_option_with_its_default(void **state)
{
    (void)state;
    char text[4096];
    fflush(stdout);
    int keep = dup(1);
    FILE *f = tmpfile();
    assert_non_null(f);
    dup2(fileno(f), 1);
    conf_help(&table);
    fflush(stdout);
    dup2(keep, 1);
    close(keep);
    rewind(f);
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    assert_string_equal(text, "usage: tessera try MODEL [FILE] [options]\n\n"
                              "Tries. What is said of it takes more than the hundred and twenty columns that a page has where it is not on a terminal,\n"
                              "so it is folded.\n"
                              "  try model.gguf   an example stays as it is, however long, for it is there to be copied, and whoever wraps a command "
                              "breaks it\n"
                              "\noptions:\n"
                              "  --fast [on|off]                    a flag\n"
                              "  --threads N                        a number [2]\n"
                              "  --cache-size SIZE                  a size [1G]\n"
                              "\nthe rest:\n"
                              "  --rate X                           a float [0.5]\n"
                              "  --model FILE                       a string\n"
                              "  --many A,B                         may be given again\n"
                              "  --mode on|off=no|auto              a choice [auto]\n"
                              "  --an-option-whose-name-is-long MANY-WORDS\n"
                              "                                     explained at such length that a line of a hundred and twenty columns cannot hold\n"
                              "                                     it, and a second begins\n"
                              "  --help                             this page\n\n"
                              "Every option can also be set as TESSERA_NAME in the environment.\n");
}

static void lists_grow_and_argv_comes_before_the_environment(void **state)
{
    (void)state;
    assert_int_equal(parse("--many", "a"), OK);
    assert_string_equal(o.many, "a");
    assert_int_equal(parse("--many", "a", "--threads", "3", "--many=b,c", "--many", "d"), OK);
    assert_string_equal(o.many, "a,b,c,d");
    setenv("TESSERA_MANY", "x,y", 1);
    assert_int_equal(parse("--fast"), OK);
    assert_string_equal(o.many, "x,y");
    assert_int_equal(parse("--many", "a", "--many", "b"), OK);
    assert_string_equal(o.many, "a,b");
    unsetenv("TESSERA_MANY");
}

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_grow_and_argv_comes_before_the_environment),
        cmocka_unit_test(defaults_hold_when_nothing_is_said),
        cmocka_unit_test(both_spellings_set_every_type),
        cmocka_unit_test(positionals_mix_with_options),
        cmocka_unit_test(environment_stands_between_default_and_argument),
        cmocka_unit_test(help_is_seen_anywhere_and_nothing_else_is_checked),
        cmocka_unit_test(sizes_are_binary_and_whole),
        cmocka_unit_test(every_refusal_names_the_option_and_the_value),
        cmocka_unit_test(too_few_arguments_show_the_synopsis),
        cmocka_unit_test(help_page_lists_every_option_with_its_default),
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("conf", tests, NULL, NULL);
}
