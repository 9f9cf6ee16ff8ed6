/* ledger: every request is one line, whoever ended it; a file that was moved away is begun anew. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "coordinator/api/ledger.h"
#include "tests/support/scratch.h"
#include "base/clock.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static struct crd_ledger_entry entry(const char *id)
{
    return (struct crd_ledger_entry){.id = id, .key = "anna", .path = "/v1/x", .status = 200, .n_prompt = 12, .n_cached = 5,
                                     .n_completion = 7, .n_thought = 2, .us = 1234567};
}

static int lines_of(const char *path, struct buf *text)
{
    int n = 0;
    if (!scratch_read(path, text)) return 0;
    for (size_t i = 0; i < text->len; i++) n += text->data[i] == '\n';
    return n;
}

static bool eventually(const char *path, int n)
{
    struct buf text = {0};
    int have = 0;
    for (int64_t end = clock_us() + 5000000; have < n && clock_us() < end; clock_sleep_us(1000)) have = lines_of(path, &text);
    buf_free(&text);
    return have == n;
}

static void a_line_says_who_used_what(void **state)
{
    (void)state;
    const char *path = scratch_path("usage");
    struct crd_ledger *l;
    struct buf text = {0};
    assert_int_equal(crd_ledger_open(&l, path), OK);
    for (int i = 0; i < 100; i++) {
        struct crd_ledger_entry e = entry(i ? "a\"b" : "first");
        if (i == 1) e.key = NULL, e.path = "/a\"b\n";
        if (!i) e.first_us = 250000;
        crd_ledger_add(l, &e);
    }
    crd_ledger_close(l); /* writes what is left */
    assert_int_equal(lines_of(path, &text), 100);
    char *line = strtok((char *)buf_str(&text), "\n");
    json_t *j = json_loads(line, 0, NULL);
    assert_string_equal(json_string_value(json_object_get(j, "id")), "first");
    assert_string_equal(json_string_value(json_object_get(j, "key")), "anna");
    assert_string_equal(json_string_value(json_object_get(j, "path")), "/v1/x");
    static const struct { const char *name; int v; } numbers[] = {
        {"status", 200}, {"prompt_tokens", 12}, {"cached_tokens", 5}, {"completion_tokens", 7}, {"reasoning_tokens", 2}};
    for (size_t i = 0; i < COUNT_OF(numbers); i++)
        assert_int_equal(json_integer_value(json_object_get(j, numbers[i].name)), numbers[i].v);
    assert_true(json_real_value(json_object_get(j, "seconds")) > 1.23);
    assert_true(json_real_value(json_object_get(j, "first_token_seconds")) == 0.25);
    json_decref(j);
    j = json_loads(strtok(NULL, "\n"), 0, NULL);
    assert_true(json_is_null(json_object_get(j, "key")));
    assert_true(json_is_null(json_object_get(j, "first_token_seconds")));
    assert_string_equal(json_string_value(json_object_get(j, "path")), "/a\"b\n");
    json_decref(j);
    buf_free(&text);
}

static void what_stands_there_stays(void **state)
{
    (void)state;
    const char *path = scratch_path("usage-kept");
    scratch_write(path, "before\n", 7);
    struct crd_ledger *l;
    struct crd_ledger_entry e = entry("x");
    assert_int_equal(crd_ledger_open(&l, path), OK);
    crd_ledger_add(l, &e);
    crd_ledger_close(l);
    struct buf text = {0};
    assert_int_equal(lines_of(path, &text), 2);
    assert_memory_equal(text.data, "before\n", 7);
    buf_free(&text);
}

static void it_may_be_moved_away(void **state)
{
    (void)state;
    const char *path = scratch_path("usage-moved"), *away = scratch_path("usage-moved.1");
    struct crd_ledger *l;
    struct crd_ledger_entry e = entry("x");
    assert_int_equal(crd_ledger_open(&l, path), OK);
    crd_ledger_add(l, &e);
    assert_true(eventually(path, 1));
    assert_int_equal(rename(path, away), 0);
    crd_ledger_add(l, &e);
    crd_ledger_add(l, &e);
    assert_true(eventually(path, 2));
    assert_true(eventually(away, 1));
    crd_ledger_close(l);
}

static void a_file_that_cannot_be_written_is_said(void **state)
{
    (void)state;
    struct crd_ledger *l;
    assert_int_equal(crd_ledger_open(&l, "/proc/no-such-folder/usage"), ERR_IO);
    assert_non_null(strstr(err_text(), "--usage-log"));
    struct crd_ledger_entry e = entry("x");
    crd_ledger_add(NULL, &e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_says_who_used_what),
        cmocka_unit_test(what_stands_there_stays),
        cmocka_unit_test(it_may_be_moved_away),
        cmocka_unit_test(a_file_that_cannot_be_written_is_said),
    };
    return cmocka_run_group_tests_name("ledger", tests, NULL, NULL);
}
