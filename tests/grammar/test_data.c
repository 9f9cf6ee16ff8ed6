/* test_data.c: published files: JSONTestSuite against JSON mode, GBNF files and a schema with its
 * sample; the bench of masks (--bench). */
#include "tests/grammar/support.h"

#include "base/clock.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void json_mode_takes_what_is_json_and_nothing_else(void **state)
{
    (void)state;
    char folder[1024], path[1400];
    snprintf(folder, sizeof folder, "%s", shared("data/json/JSONTestSuite"));
    DIR *d = opendir(folder);
    int n = 0;
    if (!d) {
        printf("skipped: %s is not there\n", folder);
        skip();
    }
    struct eng_grammar *g = compile(GRAMMAR_JSON, 0, NULL, NULL);
    for (struct dirent *e; (e = readdir(d));) {
        size_t len;
        if (!strstr(e->d_name, ".json") || (e->d_name[0] != 'y' && e->d_name[0] != 'n')) continue;
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        char *text = read_file(path, &len);
        bool yes = holds(g, text, len);
        if (yes != (e->d_name[0] == 'y'))
            fail_msg("%s: %s", e->d_name, yes ? "accepted" : "refused");
        free(text);
        n++;
    }
    closedir(d);
    printf("%d files\n", n);
    eng_grammar_close(g);
}

static void published_gbnf_files_are_understood(void **state)
{
    (void)state;
    static const struct {
        const char *file, *yes, *no;
    } rows[] = {
        {"arithmetic.gbnf", "a+1=2\nb*(c-3)=x\n", "a+\n"},
        {"english.gbnf", "Hello, world!", "caf\xC3\xA9"},
        {"json.gbnf", "{\"a\": [1, 2.5e3, \"x\\n\", null]}", "[1]"},
        {"list.gbnf", "- one\n- two \xE2\x82\xAC\n", "- one"},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        char path[200];
        size_t n;
        snprintf(path, sizeof path, "data/grammar/%s", rows[i].file);
        char *text = read_file(shared(path), &n);
        if (!text) skip();
        if (!matches(GRAMMAR_GBNF, 0, text, rows[i].yes))
            fail_msg("%s refuses %s", rows[i].file, rows[i].yes);
        assert_false(matches(GRAMMAR_GBNF, 0, text, rows[i].no));
        free(text);
    }
}

static void a_published_schema_holds_for_its_sample(void **state)
{
    (void)state;
    size_t n;
    char *schema = read_file(shared("data/grammar/llguidance/blog.schema.json"), &n),
         *sample = read_file(shared("data/grammar/llguidance/blog.sample.json"), &n);
    if (!schema || !sample) skip();
    json_t *s = json_loads(schema, 0, NULL), *j = json_loads(sample, 0, NULL);
    char *text = dump_in_order(j, s, &n);
    struct eng_grammar *g = compile(GRAMMAR_SCHEMA, 0, schema, NULL);
    if (!g) fail_msg("%s", err_text());
    assert_true(holds(g, text, n));
    eng_grammar_close(g);
    json_decref(s);
    json_decref(j);
    free(text);
    free(schema);
    free(sample);
}

/* ---- bench ---- */

static int by_time(const void *a, const void *b)
{
    return *(const double *)a < *(const double *)b ? -1 : *(const double *)a > *(const double *)b;
}

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t); /* of this thread: others may use the machine */
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

/* The text in tokens, longest first; the mask is asked for before each. */
static void bench_text(const char *name, struct eng_grammar *g, const struct grammar_size *z,
                       const char *text, int32_t n_vocab, double compile_us)
{
    for (int pass = 0; pass < 2; pass++) {
        struct eng_grammar_state *s = eng_grammar_state_open(g);
        double *us = malloc(100000 * sizeof *us), sum = 0;
        size_t n = 0, at = 0, len = strlen(text);
        while (at < len && n < 100000) {
            double t = now_us();
            const uint64_t *mask = eng_grammar_mask(s);
            us[n] = now_us() - t;
            sum += us[n++];
            /* a token of about three bytes */
            size_t step = MIN(len - at, (size_t)(1 + (at * 7) % 5));
            if (!mask || eng_grammar_advance(s, text + at, step) != step)
                fail_msg("%s: refused at byte %zu", name, at);
            at += step;
        }
        qsort(us, n, sizeof *us, by_time);
        printf("%-22s %s: %5zu masks, median %7.1f us, mean %7.1f, 99 %% %8.1f, most %8.1f  "
               "(compiled in %.0f us, %d states, %d tokens)\n",
               name, pass ? "warm" : "cold", n, us[n / 2], sum / (double)n, us[n * 99 / 100],
               us[n - 1], compile_us, z->n_states, n_vocab);
        free(us);
        eng_grammar_state_close(s);
    }
}

static void bench(struct eng_grammar_vocab *v, int32_t n_vocab, const char *name,
                  enum grammar_kind kind, const char *source, const char *text)
{
    struct grammar_size z;
    double t = now_us();
    struct eng_grammar *g = compile(kind, 0, source, v);
    if (!g) fail_msg("%s: %s", name, err_text());
    t = now_us() - t;
    eng_grammar_size(g, &z);
    bench_text(name, g, &z, text, n_vocab, t);
    eng_grammar_close(g);
}

static void run_bench(void)
{
    int32_t n;
    bool real;
    size_t len;
    double t = now_us();
    struct eng_grammar_vocab *v = large_vocab(&n, &real);
    printf("vocabulary: %d tokens (%s), opened in %.0f ms\n", n, real ? "llama3" : "synthetic",
           (now_us() - t) / 1e3);
    static const char person[] =
        "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\",\"maxLength\":80},"
        "\"age\":{\"type\":\"integer\",\"minimum\":0,\"maximum\":150},"
        "\"email\":{\"type\":\"string\",\"format\":\"email\"},\"born\":{\"type\":\"string\","
        "\"format\":\"date\"},\"tags\":{\"type\":\"array\",\"items\":{\"type\":\"string\"}},"
        "\"address\":{\"type\":\"object\",\"properties\":{\"street\":{\"type\":\"string\"},"
        "\"city\":{\"type\":\"string\"}},\"required\":[\"street\",\"city\"]}},"
        "\"required\":[\"name\",\"age\",\"email\",\"born\",\"tags\",\"address\"],"
        "\"additionalProperties\":false}";
    static const char one[] =
        "{\"name\": \"Ada Lovelace of London and Ockham Park\", \"age\": 36, \"email\": "
        "\"ada.lovelace@analytical.example.org\", \"born\": \"1815-12-10\", "
        "\"tags\": [\"mathematician\", \"first programmer\", \"countess of Lovelace\"], "
        "\"address\": {\"street\": \"12 St James's Square, Westminster\", \"city\": \"London\"}}";
    bench(v, n, "schema person", GRAMMAR_SCHEMA, person, one);
    bench(v, n, "json", GRAMMAR_JSON, NULL, one);
    bench(v, n, "regex: words", GRAMMAR_REGEX, "(?:[A-Z][a-z]+ ){3,40}\\d{4}\\.",
          "The Quick Brown Fox Jumps Over The Lazy Dog Again Today 2024.");
    bench(v, n, "regex: lines", GRAMMAR_REGEX, "(?:[^\\n]{1,60}\\n){1,5}",
          "The quick brown fox jumps over the lazy dog, again.\nAnd once more \xE2\x82\xAC 5!\nToday\n");
    bench(v, n, "regex: answer", GRAMMAR_REGEX, "Thought: .*\\nAnswer: (?:yes|no|\\d+)",
          "Thought: two and two are four, as (almost) everybody knows.\nAnswer: 4");
    bench(v, n, "regex: e-mail", GRAMMAR_REGEX, "[\\w.+-]{1,64}@[\\w-]+(?:\\.[\\w-]+)+",
          "ada.lovelace+news@analytical.example.org");
    bench(v, n, "regex: records", GRAMMAR_REGEX, "(?:\\w{2,20} ?= ?-?\\d{1,9}(?:\\.\\d+)?; ){2,}",
          "width = 12.5; height=-30; depth_of_field = 1004.25; nn = 3; ");
    char *gbnf = read_file(shared("data/grammar/json.gbnf"), &len);
    if (gbnf) bench(v, n, "gbnf json", GRAMMAR_GBNF, gbnf, one);
    free(gbnf);
    eng_grammar_vocab_close(v);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_mode_takes_what_is_json_and_nothing_else),
        cmocka_unit_test(published_gbnf_files_are_understood),
        cmocka_unit_test(a_published_schema_holds_for_its_sample),
    };
    if (argc > 1 && !strcmp(argv[1], "--bench")) return run_bench(), 0;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
