/* test_dequant.c: decoding held against recorded vectors, and encoders against the error their type
 * allows. */
#include "engine/file/dequant.h"

#include "base/rng.h"
#include "tests/support/quantize.h"
#include "tests/support/random_model.h"
#include "tests/support/scratch.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct vector {
    const char *stem;
    enum dtype type;
    bool exact; /* our encoder gives these very bytes */
} vectors[] = {
    {"q4_0_64", DTYPE_Q4_0, true},
    {"q8_0_64", DTYPE_Q8_0, true},
    {"q4_k_512", DTYPE_Q4_K, false},
    {"q6_k_512", DTYPE_Q6_K, false},
};

static bool load(const char *stem, const char *what, struct buf *b)
{
    char rel[96];
    snprintf(rel, sizeof rel, "quants/%s_noim_%s", stem, what);
    const char *path = scratch_shared(rel);
    if (!path) print_message("skipped: data/%s is not there\n", rel);
    return path && scratch_read(path, b);
}

static void recorded_blocks_decode_bit_for_bit(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(vectors); i++) {
        struct buf q = {0}, want = {0};
        if (!load(vectors[i].stem, "expected.bin", &q) ||
            !load(vectors[i].stem, "dequant.f32", &want))
            skip();
        int64_t n = (int64_t)want.len / 4;
        assert_int_equal(q.len, dtype_bytes(vectors[i].type, n));
        float *got = xmalloc(want.len);
        eng_dequant_row(vectors[i].type, q.data, got, n);
        assert_memory_equal(got, want.data, want.len);
        free(got);
        buf_free(&q);
        buf_free(&want);
    }
}

static void plain_encoders_give_the_recorded_bytes(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(vectors); i++) {
        struct buf x = {0}, want = {0};
        if (!vectors[i].exact) continue;
        if (!load(vectors[i].stem, "input.bin", &x) ||
            !load(vectors[i].stem, "expected.bin", &want))
            skip();
        uint8_t *got = xmalloc(want.len);
        quantize_row(vectors[i].type, (const float *)(const void *)x.data, got, (int64_t)x.len / 4);
        assert_memory_equal(got, want.data, want.len);
        free(got);
        buf_free(&x);
        buf_free(&want);
    }
}

/* Blocks written down by hand from the layouts. */
static void hand_made_blocks_decode_as_the_layout_says(void **state)
{
    (void)state;
    uint8_t p[210];
    float y[256];

    memset(p, 0, sizeof p); /* Q5_K: d 1, dmin 1; sub-block 5: scale 17, minimum 33 */
    p[1] = p[3] = 0x3c;
    p[4 + 1] = 1 << 6;               /* top bits of scale 5 */
    p[4 + 5] = 2 << 6;               /* top bits of minimum 5 */
    p[4 + 9] = 1 | 1 << 4;           /* their low nibbles */
    p[16 + 7] = 1 << 5;              /* fifth bit of value 7 of sub-block 5 */
    p[48 + 2 * 32 + 7] =
        9 << 4; /* its nibble: sub-block 5 is the high half of the third 32 bytes */
    eng_dequant_row(DTYPE_Q5_K, p, y, 256);
    assert_true(y[5 * 32 + 7] == 17.0f * 25 - 33 && y[5 * 32 + 8] == -33 && y[4 * 32 + 7] == 0);

    memset(p, 0, sizeof p); /* Q6_K: d 0.5; value 128 + 2*32 + 5 = 197: half 1, row 2, scale 12 */
    p[209] = 0x38;
    p[192 + 12] = (uint8_t)-3;
    p[64 + 5] = 11 << 4;
    p[128 + 32 + 5] = 2 << 4;
    eng_dequant_row(DTYPE_Q6_K, p, y, 256);
    assert_true(y[197] == 0.5f * -3 * (11 + 32 - 32) && y[198] == 0.5f * -3 * -32 && y[0] == 0);
}

/* Blocks of random bytes, as many as reach every point of every grid, against what ggml makes of them. */
static const struct {
    enum dtype type;
    uint64_t sum; /* FNV-1a of the values' bits */
} goldens[] = {
#define GOLDEN(name, hash) {DTYPE_##name, UINT64_C(hash)},
#include "golden/blocks.inc"
#undef GOLDEN
};

enum { GOLDEN_BLOCKS = 512, GOLDEN_SEED = 99 };

/* Keep d, dmin and m finite: the uppermost bit of their exponents is cleared. */
static void tame(enum dtype t, uint8_t *p)
{
    static const int16_t at[DTYPE_COUNT][2] = {
        [DTYPE_Q2_K] = {81, 83}, [DTYPE_Q3_K] = {109, 109}, [DTYPE_Q6_K] = {209, 209},  [DTYPE_TQ1_0] = {53, 53},
        [DTYPE_TQ2_0] = {65, 65}, [DTYPE_IQ1_M] = {55, 55}, [DTYPE_Q4_1] = {1, 3},      [DTYPE_Q5_1] = {1, 3},
        [DTYPE_Q4_K] = {1, 3},    [DTYPE_Q5_K] = {1, 3},
    };
    if (t == DTYPE_MXFP4) {
        p[0] = (uint8_t)MIN((int)p[0], 250);
        return;
    }
    for (int i = 0; i < 2; i++) p[at[t][i] ? at[t][i] : 1] &= 0xbf;
}

static void random_blocks_decode_as_ggml_decodes_them(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(goldens); i++) {
        enum dtype t = goldens[i].type;
        int32_t bytes = dtype_block_bytes(t), n = dtype_block(t);
        uint64_t sum = UINT64_C(0xcbf29ce484222325), at = 0;
        for (int b = 0; b < GOLDEN_BLOCKS; b++) {
            uint8_t p[512];
            float y[256];
            for (int k = 0; k < bytes; k++) p[k] = (uint8_t)rng_mix(((uint64_t)dtype_ggml(t) << 32 | GOLDEN_SEED << 24) + at++);
            tame(t, p);
            eng_dequant_row(t, p, y, n);
            for (int k = 0; k < n; k++) {
                uint32_t bits;
                memcpy(&bits, y + k, sizeof bits);
                sum = (sum ^ bits) * UINT64_C(0x100000001b3);
            }
        }
        if (sum != goldens[i].sum) fail_msg("%s: the values are not ggml's", dtype_name(t));
    }
    assert_int_equal(COUNT_OF(goldens), DTYPE_COUNT - 3); /* but F32, F16, BF16 */
}

static void encoders_err_no_more_than_their_type_allows(void **state)
{
    (void)state;
    /* largest error, in units of the block's largest magnitude, of one step's half plus the scales'
     * own error */
    static const double allowed[DTYPE_COUNT] = {
        [DTYPE_F32] = 0,     [DTYPE_F16] = 0x1p-11, [DTYPE_BF16] = 0x1p-8, [DTYPE_Q8_0] = 0.0045,
        [DTYPE_Q4_0] = 0.13, [DTYPE_Q4_K] = 0.07,   [DTYPE_Q5_K] = 0.035,  [DTYPE_Q6_K] = 0.02,
    };
    enum { N = 4096 };
    const uint64_t seed = 7;
    static float x[N], y[N];
    static uint8_t q[N * 4];
    print_message("seed %llu\n", (unsigned long long)seed);
    for (int t = 0; t < DTYPE_COUNT; t++) {
        if (!quantize_is_near((enum dtype)t)) continue;
        random_fill(x, N, seed + (uint64_t)t, 0, 1);
        quantize_row((enum dtype)t, x, q, N);
        eng_dequant_row((enum dtype)t, q, y, N);
        double big = 0, worst = 0;
        for (int i = 0; i < N; i++) {
            if (i % 256 == 0) big = 0;
            for (int j = i; i % 256 == 0 && j < i + 256; j++) big = fmax(big, fabs((double)x[j]));
            worst = fmax(worst, fabs((double)x[i] - (double)y[i]) / big);
        }
        print_message("%-4s worst error %.5f of the largest value\n", dtype_name((enum dtype)t),
                      worst);
        assert_true(worst <= allowed[t]);
    }
}

static void zeros_stay_zero_in_every_type(void **state)
{
    (void)state;
    static const float x[256];
    float y[256];
    uint8_t q[1024];
    for (int t = 0; t < DTYPE_COUNT; t++) {
        memset(q, 0xee, sizeof q);
        quantize_row((enum dtype)t, x, q, 256);
        eng_dequant_row((enum dtype)t, q, y, 256);
        for (int i = 0; i < 256; i++) assert_true(y[i] == 0);
    }
}

static void random_fill_is_a_pure_function_with_unit_deviation(void **state)
{
    (void)state;
    enum { N = 100000 };
    float *a = xmalloc(N * sizeof *a), b[100];
    random_fill(a, N, 42, 0, 1);
    random_fill(b, 100, 42, 5000, 1);
    assert_memory_equal(a + 5000, b, sizeof b);
    double sum = 0, squares = 0;
    for (int i = 0; i < N; i++) {
        sum += (double)a[i];
        squares += (double)a[i] * (double)a[i];
    }
    assert_true(fabs(sum / N) < 0.02 && fabs(squares / N - 1) < 0.02);
    free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recorded_blocks_decode_bit_for_bit),
        cmocka_unit_test(plain_encoders_give_the_recorded_bytes),
        cmocka_unit_test(hand_made_blocks_decode_as_the_layout_says),
        cmocka_unit_test(random_blocks_decode_as_ggml_decodes_them),
        cmocka_unit_test(encoders_err_no_more_than_their_type_allows),
        cmocka_unit_test(zeros_stay_zero_in_every_type),
        cmocka_unit_test(random_fill_is_a_pure_function_with_unit_deviation),
    };
    return cmocka_run_group_tests_name("dequant", tests, NULL, NULL);
}
