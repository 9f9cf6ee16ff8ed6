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
        cmocka_unit_test(two_never_live_in_it),
        cmocka_unit_test(it_must_be_private),
        cmocka_unit_test(damaged_text_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
