/* loops_dotprod.c: see loops.h. Memory and multiply-adds are NEON's; int8 products by sdot. */
#include "engine/bench/loops.h"
#include "engine/kernels/leaf_walk.h"

#include <arm_neon.h>

enum { CHAINS = 12 };

static uint64_t read_all(const uint8_t *p, int64_t bytes) { return bench_loops_neon.read(p, bytes); }
static void multiply_add(int64_t n) { bench_loops_neon.fma(n); }

static void dot(int64_t n)
{
    int32x4_t acc[CHAINS];
    int8x16_t u = vdupq_n_s8(3), s = vdupq_n_s8(-5);
    KRN_UNROLL for (int k = 0; k < CHAINS; k++) acc[k] = vdupq_n_s32(0);
    KRN_UNROLL for (int k = 0; k < CHAINS; k++) __asm__ volatile("" : "+w"(acc[k]));
    for (int64_t i = 0; i < n; i++) {
        __asm__ volatile("" : "+w"(u), "+w"(s));
        KRN_UNROLL for (int k = 0; k < CHAINS; k++) acc[k] = vdotq_s32(acc[k], u, s);
    }
    KRN_UNROLL for (int k = 0; k < CHAINS; k++) __asm__ volatile("" : "+w"(acc[k]));
}

const struct bench_loops bench_loops_dotprod = {
    "dotprod", read_all, dot, multiply_add, CHAINS * 16 * 2, 12 * 4 * 2,
};
