/* loops_neon.c: see loops.h. Products of bytes are two instructions for 16 of them. 12 chains hide the latency of
 * the multiply-adds. */
#include "engine/bench/loops.h"
#include "engine/kernels/leaf_walk.h"

#include <arm_neon.h>

enum { CHAINS = 12, AHEAD = 2048, VECTOR = 16 };

static uint64_t read_all(const uint8_t *p, int64_t bytes)
{
    uint64x2_t sum[4];
    for (int k = 0; k < 4; k++) sum[k] = vdupq_n_u64(0);
    for (int64_t i = 0; i < bytes; i += 4 * VECTOR) {
        __builtin_prefetch(p + i + AHEAD);
        KRN_UNROLL for (int k = 0; k < 4; k++) sum[k] =
            vaddq_u64(sum[k], vreinterpretq_u64_u8(vld1q_u8(p + i + k * VECTOR)));
    }
    sum[0] = vaddq_u64(vaddq_u64(sum[0], sum[1]), vaddq_u64(sum[2], sum[3]));
    return vgetq_lane_u64(sum[0], 0) ^ vgetq_lane_u64(sum[0], 1);
}

static void dot(int64_t n)
{
    int16x8_t acc[CHAINS];
    int8x8_t u = vdup_n_s8(3), s = vdup_n_s8(-5);
    KRN_UNROLL for (int k = 0; k < CHAINS; k++) acc[k] = vdupq_n_s16(0);
    KRN_UNROLL for (int k = 0; k < CHAINS; k++) __asm__ volatile("" : "+w"(acc[k]));
    for (int64_t i = 0; i < n; i++) {
        __asm__ volatile("" : "+w"(u), "+w"(s));
        KRN_UNROLL for (int k = 0; k < CHAINS; k++) acc[k] = vmlal_s8(acc[k], u, s);
    }
    KRN_UNROLL for (int k = 0; k < CHAINS; k++) __asm__ volatile("" : "+w"(acc[k]));
}

static void multiply_add(int64_t n)
{
    float32x4_t acc[CHAINS], a = vdupq_n_f32(0.5f), b = vdupq_n_f32(1e-3f);
    KRN_UNROLL for (int k = 0; k < CHAINS; k++) acc[k] = vdupq_n_f32(0.0f);
    KRN_UNROLL for (int k = 0; k < CHAINS; k++) __asm__ volatile("" : "+w"(acc[k]));
    for (int64_t i = 0; i < n; i++) {
        __asm__ volatile("" : "+w"(a), "+w"(b));
        KRN_UNROLL for (int k = 0; k < CHAINS; k++) acc[k] = vfmaq_f32(acc[k], a, b);
    }
    KRN_UNROLL for (int k = 0; k < CHAINS; k++) __asm__ volatile("" : "+w"(acc[k]));
}

const struct bench_loops bench_loops_neon = {
    "neon", read_all, dot, multiply_add, CHAINS * 8 * 2, CHAINS * 4 * 2,
};
