/* matmul_quant.c: the chain over units of 32: int8 dot products on the stored codes, or (oracle
 * mode) dequantised values.
 *
 * vpmaddubsw adds pairs of (unsigned code x signed activation) in 16 bits. What fits without
 * saturating decides how many are added before widening: 4-bit codes 8 (8 x 2 x 15 x 127 = 30480),
 * 5-bit 4 (31496), 6-bit 2 (32004). Eight-bit codes are made |w| against x sign(w): 2 x 128 x 127 =
 * 32512 fits alone. So isum is exact, as with AVX-512. */
#include "engine/kernels/avx2/avx2.h"
#include "engine/kernels/pack.h"

#include <immintrin.h>

enum {
    MAX_TOK = 4,
    VECTORS = 8,
    AHEAD = 4096 /* bytes fetched ahead when every weight is used once */
};

/* ---- one unit of 8 rows (q, s: already at the half of the tile) ------------------------------ */

/* The codes as stored; vector j holds k = 4j..4j+3. */
KRN_INLINE void load_codes(const uint8_t *q, const enum dtype type, __m256i w[VECTORS])
{
    if (type == DTYPE_Q8_0) {
        KRN_UNROLL for (int j = 0; j < VECTORS; j++)
            w[j] = _mm256_loadu_si256((const __m256i *)(q + 64 * j));
        return;
    }
    const __m256i nibble = _mm256_set1_epi8(15);
    KRN_UNROLL for (int j = 0; j < 4; j++) {
        __m256i v = _mm256_loadu_si256((const __m256i *)(q + 64 * j));
        w[j] = _mm256_and_si256(v, nibble);
        w[j + 4] = _mm256_and_si256(_mm256_srli_epi16(v, 4), nibble);
    }
    if (type == DTYPE_Q5_K) {
        const __m256i bit = _mm256_set1_epi8(16);
        __m256i v = _mm256_loadu_si256((const __m256i *)(q + 256));
        KRN_UNROLL for (int j = 0; j < VECTORS; j++) {
            __m256i h = j < 4 ? _mm256_slli_epi16(v, j < 4 ? 4 - j : 0)
                              : _mm256_srli_epi16(v, j < 4 ? 0 : j - 4);
            w[j] = _mm256_or_si256(w[j], _mm256_and_si256(h, bit));
        }
    }
    if (type == DTYPE_Q6_K) {
        const __m256i bits = _mm256_set1_epi8(48);
        KRN_UNROLL for (int j = 0; j < VECTORS; j++) {
            __m256i v = _mm256_loadu_si256((const __m256i *)(q + 256 + j / 4 * 64));
            int i = j % 4;
            __m256i h = i < 2 ? _mm256_slli_epi16(v, i < 2 ? 4 - 2 * i : 0)
                              : _mm256_srli_epi16(v, i < 2 ? 0 : 2 * i - 4);
            w[j] = _mm256_or_si256(w[j], _mm256_and_si256(h, bits));
        }
    }
}

KRN_INLINE __m256 load_f16(const uint8_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}
KRN_INLINE __m128i load_8_bytes(const uint8_t *p) { return _mm_loadl_epi64((const __m128i *)p); }

/* d[0], d[1] the scales of the half units; m the minimum times its scale (Q4_K, Q5_K). */
struct scales {
    __m256 d[2], m;
};

/* row: 0 or 8. */
KRN_INLINE struct scales load_scales(const struct krn_planes *p, int32_t unit, int32_t row,
                                     const enum dtype type)
{
    struct scales out;
    const uint8_t *s = p->scales + (int64_t)unit * KRN_SCALE_BYTES;
    if (type == DTYPE_Q8_0 || type == DTYPE_Q4_0) {
        out.d[0] = out.d[1] = out.m = load_f16(s + 2 * row);
        return out;
    }
    const uint8_t *super = krn_pack_super(type, p, unit);
    __m128i a = load_8_bytes(s + row), b = load_8_bytes(s + KRN_TILE + row);
    __m256 d = load_f16(super + 2 * row);
    if (type == DTYPE_Q6_K) {
        out.d[0] = out.m = _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(a)));
        out.d[1] = _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(b)));
    } else {
        out.d[0] = out.d[1] = _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(a)));
        out.m = _mm256_mul_ps(load_f16(super + 32 + 2 * row),
                              _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(b)));
    }
    return out;
}

/* ---- int8 ------------------------------------------------------------------------------------ */

KRN_INLINE __m256i four_bytes(const int8_t *q)
{
    int32_t v;
    memcpy(&v, q, sizeof v);
    return _mm256_set1_epi32(v);
}

/* Sum of n (1, 2, 4 or 8) vectors of products in 16 bits, widened. */
KRN_INLINE __m256i dot(const __m256i *w, const int8_t *q, const int n)
{
    __m256i pairs = _mm256_maddubs_epi16(w[0], four_bytes(q));
    KRN_UNROLL for (int j = 1; j < n; j++)
        pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(w[j], four_bytes(q + 4 * j)));
    return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

/* codes + 128, as stored, against signed activations. */
KRN_INLINE __m256i dot_q8_0(const __m256i w[VECTORS], const int8_t *q)
{
    const __m256i top = _mm256_set1_epi8(-128), one = _mm256_set1_epi16(1);
    __m256i sum = _mm256_setzero_si256();
    KRN_UNROLL for (int j = 0; j < VECTORS; j++) {
        __m256i code = _mm256_xor_si256(w[j], top);
        __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(code),
                                             _mm256_sign_epi8(four_bytes(q + 4 * j), code));
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, one));
    }
    return sum;
}

/* Sums of the first and the last 16 activations, in every lane. */
KRN_INLINE void half_sums(const int8_t *q, __m256i sum[2])
{
    const __m256i base = _mm256_set1_epi32(16 * 128);
    __m256i v = _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)q), _mm256_set1_epi8(-128));
    __m256i eights = _mm256_sad_epu8(v, _mm256_setzero_si256());
    eights = _mm256_add_epi64(eights, _mm256_shuffle_epi32(eights, 0x4e));
    sum[0] = _mm256_sub_epi32(_mm256_broadcastd_epi32(_mm256_castsi256_si128(eights)), base);
    sum[1] = _mm256_sub_epi32(_mm256_broadcastd_epi32(_mm256_extracti128_si256(eights, 1)), base);
}

/* One unit of one token onto its accumulator. */
KRN_INLINE __m256 add_unit(__m256 acc, const __m256i w[VECTORS], const struct scales *sc,
                           const int8_t *q, float d, int32_t s, const enum dtype type)
{
    const __m256 dx = _mm256_set1_ps(d);
    if (type == DTYPE_Q6_K) {
        __m256i sum[2];
        half_sums(q, sum);
        for (int h = 0; h < 2; h++) {
            __m256i isum = _mm256_add_epi32(dot(w + 4 * h, q + 16 * h, 2),
                                            dot(w + 4 * h + 2, q + 16 * h + 8, 2));
            isum = _mm256_sub_epi32(isum, _mm256_slli_epi32(sum[h], 5));
            acc = _mm256_fmadd_ps(_mm256_mul_ps(sc->d[h], dx), _mm256_cvtepi32_ps(isum), acc);
        }
        return acc;
    }
    __m256i sum = _mm256_set1_epi32(s), isum;
    if (type == DTYPE_Q8_0)
        isum = dot_q8_0(w, q);
    else if (type == DTYPE_Q5_K)
        isum = _mm256_add_epi32(dot(w, q, 4), dot(w + 4, q + 16, 4));
    else
        isum = dot(w, q, 8);
    if (type == DTYPE_Q4_0) isum = _mm256_sub_epi32(isum, _mm256_slli_epi32(sum, 3));
    acc = _mm256_fmadd_ps(_mm256_mul_ps(sc->d[0], dx), _mm256_cvtepi32_ps(isum), acc);
    if (type == DTYPE_Q4_K || type == DTYPE_Q5_K)
        acc = _mm256_fnmadd_ps(_mm256_mul_ps(sc->m, dx), _mm256_cvtepi32_ps(sum), acc);
    return acc;
}

KRN_INLINE void fetch_ahead(const uint8_t *p, int n)
{
    KRN_UNROLL for (int i = 0; i < n; i += 64)
        _mm_prefetch((const char *)p + AHEAD + i, _MM_HINT_T0);
}

KRN_INLINE void chain_int8(const struct krn_leaf_job *j, const enum dtype type, const int n_tok)
{
    const struct krn_planes p = krn_pack_planes(type, j->tile, j->w->cols);
    const int64_t cols = j->x->cols, units = cols / KRN_UNIT;
    const int8_t *q = j->x->q + j->t0 * cols;
    const float *d = j->x->d + j->t0 * units;
    const int32_t *s = j->x->s + j->t0 * units;
    const int quant_bytes = krn_pack_quant_bytes(type);
    __m256 acc[2][MAX_TOK];
    KRN_UNROLL for (int t = 0; t < n_tok; t++) acc[0][t] = acc[1][t] = _mm256_setzero_ps();

    for (int32_t u = j->k0 / KRN_UNIT; u < j->k1 / KRN_UNIT; u++) {
        const uint8_t *codes = p.quants + (int64_t)u * quant_bytes;
        if (n_tok == 1) {
            fetch_ahead(codes, quant_bytes);
            fetch_ahead(p.scales + (int64_t)u * KRN_SCALE_BYTES, 1);
        }
        KRN_UNROLL for (int half = 0; half < 2; half++) {
            __m256i w[VECTORS];
            load_codes(codes + 32 * half, type, w);
            const struct scales sc = load_scales(&p, u, 8 * half, type);
            KRN_UNROLL for (int t = 0; t < n_tok; t++)
                acc[half][t] = add_unit(acc[half][t], w, &sc, q + t * cols + u * KRN_UNIT,
                                        d[t * units + u], s[t * units + u], type);
        }
    }
    KRN_UNROLL for (int t = 0; t < n_tok; t++) {
        _mm256_store_ps(j->acc + t * KRN_TILE, acc[0][t]);
        _mm256_store_ps(j->acc + t * KRN_TILE + 8, acc[1][t]);
    }
}

KRN_INLINE void run_int8(const struct krn_leaf_job *j, const enum dtype type, int32_t n_tok)
{
    switch (n_tok) {
    case 1: chain_int8(j, type, 1); break;
    case 2: chain_int8(j, type, 2); break;
    case 4: chain_int8(j, type, 4); break;
    }
}

static void leaf_int8(const struct krn_leaf_job *j, int32_t n_tiles, int32_t n_tok)
{
    (void)n_tiles;
    switch (j->w->type) {
    case DTYPE_Q8_0: run_int8(j, DTYPE_Q8_0, n_tok); break;
    case DTYPE_Q4_0: run_int8(j, DTYPE_Q4_0, n_tok); break;
    case DTYPE_Q4_K: run_int8(j, DTYPE_Q4_K, n_tok); break;
    case DTYPE_Q5_K: run_int8(j, DTYPE_Q5_K, n_tok); break;
    default: run_int8(j, DTYPE_Q6_K, n_tok); break;
    }
}

const struct krn_leaf_kernel krn_avx2_leaf_int8 = {1, MAX_TOK, leaf_int8};

/* ---- oracle mode: the dequantised values ----------------------------------------------------- */

/* w[k][16 rows] of one unit. */
KRN_INLINE void expand(const struct krn_planes *p, int32_t unit, const enum dtype type,
                       float w[KRN_UNIT * KRN_TILE])
{
    const int offset = type == DTYPE_Q8_0   ? 128
                       : type == DTYPE_Q4_0 ? 8
                       : type == DTYPE_Q6_K ? 32
                                            : 0;
    const bool has_min = type == DTYPE_Q4_K || type == DTYPE_Q5_K;
    for (int half = 0; half < 2; half++) {
        __m256i code[VECTORS];
        load_codes(p->quants + (int64_t)unit * krn_pack_quant_bytes(type) + 32 * half, type, code);
        const struct scales sc = load_scales(p, unit, 8 * half, type);
        KRN_UNROLL for (int j = 0; j < VECTORS; j++)
            KRN_UNROLL for (int b = 0; b < 4; b++) {
            __m256i v = _mm256_and_si256(_mm256_srli_epi32(code[j], 8 * b), _mm256_set1_epi32(255));
            __m256 f = _mm256_cvtepi32_ps(_mm256_sub_epi32(v, _mm256_set1_epi32(offset)));
            f = _mm256_mul_ps(sc.d[j / 4], f);
            if (has_min) f = _mm256_sub_ps(f, sc.m);
            _mm256_store_ps(w + (4 * j + b) * KRN_TILE + 8 * half, f);
            }
    }
}

static void expand_unit(const struct krn_planes *p, int32_t unit, enum dtype type,
                        float w[KRN_UNIT * KRN_TILE])
{
    switch (type) {
    case DTYPE_Q8_0: expand(p, unit, DTYPE_Q8_0, w); break;
    case DTYPE_Q4_0: expand(p, unit, DTYPE_Q4_0, w); break;
    case DTYPE_Q4_K: expand(p, unit, DTYPE_Q4_K, w); break;
    case DTYPE_Q5_K: expand(p, unit, DTYPE_Q5_K, w); break;
    default: expand(p, unit, DTYPE_Q6_K, w); break;
    }
}

KRN_INLINE void chain_oracle(const struct krn_leaf_job *j, const int n_tok)
{
    const struct krn_planes p = krn_pack_planes(j->w->type, j->tile, j->w->cols);
    const int64_t cols = j->x->cols;
    const float *x = j->x->x + j->t0 * cols;
    _Alignas(64) float w[KRN_UNIT * KRN_TILE];
    __m256 acc[2][MAX_TOK];
    KRN_UNROLL for (int t = 0; t < n_tok; t++) acc[0][t] = acc[1][t] = _mm256_setzero_ps();
    for (int64_t k0 = j->k0; k0 < j->k1; k0 += KRN_UNIT) {
        expand_unit(&p, (int32_t)(k0 / KRN_UNIT), j->w->type, w);
        for (int64_t k = 0; k < KRN_UNIT; k++) {
            __m256 low = _mm256_load_ps(w + k * KRN_TILE),
                   high = _mm256_load_ps(w + k * KRN_TILE + 8);
            KRN_UNROLL for (int t = 0; t < n_tok; t++) {
                __m256 xt = _mm256_set1_ps(x[t * cols + k0 + k]);
                acc[0][t] = _mm256_fmadd_ps(low, xt, acc[0][t]);
                acc[1][t] = _mm256_fmadd_ps(high, xt, acc[1][t]);
            }
        }
    }
    KRN_UNROLL for (int t = 0; t < n_tok; t++) {
        _mm256_store_ps(j->acc + t * KRN_TILE, acc[0][t]);
        _mm256_store_ps(j->acc + t * KRN_TILE + 8, acc[1][t]);
    }
}

static void leaf_oracle(const struct krn_leaf_job *j, int32_t n_tiles, int32_t n_tok)
{
    (void)n_tiles;
    switch (n_tok) {
    case 1: chain_oracle(j, 1); break;
    case 2: chain_oracle(j, 2); break;
    case 4: chain_oracle(j, 4); break;
    }
}

const struct krn_leaf_kernel krn_avx2_leaf_oracle = {1, MAX_TOK, leaf_oracle};
