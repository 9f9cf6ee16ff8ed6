/* rope.c: sixteen (interleaved: eight) pairs at a time; what does not fill a vector goes by masks.
 *
 * Interleaved: with x = (x0,x1,..) and cs = (c,s,..): y = (x0,x0,..)*(c,s,..) -+
 * (x1,x1,..)*(s,c,..), one fmaddsub. */
#include "engine/kernels/avx512/avx512.h"
#include "engine/kernels/avx512/vmath.h"

static void rotate_neighbours(float *x, const float *cs, int32_t rot)
{
    for (int32_t i = 0; i < rot; i += 16) {
        __mmask16 mask = vmath_first(rot - i);
        __m512 v = _mm512_maskz_loadu_ps(mask, x + i), c = _mm512_maskz_loadu_ps(mask, cs + i);
        __m512 turned = _mm512_mul_ps(_mm512_movehdup_ps(v), _mm512_permute_ps(c, 0xb1));
        _mm512_mask_storeu_ps(x + i, mask, _mm512_fmaddsub_ps(_mm512_moveldup_ps(v), c, turned));
    }
}

static void rotate_halves(float *x, const float *cs, int32_t rot)
{
    const __m512i even =
        _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odd =
        _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    int32_t half = rot / 2;
    for (int32_t i = 0; i < half; i += 16) {
        __mmask16 mask = vmath_first(half - i);
        __m512 a = _mm512_maskz_loadu_ps(vmath_first(rot - 2 * i), cs + 2 * i);
        __m512 b = _mm512_maskz_loadu_ps(vmath_first(rot - 2 * i - 16), cs + 2 * i + 16);
        __m512 c = _mm512_permutex2var_ps(a, even, b), s = _mm512_permutex2var_ps(a, odd, b);
        __m512 x0 = _mm512_maskz_loadu_ps(mask, x + i),
               x1 = _mm512_maskz_loadu_ps(mask, x + half + i);
        _mm512_mask_storeu_ps(x + i, mask, _mm512_fmsub_ps(x0, c, _mm512_mul_ps(x1, s)));
        _mm512_mask_storeu_ps(x + half + i, mask, _mm512_fmadd_ps(x0, s, _mm512_mul_ps(x1, c)));
    }
}

void krn_avx512_rope(float *x, int32_t n_head, int32_t head_dim, int32_t rot, bool interleaved,
                     const float *const *cs, int32_t t0, int32_t t1)
{
    for (int64_t t = t0; t < t1; t++)
        for (int32_t h = 0; h < n_head; h++) {
            float *head = x + (t * n_head + h) * head_dim;
            if (interleaved)
                rotate_neighbours(head, cs[t], rot);
            else
                rotate_halves(head, cs[t], rot);
        }
}
