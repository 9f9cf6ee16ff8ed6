/* json_out: what is written reads back as the same bits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/rng.h"
#include "coordinator/api/json_out.h"
#include "tests/support/env.h"

#include <float.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *shown(float v)
{
    static struct buf b;
    buf_clear(&b);
    json_out_f32(&b, v);
    return buf_str(&b);
}

static void a_float_is_its_shortest_decimal(void **state)
{
    (void)state;
    assert_string_equal(shown(0.1f), "0.1");
    assert_string_equal(shown(-1), "-1.0");
    assert_string_equal(shown(0), "0.0");
    assert_string_equal(shown(-0.0f), "-0.0");
    assert_string_equal(shown(-0.33333334f), "-0.33333334");
    assert_string_equal(shown(16777216), "16777216.0");
    assert_string_equal(shown(1e-5f), "1e-05");
    assert_string_equal(shown(FLT_MAX), "3.4028235e+38");
    assert_string_equal(shown(INFINITY), "null");
    assert_string_equal(shown(NAN), "null");
}

static void any_float_reads_back_bit_for_bit(void **state)
{
    uint64_t seed = test_seed();
    (void)state;
    for (uint64_t i = 0; i < 100000; i++) {
        uint32_t bits = (uint32_t)rng_at(seed, i, 0, 0);
        float v, back;
        memcpy(&v, &bits, 4);
        if (!isfinite(v)) continue;
        json_t *j = json_loads(shown(v), JSON_DECODE_ANY, NULL);
        assert_true(json_is_real(j));
        back = (float)json_real_value(j); /* as a client that reads doubles sees it */
        assert_memory_equal(&back, &v, 4);
        json_decref(j);
    }
}

static void any_bytes_become_valid_json(void **state)
{
    uint64_t seed = test_seed();
    (void)state;
    for (uint64_t i = 0; i < 20000; i++) {
        char bytes[12];
        size_t n = rng_at(seed, i, 1, 0) % sizeof bytes;
        struct buf b = {0};
        for (size_t k = 0; k < n; k++) bytes[k] = (char)(1 + rng_at(seed, i, 2, k) % 255);
        json_out_text(&b, bytes, n);
        json_t *j = json_loadb((char *)b.data, b.len, JSON_DECODE_ANY, NULL);
        assert_true(json_is_string(j));
        json_decref(j);
        buf_free(&b);
    }
}

static void text_survives(void **state)
{
    struct buf b = {0};
    (void)state;
    json_out_str(&b, "a\"b\\c\n\t\x01 \xC3\xA9 \xF0\x9F\x98\x80");
    assert_string_equal(buf_str(&b), "\"a\\\"b\\\\c\\n\\t\\u0001 \xC3\xA9 \xF0\x9F\x98\x80\"");
    buf_free(&b);
}

static void a_time_is_utc_with_the_digits_asked_for(void **state)
{
    static const struct {
        struct timespec t;
        int digits;
        const char *want;
    } cases[] = {{{0, 0}, 0, "\"1970-01-01T00:00:00Z\""},
                 {{1795897465, 1234567}, 3, "\"2026-11-28T20:24:25.001Z\""},
                 {{1795897465, 999999999}, 6, "\"2026-11-28T20:24:25.999999Z\""}};
    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct buf b = {0};
        json_out_time(&b, &cases[i].t, cases[i].digits);
        assert_string_equal(buf_str(&b), cases[i].want);
        buf_free(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_float_is_its_shortest_decimal),
        cmocka_unit_test(any_float_reads_back_bit_for_bit),
        cmocka_unit_test(any_bytes_become_valid_json),
        cmocka_unit_test(text_survives),
        cmocka_unit_test(a_time_is_utc_with_the_digits_asked_for),
    };
    return cmocka_run_group_tests_name("json_out", tests, NULL, NULL);
}
