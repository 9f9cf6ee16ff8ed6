/* state_dir: what one coordinator left is what the next one finds, and two never share it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "coordinator/state_dir.h"
#include "tests/support/scratch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static struct crd_left some(void)
{
    return (struct crd_left){.fit = 0xfedcba9876543210u, .listen = "127.0.0.1:40123", .epoch = 4000000000u, .mpirun = 123, .mpirun_start = 99887766,
                             .n_ranks = 2, .ranks = {124, 125}};
}

static void what_is_left_is_found(void **state)
{
    const char *path = scratch_path("state");
    struct crd_state *s;
    struct crd_left l = some(), found;
    struct control_msg *plan;
    struct msg_load_plan p = {.epoch = 9, .model_path = "/m.gguf", .grid = {.n_stages = 1, .layers = {0, 3}, .width = {2}}, .context = 64, .n_slots = 4,
                              .max_step_tokens = 16, .isa = "auto", .wire = "shm", .wire_type = "f32", .comm_timeout_us = 5};
    char key[65], got[65];
    struct stat st;
    (void)state;
    assert_int_equal(crd_state_open(&s, path), OK);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    assert_false(crd_state_left(s, 0, &found, &plan));
    assert_false(crd_state_key(s, got));
    memset(key, 'a', 64), key[64] = 0;
    assert_int_equal(crd_state_set_key(s, key), OK);
    crd_state_note(s, 1, &l);
    crd_state_note_plan(s, 1, &p);
    crd_state_close(s); /* as after kill -9: the files stay */
    assert_int_equal(crd_state_open(&s, path), OK);
    assert_true(crd_state_key(s, got));
    assert_string_equal(got, key);
    assert_false(crd_state_left(s, 0, &found, &plan));
    assert_true(crd_state_left(s, 1, &found, &plan));
    assert_memory_equal(&found, &l, sizeof l);
    assert_non_null(plan);
    assert_int_equal(plan->load_plan.epoch, 9);
    assert_string_equal(plan->load_plan.model_path, "/m.gguf");
    control_msg_free(plan);
    crd_state_clear(s, 2);
    assert_false(crd_state_left(s, 1, &found, &plan));
    assert_false(crd_state_key(s, got));
    crd_state_close(s);
}

static bool there(const char *dir, const char *name)
{
    char path[600];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return !access(path, F_OK);
}

/* While one model takes the place of another each has its own files, and `now` says which is served. */
static void two_models_do_not_mix(void **state)
{
    const char *path = scratch_path("models");
    struct crd_state *s, *one;
    struct crd_left l = some(), m = some(), found;
    struct control_msg *plan;
    struct crd_now now = {.number = 7, .model = "/models/a b.gguf"}, got;
    char key[65], name[600];
    int32_t numbers[4];
    (void)state;
    assert_int_equal(crd_state_open(&s, path), OK);
    assert_false(crd_state_now(s, &got));
    one = crd_state_of(s, 7);
    m.epoch = 5;
    memset(key, 'b', 64), key[64] = 0;
    assert_int_equal(crd_state_set_key(one, key), OK);
    crd_state_note(s, 0, &l);
    crd_state_note(one, 0, &m);
    snprintf(name, sizeof name, "%s/journal.7", path);
    char *journal = crd_state_model_path(one, "journal");
    assert_string_equal(journal, name);
    scratch_write(journal, "x", 1);
    free(journal);
    assert_int_equal(crd_state_numbers(s, numbers, 4), 2);
    assert_true((numbers[0] == 0 && numbers[1] == 7) || (numbers[0] == 7 && numbers[1] == 0));
    assert_true(crd_state_left(s, 0, &found, &plan) && found.epoch == l.epoch && !plan);
    assert_true(crd_state_left(one, 0, &found, &plan) && found.epoch == 5 && !plan);
    assert_false(crd_state_key(s, key));
    assert_int_equal(crd_state_set_now(s, &now), OK);
    assert_true(crd_state_now(s, &got));
    assert_int_equal(got.number, 7);
    assert_string_equal(got.model, now.model);
    snprintf(name, sizeof name, "%s/key.9.new", path); /* killed while it wrote */
    scratch_write(name, "x", 1);
    assert_int_equal(crd_state_numbers(s, numbers, 4), 3);
    crd_state_drop(s, 9);
    assert_false(there(path, "key.9.new"));
    crd_state_drop(s, 0);
    assert_false(crd_state_left(s, 0, &found, &plan));
    assert_true(crd_state_left(one, 0, &found, &plan));
    crd_state_clear(one, 1); /* in order */
    crd_state_close(one);
    crd_state_end(s, 7);
    assert_true(there(path, "journal"));
    assert_false(there(path, "journal.7") || there(path, "now") || there(path, "key.7") || there(path, "replica-0.7"));
    crd_state_drop(s, 0);
    assert_false(there(path, "journal"));
    assert_int_equal(crd_state_numbers(s, numbers, 4), 0);
    crd_state_close(s);
}

static void what_is_served_is_a_number_and_a_path(void **state)
{
    static const char *const bad[] = {"", "7", "7\n", "7\n/m.gguf", "0\n/m.gguf\n", "-1\n/m.gguf\n", "x\n/m.gguf\n", "7\nm.gguf\n", "7\n/m\n/n\n", "7 8\n/m\n",
                                      "99999999999\n/m\n", "\n/m\n"};
    struct crd_now n;
    struct buf b = {0};
    (void)state;
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        if (!crd_now_parse(&n, bad[i], strlen(bad[i]))) fail_msg("accepted: %s", bad[i]);
    assert_int_equal(crd_now_parse(&n, "7\n/m\0/\n", 7), ERR_BAD_CONFIG);
    assert_int_equal(crd_now_parse(&n, "2147483647\n/m\n", 14), OK);
    assert_int_equal(n.number, 2147483647);
    buf_puts(&b, "7\n");
    for (size_t i = 0; i < sizeof n.model; i++) buf_putc(&b, '/');
    buf_putc(&b, '\n');
    assert_int_equal(crd_now_parse(&n, buf_str(&b), b.len), ERR_BAD_CONFIG);
    buf_free(&b);
}

static void two_never_live_in_it(void **state)
{
    const char *path = scratch_path("shared");
    struct crd_state *s, *second = NULL;
    char want[64];
    (void)state;
    assert_int_equal(crd_state_open(&s, path), OK);
    assert_int_equal(crd_state_open(&second, path), ERR_BAD_CONFIG);
    snprintf(want, sizeof want, "in use by another coordinator (pid %d)", (int)getpid());
    assert_non_null(strstr(err_text(), want));
    crd_state_close(s);
    assert_int_equal(crd_state_open(&second, path), OK);
    crd_state_close(second);
}

static void it_must_be_private(void **state)
{
    const char *path = scratch_path("open");
    struct crd_state *s;
    (void)state;
    assert_int_equal(mkdir(path, 0755), 0);
    assert_int_equal(chmod(path, 0755), 0);
    assert_int_equal(crd_state_open(&s, path), ERR_BAD_CONFIG);
    assert_non_null(strstr(err_text(), "chmod 700"));
    assert_int_equal(crd_state_open(&s, "/proc/self/status"), ERR_BAD_CONFIG);
}

static void damaged_text_is_refused(void **state)
{
    static const char *const bad[] = {
        "", "tessera-replica 2\n", "tessera-replica 1\nfit xyz\n", "tessera-replica 1\nepoch 4294967296\n", "tessera-replica 1\nepoch -1\n",
        "tessera-replica 1\nmpirun 12\n", "tessera-replica 1\nmpirun 12 13 14\n", "tessera-replica 1\nranks 1 x\n", "tessera-replica 1\nlisten \n",
        "tessera-replica 1\nsomething else\n", "tessera-replica 1\nepoch\n",
    };
    struct crd_left l;
    struct buf b = {0};
    (void)state;
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        if (!crd_left_parse(&l, bad[i], strlen(bad[i]))) fail_msg("accepted: %s", bad[i]);
    buf_puts(&b, "tessera-replica 1\nranks");
    for (int i = 0; i <= LIMIT_RANKS; i++) buf_printf(&b, " %d", i + 1);
    assert_int_equal(crd_left_parse(&l, buf_str(&b), b.len), ERR_BAD_CONFIG);
    buf_clear(&b);
    struct crd_left w = some();
    crd_left_write(&w, &b);
    for (size_t n = 0; n < b.len; n++) { /* cut anywhere: refused, or understood as what stands there */
        if (!crd_left_parse(&l, buf_str(&b), n)) assert_true(l.fit == 0 || l.n_ranks <= w.n_ranks);
    }
    assert_int_equal(crd_left_parse(&l, buf_str(&b), b.len), OK);
    buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_left_is_found),
        cmocka_unit_test(two_models_do_not_mix),
        cmocka_unit_test(what_is_served_is_a_number_and_a_path),
        cmocka_unit_test(two_never_live_in_it),
        cmocka_unit_test(it_must_be_private),
        cmocka_unit_test(damaged_text_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
