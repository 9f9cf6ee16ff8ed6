/* matmul_int8.c: the chain over units of 32: int8 dot products on the stored codes.
 *
 * vpmaddubsw adds pairs of (unsigned code x signed activation) in 16 bits. What fits without
 * saturating decides how many are added before widening: 4-bit codes (and less) 8 (8 x 2 x 15 x 127
 * = 30480), 5-bit 4 (31496), 6-bit 2 (32004). Eight-bit codes and values of books are made |w| against x sign(w): 2 x 128 x 127 =
 * 32512 fits alone. So isum is exact, as with AVX-512. */
#include "engine/kernels/avx2/avx2.h"
#include "engine/kernels/avx2/unit.h"

enum {
    NARROW = 2,  /* lanes at most that keep the codes of half a tile in registers */
    LANES = 2,   /* at once beside codes in memory: 4 sums in 16 bits, 4 in 32 */
    AHEAD = 6144 /* bytes fetched ahead */
};

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

KRN_INLINE __m256i all_i32(const uint8_t *p)
{
    int32_t v;
    memcpy(&v, p, sizeof v);
    return _mm256_set1_epi32(v);
}
KRN_INLINE __m256 all_f32(const uint8_t *p)
{
    float v;
    memcpy(&v, p, sizeof v);
    return _mm256_set1_ps(v);
}

/* Where the integer sum of half h (of 0, or of a whole unit) begins: minus the offset times the sum of x. */
KRN_INLINE __m256i start(const uint8_t *f, int32_t width, const int h, const enum dtype type)
{
    const int offset = krn_pack_offset(type);
    if (!offset || is_signed(type)) return _mm256_setzero_si256();
    if (krn_pack_halves(type)) {
        const __m256i z = all_i32(f + (KRN_UNIT_Z32 + 4 * h) * width);
        return offset == 32 ? z : _mm256_srai_epi32(z, 3);
    }
    const __m256i z = all_i32(f + KRN_UNIT_Z8 * width);
    return offset == 8 ? z : offset > 8 ? _mm256_slli_epi32(z, 1) : _mm256_srai_epi32(z, 3);
}

/* The sum of the activations of half h, or of a whole unit. */
KRN_INLINE __m256 sum_of_x(const uint8_t *f, int32_t width, const int h, const enum dtype type)
{
    if (!krn_pack_halves(type)) return all_f32(f + KRN_UNIT_S * width);
    const __m256 z = _mm256_cvtepi32_ps(all_i32(f + (KRN_UNIT_Z32 + 4 * h) * width));
    return _mm256_mul_ps(z, _mm256_set1_ps(-0x1p-5f)); /* the panel has -32 s */
}

/* One unit of lane t of a panel `width` lanes wide onto its accumulator. */
KRN_INLINE __m256 add_unit(__m256 acc, const __m256i w[UNIT_VECTORS], const struct unit_scales *sc,
                           const uint8_t *x, int32_t width, int32_t t, const enum dtype type)
{
    const int parts = krn_pack_halves(type) ? 2 : 1, per_part = UNIT_VECTORS / parts;
    const int8_t *q = (const int8_t *)x + t * KRN_UNIT;
    const uint8_t *f = x + 4 * t;
    const __m256 dx = all_f32(f + KRN_UNIT_D * width);
    KRN_UNROLL for (int h = 0; h < parts; h++)
    {
        const __m256i isum =
            add_dots(start(f, width, h, type), w + per_part * h, q + 16 * h, per_part, type);
        acc = _mm256_fmadd_ps(_mm256_mul_ps(sc->d[h], dx), _mm256_cvtepi32_ps(isum), acc);
        if (krn_pack_has_min(type))
            acc = _mm256_fnmadd_ps(_mm256_mul_ps(sc->m[h], dx), sum_of_x(f, width, h, type), acc);
    }
    return acc;
}

KRN_INLINE void fetch_ahead(const uint8_t *p, int n)
{
    KRN_UNROLL for (int i = 0; i < n; i += 64)
        _mm_prefetch((const char *)p + AHEAD + i, _MM_HINT_T0);
}

/* n_tok lanes from `lane`. */
KRN_INLINE void chain(const struct krn_leaf_job *j, int32_t tile, int32_t lane,
                      const enum dtype type, const int n_tok)
{
    const struct krn_planes p =
        krn_pack_planes(type, j->tile + tile * j->w->tile_bytes, j->w->cols);
    const int quant_bytes = krn_pack_quant_bytes(type);
    float *out = j->acc + (tile * j->width + lane) * KRN_TILE;
    __m256 acc[2][NARROW];
    KRN_UNROLL for (int t = 0; t < n_tok; t++) KRN_UNROLL for (int half = 0; half < 2; half++)
        acc[half][t] =
            j->more ? _mm256_load_ps(out + t * KRN_TILE + 8 * half) : _mm256_setzero_ps();

    for (int32_t u = j->k0 / KRN_UNIT; u < j->k1 / KRN_UNIT; u++) {
        const uint8_t *codes = p.pairs + krn_pack_codes_at(type, u);
        const uint8_t *x = (const uint8_t *)j->panel + (int64_t)u * j->width * KRN_UNIT_BYTES;
        fetch_ahead(codes, quant_bytes + 64); /* the scales follow */
        KRN_UNROLL for (int half = 0; half < 2; half++)
        {
            __m256i w[UNIT_VECTORS];
            unit_codes(&p, codes + 32 * half, type, w);
            const struct unit_scales sc = unit_scales(&p, u, 8 * half, type);
            KRN_UNROLL for (int t = 0; t < n_tok; t++) acc[half][t] =
                add_unit(acc[half][t], w, &sc, x, j->width, lane + t, type);
        }
    }
    KRN_UNROLL for (int t = 0; t < n_tok; t++) KRN_UNROLL for (int half = 0; half < 2; half++)
        _mm256_store_ps(out + t * KRN_TILE + 8 * half, acc[half][t]);
}

/* ---- four lanes and more --------------------------------------------------------------------- */

/* A unit of 16 rows as 8 lines of codes, vector j at 64 j: kept in L1, since 16 vectors of codes do
 * not fit in the registers beside the sums. Q8_0 has them in the tile. */
KRN_INLINE const uint8_t *code_lines(const struct krn_planes *p, const uint8_t *codes,
                                     const enum dtype type, uint8_t *lines)
{
    if (type == DTYPE_Q8_0) return codes;
    KRN_UNROLL for (int half = 0; half < 2; half++)
    {
        __m256i w[UNIT_VECTORS];
        unit_codes(p, codes + 32 * half, type, w);
        KRN_UNROLL for (int j = 0; j < UNIT_VECTORS; j++)
            _mm256_store_si256((__m256i *)(lines + 64 * j + 32 * half), w[j]);
    }
    return lines;
}

KRN_INLINE __m256i products(__m256i w, __m256i x, const enum dtype type)
{
    if (is_signed(type)) return _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
    return _mm256_maddubs_epi16(w, x);
}

/* sum[t][half] += the products of vectors [j0, j0 + n) of codes, which 16 bits can hold. */
KRN_INLINE void dot_lanes(__m256i sum[][2], const uint8_t *lines, const int8_t *q, const int j0,
                          const int n, const enum dtype type)
{
    const __m256i one = _mm256_set1_epi16(1), top = _mm256_set1_epi8(-128);
    __m256i pairs[LANES][2];
    KRN_UNROLL for (int j = j0; j < j0 + n; j++)
    {
        __m256i w0 = _mm256_load_si256((const __m256i *)(lines + 64 * j));
        __m256i w1 = _mm256_load_si256((const __m256i *)(lines + 64 * j + 32));
        if (is_signed(type)) {
            w0 = _mm256_xor_si256(w0, top);
            w1 = _mm256_xor_si256(w1, top);
        }
        KRN_UNROLL for (int t = 0; t < LANES; t++)
        {
            __m256i x = four_bytes(q + t * KRN_UNIT + 4 * j);
            __m256i p0 = products(w0, x, type), p1 = products(w1, x, type);
            pairs[t][0] = j == j0 ? p0 : now(_mm256_add_epi16(pairs[t][0], p0));
            pairs[t][1] = j == j0 ? p1 : now(_mm256_add_epi16(pairs[t][1], p1));
        }
    }
    KRN_UNROLL for (int t = 0; t < LANES; t++) KRN_UNROLL for (int half = 0; half < 2; half++)
        sum[t][half] = now(_mm256_add_epi32(sum[t][half], _mm256_madd_epi16(pairs[t][half], one)));
}

/* One unit of LANES lanes from `lane` onto acc[LANES][16]. */
KRN_INLINE void add_lanes(float *acc, const uint8_t *lines, const struct unit_scales sc[2],
                          const uint8_t *x, int32_t width, int32_t lane, const enum dtype type)
{
    const int parts = krn_pack_halves(type) ? 2 : 1, per_part = UNIT_VECTORS / parts;
    const int n = narrow(type);
    const int8_t *q = (const int8_t *)x + lane * KRN_UNIT;
    const uint8_t *f = x + 4 * lane;
    KRN_UNROLL for (int part = 0; part < parts; part++)
    {
        __m256i sum[LANES][2];
        KRN_UNROLL for (int t = 0; t < LANES; t++)
        {
            sum[t][0] = start(f + 4 * t, width, part, type);
            sum[t][1] = sum[t][0];
        }
        KRN_UNROLL for (int j = 0; j < per_part; j += n)
            dot_lanes(sum, lines, q, part * per_part + j, n, type);
        KRN_UNROLL for (int t = 0; t < LANES; t++)
        {
            const __m256 dx = all_f32(f + 4 * t + KRN_UNIT_D * width);
            KRN_UNROLL for (int half = 0; half < 2; half++)
            {
                float *a = acc + t * KRN_TILE + 8 * half;
                __m256 v = _mm256_fmadd_ps(_mm256_mul_ps(sc[half].d[part], dx),
                                           _mm256_cvtepi32_ps(sum[t][half]), _mm256_load_ps(a));
                if (krn_pack_has_min(type))
                    v = _mm256_fnmadd_ps(_mm256_mul_ps(sc[half].m[part], dx),
                                         sum_of_x(f + 4 * t, width, part, type), v);
                _mm256_store_ps(a, v);
            }
        }
    }
}

/* All lanes, an even number: codes are decoded once per unit. */
KRN_INLINE void wide_chain(const struct krn_leaf_job *j, int32_t tile, const enum dtype type)
{
    const struct krn_planes p =
        krn_pack_planes(type, j->tile + tile * j->w->tile_bytes, j->w->cols);
    const int quant_bytes = krn_pack_quant_bytes(type);
    float *acc = j->acc + tile * j->width * KRN_TILE;
    _Alignas(64) uint8_t buffer[64 * UNIT_VECTORS];
    if (!j->more) memset(acc, 0, (size_t)j->width * KRN_TILE * sizeof *acc);

    for (int32_t u = j->k0 / KRN_UNIT; u < j->k1 / KRN_UNIT; u++) {
        const uint8_t *codes = p.pairs + krn_pack_codes_at(type, u);
        const uint8_t *x = (const uint8_t *)j->panel + (int64_t)u * j->width * KRN_UNIT_BYTES;
        fetch_ahead(codes, quant_bytes + 64); /* the scales follow */
        const uint8_t *lines = code_lines(&p, codes, type, buffer);
        const struct unit_scales sc[2] = {unit_scales(&p, u, 0, type), unit_scales(&p, u, 8, type)};
        for (int32_t lane = 0; lane < j->width; lane += LANES)
            add_lanes(acc + lane * KRN_TILE, lines, sc, x, j->width, lane, type);
    }
}

KRN_INLINE void chains(const struct krn_leaf_job *j, const enum dtype type)
{
    for (int32_t tile = 0; tile < j->n_tiles; tile++)
        if (j->width == 1)
            chain(j, tile, 0, type, 1);
        else if (j->width == 2)
            chain(j, tile, 0, type, 2);
        else
            wide_chain(j, tile, type);
}

#define CHAINS(T)                                                                                  \
    static void chains_##T(const struct krn_leaf_job *j)                                           \
    {                                                                                              \
        chains(j, DTYPE_##T);                                                                      \
    }
KRN_QUANT_LAYOUTS(CHAINS)

enum { K_STEP = 2048 };
#define KERNEL(T) [DTYPE_##T] = {.fn = chains_##T, .single_tiles = 1, .k_step = K_STEP},
const struct krn_leaf_kernel krn_avx2_int8[DTYPE_COUNT] = {KRN_QUANT_LAYOUTS(KERNEL)};
