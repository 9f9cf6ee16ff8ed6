/* test_dtype.c: the table of element types, and half-precision conversions held against first
 * principles. */
#include "engine/file/dtype.h"
#include "engine/file/half.h"

#include "base/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void every_type_is_found_by_its_number(void **state)
{
    (void)state;
    for (int t = 0; t < DTYPE_COUNT; t++) {
        enum dtype back;
        int32_t block, bytes;
        assert_int_equal(dtype_of_ggml(dtype_ggml((enum dtype)t), &back), OK);
        assert_int_equal(back, t);
        assert_true(dtype_ggml_layout(dtype_ggml((enum dtype)t), &block, &bytes));
        assert_int_equal(block, dtype_block((enum dtype)t));
        assert_int_equal(bytes, dtype_block_bytes((enum dtype)t));
        assert_string_equal(dtype_name((enum dtype)t), dtype_ggml_name(dtype_ggml((enum dtype)t)));
    }
    assert_int_equal(dtype_bytes(DTYPE_Q6_K, 512), 420);
}

static void foreign_types_are_refused_by_name(void **state)
{
    (void)state;
    enum dtype t;
    assert_int_equal(dtype_of_ggml(40, &t), ERR_UNSUPPORTED);
    assert_non_null(strstr(err_text(), "NVFP4"));
    assert_int_equal(dtype_of_ggml(4711, &t), ERR_UNSUPPORTED);
    assert_non_null(strstr(err_text(), "4711"));
}

/* What the bits of an f16 or bf16 mean, from their definition. */
static double meaning(uint32_t h, int exp_bits, int man_bits)
{
    int bias = (1 << (exp_bits - 1)) - 1;
    int exp = (int)(h >> man_bits) & ((1 << exp_bits) - 1);
    double man = (double)(h & ((1u << man_bits) - 1));
    double v = exp ? ldexp(man + ldexp(1, man_bits), exp - bias - man_bits)
                   : ldexp(man, 1 - bias - man_bits);
    return h >> (exp_bits + man_bits) & 1 ? -v : v;
}

static void every_half_means_what_its_bits_say(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        float f = half_f16_to_f32((uint16_t)h), b = half_bf16_to_f32((uint16_t)h);
        if ((h & 0x7fff) > 0x7c00)
            assert_true(isnan(f) && isnan(half_f16_to_f32(half_f32_to_f16(f))));
        else assert_int_equal(half_f32_to_f16(f), h);
        if ((h & 0x7c00) != 0x7c00) assert_true((double)f == meaning(h, 5, 10));
        if ((h & 0x7fff) > 0x7f80)
            assert_true(isnan(b) && isnan(half_bf16_to_f32(half_f32_to_bf16(b))));
        else assert_int_equal(half_f32_to_bf16(b), h);
        if ((h & 0x7f80) != 0x7f80) assert_true((double)b == meaning(h, 8, 7));
    }
}

/* The nearest of all finite halves, ties to the even one; `top` is the first magnitude that becomes
 * infinite. */
static void check_nearest(float f, uint32_t h, int exp_bits, int man_bits, double top)
{
    uint32_t inf = ((1u << exp_bits) - 1) << man_bits, a = h & 0x7fff;
    double x = fabs((double)f);
    if (x >= top) {
        assert_int_equal(a, inf);
        return;
    }
    assert_true(a < inf);
    double mine = fabs(meaning(a, exp_bits, man_bits) - x);
    for (int step = -1; step <= 1; step += 2) {
        if ((step < 0 && a == 0) || a + (uint32_t)step >= inf) continue;
        double other = fabs(meaning(a + (uint32_t)step, exp_bits, man_bits) - x);
        if (!(mine < other || (mine == other && a % 2 == 0)))
            fail_msg("%a became %04x although %04x is nearer", (double)f, h, h + (uint32_t)step);
    }
}

static void rounding_is_to_nearest_even(void **state)
{
    (void)state;
    const uint64_t seed = 20240611;
    print_message("seed %llu\n", (unsigned long long)seed);
    for (uint64_t i = 0; i < 400000; i++) {
        uint32_t u = (uint32_t)rng_at(seed, i, 0, 0);
        if (i % 2)
            u = (u & 0x80ffffff) | (uint32_t)(0x30 + i / 2 % 0x19)
                                       << 24; /* the range where f16 lives */
        if (i % 4 == 3) u &= ~0xfffu;                                            /* and its ties */
        float f = half_from_bits(u);
        if (!isfinite(f)) continue;
        check_nearest(f, half_f32_to_f16(f), 5, 10, 65520);
        check_nearest(f, half_f32_to_bf16(f), 8, 7, ldexp(511, 119));
    }
}

/* E4M3 has 4 bits of exponent, the largest of which is a number's as any other but for its last mantissa, a NaN. */
static double e4m3_meaning(uint32_t a) { return a < 8 ? a * 0x1p-9 : ldexp(8 + a % 8, (int)(a / 8) - 10); }

static void e4m3_is_the_nearest_of_its_256_codes(void **state)
{
    (void)state;
    for (uint32_t c = 0; c < 256; c++) {
        float f = half_e4m3_to_f32((uint8_t)c);
        assert_int_equal(half_f32_to_e4m3(f), c);
        if (c % 128 == 127) assert_true(isnan(f));
        else assert_true(fabs((double)f) == e4m3_meaning(c % 128) && !signbit(f) == (c < 128));
    }
    uint32_t next = 7;
    for (int i = 0; i < 200000; i++) {
        next = next * 1664525u + 1013904223u;
        uint32_t u = i % 2 ? next : (next & 0x80ffffff) | (0x38 + next / 7 % 0xd) << 24; /* the range where E4M3 lives */
        if (i % 3 == 0) u &= ~0x7ffffu;                                                  /* and its ties */
        float f = half_from_bits(u);
        if (!isfinite(f)) continue;
        uint32_t c = half_f32_to_e4m3(f), a = c % 128;
        double x = fmin(fabs((double)f), 448), mine = fabs(e4m3_meaning(a) - x);
        assert_int_equal(c >> 7, u >> 31);
        for (uint32_t other = a ? a - 1 : 0; other <= a + 1 && other < 127; other++)
            if (other != a && !(mine < fabs(e4m3_meaning(other) - x) || (mine == fabs(e4m3_meaning(other) - x) && a % 2 == 0)))
                fail_msg("%a became %02x although %02x is nearer", (double)f, c, other);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_is_found_by_its_number),
        cmocka_unit_test(foreign_types_are_refused_by_name),
        cmocka_unit_test(every_half_means_what_its_bits_say),
        cmocka_unit_test(rounding_is_to_nearest_even),
        cmocka_unit_test(e4m3_is_the_nearest_of_its_256_codes),
    };
    return cmocka_run_group_tests_name("dtype", tests, NULL, NULL);
}
