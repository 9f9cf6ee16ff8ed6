/* reduce.c: argmax as the largest value first, then its first place; sums of exponentials in the
 * contract's 16 lanes. */
#include "base/base.h"
#include "engine/kernels/avx512/avx512.h"
#include "engine/kernels/avx512/vmath.h"

int32_t krn_avx512_argmax(const float *x, int32_t n)
{
    const __m512 lowest = _mm512_set1_ps(-INFINITY);
    __m512 big = lowest;
    for (int32_t i = 0; i < n; i += 16) /* maxps gives its second operand when the first is NaN */
        big = _mm512_max_ps(_mm512_mask_loadu_ps(lowest, vmath_first(n - i), x + i), big);
    const __m512 best = _mm512_set1_ps(_mm512_reduce_max_ps(big));
    for (int32_t i = 0; i < n; i += 16) {
        __mmask16 valid = vmath_first(n - i);
        __mmask16 hit =
            _mm512_mask_cmp_ps_mask(valid, _mm512_maskz_loadu_ps(valid, x + i), best, _CMP_EQ_OQ);
        if (hit) return i + __builtin_ctz(hit);
    }
    return 0; /* nothing but NaN */
}

static float tile_sum(const float *x, int32_t n, float m)
{
    __m512 lane = _mm512_setzero_ps();
    for (int32_t i = 0; i < n; i += 16) {
        __mmask16 mask = vmath_first(n - i);
        __m512 e = vmath_exp(_mm512_sub_ps(_mm512_maskz_loadu_ps(mask, x + i), _mm512_set1_ps(m)));
        lane = _mm512_add_ps(lane, _mm512_maskz_mov_ps(mask, e));
    }
    return vmath_lane_sum(lane);
}

static float node_sum(const float *x, int32_t n, float m, int32_t a, int32_t b)
{
    if (b - a > 1) {
        int32_t mid = tree_split(a, b);
        float left = node_sum(x, n, m, a, mid);
        return left + node_sum(x, n, m, mid, b);
    }
    return tile_sum(x + (int64_t)a * KRN_LSE_TILE, MIN(n - a * KRN_LSE_TILE, KRN_LSE_TILE), m);
}

float krn_avx512_sum_exp(const float *x, int32_t n, float m)
{
    return node_sum(x, n, m, 0, DIV_UP(n, KRN_LSE_TILE));
}
