/* loops_ref.c: see loops.h. Plain C: what the compiler makes of it for the baseline processor. */
#include "engine/bench/loops.h"

#include <stdint.h>
#include <string.h>

enum { CHAINS = 8 };

static uint64_t read_all(const uint8_t *p, int64_t bytes)
{
    uint64_t sum[4] = {0}, w[4];
    for (int64_t i = 0; i < bytes; i += (int64_t)sizeof w) {
        memcpy(w, p + i, sizeof w);
        for (int k = 0; k < 4; k++) sum[k] += w[k];
    }
    return sum[0] + sum[1] + sum[2] + sum[3];
}

static void dot(int64_t n)
{
    int32_t acc[CHAINS] = {0};
    volatile int8_t u = 3, s = -5;
    for (int64_t i = 0; i < n; i++) {
        int32_t a = u, b = s;
        for (int k = 0; k < CHAINS; k++) acc[k] += a * (b + k);
    }
    volatile int32_t keep = 0;
    for (int k = 0; k < CHAINS; k++) keep += acc[k];
    (void)keep;
}

static void multiply_add(int64_t n)
{
    float acc[CHAINS] = {0};
    volatile float u = 0.5f, s = 1e-3f;
    for (int64_t i = 0; i < n; i++) {
        float a = u, b = s;
        for (int k = 0; k < CHAINS; k++) acc[k] = acc[k] * a + b;
    }
    volatile float keep = 0;
    for (int k = 0; k < CHAINS; k++) keep += acc[k];
    (void)keep;
}

const struct bench_loops bench_loops_ref = {
    "ref", read_all, dot, multiply_add, CHAINS * 2, CHAINS * 2,
};
