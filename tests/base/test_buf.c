/* test_buf.c: what is written can be read back; the reader never leaves its bytes. */
#include "base/buf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void numbers_come_back_little_endian(void **state)
{
    (void)state;
    struct buf b = {0};
    buf_u8(&b, 0xfe);
    buf_u16(&b, 0x1234);
    buf_u32(&b, 0xdeadbeef);
    buf_u64(&b, 0x0102030405060708u);
    buf_f32(&b, -1.5f);
    static const uint8_t want[] = {0xfe, 0x34, 0x12, 0xef, 0xbe, 0xad, 0xde, 8,    7,   6,
                                   5,    4,    3,    2,    1,    0,    0,    0xc0, 0xbf};
    assert_int_equal(b.len, sizeof want);
    assert_memory_equal(b.data, want, sizeof want);
    struct rd r = rd_of(b.data, b.len);
    assert_int_equal(rd_u8(&r), 0xfe);
    assert_int_equal(rd_u16(&r), 0x1234);
    assert_int_equal(rd_u32(&r), 0xdeadbeef);
    assert_true(rd_u64(&r) == 0x0102030405060708u);
    assert_true(rd_f32(&r) == -1.5f);
    assert_int_equal(rd_left(&r), 0);
    assert_false(r.bad);
    buf_free(&b);
}

static void text_is_always_terminated(void **state)
{
    (void)state;
    struct buf b = {0};
    assert_string_equal(buf_str(&b), "");
    for (int i = 0; i < 300; i++) {
        buf_putc(&b, 'x');
        assert_int_equal(strlen(buf_str(&b)), i + 1);
    }
    buf_clear(&b);
    assert_string_equal(buf_str(&b), "");
    buf_puts(&b, "abc");
    buf_printf(&b, "%d-%s", 7, "eight");
    assert_string_equal(buf_str(&b), "abc7-eight");
    buf_put(&b, NULL, 0);
    assert_int_equal(b.len, 10);
    buf_free(&b);
}

static void printf_grows_for_long_text(void **state)
{
    (void)state;
    struct buf b = {0};
    buf_printf(&b, "%*d|%*d", 5000, 1, 70000, 2);
    assert_int_equal(b.len, 75001);
    assert_int_equal(b.data[4999], '1');
    assert_int_equal(b.data[75000], '2');
    buf_free(&b);
}

static void take_gives_the_bytes_and_empties(void **state)
{
    (void)state;
    struct buf b = {0};
    char *s = buf_take(&b);
    assert_string_equal(s, "");
    free(s);
    buf_puts(&b, "given");
    s = buf_take(&b);
    assert_string_equal(s, "given");
    assert_null(b.data);
    assert_int_equal(b.len, 0);
    free(s);
    buf_free(&b);
    buf_free(NULL);
}

static void short_read_is_bad_for_ever_and_zero(void **state)
{
    (void)state;
    static const uint8_t bytes[] = {1, 2, 3, 4, 5};
    struct rd r = rd_of(bytes, sizeof bytes);
    assert_int_equal(rd_u32(&r), 0x04030201);
    assert_int_equal(rd_u16(&r), 0); /* one byte is left */
    assert_true(r.bad);
    assert_int_equal(rd_u8(&r), 0); /* which nobody gets any more */
    assert_null(rd_bytes(&r, 1));
    assert_true(rd_u64(&r) == 0);
    assert_true(rd_f32(&r) == 0);
}

static void reading_exactly_all_is_not_bad(void **state)
{
    (void)state;
    static const uint8_t bytes[] = {1, 2, 3};
    struct rd r = rd_of(bytes, sizeof bytes);
    assert_ptr_equal(rd_bytes(&r, 3), bytes);
    assert_non_null(rd_bytes(&r, 0));
    assert_false(r.bad);
    assert_null(rd_bytes(&r, 1));
    assert_true(r.bad);
}

static void absurd_lengths_are_short_reads(void **state)
{
    (void)state;
    static const uint8_t bytes[] = {1, 2, 3};
    struct rd r = rd_of(bytes, sizeof bytes);
    assert_null(rd_bytes(&r, SIZE_MAX));
    assert_true(r.bad);
    r = rd_of(NULL, 0);
    assert_int_equal(rd_u8(&r), 0);
    assert_true(r.bad);
}

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_come_back_little_endian),
        cmocka_unit_test(text_is_always_terminated),
        cmocka_unit_test(printf_grows_for_long_text),
        cmocka_unit_test(take_gives_the_bytes_and_empties),
        cmocka_unit_test(short_read_is_bad_for_ever_and_zero),
        cmocka_unit_test(reading_exactly_all_is_not_bad),
        cmocka_unit_test(absurd_lengths_are_short_reads),
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("buf", tests, NULL, NULL);
}
