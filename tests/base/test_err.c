/* test_err.c: codes have names, texts and radii; sentences are per thread and never overflow. */
#include "base/err.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static const enum err all[] = {
#define X(name, code, radius, text) ERR_##name,
    ERR_MAP(X)
#undef X
};

static void every_code_has_a_name_and_a_text(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(all); i++) {
        assert_string_not_equal(err_name(all[i]), "UNKNOWN");
        assert_string_not_equal(err_short(all[i]), "unknown error");
        for (size_t j = 0; j < i; j++) assert_int_not_equal(all[i], all[j]);
    }
    assert_string_equal(err_name(OK), "OK");
    assert_string_equal(err_name((enum err)9999), "UNKNOWN");
    assert_string_equal(err_short((enum err)9999), "unknown error");
}

static void codes_on_the_wire_do_not_move(void **state)
{
    (void)state;
    assert_int_equal(ERR_BAD_REQUEST, 1);
    assert_int_equal(ERR_UNAVAILABLE, 8);
    assert_int_equal(ERR_LINK_CLOSED, 32);
    assert_int_equal(ERR_PEER_LOST, 64);
    assert_int_equal(ERR_DEADLINE, 65);
    assert_int_equal(ERR_NO_MEMORY, 128);
    assert_int_equal(ERR_SYSTEM, 133);
}

static void radius_grows_with_the_code(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(all); i++) {
        enum err_radius want = all[i] < 32    ? RADIUS_REQUEST
                               : all[i] < 64  ? RADIUS_LINK
                               : all[i] < 128 ? RADIUS_REPLICA
                                              : RADIUS_PROCESS;
        assert_int_equal(err_radius(all[i]), want);
    }
    assert_int_equal(err_radius((enum err)9999),
                     RADIUS_PROCESS); /* what nobody knows is taken seriously */
}

static void raise_records_and_returns(void **state)
{
    (void)state;
    assert_int_equal(err_raise(ERR_IO, "%s: %d bytes", "f", 3), ERR_IO);
    assert_string_equal(err_text(), "f: 3 bytes");
    assert_int_equal(err_raise(ERR_IO, "again: %s", err_text()),
                     ERR_IO); /* its own last sentence as argument */
    assert_string_equal(err_text(), "again: f: 3 bytes");
    assert_int_equal(err_prefix(ERR_BAD_FILE, "file %d", 9), ERR_BAD_FILE);
    assert_string_equal(err_text(), "file 9: again: f: 3 bytes");
}

static void long_sentences_are_cut_not_overrun(void **state)
{
    (void)state;
    char big[5000];
    memset(big, 'a', sizeof big - 1);
    big[sizeof big - 1] = 0;
    assert_int_equal(err_raise(ERR_IO, "%s", big), ERR_IO);
    assert_in_range(strlen(err_text()), 500, 1023);
    assert_int_equal(err_prefix(ERR_IO, "who"), ERR_IO);
    assert_memory_equal(err_text(), "who: aaa", 8);
    assert_in_range(strlen(err_text()), 500, 1023);
    assert_int_equal(err_prefix(ERR_IO, "%s", big),
                     ERR_IO); /* no room for anything before it: it stays */
    assert_memory_equal(err_text(), "who: aaa", 8);
}

static void *other_thread(void *seen)
{
    strcpy(seen, err_text());
    return (void *)(size_t)err_raise(ERR_IO, "of the other");
}

static void sentences_belong_to_their_thread(void **state)
{
    (void)state;
    char seen[64] = "x";
    pthread_t t;
    assert_int_equal(err_raise(ERR_IO, "mine"), ERR_IO);
    pthread_create(&t, NULL, other_thread, seen);
    pthread_join(t, NULL);
    assert_string_equal(seen, "");
    assert_string_equal(err_text(), "mine");
}

static enum err fails_second(int *reached)
{
    enum err rc = OK;
    TRY(OK);
    *reached = 1;
    TRY(ERR_NO_FIT);
    *reached = 2;
out:
    return rc;
}

static void try_leaves_with_the_code(void **state)
{
    (void)state;
    int reached = 0;
    assert_int_equal(fails_second(&reached), ERR_NO_FIT);
    assert_int_equal(reached, 1);
}

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_has_a_name_and_a_text),
        cmocka_unit_test(codes_on_the_wire_do_not_move),
        cmocka_unit_test(radius_grows_with_the_code),
        cmocka_unit_test(raise_records_and_returns),
        cmocka_unit_test(long_sentences_are_cut_not_overrun),
        cmocka_unit_test(sentences_belong_to_their_thread),
        cmocka_unit_test(try_leaves_with_the_code),
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("err", tests, NULL, NULL);
}
