/* pack.h: where things lie inside a packed tile. Internal to engine/kernels.
 *
 * A tile is 16 output rows, so that one 32-bit SIMD lane is one row: no kernel adds along K across
 * lanes. F32, F16, BF16: [cols][16 rows] elements. Quantised, n = cols / 32 units:
 *
 *   head    super-blocks and books only, 64 bytes: int32 phase = units from the super-block's start
 *           to unit 0; from byte 16 the book: 16 values + 128
 *   supers  per super-block f16 d[16], and f16 dmin[16] of Q2_K, Q4_K, Q5_K; IQ4_XS and IQ2_S: f32
 *           d[16]; up to whole lines
 *   groups  of 1, 2 or 4 units, the last one padded: codes of each, then scales of each
 *   codes   quant_bytes; vector j (64 bytes) holds 4 bytes of each row, codes k = 4j..4j+3:
 *             Q8_0   j = 0..7: code + 128 as a byte (the unsigned operand of a dot product)
 *             4-bit  j = 0..3: k = 4j+b in the low nibble of byte b, 16+4j+b in the high one
 *             5-bit  as 4-bit, then one vector: bit j of byte b is the fifth bit of k = 4j+b
 *             6-bit  as 4-bit, then two: bits 2i, 2i+1 of byte b of vector v are the upper bits of
 *                    k = 4(4v+i)+b
 *             2-bit  those two vectors alone
 *             3-bit  as 2-bit, then one vector: bit j of byte b is the third bit of k = 4j+b
 *   scales  f16 d[16] (Q8_0, Q4_0, Q5_0, IQ4_NL); f16 d[16], f16 -m[16] (Q4_1, Q5_1);
 *           u8 sc[16], m[16] (Q4_K, Q5_K); i8 sc[2 halves][16] (Q6_K, Q3_K, IQ2_S);
 *           u8 sc | m << 4 [2 halves][16] (Q2_K); i8 sc[16] (IQ4_XS); u8 exponents e[16], the scale
 *           being 2^(e - 128) (MXFP4); none (TQ2_0)
 *
 * Files have more types than there are layouts: krn_pack_layout says whose layout a type takes.
 * A matrix is read as one run of lines: where memory is shared, scales in a plane of their own cost
 * a fifth of the bandwidth (docs/performance.md). Every vector of codes is aligned to a cache line;
 * bytes per weight stay within 5 % of the file's, but for
 * IQ1, IQ2, IQ3 and TQ1_0, whose grids become codes. Not here: choosing what to pack (engine/model). */
#ifndef ENGINE_KERNELS_PACK_H
#define ENGINE_KERNELS_PACK_H

#include "base/base.h"
#include "engine/kernels/table.h"

#include <string.h>

enum {
    KRN_LAYOUT_VERSION = 3, /* raise when a byte moves: packed tiles may be cached on disk */
    KRN_BOOK_AT = 16,      /* of a tile's head */
    KRN_SUPER_UNITS = 8, /* units per super-block */
};

/* The quantised layouts: a folder that multiplies by their codes brings a function for each. */
#define KRN_QUANT_LAYOUTS(X)                                                                      \
    X(Q8_0) X(Q4_0) X(Q4_1) X(Q5_0) X(Q5_1) X(Q2_K) X(Q3_K) X(Q4_K) X(Q5_K) X(Q6_K)                \
    X(IQ4_NL) X(IQ4_XS) X(IQ2_S) X(TQ2_0) X(MXFP4)

static inline bool krn_pack_is_super(enum dtype t)
{
    return t == DTYPE_Q2_K || t == DTYPE_Q3_K || t == DTYPE_Q4_K || t == DTYPE_Q5_K ||
           t == DTYPE_Q6_K || t == DTYPE_IQ4_XS || t == DTYPE_IQ2_S || t == DTYPE_TQ2_0;
}
static inline bool krn_pack_is_quant(enum dtype t)
{
    return t != DTYPE_F32 && t != DTYPE_F16 && t != DTYPE_BF16;
}
/* Codes are numbers of the book in the tile's head, whose values are stored + 128. */
static inline bool krn_pack_has_book(enum dtype t)
{
    return t == DTYPE_IQ4_NL || t == DTYPE_IQ4_XS || t == DTYPE_MXFP4 || t == DTYPE_IQ2_S;
}
/* A scale for each half of a unit. */
static inline bool krn_pack_halves(enum dtype t)
{
    return t == DTYPE_Q2_K || t == DTYPE_Q3_K || t == DTYPE_Q6_K || t == DTYPE_IQ2_S;
}
static inline bool krn_pack_has_min(enum dtype t)
{
    return t == DTYPE_Q4_1 || t == DTYPE_Q5_1 || t == DTYPE_Q2_K || t == DTYPE_Q4_K ||
           t == DTYPE_Q5_K;
}

static inline int32_t krn_pack_bits(enum dtype t)
{
    switch (t) {
    case DTYPE_Q8_0: return 8;
    case DTYPE_Q6_K: return 6;
    case DTYPE_Q5_0:
    case DTYPE_Q5_1:
    case DTYPE_Q5_K: return 5;
    case DTYPE_Q3_K:
    case DTYPE_IQ2_S: return 3;
    case DTYPE_Q2_K:
    case DTYPE_TQ2_0: return 2;
    default: return 4;
    }
}

/* What is to be taken off a stored code, or off a value of the book. */
static inline int32_t krn_pack_offset(enum dtype t)
{
    switch (t) {
    case DTYPE_Q8_0: return 128;
    case DTYPE_Q6_K: return 32;
    case DTYPE_Q5_0: return 16;
    case DTYPE_Q4_0: return 8;
    case DTYPE_Q3_K: return 4;
    case DTYPE_TQ2_0: return 1;
    default: return krn_pack_has_book(t) ? 128 : 0;
    }
}

/* Bytes of codes per unit of 16 rows. */
static inline int32_t krn_pack_quant_bytes(enum dtype t) { return krn_pack_bits(t) * 64; }

/* Bytes of scales per unit. */
static inline int32_t krn_pack_scale_bytes(enum dtype t)
{
    switch (t) {
    case DTYPE_Q4_1:
    case DTYPE_Q5_1: return 64;
    case DTYPE_IQ4_XS:
    case DTYPE_MXFP4: return 16;
    case DTYPE_TQ2_0: return 0;
    default: return 32;
    }
}
/* Units of a group: their scales fill a line. */
static inline int32_t krn_pack_group(enum dtype t)
{
    int32_t s = krn_pack_scale_bytes(t);
    return s ? 64 / s : 1;
}

/* Bytes of one super-block of 16 rows. */
static inline int32_t krn_pack_super_bytes(enum dtype t)
{
    return t == DTYPE_Q6_K || t == DTYPE_Q3_K || t == DTYPE_TQ2_0 ? 32 : 64;
}

/* Super-blocks that n units can touch, whatever the phase. */
static inline int32_t krn_pack_n_super(int32_t n)
{
    return 1 + (n + KRN_SUPER_UNITS - 2) / KRN_SUPER_UNITS;
}

/* From the first group: where a unit's codes and its scales lie. */
static inline int64_t krn_pack_codes_at(enum dtype t, int32_t unit)
{
    int32_t q = krn_pack_quant_bytes(t), s = krn_pack_scale_bytes(t), n = krn_pack_group(t);
    return (int64_t)(unit / n) * n * (q + s) + unit % n * q;
}
static inline int64_t krn_pack_scales_at(enum dtype t, int32_t unit)
{
    int32_t q = krn_pack_quant_bytes(t), s = krn_pack_scale_bytes(t), n = krn_pack_group(t);
    return (int64_t)(unit / n) * n * (q + s) + n * q + unit % n * s;
}

/* Bytes before the first group. */
static inline int64_t krn_pack_pairs_at(enum dtype t, int32_t cols)
{
    if (!krn_pack_is_super(t)) return krn_pack_has_book(t) ? 64 : 0;
    int32_t supers = krn_pack_n_super(cols / KRN_UNIT) * krn_pack_super_bytes(t);
    return 64 + ROUND_UP(supers, 64);
}

/* The parts of one quantised tile. */
struct krn_planes {
    const uint8_t *pairs; /* the groups */
    const uint8_t *supers, *book;
    int32_t phase;
};

static inline struct krn_planes krn_pack_planes(enum dtype t, const uint8_t *tile, int32_t cols)
{
    struct krn_planes p = {.phase = 0};
    if (krn_pack_is_super(t)) memcpy(&p.phase, tile, sizeof p.phase);
    p.supers = tile + 64;
    p.book = tile + KRN_BOOK_AT;
    p.pairs = tile + krn_pack_pairs_at(t, cols);
    return p;
}

/* A kernel that fetches each unit's codes `ahead` bytes before it needs them leaves out as many bytes as lie in front of a
 * tile's first group; at the beginning of a tile it fetches these, and the whole matrix comes as one run. */
static inline void krn_pack_fetch_front(const struct krn_planes *p, int64_t ahead)
{
    for (const uint8_t *line = p->supers; line < p->pairs; line += 64) __builtin_prefetch(line + ahead);
}

/* The super-block of a unit. */
static inline const uint8_t *krn_pack_super(enum dtype t, const struct krn_planes *p, int32_t unit)
{
    return p->supers + (int64_t)((p->phase + unit) / KRN_SUPER_UNITS) * krn_pack_super_bytes(t);
}

/* One row of one unit in the terms of table.h, for `ref` and for look-ups: w[k] = d * q[k] - m. */
struct krn_unit_row {
    int16_t q[KRN_UNIT]; /* less their offset, or out of the book */
    float d[2];          /* of values 0..15 and 16..31 */
    float m[2];          /* of types with minimums; else 0 */
};
void krn_pack_unit_row(enum dtype t, const struct krn_planes *p, int32_t unit, int32_t row,
                       struct krn_unit_row *out);

/* The w[k] of the unit as f32, exactly engine/file/dequant.h's. */
void krn_pack_unit_values(enum dtype t, const struct krn_unit_row *u, float w[KRN_UNIT]);

/* Element (k, row) of an unquantised tile as f32. */
float krn_pack_element(enum dtype t, const uint8_t *tile, int32_t k, int32_t row);

#endif
