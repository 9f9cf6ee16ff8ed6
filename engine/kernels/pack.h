/* pack.h: where things lie inside a packed tile. Internal to engine/kernels.
 *
 * A tile is 16 output rows, so that one 32-bit SIMD lane is one row: no kernel adds along K across
 * lanes. F32, F16, BF16: [cols][16 rows] elements. Quantised, n = cols / 32 units:
 *
 *   head    K-quants only, 64 bytes: int32 phase = units from the super-block's start to unit 0
 *   supers  K-quants: per super-block f16 d[16], then f16 dmin[16] (not Q6_K); up to whole lines
 *   pairs   of units, the last one padded: codes, codes, scales, scales
 *   codes   quant_bytes; vector j (64 bytes) holds 4 bytes of each row, codes k = 4j..4j+3:
 *             Q8_0   j = 0..7: code + 128 as a byte (the unsigned operand of a dot product)
 *             4-bit  j = 0..3: k = 4j+b in the low nibble of byte b, 16+4j+b in the high one
 *             Q5_K   as 4-bit, then one vector: bit j of byte b is the fifth bit of k = 4j+b
 *             Q6_K   as 4-bit, then two: bits 2i, 2i+1 of byte b of vector v are the upper bits of
 *                    k = 4(4v+i)+b
 *   scales  32 bytes: f16 d[16] (Q8_0, Q4_0); u8 sc[16], m[16] (Q4_K, Q5_K);
 *           i8 sc[2 halves][16] (Q6_K)
 *
 * A matrix is read as one run of lines: where memory is shared, scales in a plane of their own cost
 * a fifth of the bandwidth (docs/performance.md). Every vector of codes is aligned to a cache line;
 * bytes per weight stay within 4 % of the file's. Not here: choosing what to pack (engine/model). */
#ifndef ENGINE_KERNELS_PACK_H
#define ENGINE_KERNELS_PACK_H

#include "base/base.h"
#include "engine/kernels/table.h"

#include <string.h>

enum {
    KRN_LAYOUT_VERSION = 2, /* raise when a byte moves: packed tiles may be cached on disk */
    KRN_SCALE_BYTES = 32,
    KRN_SUPER_UNITS = 8, /* units per super-block */
};

static inline bool krn_pack_is_super(enum dtype t)
{
    return t == DTYPE_Q4_K || t == DTYPE_Q5_K || t == DTYPE_Q6_K;
}
static inline bool krn_pack_is_quant(enum dtype t)
{
    return t == DTYPE_Q8_0 || t == DTYPE_Q4_0 || krn_pack_is_super(t);
}

/* Bytes of quants per unit of 16 rows. */
static inline int32_t krn_pack_quant_bytes(enum dtype t)
{
    switch (t) {
    case DTYPE_Q8_0: return 512;
    case DTYPE_Q5_K: return 320;
    case DTYPE_Q6_K: return 384;
    default: return 256;
    }
}

/* Bytes of one super-block of 16 rows. */
static inline int32_t krn_pack_super_bytes(enum dtype t) { return t == DTYPE_Q6_K ? 32 : 64; }

/* Super-blocks that n units can touch, whatever the phase. */
static inline int32_t krn_pack_n_super(int32_t n)
{
    return 1 + (n + KRN_SUPER_UNITS - 2) / KRN_SUPER_UNITS;
}

/* From the first pair: where a unit's codes and its scales lie. */
static inline int64_t krn_pack_codes_at(enum dtype t, int32_t unit)
{
    int32_t q = krn_pack_quant_bytes(t);
    return (int64_t)(unit / 2) * 2 * (q + KRN_SCALE_BYTES) + unit % 2 * q;
}
static inline int64_t krn_pack_scales_at(enum dtype t, int32_t unit)
{
    int32_t q = krn_pack_quant_bytes(t);
    return (int64_t)(unit / 2) * 2 * (q + KRN_SCALE_BYTES) + 2 * q + unit % 2 * KRN_SCALE_BYTES;
}

/* Bytes before the first pair. */
static inline int64_t krn_pack_pairs_at(enum dtype t, int32_t cols)
{
    if (!krn_pack_is_super(t)) return 0;
    int32_t supers = krn_pack_n_super(cols / KRN_UNIT) * krn_pack_super_bytes(t);
    return 64 + ROUND_UP(supers, 64);
}

/* The parts of one quantised tile. */
struct krn_planes {
    const uint8_t *pairs, *supers;
    int32_t phase;
};

static inline struct krn_planes krn_pack_planes(enum dtype t, const uint8_t *tile, int32_t cols)
{
    struct krn_planes p = {.phase = 0};
    if (krn_pack_is_super(t)) memcpy(&p.phase, tile, sizeof p.phase);
    p.supers = tile + 64;
    p.pairs = tile + krn_pack_pairs_at(t, cols);
    return p;
}

/* The super-block of a unit. */
static inline const uint8_t *krn_pack_super(enum dtype t, const struct krn_planes *p, int32_t unit)
{
    return p->supers + (int64_t)((p->phase + unit) / KRN_SUPER_UNITS) * krn_pack_super_bytes(t);
}

/* One row of one unit in the terms of table.h, for `ref` and for look-ups. */
struct krn_unit_row {
    int16_t q[KRN_UNIT]; /* wq (Q8_0, Q4_K, Q5_K), wq - 8 (Q4_0), wq - 32 (Q6_K) */
    float d[2];          /* of values 0..15 and 16..31: dw, d*sc or d*sc_h */
    float m;             /* dmin*m of Q4_K, Q5_K; else 0 */
};
void krn_pack_unit_row(enum dtype t, const struct krn_planes *p, int32_t unit, int32_t row,
                       struct krn_unit_row *out);

/* The w[k] of the unit as f32, exactly engine/file/dequant.h's. */
void krn_pack_unit_values(enum dtype t, const struct krn_unit_row *u, float w[KRN_UNIT]);

/* Element (k, row) of an unquantised tile as f32. */
float krn_pack_element(enum dtype t, const uint8_t *tile, int32_t k, int32_t row);

#endif
