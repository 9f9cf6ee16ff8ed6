/* loops_avxvnni.c: see loops.h. Memory and multiply-adds are AVX2's; int8 products by the one instruction. */
#include "engine/bench/loops.h"
#include "engine/kernels/leaf_walk.h"

#include <immintrin.h>

enum { CHAINS = 12 };

static uint64_t read_all(const uint8_t *p, int64_t bytes) { return bench_loops_avx2.read(p, bytes); }
static void multiply_add(int64_t n) { bench_loops_avx2.fma(n); }

static void dot(int64_t n)
{
    __m256i acc[CHAINS] = {0}, u = _mm256_set1_epi8(3), s = _mm256_set1_epi8(-5);
    KRN_UNROLL for (int k = 0; k < CHAINS; k++) __asm__ volatile("" : "+x"(acc[k]));
    for (int64_t i = 0; i < n; i++) {
        __asm__ volatile("" : "+x"(u), "+x"(s));
        KRN_UNROLL for (int k = 0; k < CHAINS; k++) acc[k] = _mm256_dpbusd_avx_epi32(acc[k], u, s);
    }
    KRN_UNROLL for (int k = 0; k < CHAINS; k++) __asm__ volatile("" : "+x"(acc[k]));
}

const struct bench_loops bench_loops_avxvnni = {
    "avxvnni", read_all, dot, multiply_add, CHAINS * 32 * 2, 10 * 8 * 2,
};
