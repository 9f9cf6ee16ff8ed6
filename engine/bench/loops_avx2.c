/* loops_avx2.c: see loops.h. Without VNNI an int8 product is three instructions. The empty asm
 * keeps the compiler from seeing that chains and rounds are alike. */
#include "engine/bench/loops.h"
#include "engine/kernels/leaf_walk.h"

#include <immintrin.h>

enum { CHAINS = 10, AHEAD = 4096, VECTOR = 32 };

static uint64_t read_all(const uint8_t *p, int64_t bytes)
{
    __m256i sum[4] = {0};
    for (int64_t i = 0; i < bytes; i += 4 * VECTOR) {
        _mm_prefetch((const char *)p + i + AHEAD, _MM_HINT_T0);
        _mm_prefetch((const char *)p + i + 2 * VECTOR + AHEAD, _MM_HINT_T0);
        KRN_UNROLL for (int k = 0; k < 4; k++) sum[k] = _mm256_add_epi64(
            sum[k], _mm256_load_si256((const __m256i *)(p + i + k * VECTOR)));
    }
    sum[0] = _mm256_add_epi64(_mm256_add_epi64(sum[0], sum[1]), _mm256_add_epi64(sum[2], sum[3]));
    return (uint64_t)_mm256_extract_epi64(sum[0], 0) ^ (uint64_t)_mm256_extract_epi64(sum[0], 1) ^
           (uint64_t)_mm256_extract_epi64(sum[0], 2) ^ (uint64_t)_mm256_extract_epi64(sum[0], 3);
}

static void dot(int64_t n)
{
    __m256i acc[CHAINS] = {0}, u = _mm256_set1_epi8(3), s = _mm256_set1_epi8(-5);
    const __m256i ones = _mm256_set1_epi16(1);
    KRN_UNROLL for (int k = 0; k < CHAINS; k++) __asm__ volatile("" : "+x"(acc[k]));
    for (int64_t i = 0; i < n; i++)
        KRN_UNROLL for (int k = 0; k < CHAINS; k++) {
            __asm__ volatile("" : "+x"(u), "+x"(s));
            acc[k] = _mm256_add_epi32(acc[k],
                                      _mm256_madd_epi16(_mm256_maddubs_epi16(u, s), ones));
        }
    KRN_UNROLL for (int k = 0; k < CHAINS; k++) __asm__ volatile("" : "+x"(acc[k]));
}

static void multiply_add(int64_t n)
{
    __m256 acc[CHAINS], a = _mm256_set1_ps(0.5f), b = _mm256_set1_ps(1e-3f);
    KRN_UNROLL for (int k = 0; k < CHAINS; k++) acc[k] = _mm256_setzero_ps();
    KRN_UNROLL for (int k = 0; k < CHAINS; k++) __asm__ volatile("" : "+x"(acc[k]));
    for (int64_t i = 0; i < n; i++) {
        __asm__ volatile("" : "+x"(a), "+x"(b));
        KRN_UNROLL for (int k = 0; k < CHAINS; k++) acc[k] = _mm256_fmadd_ps(acc[k], a, b);
    }
    KRN_UNROLL for (int k = 0; k < CHAINS; k++) __asm__ volatile("" : "+x"(acc[k]));
}

const struct bench_loops bench_loops_avx2 = {
    "avx2", read_all, dot, multiply_add, CHAINS * 32 * 2, CHAINS * 8 * 2,
};
