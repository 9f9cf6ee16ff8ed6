/* pick.c: candidates by comparison, sixteen at a time; of noise only the bits, and a bound on what
 * they can come to: a logarithm is taken of the few that may win. 128,256 ids: see
 * docs/performance.md. */
#include "engine/kernels/avx512/avx512.h"
#include "engine/kernels/avx512/vmath.h"
#include "engine/kernels/pick.h"

void krn_avx512_temper(float *x, float m, float t, int64_t n)
{
    const __m512 mv = _mm512_set1_ps(m), tv = _mm512_set1_ps(t);
    for (int64_t i = 0; i < n; i += 16) {
        __mmask16 mask = vmath_first(n - i >= 16 ? 16 : (int32_t)(n - i));
        __m512 v = _mm512_sub_ps(_mm512_maskz_loadu_ps(mask, x + i), mv);
        _mm512_mask_storeu_ps(x + i, mask, _mm512_div_ps(v, tv));
    }
}

/* Which of x[i..i+16), i + 16 <= n or the rest, are candidates. */
static inline __mmask16 candidates(const float *x, int32_t i, int32_t n, float least, __m512 *v)
{
    __mmask16 mask = vmath_first(n - i);
    *v = _mm512_maskz_loadu_ps(mask, x + i);
    mask = _mm512_mask_cmp_ps_mask(mask, *v, _mm512_set1_ps(least), _CMP_GE_OQ);
    return _mm512_mask_cmp_ps_mask(mask, *v, _mm512_set1_ps(-INFINITY), _CMP_GT_OQ);
}

int32_t krn_avx512_at_least(const float *x, int32_t n, float least, struct krn_pick *out)
{
    int32_t k = 0;
    for (int32_t i = 0; i < n; i += 16) {
        __m512 v;
        for (uint32_t hit = candidates(x, i, n, least, &v); hit; hit &= hit - 1) {
            int32_t at = i + __builtin_ctz(hit);
            out[k++] = (struct krn_pick){x[at], at};
        }
    }
    return k;
}

/* rng_mix on eight lanes. */
static inline __m512i mix(__m512i x)
{
    x = _mm512_add_epi64(x, _mm512_set1_epi64((int64_t)0x9e3779b97f4a7c15u));
    x = _mm512_mullo_epi64(_mm512_xor_si512(x, _mm512_srli_epi64(x, 30)),
                           _mm512_set1_epi64((int64_t)0xbf58476d1ce4e5b9u));
    x = _mm512_mullo_epi64(_mm512_xor_si512(x, _mm512_srli_epi64(x, 27)),
                           _mm512_set1_epi64((int64_t)0x94d049bb133111ebu));
    return _mm512_xor_si512(x, _mm512_srli_epi64(x, 31));
}

struct krn_pick krn_avx512_draw(const float *z, int32_t n, float least, uint64_t key, int32_t id0)
{
    struct krn_pick best = {-INFINITY, -1};
    const __m512i step = _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7), k = _mm512_set1_epi64((int64_t)key);
    for (int32_t i = 0; i < n; i += 16) {
        __m512 v;
        __mmask16 hit = candidates(z, i, n, least, &v);
        if (!hit) continue;
        __m512i id = _mm512_add_epi64(_mm512_set1_epi64(id0 + i), step);
        _Alignas(64) uint64_t bits[16];
        __m512i low = mix(_mm512_xor_si512(k, id)),
                high = mix(_mm512_xor_si512(k, _mm512_add_epi64(id, _mm512_set1_epi64(8))));
        __m512i upper = _mm512_inserti64x4(
            _mm512_castsi256_si512(_mm512_cvtepi64_epi32(_mm512_srli_epi64(low, 32))),
            _mm512_cvtepi64_epi32(_mm512_srli_epi64(high, 32)), 1);
        __m512 reach = vmath_exp(_mm512_sub_ps(v, _mm512_set1_ps(best.z)));
        reach = _mm512_fmadd_ps(reach, _mm512_set1_ps(KRN_REACH), _mm512_set1_ps(2.0f));
        hit = _mm512_mask_cmp_ps_mask(hit, _mm512_cvtepu32_ps(upper), reach, _CMP_LE_OQ);
        if (!hit) continue;
        _mm512_store_si512(bits, low);
        _mm512_store_si512(bits + 8, high);
        for (uint32_t h = hit; h; h &= h - 1) {
            int32_t at = __builtin_ctz(h);
            krn_pick_try(&best, z[i + at], id0 + i + at, bits[at]);
        }
    }
    return best;
}
