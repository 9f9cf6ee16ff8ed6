/* matmul_quant.c: the chain over units of 32: int8 dot products on the stored codes, or (oracle
 * mode) dequantised values.
 *
 * A unit's codes become 8 vectors of unsigned bytes (16 rows x 4 values of k), made once and used
 * for up to 16 tokens; vpdpbusd against a broadcast of 4 activation bytes adds into one 32-bit lane
 * per row. Codes are stored with an offset (128, 8, 32): offset x (sum of the activations) is taken
 * off in integers, so isum is exact whatever the path. */
#include "engine/kernels/avx512/avx512.h"
#include "engine/kernels/pack.h"

#include <immintrin.h>

enum {
    MAX_TOK = 16,
    VECTORS = 8,
    AHEAD = 4096 /* bytes fetched ahead when every weight is used once */
};

/* ---- one unit of 16 rows --------------------------------------------------------------------- */

/* The unsigned codes; vector j holds k = 4j..4j+3. */
KRN_INLINE void load_codes(const uint8_t *q, const enum dtype type, __m512i w[VECTORS])
{
    if (type == DTYPE_Q8_0) {
        KRN_UNROLL for (int j = 0; j < VECTORS; j++) w[j] = _mm512_loadu_si512(q + 64 * j);
        return;
    }
    const __m512i nibble = _mm512_set1_epi8(15);
    KRN_UNROLL for (int j = 0; j < 4; j++) {
        __m512i v = _mm512_loadu_si512(q + 64 * j);
        w[j] = _mm512_and_si512(v, nibble);
        w[j + 4] = _mm512_and_si512(_mm512_srli_epi16(v, 4), nibble);
    }
    if (type == DTYPE_Q5_K) {
        const __m512i bit = _mm512_set1_epi8(16);
        __m512i v = _mm512_loadu_si512(q + 256);
        KRN_UNROLL for (int j = 0; j < VECTORS; j++) {
            __m512i h = j < 4 ? _mm512_slli_epi16(v, (unsigned)(j < 4 ? 4 - j : 0))
                              : _mm512_srli_epi16(v, (unsigned)(j < 4 ? 0 : j - 4));
            w[j] = _mm512_or_si512(w[j], _mm512_and_si512(h, bit));
        }
    }
    if (type == DTYPE_Q6_K) {
        const __m512i bits = _mm512_set1_epi8(48);
        KRN_UNROLL for (int j = 0; j < VECTORS; j++) {
            __m512i v = _mm512_loadu_si512(q + 256 + j / 4 * 64);
            int i = j % 4;
            __m512i h = i < 2 ? _mm512_slli_epi16(v, (unsigned)(i < 2 ? 4 - 2 * i : 0))
                              : _mm512_srli_epi16(v, (unsigned)(i < 2 ? 0 : 2 * i - 4));
            w[j] = _mm512_or_si512(w[j], _mm512_and_si512(h, bits));
        }
    }
}

KRN_INLINE __m512 load_f16(const uint8_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}

/* d[0], d[1] the scales of the half units; m the minimum times its scale (Q4_K, Q5_K). */
struct scales {
    __m512 d[2], m;
};

KRN_INLINE struct scales load_scales(const struct krn_planes *p, int32_t unit,
                                     const enum dtype type)
{
    struct scales out;
    const uint8_t *s = p->scales + (int64_t)unit * KRN_SCALE_BYTES;
    if (type == DTYPE_Q8_0 || type == DTYPE_Q4_0) {
        out.d[0] = out.d[1] = out.m = load_f16(s);
        return out;
    }
    const uint8_t *super = krn_pack_super(type, p, unit);
    __m128i a = _mm_loadu_si128((const __m128i *)s),
            b = _mm_loadu_si128((const __m128i *)(s + KRN_TILE));
    __m512 d = load_f16(super);
    if (type == DTYPE_Q6_K) {
        out.d[0] = out.m = _mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(a)));
        out.d[1] = _mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(b)));
    } else {
        out.d[0] = out.d[1] = _mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(a)));
        out.m = _mm512_mul_ps(load_f16(super + 32), _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(b)));
    }
    return out;
}

/* ---- int8 ------------------------------------------------------------------------------------ */

KRN_INLINE __m512i four_bytes(const int8_t *q)
{
    int32_t v;
    memcpy(&v, q, sizeof v);
    return _mm512_set1_epi32(v);
}

KRN_INLINE __m512i dot4(__m512i sum, const __m512i w[4], const int8_t *q)
{
    KRN_UNROLL for (int j = 0; j < 4; j++)
        sum = _mm512_dpbusd_epi32(sum, w[j], four_bytes(q + 4 * j));
    return sum;
}

/* 65536 - 32 x (sum of 16 activations + 2048) = -32 x (sum of the 16), for both half units. */
KRN_INLINE void half_offsets(const int8_t *q, __m512i offset[2])
{
    __m256i v = _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)q), _mm256_set1_epi8(-128));
    __m256i eights = _mm256_sad_epu8(v, _mm256_setzero_si256());
    __m256i sum =
        _mm256_slli_epi32(_mm256_add_epi32(eights, _mm256_shuffle_epi32(eights, 0x4e)), 5);
    const __m512i base = _mm512_set1_epi32(65536);
    offset[0] = _mm512_sub_epi32(base, _mm512_broadcastd_epi32(_mm256_castsi256_si128(sum)));
    offset[1] = _mm512_sub_epi32(base, _mm512_broadcastd_epi32(_mm256_extracti128_si256(sum, 1)));
}

/* One unit of one token onto its accumulator. */
KRN_INLINE __m512 add_unit(__m512 acc, const __m512i w[VECTORS], const struct scales *sc,
                           const int8_t *q, float d, int32_t s, const enum dtype type)
{
    const __m512 dx = _mm512_set1_ps(d);
    if (type == DTYPE_Q6_K) {
        __m512i offset[2];
        half_offsets(q, offset);
        __m512 low = _mm512_cvtepi32_ps(dot4(offset[0], w, q)),
               high = _mm512_cvtepi32_ps(dot4(offset[1], w + 4, q + 16));
        acc = _mm512_fmadd_ps(_mm512_mul_ps(sc->d[0], dx), low, acc);
        return _mm512_fmadd_ps(_mm512_mul_ps(sc->d[1], dx), high, acc);
    }
    __m512i isum = _mm512_setzero_si512(), sum = _mm512_set1_epi32(s);
    if (type == DTYPE_Q8_0) isum = _mm512_sub_epi32(isum, _mm512_slli_epi32(sum, 7));
    if (type == DTYPE_Q4_0) isum = _mm512_sub_epi32(isum, _mm512_slli_epi32(sum, 3));
    isum = _mm512_add_epi32(dot4(isum, w, q), dot4(_mm512_setzero_si512(), w + 4, q + 16));
    acc = _mm512_fmadd_ps(_mm512_mul_ps(sc->d[0], dx), _mm512_cvtepi32_ps(isum), acc);
    if (type == DTYPE_Q4_K || type == DTYPE_Q5_K)
        acc = _mm512_fnmadd_ps(_mm512_mul_ps(sc->m, dx), _mm512_cvtepi32_ps(sum), acc);
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
    __m512 acc[MAX_TOK];
    KRN_UNROLL for (int t = 0; t < n_tok; t++) acc[t] = _mm512_setzero_ps();

    for (int32_t u = j->k0 / KRN_UNIT; u < j->k1 / KRN_UNIT; u++) {
        const uint8_t *codes = p.quants + (int64_t)u * quant_bytes;
        if (n_tok == 1) {
            fetch_ahead(codes, quant_bytes);
            fetch_ahead(p.scales + (int64_t)u * KRN_SCALE_BYTES, 1);
        }
        __m512i w[VECTORS];
        load_codes(codes, type, w);
        const struct scales sc = load_scales(&p, u, type);
        KRN_UNROLL for (int t = 0; t < n_tok; t++)
            acc[t] = add_unit(acc[t], w, &sc, q + t * cols + u * KRN_UNIT, d[t * units + u],
                              s[t * units + u], type);
    }
    KRN_UNROLL for (int t = 0; t < n_tok; t++) _mm512_store_ps(j->acc + t * KRN_TILE, acc[t]);
}

KRN_INLINE void run_int8(const struct krn_leaf_job *j, const enum dtype type, int32_t n_tok)
{
    switch (n_tok) {
    case 1: chain_int8(j, type, 1); break;
    case 2: chain_int8(j, type, 2); break;
    case 4: chain_int8(j, type, 4); break;
    case 8: chain_int8(j, type, 8); break;
    case 16: chain_int8(j, type, 16); break;
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

const struct krn_leaf_kernel krn_avx512_leaf_int8 = {1, MAX_TOK, leaf_int8};

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
    __m512i code[VECTORS];
    load_codes(p->quants + (int64_t)unit * krn_pack_quant_bytes(type), type, code);
    const struct scales sc = load_scales(p, unit, type);
    KRN_UNROLL for (int j = 0; j < VECTORS; j++)
        KRN_UNROLL for (int b = 0; b < 4; b++) {
        __m512i v =
            _mm512_and_si512(_mm512_srli_epi32(code[j], (unsigned)(8 * b)), _mm512_set1_epi32(255));
        __m512 f = _mm512_cvtepi32_ps(_mm512_sub_epi32(v, _mm512_set1_epi32(offset)));
        f = _mm512_mul_ps(sc.d[j / 4], f);
        if (has_min) f = _mm512_sub_ps(f, sc.m);
        _mm512_store_ps(w + (4 * j + b) * KRN_TILE, f);
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
    __m512 acc[MAX_TOK];
    KRN_UNROLL for (int t = 0; t < n_tok; t++) acc[t] = _mm512_setzero_ps();
    for (int64_t k0 = j->k0; k0 < j->k1; k0 += KRN_UNIT) {
        expand_unit(&p, (int32_t)(k0 / KRN_UNIT), j->w->type, w);
        for (int64_t k = 0; k < KRN_UNIT; k++) {
            __m512 row = _mm512_load_ps(w + k * KRN_TILE);
            KRN_UNROLL for (int t = 0; t < n_tok; t++)
                acc[t] = _mm512_fmadd_ps(row, _mm512_set1_ps(x[t * cols + k0 + k]), acc[t]);
        }
    }
    KRN_UNROLL for (int t = 0; t < n_tok; t++) _mm512_store_ps(j->acc + t * KRN_TILE, acc[t]);
}

static void leaf_oracle(const struct krn_leaf_job *j, int32_t n_tiles, int32_t n_tok)
{
    (void)n_tiles;
    switch (n_tok) {
    case 1: chain_oracle(j, 1); break;
    case 2: chain_oracle(j, 2); break;
    case 4: chain_oracle(j, 4); break;
    case 8: chain_oracle(j, 8); break;
    case 16: chain_oracle(j, 16); break;
    }
}

const struct krn_leaf_kernel krn_avx512_leaf_oracle = {1, MAX_TOK, leaf_oracle};
