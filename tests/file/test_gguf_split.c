/* test_gguf_split.c: a model in several files reads as one, and parts that do not belong together
 * are refused. */
#include "engine/file/model_file.h"

#include "tests/support/gguf_write.h"
#include "tests/support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* What part `i` of three says of itself. */
struct part { int no, count, n_tensors; const char *tensor; };

static const char *part_path(int i)
{
    char name[64];
    snprintf(name, sizeof name, "m-%05d-of-00003.gguf", i + 1);
    return scratch_path(name);
}

static void write_part(int i, struct part p)
{
    float data[4] = {(float)i, 1, 2, 3};
    struct gguf_write *w = gguf_write_open();
    if (i == 0) gguf_write_str(w, "general.architecture", "llama");
    gguf_write_int(w, "split.no", GGUF_U16, p.no);
    gguf_write_int(w, "split.count", GGUF_U16, p.count);
    gguf_write_int(w, "split.tensors.count", GGUF_I32, p.n_tensors);
    if (p.tensor) gguf_write_tensor(w, p.tensor, DTYPE_F32, 1, (const int64_t[]){4}, data);
    assert_int_equal(gguf_write_save(w, part_path(i)), OK);
    gguf_write_close(w);
}

/* An honest model of three parts, the first without tensors, as some tools write it. */
static int honest(void **state)
{
    (void)state;
    write_part(0, (struct part){0, 3, 2, NULL});
    write_part(1, (struct part){1, 3, 2, "a"});
    write_part(2, (struct part){2, 3, 2, "b"});
    return 0;
}

static void parts_read_as_one_model(void **state)
{
    (void)state;
    struct eng_model_file *f;
    float x[4];
    assert_int_equal(eng_model_file_open(&f, part_path(0)), OK);
    assert_int_equal(eng_model_file_parts(f), 3);
    assert_int_equal(eng_model_file_n_tensors(f), 2);
    assert_non_null(eng_model_file_find(f, "general.architecture"));
    assert_string_equal(eng_model_file_path(f), part_path(0));
    for (int i = 1; i < 3; i++) {
        const struct model_tensor *t = eng_model_file_tensor_find(f, i == 1 ? "a" : "b");
        assert_int_equal(t->part, i);
        assert_int_equal(eng_model_file_read(f, t, 0, sizeof x, x), OK);
        assert_true(x[0] == (float)i);
    }
    eng_model_file_close(f);
}

static void refused(const char *path, enum err err, const char *says, const char *and_says)
{
    struct eng_model_file *f = NULL;
    enum err e = eng_model_file_open(&f, path);
    if (e != err || !strstr(err_text(), says) || !strstr(err_text(), and_says))
        fail_msg("got %s '%s', wanted %s with '%s' and '%s'", err_name(e), e ? err_text() : "",
                 err_name(err), says, and_says);
    assert_null(f);
}

static void another_part_than_the_first_names_the_first(void **state)
{
    (void)state;
    refused(part_path(1), ERR_BAD_FILE, "part 2 of 3", "m-00001-of-00003.gguf");
}

static void a_missing_part_is_named(void **state)
{
    (void)state;
    assert_int_equal(unlink(part_path(2)), 0);
    refused(part_path(0), ERR_IO, "part 3 of 3", "m-00003-of-00003.gguf");
}

static void a_renamed_first_part_is_refused(void **state)
{
    (void)state;
    assert_int_equal(rename(part_path(0), scratch_path("model.gguf")), 0);
    refused(scratch_path("model.gguf"), ERR_BAD_FILE, "part 1 of 3", "-00001-of-00003.gguf");
}

static void a_part_of_another_model_is_refused(void **state)
{
    (void)state;
    write_part(2, (struct part){1, 3, 2, "b"});
    refused(part_path(0), ERR_BAD_FILE, "m-00003", "split.no 1");
    write_part(2, (struct part){2, 4, 2, "b"});
    refused(part_path(0), ERR_BAD_FILE, "m-00003", "split.count 4");
    struct gguf_write *w = gguf_write_open();
    assert_int_equal(gguf_write_save(w, part_path(2)), OK);
    gguf_write_close(w);
    refused(part_path(0), ERR_BAD_FILE, "m-00003", "split.no -1");
}

static void tensors_are_counted_over_all_parts(void **state)
{
    (void)state;
    write_part(0, (struct part){0, 3, 5, NULL});
    refused(part_path(0), ERR_BAD_FILE, "split.tensors.count' is 5", "2 tensors");
}

static void a_tensor_in_two_parts_is_refused(void **state)
{
    (void)state;
    write_part(2, (struct part){2, 3, 2, "a"});
    refused(part_path(0), ERR_BAD_FILE, "'a' is there twice", "m-00003");
}

static void impossible_counts_are_refused(void **state)
{
    (void)state;
    write_part(0, (struct part){0, 65535, 2, NULL});
    refused(part_path(0), ERR_BAD_FILE, "split.count' is 65535", "between");
    write_part(0, (struct part){7, 3, 2, NULL});
    refused(part_path(0), ERR_BAD_FILE, "split.no' is 7", "between");
}

static void a_damaged_part_is_named(void **state)
{
    (void)state;
    scratch_write(part_path(1), "GGUF", 4);
    refused(part_path(0), ERR_BAD_FILE, "part 2 of 3", "m-00002");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(parts_read_as_one_model, honest),
        cmocka_unit_test_setup(another_part_than_the_first_names_the_first, honest),
        cmocka_unit_test_setup(a_missing_part_is_named, honest),
        cmocka_unit_test_setup(a_renamed_first_part_is_refused, honest),
        cmocka_unit_test_setup(a_part_of_another_model_is_refused, honest),
        cmocka_unit_test_setup(tensors_are_counted_over_all_parts, honest),
        cmocka_unit_test_setup(a_tensor_in_two_parts_is_refused, honest),
        cmocka_unit_test_setup(impossible_counts_are_refused, honest),
        cmocka_unit_test_setup(a_damaged_part_is_named, honest),
    };
    return cmocka_run_group_tests_name("gguf_split", tests, NULL, NULL);
}
