/* loops_avx512.c: see loops.h. 12 independent chains hide the latency of any multiply-add so far. */
#include "engine/bench/loops.h"
#include "engine/kernels/leaf_walk.h"

#include <immintrin.h>

enum { CHAINS = 12, AHEAD = 4096, VECTOR = 64 };

static uint64_t read_all(const uint8_t *p, int64_t bytes)
{
    __m512i sum[4] = {0};
    for (int64_t i = 0; i < bytes; i += 4 * VECTOR)
        KRN_UNROLL for (int k = 0; k < 4; k++) {
            _mm_prefetch((const char *)p + i + k * VECTOR + AHEAD, _MM_HINT_T0);
            sum[k] = _mm512_add_epi64(sum[k], _mm512_load_si512(p + i + k * VECTOR));
        }
    sum[0] = _mm512_add_epi64(_mm512_add_epi64(sum[0], sum[1]), _mm512_add_epi64(sum[2], sum[3]));
    __m256i half = _mm256_add_epi64(_mm512_castsi512_si256(sum[0]), _mm512_extracti64x4_epi64(sum[0], 1));
    return (uint64_t)_mm256_extract_epi64(half, 0) ^ (uint64_t)_mm256_extract_epi64(half, 1) ^
           (uint64_t)_mm256_extract_epi64(half, 2) ^ (uint64_t)_mm256_extract_epi64(half, 3);
}

/* The empty asm keeps the compiler from seeing that chains and rounds are alike. */
static void dot(int64_t n)
{
    __m512i acc[CHAINS] = {0}, u = _mm512_set1_epi8(3), s = _mm512_set1_epi8(-5);
    KRN_UNROLL for (int k = 0; k < CHAINS; k++) __asm__ volatile("" : "+v"(acc[k]));
    for (int64_t i = 0; i < n; i++) {
        __asm__ volatile("" : "+v"(u), "+v"(s));
        KRN_UNROLL for (int k = 0; k < CHAINS; k++) acc[k] = _mm512_dpbusd_epi32(acc[k], u, s);
    }
    KRN_UNROLL for (int k = 0; k < CHAINS; k++) __asm__ volatile("" : "+v"(acc[k]));
}

static void multiply_add(int64_t n)
{
    __m512 acc[CHAINS], a = _mm512_set1_ps(0.5f), b = _mm512_set1_ps(1e-3f);
    KRN_UNROLL for (int k = 0; k < CHAINS; k++) acc[k] = _mm512_setzero_ps();
    KRN_UNROLL for (int k = 0; k < CHAINS; k++) __asm__ volatile("" : "+v"(acc[k]));
    for (int64_t i = 0; i < n; i++) {
        __asm__ volatile("" : "+v"(a), "+v"(b));
        KRN_UNROLL for (int k = 0; k < CHAINS; k++) acc[k] = _mm512_fmadd_ps(acc[k], a, b);
    }
    KRN_UNROLL for (int k = 0; k < CHAINS; k++) __asm__ volatile("" : "+v"(acc[k]));
}

const struct bench_loops bench_loops_avx512 = {
    "avx512", read_all, dot, multiply_add, CHAINS * 64 * 2, CHAINS * 16 * 2,
};
