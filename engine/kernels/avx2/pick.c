/* pick.c: candidates by comparison, eight at a time; of noise only the bits, and a bound on what
 * they can come to: a logarithm is taken of the few that may win. */
#include "base/base.h"
#include "engine/kernels/avx2/avx2.h"
#include "engine/kernels/avx2/vmath.h"
#include "engine/kernels/pick.h"

void krn_avx2_temper(float *x, float m, float t, int64_t n)
{
    const __m256 mv = _mm256_set1_ps(m), tv = _mm256_set1_ps(t);
    for (int64_t i = 0; i < n; i += 8) {
        int32_t rest = (int32_t)MIN(n - i, 8);
        vmath_store(x + i, rest, _mm256_div_ps(_mm256_sub_ps(vmath_load(x + i, rest), mv), tv));
    }
}

/* Which of the eight from x[i] on, as far as there are any, are candidates. */
static inline uint32_t candidates(const float *x, int32_t i, int32_t n, float least, __m256 *v)
{
    *v = vmath_load(x + i, n - i);
    __m256 ok = _mm256_and_ps(_mm256_cmp_ps(*v, _mm256_set1_ps(least), _CMP_GE_OQ),
                              _mm256_cmp_ps(*v, _mm256_set1_ps(-INFINITY), _CMP_GT_OQ));
    return (uint32_t)_mm256_movemask_ps(_mm256_and_ps(ok, _mm256_castsi256_ps(vmath_first(n - i))));
}

int32_t krn_avx2_at_least(const float *x, int32_t n, float least, struct krn_pick *out)
{
    int32_t k = 0;
    for (int32_t i = 0; i < n; i += 8) {
        __m256 v;
        for (uint32_t hit = candidates(x, i, n, least, &v); hit; hit &= hit - 1) {
            int32_t at = i + __builtin_ctz(hit);
            out[k++] = (struct krn_pick){x[at], at};
        }
    }
    return k;
}

/* x * c modulo 2^64 on four lanes: there is no such instruction here. */
static inline __m256i times(__m256i x, uint64_t c)
{
    const __m256i low = _mm256_set1_epi64x((int64_t)(c & 0xffffffff)),
                  high = _mm256_set1_epi64x((int64_t)(c >> 32));
    __m256i cross = _mm256_add_epi64(_mm256_mul_epu32(_mm256_srli_epi64(x, 32), low),
                                     _mm256_mul_epu32(x, high));
    return _mm256_add_epi64(_mm256_mul_epu32(x, low), _mm256_slli_epi64(cross, 32));
}

/* rng_mix on four lanes. */
static inline __m256i mix(__m256i x)
{
    x = _mm256_add_epi64(x, _mm256_set1_epi64x((int64_t)0x9e3779b97f4a7c15u));
    x = times(_mm256_xor_si256(x, _mm256_srli_epi64(x, 30)), 0xbf58476d1ce4e5b9u);
    x = times(_mm256_xor_si256(x, _mm256_srli_epi64(x, 27)), 0x94d049bb133111ebu);
    return _mm256_xor_si256(x, _mm256_srli_epi64(x, 31));
}

/* The upper halves of eight 64-bit lanes as floats. */
static inline __m256 upper_floats(__m256i a, __m256i b)
{
    __m256i u = _mm256_castps_si256(
        _mm256_shuffle_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b), 0xdd));
    u = _mm256_permute4x64_epi64(u, 0xd8);
    /* halves of 16 bits are exact; their sum is rounded once */
    __m256 high = _mm256_cvtepi32_ps(_mm256_srli_epi32(u, 16)),
           low = _mm256_cvtepi32_ps(_mm256_and_si256(u, _mm256_set1_epi32(0xffff)));
    return _mm256_fmadd_ps(high, _mm256_set1_ps(65536.0f), low);
}

struct krn_pick krn_avx2_draw(const float *z, int32_t n, float least, uint64_t key, int32_t id0)
{
    struct krn_pick best = {-INFINITY, -1};
    const __m256i step = _mm256_setr_epi64x(0, 1, 2, 3), k = _mm256_set1_epi64x((int64_t)key);
    for (int32_t i = 0; i < n; i += 8) {
        __m256 v;
        uint32_t hit = candidates(z, i, n, least, &v);
        if (!hit) continue;
        __m256i id = _mm256_add_epi64(_mm256_set1_epi64x(id0 + i), step);
        __m256i low = mix(_mm256_xor_si256(k, id)),
                high = mix(_mm256_xor_si256(k, _mm256_add_epi64(id, _mm256_set1_epi64x(4))));
        __m256 reach = vmath_exp(_mm256_sub_ps(v, _mm256_set1_ps(best.z)));
        reach = _mm256_fmadd_ps(reach, _mm256_set1_ps(KRN_REACH), _mm256_set1_ps(2.0f));
        hit &= (uint32_t)_mm256_movemask_ps(
            _mm256_cmp_ps(upper_floats(low, high), reach, _CMP_LE_OQ));
        if (!hit) continue;
        _Alignas(32) uint64_t bits[8];
        _mm256_store_si256((__m256i *)bits, low);
        _mm256_store_si256((__m256i *)(bits + 4), high);
        for (; hit; hit &= hit - 1) {
            int32_t at = __builtin_ctz(hit);
            krn_pick_try(&best, z[i + at], id0 + i + at, bits[at]);
        }
    }
    return best;
}
