/* rope.c: eight (interleaved: four) pairs at a time; what does not fill a vector goes by masks.
 *
 * Interleaved: with x = (x0,x1,..) and cs = (c,s,..): y = (x0,x0,..)*(c,s,..) -+
 * (x1,x1,..)*(s,c,..), one fmaddsub. */
#include "engine/kernels/avx2/avx2.h"
#include "engine/kernels/avx2/vmath.h"

static void rotate_neighbours(float *x, const float *cs, int32_t rot)
{
    for (int32_t i = 0; i < rot; i += 8) {
        __m256 v = vmath_load(x + i, rot - i), c = vmath_load(cs + i, rot - i);
        __m256 turned = _mm256_mul_ps(_mm256_movehdup_ps(v), _mm256_permute_ps(c, 0xb1));
        vmath_store(x + i, rot - i, _mm256_fmaddsub_ps(_mm256_moveldup_ps(v), c, turned));
    }
}

static void rotate_halves(float *x, const float *cs, int32_t rot)
{
    const __m256i order = _mm256_setr_epi32(0, 1, 4, 5, 2, 3, 6, 7);
    int32_t half = rot / 2;
    for (int32_t i = 0; i < half; i += 8) {
        __m256 a = vmath_load(cs + 2 * i, rot - 2 * i),
               b = vmath_load(cs + 2 * i + 8, rot - 2 * i - 8);
        __m256 c = _mm256_permutevar8x32_ps(_mm256_shuffle_ps(a, b, 0x88), order);
        __m256 s = _mm256_permutevar8x32_ps(_mm256_shuffle_ps(a, b, 0xdd), order);
        __m256 x0 = vmath_load(x + i, half - i), x1 = vmath_load(x + half + i, half - i);
        vmath_store(x + i, half - i, _mm256_fmsub_ps(x0, c, _mm256_mul_ps(x1, s)));
        vmath_store(x + half + i, half - i, _mm256_fmadd_ps(x0, s, _mm256_mul_ps(x1, c)));
    }
}

void krn_avx2_rope(float *x, int32_t n_head, int32_t head_dim, int32_t rot, bool interleaved,
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
