/* matmul_int8.c: the chain over units of 32: int8 dot products on the stored codes.
 *
 * vpmaddubsw adds pairs of (unsigned code x signed activation) in 16 bits. What fits without
 * saturating decides how many are added before widening: 4-bit codes (and less) 8 (8 x 2 x 15 x 127
 * = 30480), 5-bit 4 (31496), 6-bit 2 (32004). Eight-bit codes and values of books are made |w| against x sign(w): 2 x 128 x 127 =
 * 32512 fits alone. So isum is exact, as with AVX-512. */
#include "engine/kernels/avx2/avx2.h"
#include "engine/kernels/avx2/int8_walk.h"

enum { MOST = 2, LEAST = 2 /* lanes at once beside codes in memory: 4 sums in 16 bits, 4 in 32 */ };

/* A sum, here and now: compilers regroup a chain of integer additions, for which they keep all its
 * terms, in memory for want of registers. */
KRN_INLINE __m256i now(__m256i sum)
{
    __asm__("" : "+x"(sum));
    return sum;
}

KRN_INLINE __m256i four_bytes(const int8_t *q)
{
    int32_t v;
    memcpy(&v, q, sizeof v);
    return _mm256_set1_epi32(v);
}

/* Codes are signed when 128 is taken off, and then multiplied as |w| and x sign(w). */
KRN_INLINE bool is_signed(const enum dtype type)
{
    return krn_pack_offset(type) == 128;
}
/* Vectors of products that 16 bits can hold. */
KRN_INLINE int narrow(const enum dtype type)
{
    const int bits = krn_pack_bits(type), most = krn_pack_halves(type) ? 4 : 8;
    return is_signed(type) ? 1 : bits == 6 ? 2 : bits == 5 ? 4 : most;
}

/* Sum of n (1, 2, 4 or 8) vectors of products in 16 bits, widened. */
KRN_INLINE __m256i dot(const __m256i *w, const int8_t *q, const int n)
{
    __m256i pairs = _mm256_maddubs_epi16(w[0], four_bytes(q));
    KRN_UNROLL for (int j = 1; j < n; j++)
        pairs = now(_mm256_add_epi16(pairs, _mm256_maddubs_epi16(w[j], four_bytes(q + 4 * j))));
    return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

/* n vectors of codes + 128, as stored, against signed activations. */
KRN_INLINE __m256i dot_signed(const __m256i *w, const int8_t *q, const int n)
{
    const __m256i top = _mm256_set1_epi8(-128), one = _mm256_set1_epi16(1);
    __m256i sum = _mm256_setzero_si256();
    KRN_UNROLL for (int j = 0; j < n; j++)
    {
        __m256i code = _mm256_xor_si256(w[j], top);
        __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(code),
                                             _mm256_sign_epi8(four_bytes(q + 4 * j), code));
        sum = now(_mm256_add_epi32(sum, _mm256_madd_epi16(pairs, one)));
    }
    return sum;
}

/* n vectors of a type's codes, onto sum. */
KRN_INLINE __m256i add_dots(__m256i sum, const __m256i *w, const int8_t *q, const int n,
                            const enum dtype type)
{
    const int step = narrow(type);
    if (is_signed(type)) return _mm256_add_epi32(sum, dot_signed(w, q, n));
    KRN_UNROLL for (int j = 0; j < n; j += step) sum =
        _mm256_add_epi32(sum, dot(w + j, q + 4 * j, step));
    return sum;
}

/* Where the integer sum begins: signed codes have no offset left. */
KRN_INLINE __m256i start(const uint8_t *f, int32_t width, const int h, const enum dtype type)
{
    return is_signed(type) ? _mm256_setzero_si256() : start_of(f, width, h, type);
}

/* One unit of lane t of a panel `width` lanes wide onto its accumulator. */
KRN_INLINE __m256 add_unit(__m256 acc, const __m256i w[UNIT_VECTORS], const struct unit_scales *sc,
                           const uint8_t *x, const int width, const int t, const enum dtype type)
{
    const int parts = krn_pack_halves(type) ? 2 : 1, per_part = UNIT_VECTORS / parts;
    const int8_t *q = (const int8_t *)x + t * KRN_UNIT;
    const uint8_t *f = x + 4 * t;
    KRN_UNROLL for (int h = 0; h < parts; h++)
    {
        const __m256i isum =
            add_dots(start(f, width, h, type), w + per_part * h, q + 16 * h, per_part, type);
        acc = add_sum(acc, isum, sc, h, f, width, type);
    }
    return acc;
}

/* ---- four lanes and more --------------------------------------------------------------------- */

KRN_INLINE __m256i products(__m256i w, __m256i x, const enum dtype type)
{
    if (is_signed(type)) return _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
    return _mm256_maddubs_epi16(w, x);
}

/* sum[t][half] of n lanes += the products of vectors [j0, j0 + fit) of codes, which 16 bits can hold. */
KRN_INLINE void dot_lanes(__m256i sum[][2], const uint8_t *lines, const int8_t *q, const int j0,
                          const int fit, const int n, const enum dtype type)
{
    const __m256i one = _mm256_set1_epi16(1), top = _mm256_set1_epi8(-128);
    __m256i pairs[MOST][2];
    KRN_UNROLL for (int j = j0; j < j0 + fit; j++)
    {
        __m256i w0 = _mm256_load_si256((const __m256i *)(lines + 64 * j));
        __m256i w1 = _mm256_load_si256((const __m256i *)(lines + 64 * j + 32));
        if (is_signed(type)) {
            w0 = _mm256_xor_si256(w0, top);
            w1 = _mm256_xor_si256(w1, top);
        }
        KRN_UNROLL for (int t = 0; t < n; t++)
        {
            __m256i x = four_bytes(q + t * KRN_UNIT + 4 * j);
            __m256i p0 = products(w0, x, type), p1 = products(w1, x, type);
            pairs[t][0] = j == j0 ? p0 : now(_mm256_add_epi16(pairs[t][0], p0));
            pairs[t][1] = j == j0 ? p1 : now(_mm256_add_epi16(pairs[t][1], p1));
        }
    }
    KRN_UNROLL for (int t = 0; t < n; t++) KRN_UNROLL for (int half = 0; half < 2; half++)
        sum[t][half] = now(_mm256_add_epi32(sum[t][half], _mm256_madd_epi16(pairs[t][half], one)));
}

/* One unit of n lanes from `lane` onto acc[n][16]. */
KRN_INLINE void add_lanes(float *acc, const uint8_t *lines, const struct unit_scales sc[2],
                          const uint8_t *x, int32_t width, int32_t lane, const int n,
                          const enum dtype type)
{
    const int parts = krn_pack_halves(type) ? 2 : 1, per_part = UNIT_VECTORS / parts;
    const int fit = narrow(type);
    const int8_t *q = (const int8_t *)x + lane * KRN_UNIT;
    const uint8_t *f = x + 4 * lane;
    KRN_UNROLL for (int part = 0; part < parts; part++)
    {
        __m256i sum[MOST][2];
        KRN_UNROLL for (int t = 0; t < n; t++)
        {
            sum[t][0] = start(f + 4 * t, width, part, type);
            sum[t][1] = sum[t][0];
        }
        KRN_UNROLL for (int j = 0; j < per_part; j += fit)
            dot_lanes(sum, lines, q, part * per_part + j, fit, n, type);
        KRN_UNROLL for (int t = 0; t < n; t++)
        {
            KRN_UNROLL for (int half = 0; half < 2; half++)
            {
                float *a = acc + t * KRN_TILE + 8 * half;
                _mm256_store_ps(a, add_sum(_mm256_load_ps(a), sum[t][half], &sc[half], part,
                                           f + 4 * t, width, type));
            }
        }
    }
}

KRN_QUANT_LAYOUTS(INT8_CHAINS)
const struct krn_leaf_kernel krn_avx2_int8[DTYPE_COUNT] = {KRN_QUANT_LAYOUTS(INT8_KERNEL)};
