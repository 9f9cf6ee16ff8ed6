/* reduce.c: argmax as the largest value first, then its first place; sums of exponentials in the
 * contract's 16 lanes. */
#include "base/base.h"
#include "engine/kernels/avx2/avx2.h"
#include "engine/kernels/avx2/vmath.h"

int32_t krn_avx2_argmax(const float *x, int32_t n)
{
    const __m256 lowest = _mm256_set1_ps(-INFINITY);
    __m256 big = lowest;
    for (int32_t i = 0; i < n; i += 8) { /* maxps gives its second operand when the first is NaN */
        __m256i valid = vmath_first(n - i);
        __m256 v = _mm256_blendv_ps(lowest, vmath_load(x + i, n - i), _mm256_castsi256_ps(valid));
        big = _mm256_max_ps(v, big);
    }
    const __m256 best = _mm256_set1_ps(vmath_max(big));
    for (int32_t i = 0; i < n; i += 8) {
        __m256 same = _mm256_cmp_ps(vmath_load(x + i, n - i), best, _CMP_EQ_OQ);
        int hit = _mm256_movemask_ps(_mm256_and_ps(same, _mm256_castsi256_ps(vmath_first(n - i))));
        if (hit) return i + __builtin_ctz((unsigned)hit);
    }
    return 0; /* nothing but NaN */
}

static float tile_sum(const float *x, int32_t n, float m)
{
    __m256 lane[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    for (int32_t i = 0; i < n; i += 8) {
        __m256 e = vmath_exp(_mm256_sub_ps(vmath_load(x + i, n - i), _mm256_set1_ps(m)));
        e = _mm256_and_ps(e, _mm256_castsi256_ps(vmath_first(n - i)));
        lane[i / 8 % 2] = _mm256_add_ps(lane[i / 8 % 2], e);
    }
    return vmath_lane_sum(lane[0], lane[1]);
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

float krn_avx2_sum_exp(const float *x, int32_t n, float m)
{
    return node_sum(x, n, m, 0, DIV_UP(n, KRN_LSE_TILE));
}
