/* test_log.c: one line per call, levels respected, long text cut at the end of the line. */
#include "base/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char text[16384];
static int keep;
static FILE *file;

static void capture_begin(void)
{
    file = tmpfile();
    assert_non_null(file);
    keep = dup(2);
    dup2(fileno(file), 2);
}

static const char *capture_end(void)
{
    dup2(keep, 2);
    close(keep);
    rewind(file);
    text[fread(text, 1, sizeof text - 1, file)] = 0;
    fclose(file);
    return text;
}

static void line_names_level_component_and_who(void **state)
{
    (void)state;
    log_set_who("rank 1");
    capture_begin();
    log_warn("coll", "%d of %d", 3, 4);
    assert_non_null(strstr(capture_end(), " warn  coll rank 1: 3 of 4\n"));
    log_set_who("");
    capture_begin();
    log_info("coll", "x");
    assert_non_null(strstr(capture_end(), " info  coll: x\n"));
}

static void levels_above_the_maximum_are_silent(void **state)
{
    (void)state;
    capture_begin();
    log_debug("c", "hidden");
    log_set_level(LOG_ERROR);
    log_warn("c", "hidden");
    log_error("c", "seen");
    log_set_level(LOG_DEBUG);
    log_debug("c", "shown");
    log_set_level(LOG_INFO);
    capture_end();
    assert_null(strstr(text, "hidden"));
    assert_non_null(strstr(text, "seen\n"));
    assert_non_null(strstr(text, "shown\n"));
}

static void long_lines_are_cut_and_still_end(void **state)
{
    (void)state;
    capture_begin();
    log_error("c", "%*d", 9000, 1);
    size_t n = strlen(capture_end());
    assert_in_range(n, 1000, 2048);
    assert_int_equal(text[n - 1], '\n');
    assert_ptr_equal(strchr(text, '\n'), text + n - 1);
}

static void what_others_said_makes_no_lines_and_steers_no_terminal(void **state)
{
    (void)state;
    capture_begin();
    log_warn("c", "model %s", "x\n12:00:00.000 error forged\x1b[2J");
    assert_non_null(strstr(capture_end(), "c: model x\\n12:00:00.000 error forged\\x1b[2J\n"));
}

static void level_names_are_parsed(void **state)
{
    (void)state;
    assert_int_equal(log_level_parse("error"), LOG_ERROR);
    assert_int_equal(log_level_parse("debug"), LOG_DEBUG);
    assert_int_equal(log_level_parse("Debug"), -1);
    assert_int_equal(log_level_parse(""), -1);
}

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(line_names_level_component_and_who),
        cmocka_unit_test(levels_above_the_maximum_are_silent),
        cmocka_unit_test(long_lines_are_cut_and_still_end),
        cmocka_unit_test(what_others_said_makes_no_lines_and_steers_no_terminal),
        cmocka_unit_test(level_names_are_parsed),
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
