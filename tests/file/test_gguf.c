/* test_gguf.c: good GGUF files come back as they were written. */
#include "engine/file/model_file.h"

#include "tests/support/gguf_write.h"
#include "tests/support/scratch.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

static struct eng_model_file *open_written(struct gguf_write *w)
{
    struct buf b = {0};
    struct eng_model_file *f;
    gguf_write_bytes(w, &b);
    enum err e = eng_model_file_open(&f, scratch_bytes(b.data, b.len));
    if (e) fail_msg("%s", err_text());
    buf_free(&b);
    gguf_write_close(w);
    return f;
}

static void integers_of_every_width_arrive(void **state)
{
    (void)state;
    static const struct { const char *key; enum gguf_type type; int64_t v; } ints[] = {
        {"u8", GGUF_U8, 255},       {"i8", GGUF_I8, -128},          {"u16", GGUF_U16, 65535},
        {"i16", GGUF_I16, -32768},  {"u32", GGUF_U32, 4294967295},  {"i32", GGUF_I32, INT32_MIN},
        {"u64", GGUF_U64, INT64_MAX}, {"i64", GGUF_I64, INT64_MIN},
    };
    struct gguf_write *w = gguf_write_open();
    for (size_t i = 0; i < COUNT_OF(ints); i++)
        gguf_write_int(w, ints[i].key, ints[i].type, ints[i].v);
    struct eng_model_file *f = open_written(w);
    assert_int_equal(eng_model_file_n_kv(f), COUNT_OF(ints));
    for (size_t i = 0; i < COUNT_OF(ints); i++) {
        int64_t v;
        assert_int_equal(eng_model_file_int(f, ints[i].key, 0, INT64_MIN, INT64_MAX, &v), OK);
        assert_true(v == ints[i].v);
        assert_int_equal(eng_model_file_kv(f, (int64_t)i)->key.n, strlen(ints[i].key));
    }
    eng_model_file_close(f);
}

static void floats_booleans_and_strings_arrive(void **state)
{
    (void)state;
    double d;
    bool b;
    char *s;
    struct gguf_write *w = gguf_write_open();
    gguf_write_f32(w, "f32", 0.1f);
    gguf_write_f64(w, "f64", 0.1);
    gguf_write_bool(w, "yes", true);
    gguf_write_str(w, "str", "Gr\xc3\xbc\xc3\x9f" "e");
    gguf_write_str(w, "empty", "");
    struct eng_model_file *f = open_written(w);
    assert_int_equal(eng_model_file_float(f, "f32", 0, &d), OK);
    assert_true(d == (double)0.1f);
    assert_int_equal(eng_model_file_float(f, "f64", 0, &d), OK);
    assert_true(d == 0.1);
    assert_int_equal(eng_model_file_bool(f, "yes", false, &b), OK);
    assert_true(b);
    assert_int_equal(eng_model_file_string(f, "str", &s), OK);
    assert_string_equal(s, "Gr\xc3\xbc\xc3\x9f" "e");
    free(s);
    assert_int_equal(eng_model_file_string(f, "empty", &s), OK);
    assert_string_equal(s, "");
    free(s);
    eng_model_file_close(f);
}

static void arrays_arrive(void **state)
{
    (void)state;
    static const int32_t ints[] = {-1, 0, 70000}, flags[] = {1, 0};
    static const float floats[] = {1.5f, -2};
    static const struct model_str strs[] = {{"one", 3}, {"", 0}, {"a\0b", 3}};
    struct gguf_write *w = gguf_write_open();
    gguf_write_ints(w, "ints", GGUF_I32, ints, 3);
    gguf_write_ints(w, "narrow", GGUF_I8, ints, 2);
    gguf_write_ints(w, "flags", GGUF_BOOL, flags, 2);
    gguf_write_f32s(w, "floats", floats, 2);
    gguf_write_strs(w, "strs", strs, 3);
    gguf_write_strs(w, "none", NULL, 0);
    struct eng_model_file *f = open_written(w);
    const struct model_kv *kv = eng_model_file_find(f, "ints");
    assert_true(kv->kind == KV_ARRAY && kv->a.kind == KV_INT && kv->a.n == 3);
    for (uint64_t i = 0; i < 3; i++) assert_int_equal(eng_model_file_array_int(kv, i), ints[i]);
    assert_int_equal(eng_model_file_array_int(eng_model_file_find(f, "narrow"), 0), -1);
    assert_int_equal(eng_model_file_array_int(eng_model_file_find(f, "flags"), 0), 1);
    assert_true(eng_model_file_array_float(eng_model_file_find(f, "floats"), 1) == -2);
    kv = eng_model_file_find(f, "strs");
    assert_true(kv->a.kind == KV_STRING && kv->a.n == 3);
    struct model_str s = eng_model_file_array_str(kv, 2);
    assert_int_equal(s.n, 3);
    assert_memory_equal(s.p, "a\0b", 3);
    assert_int_equal(eng_model_file_array_str(kv, 1).n, 0);
    assert_int_equal(eng_model_file_find(f, "none")->a.n, 0);
    eng_model_file_close(f);
}

static void absent_keys_give_the_default_and_wrong_ones_an_error(void **state)
{
    (void)state;
    int64_t i = 5;
    double d = 5;
    bool b = true;
    char *s = (char *)1;
    struct gguf_write *w = gguf_write_open();
    gguf_write_u32(w, "n", 12);
    gguf_write_f32(w, "inf", INFINITY);
    gguf_write_raw(w, "nul", GGUF_STRING, "\2\0\0\0\0\0\0\0x\0", 10);
    struct eng_model_file *f = open_written(w);
    assert_int_equal(eng_model_file_int(f, "gone", -7, 0, 1, &i), OK);
    assert_int_equal(i, -7);
    assert_int_equal(eng_model_file_float(f, "gone", 2.5, &d), OK);
    assert_true(d == 2.5);
    assert_int_equal(eng_model_file_bool(f, "gone", false, &b), OK);
    assert_false(b);
    assert_int_equal(eng_model_file_string(f, "gone", &s), OK);
    assert_null(s);
    assert_null(eng_model_file_find(f, "gone"));
    assert_null(eng_model_file_find(f, ""));
    assert_int_equal(eng_model_file_int(f, "n", 0, 0, 11, &i), ERR_BAD_FILE);
    assert_non_null(strstr(err_text(), "'n' is 12"));
    assert_int_equal(eng_model_file_string(f, "n", &s), ERR_BAD_FILE);
    assert_non_null(strstr(err_text(), "a string"));
    assert_int_equal(eng_model_file_bool(f, "n", false, &b), ERR_BAD_FILE);
    assert_int_equal(eng_model_file_float(f, "inf", 0, &d), ERR_BAD_FILE);
    assert_non_null(strstr(err_text(), "'inf'"));
    assert_int_equal(eng_model_file_string(f, "nul", &s), ERR_BAD_FILE);
    assert_non_null(strstr(err_text(), "NUL"));
    assert_true(i == -7 && s == NULL); /* nothing written on failure */
    eng_model_file_close(f);
}

static void tensors_are_found_and_read_at_any_alignment(void **state)
{
    (void)state;
    static const uint32_t alignments[] = {8, 32, 4096};
    float a[6] = {1, 2, 3, 4, 5, 6}, back[6];
    uint8_t q[68], qback[34];
    for (size_t i = 0; i < sizeof q; i++) q[i] = (uint8_t)i;
    for (size_t k = 0; k < COUNT_OF(alignments); k++) {
        struct gguf_write *w = gguf_write_open();
        gguf_write_version(w, k ? 3 : 2);
        gguf_write_alignment(w, alignments[k]);
        gguf_write_tensor(w, "a", DTYPE_F32, 2, (const int64_t[]){3, 2}, a);
        gguf_write_tensor(w, "q", DTYPE_Q8_0, 2, (const int64_t[]){32, 2}, q);
        struct eng_model_file *f = open_written(w);
        assert_string_equal(eng_model_file_format(f), k ? "GGUF v3" : "GGUF v2");
        assert_int_equal(eng_model_file_n_tensors(f), 2);
        const struct model_tensor *t = eng_model_file_tensor_find(f, "a");
        assert_ptr_equal(t, eng_model_file_tensor(f, 0));
        assert_true(t->type == DTYPE_F32 && t->dims[0] == 3 && t->dims[1] == 2 && t->dims[2] == 1 &&
                    t->dims[3] == 1);
        assert_true(t->bytes == 24 && t->offset % alignments[k] == 0);
        assert_int_equal(eng_model_file_read(f, t, 0, 24, back), OK);
        assert_memory_equal(a, back, 24);
        t = eng_model_file_tensor_find(f, "q");
        assert_int_equal(t->bytes, 68);
        assert_int_equal(eng_model_file_read(f, t, 34, 34, qback), OK);
        assert_memory_equal(q + 34, qback, 34);
        assert_null(eng_model_file_tensor_find(f, "b"));
        eng_model_file_close(f);
    }
}

static void foreign_types_open_and_are_refused_when_read(void **state)
{
    (void)state;
    uint8_t byte;
    struct gguf_write *w = gguf_write_open();
    gguf_write_tensor_entry(w, "strange", 9999, 1, (const int64_t[]){8}, 0);
    gguf_write_tensor(w, "data", DTYPE_F32, 1, (const int64_t[]){64}, (const float[64]){0});
    gguf_write_tensor_entry(w, "q2", 10, 1, (const int64_t[]){256}, 0);
    struct buf b = {0};
    gguf_write_bytes(w, &b);
    gguf_write_close(w);
    struct eng_model_file *f;
    assert_int_equal(eng_model_file_open(&f, scratch_bytes(b.data, b.len)),
                     ERR_BAD_FILE); /* q2 lies over data */
    assert_non_null(strstr(err_text(), "'q2'"));
    w = gguf_write_open();
    gguf_write_tensor_entry(w, "strange", 9999, 1, (const int64_t[]){8}, 0);
    gguf_write_tensor(w, "data", DTYPE_F32, 1, (const int64_t[]){64}, (const float[64]){0});
    gguf_write_tensor_entry(w, "q8", 15, 1, (const int64_t[]){256}, 256);
    buf_clear(&b);
    gguf_write_bytes(w, &b);
    for (int i = 0; i < 292; i++) buf_u8(&b, 0);
    gguf_write_close(w);
    assert_int_equal(eng_model_file_open(&f, scratch_bytes(b.data, b.len)), OK);
    const struct model_tensor *t = eng_model_file_tensor_find(f, "q8");
    assert_true(t->type == DTYPE_COUNT && t->ggml_type == 15 && t->bytes == 292);
    assert_int_equal(eng_model_file_read(f, t, 0, 1, &byte), ERR_UNSUPPORTED);
    assert_non_null(strstr(err_text(), "'q8'"));
    assert_non_null(strstr(err_text(), "Q8_K"));
    t = eng_model_file_tensor_find(f, "strange");
    assert_true(t->type == DTYPE_COUNT && t->ggml_type == 9999 && t->bytes == 0);
    eng_model_file_close(f);
    buf_free(&b);
}

static void a_header_larger_than_the_first_window_is_read(void **state)
{
    (void)state;
    enum { N = 200000 };
    struct model_str *s = xmalloc(N * sizeof *s);
    char *text = xmalloc(N * 16);
    for (int i = 0; i < N; i++) {
        int n = snprintf(text + i * 16, 16, "token %d", i);
        s[i] = (struct model_str){text + i * 16, (uint64_t)n};
    }
    struct gguf_write *w = gguf_write_open();
    gguf_write_strs(w, "tokens", s, N);
    gguf_write_u32(w, "after", 1);
    gguf_write_tensor(w, "t", DTYPE_F32, 1, (const int64_t[]){1}, &(float){3});
    struct eng_model_file *f = open_written(w);
    const struct model_kv *kv = eng_model_file_find(f, "tokens");
    assert_int_equal(kv->a.n, N);
    for (int i = 0; i < N; i++) {
        struct model_str got = eng_model_file_array_str(kv, (uint64_t)i);
        assert_true(got.n == s[i].n && !memcmp(got.p, s[i].p, got.n));
    }
    assert_non_null(eng_model_file_find(f, "after"));
    assert_non_null(eng_model_file_tensor_find(f, "t"));
    eng_model_file_close(f);
    free(s);
    free(text);
}

static void many_names_are_told_apart(void **state)
{
    (void)state;
    enum { N = 5000 };
    char name[32];
    const int64_t one = 1;
    const float zero = 0; /* data must live until the file is written */
    struct gguf_write *w = gguf_write_open();
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof name, "blk.%d.w", i);
        gguf_write_tensor(w, name, DTYPE_F32, 1, &one, &zero);
    }
    struct eng_model_file *f = open_written(w);
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof name, "blk.%d.w", i);
        assert_ptr_equal(eng_model_file_tensor_find(f, name), eng_model_file_tensor(f, i));
    }
    eng_model_file_close(f);
}

static void what_is_no_model_file_is_named(void **state)
{
    (void)state;
    struct eng_model_file *f = (struct eng_model_file *)1;
    assert_int_equal(eng_model_file_open(&f, "/nowhere/model.gguf"), ERR_IO);
    assert_non_null(strstr(err_text(), "/nowhere/model.gguf"));
    assert_int_equal(eng_model_file_open(&f, scratch_dir()), ERR_BAD_FILE);
    assert_non_null(strstr(err_text(), "a directory without config.json"));
    assert_int_equal(mkfifo(scratch_path("fifo"), 0600), 0);
    assert_int_equal(eng_model_file_open(&f, scratch_path("fifo")),
                     ERR_IO); /* and does not wait for a writer */
    assert_int_equal(eng_model_file_open(&f, scratch_bytes("", 0)), ERR_BAD_FILE);
    assert_int_equal(eng_model_file_open(&f, scratch_bytes("PK\3\4 zip", 8)), ERR_UNSUPPORTED);
    assert_non_null(strstr(err_text(), "50 4b 03 04"));
    assert_ptr_equal(f, (void *)1);
    eng_model_file_close(NULL);
}

static void a_file_that_shrinks_later_is_an_error_not_a_crash(void **state)
{
    (void)state;
    float x[256] = {0};
    struct eng_model_file *f;
    const char *path = scratch_path("shrinks.gguf");
    struct gguf_write *w = gguf_write_open();
    gguf_write_tensor(w, "t", DTYPE_F32, 1, (const int64_t[]){256}, x);
    assert_int_equal(gguf_write_save(w, path), OK);
    gguf_write_close(w);
    assert_int_equal(eng_model_file_open(&f, path), OK);
    struct buf b = {0};
    assert_true(scratch_read(path, &b));
    scratch_write(path, b.data, 100);
    assert_int_equal(eng_model_file_read(f, eng_model_file_tensor(f, 0), 0, sizeof x, x), ERR_IO);
    assert_non_null(strstr(err_text(), "'t'"));
    assert_non_null(strstr(err_text(), "offset 100"));
    eng_model_file_close(f);
    buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers_of_every_width_arrive),
        cmocka_unit_test(floats_booleans_and_strings_arrive),
        cmocka_unit_test(arrays_arrive),
        cmocka_unit_test(absent_keys_give_the_default_and_wrong_ones_an_error),
        cmocka_unit_test(tensors_are_found_and_read_at_any_alignment),
        cmocka_unit_test(foreign_types_open_and_are_refused_when_read),
        cmocka_unit_test(a_header_larger_than_the_first_window_is_read),
        cmocka_unit_test(many_names_are_told_apart),
        cmocka_unit_test(what_is_no_model_file_is_named),
        cmocka_unit_test(a_file_that_shrinks_later_is_an_error_not_a_crash),
    };
    return cmocka_run_group_tests_name("gguf", tests, NULL, NULL);
}
