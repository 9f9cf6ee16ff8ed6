/* test_encode.c: encoders lose no more than ggml's: its figures on the same rows are in golden/losses.inc. */
#include "engine/file/encode.h"

#include "base/base.h"
#include "base/rng.h"
#include "engine/file/dequant.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { ROWS = 32, COLS = 1024, N = ROWS * COLS, SEED = 4711 }; /* as in make_losses.py */

static const struct {
    enum dtype type;
    double loss[4]; /* bell-shaped plain, by importance; heavy-tailed likewise */
} goldens[] = {
#define LOSS(name, a, b, c, d) {DTYPE_##name, {a, b, c, d}},
#include "golden/losses.inc"
#undef LOSS
};

static double normal(uint64_t *at)
{
    int64_t total = 0;
    for (int i = 0; i < 3; i++) {
        uint64_t bits = rng_mix((*at)++);
        for (int s = 0; s < 64; s += 16) total += (int64_t)(bits >> s & 0xffff);
    }
    return (double)(total + 6) / 65536 - 6;
}

static float *rows(bool heavy)
{
    float *x = xmalloc(N * sizeof *x);
    uint64_t at = (uint64_t)(SEED + heavy) << 32;
    for (int i = 0; i < N; i++) {
        double v = normal(&at);
        if (heavy) {
            double a = normal(&at), b = normal(&at), c = normal(&at);
            v = v / sqrt((a * a + b * b + c * c) / 3);
        }
        x[i] = (float)(v * 0.03125);
    }
    return x;
}

static void fill_importance(float *w)
{
    uint64_t at = (uint64_t)(SEED + 2) << 32;
    for (int i = 0; i < COLS; i++) {
        double v = normal(&at);
        w[i] = (float)(v * v + 0.01);
    }
}

static double loss(enum dtype t, const float *x, const float *w)
{
    uint8_t *q = xmalloc((size_t)dtype_bytes(t, COLS));
    float y[COLS];
    double sum = 0;
    for (int r = 0; r < ROWS; r++) {
        eng_encode_row(t, x + r * COLS, w, q, COLS);
        eng_dequant_row(t, q, y, COLS);
        for (int i = 0; i < COLS; i++) sum += (w ? (double)w[i] : 1) * pow((double)x[r * COLS + i] - (double)y[i], 2);
    }
    free(q);
    return sum;
}

static void losses_are_at_most_ggmls(void **state)
{
    (void)state;
    float *x[2] = {rows(false), rows(true)}, w[COLS];
    int worse = 0;
    fill_importance(w);
    for (size_t i = 0; i < COUNT_OF(goldens); i++) {
        printf("%-6s", dtype_name(goldens[i].type));
        for (int k = 0; k < 4; k++) {
            double ratio = loss(goldens[i].type, x[k / 2], k % 2 ? w : NULL) / goldens[i].loss[k];
            printf("  %s %s %.4f", k / 2 ? "heavy" : "bell", k % 2 ? "weighted" : "plain", ratio);
            worse += !(ratio <= 1.02);
        }
        printf("\n");
    }
    assert_int_equal(worse, 0);
    free(x[0]);
    free(x[1]);
}

static void zeros_and_extremes_survive(void **state)
{
    (void)state;
    static const float sizes[] = {0, 1e-38f, 1e-6f, 1, 6e4f, 1e9f};
    for (int t = 0; t < DTYPE_COUNT; t++) {
        if (!eng_encode_has((enum dtype)t)) continue;
        for (size_t s = 0; s < COUNT_OF(sizes); s++)
            for (int sign = -1; sign <= 1; sign++) { /* all below zero, of both signs, all above */
                float x[256], y[256], none[256] = {0};
                uint8_t q[1024];
                for (int i = 0; i < 256; i++) x[i] = sizes[s] * (float)(sign ? sign * (1 + i % 7) : i % 7 - 3);
                for (int k = 0; k < 2; k++) { /* k: an importance of nothing is none */
                    eng_encode_row((enum dtype)t, x, k ? none : NULL, q, 256);
                    eng_dequant_row((enum dtype)t, q, y, 256);
                    for (int i = 0; i < 256; i++) {
                        assert_true(isfinite(y[i]) || (t == DTYPE_F16 && sizes[s] > 65504 / 7));
                        if (sizes[s] == 0) assert_true(y[i] == 0);
                        if (sizes[s] == 1 && t != DTYPE_Q2_K) assert_true(fabsf(x[i] - y[i]) < 1.0f);
                    }
                }
            }
    }
}

static void importance_is_where_the_error_is_not(void **state)
{
    (void)state;
    float *x = rows(false), w[256], y[256];
    uint8_t q[1024];
    for (int i = 0; i < 256; i++) w[i] = i % 4 ? 0.01f : 100.0f;
    static const enum dtype types[] = {DTYPE_Q4_0, DTYPE_Q4_K, DTYPE_Q2_K, DTYPE_Q3_K};
    for (size_t t = 0; t < COUNT_OF(types); t++) {
        double err[2] = {0, 0};
        for (int k = 0; k < 2; k++) {
            eng_encode_row(types[t], x, k ? w : NULL, q, 256);
            eng_dequant_row(types[t], q, y, 256);
            for (int i = 0; i < 256; i += 4) err[k] += pow((double)x[i] - (double)y[i], 2);
        }
        printf("%s: %.3f of the error at the columns that count\n", dtype_name(types[t]), err[1] / err[0]);
        assert_true(err[1] < 0.9 * err[0]);
    }
    free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(losses_are_at_most_ggmls),
        cmocka_unit_test(zeros_and_extremes_survive),
        cmocka_unit_test(importance_is_where_the_error_is_not),
    };
    return cmocka_run_group_tests_name("encode", tests, NULL, NULL);
}
