/* matmul_int8.c: the chain over units of 32 by vpdpbusd on 8 rows: stored (unsigned) codes against 4
 * activations, broadcast by a load. The integer sum starts at minus the offset of the codes times
 * the activations, from the panel, as with AVX-512.
 *
 * One or two lanes keep the codes of half a tile in registers. More lanes find a unit's codes
 * decoded in L1 and go 4 or 6 at a time: 8 or 12 sums, 2 vectors of codes and an activation in 16
 * registers, and as many chains as hide the latency of a dot product (5 cycles, 2 per cycle). */
#include "engine/kernels/avx2/avx2.h"
#include "engine/kernels/avx2/int8_walk.h"
#include "engine/kernels/avxvnni/avxvnni.h"

enum { MOST = 6, LEAST = 4 /* lanes at once */ };

KRN_INLINE __m256i dot4(__m256i sum, const __m256i w[4], const uint8_t *q)
{
    KRN_UNROLL for (int j = 0; j < 4; j++)
        sum = _mm256_dpbusd_avx_epi32(sum, w[j], all_i32(q + 4 * j));
    return sum;
}

/* One unit of lane t: two sums of four products each, so that they overlap. */
KRN_INLINE __m256 add_unit(__m256 acc, const __m256i w[UNIT_VECTORS], const struct unit_scales *sc,
                           const uint8_t *x, const int width, const int t, const enum dtype type)
{
    const uint8_t *q = x + t * KRN_UNIT, *f = x + 4 * t;
    const bool halves = krn_pack_halves(type);
    __m256i low = dot4(start_of(f, width, 0, type), w, q);
    __m256i high = dot4(halves ? start_of(f, width, 1, type) : _mm256_setzero_si256(), w + 4, q + 16);
    if (!halves) return add_sum(acc, _mm256_add_epi32(low, high), sc, 0, f, width, type);
    acc = add_sum(acc, low, sc, 0, f, width, type);
    return add_sum(acc, high, sc, 1, f, width, type);
}

/* One unit of n lanes from `lane` onto acc[n][16]. */
KRN_INLINE void add_lanes(float *acc, const uint8_t *lines, const struct unit_scales sc[2],
                          const uint8_t *x, int32_t width, int32_t lane, const int n,
                          const enum dtype type)
{
    const int parts = krn_pack_halves(type) ? 2 : 1, per_part = UNIT_VECTORS / parts;
    const uint8_t *q = x + lane * KRN_UNIT, *f = x + 4 * lane;
    KRN_UNROLL for (int part = 0; part < parts; part++)
    {
        __m256i sum[MOST][2];
        KRN_UNROLL for (int t = 0; t < n; t++)
            sum[t][0] = sum[t][1] = start_of(f + 4 * t, width, part, type);
        KRN_UNROLL for (int j = part * per_part; j < (part + 1) * per_part; j++)
        {
            const __m256i w0 = _mm256_load_si256((const __m256i *)(lines + 64 * j));
            const __m256i w1 = _mm256_load_si256((const __m256i *)(lines + 64 * j + 32));
            KRN_UNROLL for (int t = 0; t < n; t++)
            {
                const __m256i four = all_i32(q + t * KRN_UNIT + 4 * j);
                sum[t][0] = _mm256_dpbusd_avx_epi32(sum[t][0], w0, four);
                sum[t][1] = _mm256_dpbusd_avx_epi32(sum[t][1], w1, four);
            }
        }
        KRN_UNROLL for (int t = 0; t < n; t++) KRN_UNROLL for (int half = 0; half < 2; half++)
        {
            float *a = acc + t * KRN_TILE + 8 * half;
            _mm256_store_ps(a, add_sum(_mm256_load_ps(a), sum[t][half], &sc[half], part, f + 4 * t,
                                       width, type));
        }
    }
}

KRN_QUANT_LAYOUTS(INT8_CHAINS)
const struct krn_leaf_kernel krn_avxvnni_int8[DTYPE_COUNT] = {KRN_QUANT_LAYOUTS(INT8_KERNEL)};
