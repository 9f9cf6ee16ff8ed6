/* test_gguf_lies.c: a valid file with one field changed is refused with a sentence that names the
 * thing. */
#include "engine/file/model_file.h"

#include "base/rng.h"
#include "tests/support/gguf_write.h"
#include "tests/support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* The honest file: every kind of key, three tensors. No byte of it is padding after the last
 * tensor. */
static void honest(struct buf *b)
{
    static const int32_t ints[] = {1, 2, 3};
    static const struct model_str strs[] = {{"alpha", 5}, {"beta", 4}};
    static const float data[64];
    struct gguf_write *w = gguf_write_open();
    gguf_write_alignment(w, 32);
    gguf_write_u32(w, "t.u32", 7);
    gguf_write_int(w, "t.i32", GGUF_I32, -7);
    gguf_write_int(w, "t.u64", GGUF_U64, 8);
    gguf_write_bool(w, "t.yes", true);
    gguf_write_str(w, "t.str", "text");
    gguf_write_ints(w, "t.ints", GGUF_I32, ints, 3);
    gguf_write_ints(w, "t.longs", GGUF_U64, ints, 3);
    gguf_write_strs(w, "t.strs", strs, 2);
    gguf_write_tensor(w, "w.one", DTYPE_F32, 2, (const int64_t[]){8, 2}, data);
    gguf_write_tensor(w, "w.two", DTYPE_Q8_0, 2, (const int64_t[]){32, 2}, data);
    gguf_write_tensor(w, "w.six", DTYPE_F32, 1, (const int64_t[]){8}, data);
    buf_clear(b);
    gguf_write_bytes(w, b);
    gguf_write_close(w);
}

/* Where fields stand from a name's beginning: for keys of five letters, for arrays' keys of six,
 * for two-dimensional tensors' names of five. */
enum { LEN = -8, TYPE = 5, VALUE = 9, A_ELEM = 10, A_COUNT = 14, A_FIRST = 22 };
enum { T_LEN = -8, T_DIMS = 5, T_D0 = 9, T_D1 = 17, T_TYPE = 25, T_OFFSET = 29 };

static const struct lie {
    const char *claim;
    const char
        *anchor; /* the field stands at delta from this name; NULL: from the file's beginning */
    int delta, width;
    uint64_t value;
    enum err err;
    const char *says, *and_says;
} lies[] = {
    {"version 1", NULL, 4, 4, 1, ERR_UNSUPPORTED, "version 1", "2 and 3"},
    {"version 4", NULL, 4, 4, 4, ERR_UNSUPPORTED, "version 4", "offset 4"},
    {"big-endian", NULL, 4, 4, 3u << 24, ERR_UNSUPPORTED, "big-endian", "little-endian"},
    {"no magic", NULL, 0, 1, 'g', ERR_UNSUPPORTED, "67 47 55 46", "GGUF"},
    {"2^62 tensors", NULL, 8, 8, 1ull << 62, ERR_BAD_FILE, "4611686018427387904 tensors",
     "offset 8"},
    {"a million tensors", NULL, 8, 8, 1000000, ERR_BAD_FILE, "1000000 tensors", "left"},
    {"one tensor too many", NULL, 8, 8, 4, ERR_BAD_FILE, "tensor 3", "offset"},
    {"2^63 keys", NULL, 16, 8, 1ull << 63, ERR_BAD_FILE, "9223372036854775808 metadata",
     "offset 16"},
    {"a million keys", NULL, 16, 8, 1000000, ERR_BAD_FILE, "1000000 metadata entries", "left"},
    {"one key too many", NULL, 16, 8, 10, ERR_BAD_FILE, "tensor 0", "offset"},
    {"key longer than the file", "t.u32", LEN, 8, 60000, ERR_BAD_FILE, "metadata entry 1",
     "60000 bytes"},
    {"key of 2^64-1 bytes", "t.u32", LEN, 8, UINT64_MAX, ERR_BAD_FILE, "metadata entry 1", "65535"},
    {"key without a letter", "t.u32", LEN, 8, 0, ERR_BAD_FILE, "metadata entry 1", "0 bytes"},
    {"NUL in a key", "t.u32", 2, 1, 0, ERR_BAD_FILE, "NUL", "t.?32"},
    {"key twice", "t.i32", 2, 1, 'u', ERR_BAD_FILE, "'t.u32' is there twice", "offset"},
    {"value type 13", "t.u32", TYPE, 4, 13, ERR_BAD_FILE, "'t.u32' has value type 13", "offset"},
    {"boolean 2", "t.yes", VALUE, 1, 2, ERR_BAD_FILE, "'t.yes'", "value 2"},
    {"integer 2^63", "t.u64", VALUE, 8, 1ull << 63, ERR_BAD_FILE, "'t.u64' is 9223372036854775808",
     "offset"},
    {"string of 2^64-1 bytes", "t.str", VALUE, 8, UINT64_MAX, ERR_BAD_FILE, "'t.str'",
     "18446744073709551615"},
    {"string longer than the file", "t.str", VALUE, 8, 5000, ERR_BAD_FILE, "'t.str' needs 5000",
     "file ends"},
    {"array of arrays", "t.ints", A_ELEM, 4, 9, ERR_BAD_FILE, "'t.ints'", "array of arrays"},
    {"array of type 77", "t.ints", A_ELEM, 4, 77, ERR_BAD_FILE, "'t.ints'", "type 77"},
    {"array of 2^61 integers", "t.ints", A_COUNT, 8, 1ull << 61, ERR_BAD_FILE, "'t.ints' claims",
     "left"},
    {"array of 2^62 strings", "t.strs", A_COUNT, 8, 1ull << 62, ERR_BAD_FILE, "'t.strs' claims",
     "left"},
    {"string in an array of 2^50 bytes", "t.strs", A_FIRST, 8, 1ull << 50, ERR_BAD_FILE,
     "'t.strs' needs", "ends"},
    {"integer 2^63 in an array", "t.longs", A_FIRST + 1, 8, 1ull << 63, ERR_BAD_FILE, "'t.longs'",
     "922337203685477"},
    {"alignment 24", "general.alignment", 21, 4, 24, ERR_BAD_FILE, "general.alignment' is 24",
     "power of two"},
    {"alignment 0", "general.alignment", 21, 4, 0, ERR_BAD_FILE, "general.alignment' is 0",
     "between"},
    {"alignment 2^31", "general.alignment", 21, 4, 1u << 31, ERR_BAD_FILE,
     "general.alignment' is 2147483648", "between"},
    {"alignment a float", "general.alignment", 17, 4, 6, ERR_BAD_FILE, "general.alignment",
     "integer"},
    {"tensor without a name", "w.two", T_LEN, 8, 0, ERR_BAD_FILE, "tensor 1", "0 bytes"},
    {"tensor name of 4000 bytes", "w.two", T_LEN, 8, 4000, ERR_BAD_FILE, "tensor 1", "4000 bytes"},
    {"NUL in a tensor's name", "w.two", 1, 1, 0, ERR_BAD_FILE, "NUL", "w?two"},
    {"5 dimensions", "w.two", T_DIMS, 4, 5, ERR_BAD_FILE, "'w.two' has 5 dimensions", "offset"},
    {"2^32-1 dimensions", "w.two", T_DIMS, 4, UINT32_MAX, ERR_BAD_FILE, "'w.two' has 4294967295",
     "at most 4"},
    {"dimension 0", "w.two", T_D1, 8, 0, ERR_BAD_FILE, "'w.two' has dimension 1 = 0", "offset"},
    {"dimension 2^63", "w.two", T_D0, 8, 1ull << 63, ERR_BAD_FILE, "'w.two' has dimension 0",
     "2^63"},
    {"a product above 2^63", "w.two", T_D1, 8, 1ull << 60, ERR_BAD_FILE, "'w.two' has dimension 1",
     "product"},
    {"more bytes than 2^63", "w.one", T_D1, 8, 1ull << 59, ERR_BAD_FILE, "'w.one'", "more bytes"},
    {"rows of 33", "w.two", T_D0, 8, 33, ERR_BAD_FILE, "'w.two' has rows of 33", "multiple of 32"},
    {"a million rows", "w.two", T_D1, 8, 1000000, ERR_BAD_FILE, "'w.two' needs 34000000 bytes",
     "truncated"},
    {"offset off the alignment", "w.two", T_OFFSET, 8, 65, ERR_BAD_FILE, "'w.two' begins 65",
     "alignment 32"},
    {"offset outside the file", "w.two", T_OFFSET, 8, 1 << 20, ERR_BAD_FILE,
     "'w.two' begins 1048576", "file ends"},
    {"offset just outside the file", "w.two", T_OFFSET, 8, 192, ERR_BAD_FILE, "'w.two' needs",
     "file ends"},
    {"offset 2^64-32", "w.two", T_OFFSET, 8, UINT64_MAX - 31, ERR_BAD_FILE, "'w.two' begins 184467",
     "file ends"},
    {"overlap", "w.two", T_OFFSET, 8, 32, ERR_BAD_FILE, "'w.two'", "overlaps tensor 'w.one'"},
    {"the same place twice", "w.two", T_OFFSET, 8, 0, ERR_BAD_FILE, "'w.two'", "overlaps"},
};

static uint8_t *find_name(struct buf *b, const char *name)
{
    uint8_t *p = memmem(b->data, b->len, name, strlen(name));
    assert_non_null(p);
    return p;
}

static void expect(const char *claim, const struct buf *b, enum err err, const char *says,
                   const char *and_says)
{
    struct eng_model_file *f = NULL;
    enum err e = eng_model_file_open(&f, scratch_bytes(b->data, b->len));
    if (e != err || !strstr(err_text(), says) || !strstr(err_text(), and_says))
        fail_msg("%s: got %s '%s', wanted %s with '%s' and '%s'", claim, err_name(e),
                 e ? err_text() : "", err_name(err), says, and_says);
    assert_null(f);
}

static void every_lie_is_refused_and_named(void **state)
{
    (void)state;
    struct buf b = {0};
    for (size_t i = 0; i < COUNT_OF(lies); i++) {
        const struct lie *l = &lies[i];
        honest(&b);
        uint8_t *p = (l->anchor ? find_name(&b, l->anchor) : b.data) + l->delta;
        for (int k = 0; k < l->width; k++) p[k] = (uint8_t)(l->value >> (8 * k));
        expect(l->claim, &b, l->err, l->says, l->and_says);
    }
    honest(&b);
    memcpy(find_name(&b, "w.two"), "w.one", 5);
    expect("tensor twice", &b, ERR_BAD_FILE, "'w.one' is there twice", "tensors 0 and 1");
    buf_free(&b);
}

static void truncation_at_every_byte_is_an_error(void **state)
{
    (void)state;
    struct buf b = {0};
    honest(&b);
    for (size_t n = 0; n < b.len; n++) {
        struct eng_model_file *f = NULL;
        enum err e = eng_model_file_open(&f, scratch_bytes(b.data, n));
        if (!e || !*err_text()) fail_msg("the first %zu of %zu bytes were accepted", n, b.len);
        assert_null(f);
    }
    struct eng_model_file *f = NULL;
    assert_int_equal(eng_model_file_open(&f, scratch_bytes(b.data, b.len)), OK);
    eng_model_file_close(f);
    buf_free(&b);
}

static void random_damage_never_crashes(void **state)
{
    (void)state;
    const uint64_t seed = 99;
    struct buf b = {0};
    int opened = 0, refused = 0;
    print_message("seed %llu\n", (unsigned long long)seed);
    for (uint64_t i = 0; i < 20000; i++) {
        honest(&b);
        for (uint64_t k = 0; k <= i % 3; k++) {
            uint64_t r = rng_at(seed, i, k, 0);
            b.data[r % (b.len - 160)] = (uint8_t)(r >> 56);
        }
        struct eng_model_file *f = NULL;
        if (eng_model_file_open(&f, scratch_bytes(b.data, b.len))) refused++;
        else opened++;
        eng_model_file_close(f);
    }
    print_message("%d opened, %d refused\n", opened, refused);
    assert_true(opened > 100 && refused > 100);
    buf_free(&b);
}

/* A sparse file of a terabyte must not make the reader believe in a terabyte of header. */
static void a_huge_file_costs_no_huge_memory(void **state)
{
    (void)state;
    struct buf b = {0};
    struct eng_model_file *f = NULL;
    honest(&b);
    uint8_t *p = find_name(&b, "t.str") + VALUE;
    for (int k = 0; k < 8; k++) p[k] = (uint8_t)((1ull << 39) >> (8 * k));
    const char *path = scratch_path("sparse.gguf");
    scratch_write(path, b.data, b.len);
    if (truncate(path, 1ll << 40)) skip();
    assert_int_equal(eng_model_file_open(&f, path), ERR_BAD_FILE);
    assert_non_null(strstr(err_text(), "'t.str'"));
    assert_non_null(strstr(err_text(), "largest header"));
    buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_lie_is_refused_and_named),
        cmocka_unit_test(truncation_at_every_byte_is_an_error),
        cmocka_unit_test(random_damage_never_crashes),
        cmocka_unit_test(a_huge_file_costs_no_huge_memory),
    };
    return cmocka_run_group_tests_name("gguf_lies", tests, NULL, NULL);
}
