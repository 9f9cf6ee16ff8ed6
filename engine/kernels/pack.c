/* pack.c: file rows into tiles of 16 interleaved rows, and back. The layout is drawn in pack.h. */
#include "engine/kernels/pack.h"

#include "engine/file/half.h"
#include "engine/file/iq.h"
#include "engine/kernels/panel.h"

/* ---- into tiles ------------------------------------------------------------------------------ */

enum dtype krn_pack_layout(enum dtype file)
{
    switch (file) {
    case DTYPE_IQ3_XXS:
    case DTYPE_IQ3_S: return DTYPE_IQ4_XS;
    case DTYPE_IQ1_S:
    case DTYPE_IQ1_M:
    case DTYPE_IQ2_XXS:
    case DTYPE_IQ2_XS: return DTYPE_IQ2_S;
    case DTYPE_TQ1_0: return DTYPE_TQ2_0;
    default: return file;
    }
}

int64_t krn_pack_tile_bytes(enum dtype file, int32_t cols)
{
    ASSERT(file < DTYPE_COUNT && cols > 0);
    enum dtype type = krn_pack_layout(file);
    int64_t bytes;
    if (!krn_pack_is_quant(type)) {
        bytes = (int64_t)cols * KRN_TILE * dtype_block_bytes(type);
    } else {
        ASSERT(cols % KRN_UNIT == 0);
        bytes = krn_pack_pairs_at(type, cols) +
                krn_pack_codes_at(type, (int32_t)ROUND_UP(cols / KRN_UNIT, krn_pack_group(type)));
    }
    return ROUND_UP(bytes, 64);
}

/* A line of each row at a time, so that reads are whole lines and writes stay within a few. */
static inline __attribute__((always_inline)) void pack_lines(uint8_t *dst,
                                                             const uint8_t *const src[],
                                                             int32_t n_rows, int32_t cols,
                                                             const size_t size)
{
    enum { LINE = 32 };
    for (int32_t k0 = 0; k0 < cols; k0 += LINE)
        for (int32_t r = 0; r < n_rows; r++)
            for (int32_t k = k0; k < MIN(cols, k0 + LINE); k++)
                memcpy(dst + ((size_t)k * KRN_TILE + (size_t)r) * size, src[r] + (size_t)k * size,
                       size);
}

static void pack_q8_0(uint8_t *pairs, const uint8_t *const src[], int32_t n_rows,
                      int32_t n)
{
    for (int32_t u = 0; u < n; u++)
        for (int32_t r = 0; r < n_rows; r++) {
            const uint8_t *block = src[r] + (int64_t)u * 34;
            memcpy(pairs + krn_pack_scales_at(DTYPE_Q8_0, u) + r * 2, block, 2);
            uint8_t *q = pairs + krn_pack_codes_at(DTYPE_Q8_0, u) + r * 4;
            for (int32_t j = 0; j < 8; j++) {
                uint32_t four;
                memcpy(&four, block + 2 + 4 * j, 4);
                four ^= 0x80808080; /* two's complement + 128 */
                memcpy(q + j * 64, &four, 4);
            }
        }
}

/* The file pairs value i with value i + 16 in one byte, as the tile does: bytes move unchanged. */
static void pack_q4_0(uint8_t *pairs, const uint8_t *const src[], int32_t n_rows,
                      int32_t n)
{
    for (int32_t u = 0; u < n; u++)
        for (int32_t r = 0; r < n_rows; r++) {
            const uint8_t *block = src[r] + (int64_t)u * 18;
            memcpy(pairs + krn_pack_scales_at(DTYPE_Q4_0, u) + r * 2, block, 2);
            uint8_t *q = pairs + krn_pack_codes_at(DTYPE_Q4_0, u) + r * 4;
            for (int32_t j = 0; j < 4; j++) memcpy(q + j * 64, block + 2 + 4 * j, 4);
        }
}

/* Two bits of row r of a half: 32 bytes hold the four rows of Q2_K, Q3_K, Q6_K's upper bits, TQ2_0. */
static inline uint8_t two_bits(uint8_t byte, int32_t r) { return byte >> (2 * r) & 3; }

/* Codes of unit `sub` of a K-quant's super-block, and the unit's 2 scale bytes. */
static inline __attribute__((always_inline)) void k_unit(const enum dtype type,
                                                         const uint8_t *block, int32_t sub,
                                                         uint8_t code[KRN_UNIT], uint8_t scale[2])
{
    int32_t half = sub / 4, r = sub % 4;
    if (type == DTYPE_Q6_K) {
        const uint8_t *low = block + half * 64 + r % 2 * 32, *high = block + 128 + half * 32;
        for (int32_t i = 0; i < KRN_UNIT; i++)
            code[i] = (uint8_t)((low[i] >> (r / 2 * 4) & 15) | two_bits(high[i], r) << 4);
        memcpy(scale, block + 192 + 2 * sub, 2);
        return;
    }
    if (type == DTYPE_Q2_K) {
        for (int32_t i = 0; i < KRN_UNIT; i++) code[i] = two_bits(block[16 + half * 32 + i], r);
        memcpy(scale, block + 2 * sub, 2);
        return;
    }
    if (type == DTYPE_Q3_K) {
        for (int32_t i = 0; i < KRN_UNIT; i++)
            code[i] = (uint8_t)(two_bits(block[32 + half * 32 + i], r) | (block[i] >> sub & 1) << 2);
        for (int32_t h = 0; h < 2; h++) { /* six bits, less 32 */
            int32_t j = 2 * sub + h;
            const uint8_t *s = block + 96;
            scale[h] = (uint8_t)(((s[j % 8] >> (j / 8 * 4) & 15) | two_bits(s[8 + j % 4], j / 4) << 4) - 32);
        }
        return;
    }
    const uint8_t *s = block + 4, *low = block + (type == DTYPE_Q5_K ? 48 : 16) + sub / 2 * 32;
    for (int32_t i = 0; i < KRN_UNIT; i++) {
        code[i] = low[i] >> (sub % 2 * 4) & 15;
        if (type == DTYPE_Q5_K) code[i] |= (uint8_t)((block[16 + i] >> sub & 1) << 4);
    }
    if (sub < 4) {
        scale[0] = s[sub] & 63;
        scale[1] = s[sub + 4] & 63;
    } else {
        scale[0] = (uint8_t)((s[sub + 4] & 15) | s[sub - 4] >> 6 << 4);
        scale[1] = (uint8_t)(s[sub + 4] >> 4 | s[sub] >> 6 << 4);
    }
}

static inline uint32_t four_codes(const uint8_t *code)
{
    uint32_t v;
    memcpy(&v, code, sizeof v);
    return v;
}
static inline void put_four(uint8_t *q, uint32_t v)
{
    memcpy(q, &v, sizeof v);
}

/* Row r of one unit, four codes at a time: the nibble vectors, the vectors of two bits, of one bit. */
static inline __attribute__((always_inline)) void put_codes(const enum dtype type, uint8_t *q,
                                                            int32_t r, const uint8_t code[KRN_UNIT])
{
    const uint32_t low = 0x0f0f0f0f, one = 0x01010101, two = 0x03030303;
    const int32_t bits = krn_pack_bits(type), first = bits < 4 ? 0 : 4; /* bits of the nibbles */
    q += r * 4;
    if (first) {
        for (int32_t j = 0; j < 4; j++)
            put_four(q + j * 64,
                     (four_codes(code + 4 * j) & low) | (four_codes(code + 16 + 4 * j) & low) << 4);
        q += 256;
    }
    if (bits - first >= 2) {
        uint32_t pair[2] = {0, 0};
        for (int32_t j = 0; j < 8; j++)
            pair[j / 4] |= (four_codes(code + 4 * j) >> first & two) << (j % 4 * 2);
        put_four(q, pair[0]);
        put_four(q + 64, pair[1]);
        q += 128;
    }
    if (bits % 2) {
        uint32_t last = 0;
        for (int32_t j = 0; j < 8; j++) last |= (four_codes(code + 4 * j) >> (bits - 1) & one) << j;
        put_four(q, last);
    }
}

static inline __attribute__((always_inline)) void pack_k(const enum dtype type, uint8_t *dst,
                                                         const uint8_t *const src[], int32_t n_rows,
                                                         int32_t phase, int32_t cols)
{
    int32_t n = cols / KRN_UNIT, bytes = dtype_block_bytes(type);
    memcpy(dst, &phase, sizeof phase);
    struct krn_planes p = krn_pack_planes(type, dst, cols);
    uint8_t *pairs = dst + (p.pairs - dst), *supers = dst + (p.supers - dst);

    for (int32_t u = 0; u < n; u++)
        for (int32_t r = 0; r < n_rows; r++) {
            uint8_t code[KRN_UNIT], scale[2];
            k_unit(type, src[r] + (int64_t)((phase + u) / KRN_SUPER_UNITS) * bytes,
                   (phase + u) % KRN_SUPER_UNITS, code, scale);
            put_codes(type, pairs + krn_pack_codes_at(type, u), r, code);
            uint8_t *s = pairs + krn_pack_scales_at(type, u) + r;
            s[0] = scale[0];
            s[KRN_TILE] = scale[1];
        }
    for (int32_t s = 0; s <= (phase + n - 1) / KRN_SUPER_UNITS; s++)
        for (int32_t r = 0; r < n_rows; r++) {
            const uint8_t *block = src[r] + (int64_t)s * bytes;
            uint8_t *super = supers + (int64_t)s * krn_pack_super_bytes(type);
            const int32_t at = type == DTYPE_Q6_K ? 208 : type == DTYPE_Q3_K ? 108 : type == DTYPE_Q2_K ? 80 : 0;
            memcpy(super + 2 * r, block + at, 2);
            if (krn_pack_has_min(type)) memcpy(super + 32 + 2 * r, block + at + 2, 2);
        }
}

/* Q4_1, Q5_0, Q5_1: blocks of one unit: f16 d, f16 m of the first and the last, then Q5's upper bits, then nibbles. */
static inline __attribute__((always_inline)) void pack_legacy(const enum dtype type, uint8_t *pairs,
                                                              const uint8_t *const src[], int32_t n_rows, int32_t n)
{
    const bool five = type != DTYPE_Q4_1, min = type != DTYPE_Q5_0;
    for (int32_t u = 0; u < n; u++)
        for (int32_t r = 0; r < n_rows; r++) {
            const uint8_t *block = src[r] + (int64_t)u * dtype_block_bytes(type), *high = block + (min ? 4 : 2);
            const uint8_t *low = high + (five ? 4 : 0);
            uint8_t code[KRN_UNIT], *s = pairs + krn_pack_scales_at(type, u) + 2 * r;
            for (int32_t i = 0; i < KRN_UNIT; i++) {
                code[i] = low[i % 16] >> (i / 16 * 4) & 15;
                if (five) code[i] |= (uint8_t)((high[i / 8] >> (i % 8) & 1) << 4);
            }
            put_codes(type, pairs + krn_pack_codes_at(type, u), r, code);
            memcpy(s, block, 2);
            if (!min) continue;
            s[32] = block[2];
            s[33] = block[3] ^ 0x80; /* what is subtracted */
        }
}

/* Types with a book, into the layouts of IQ4_NL, MXFP4 (one unit per block), IQ4_XS and IQ2_S (eight). */
static void pack_book(enum dtype file, uint8_t *dst, const uint8_t *const src[], int32_t n_rows, int32_t phase, int32_t cols)
{
    enum dtype type = krn_pack_layout(file);
    int32_t n = cols / KRN_UNIT, per = dtype_block(file) / KRN_UNIT, bytes = dtype_block_bytes(file);
    const int8_t *book = eng_iq_book(file);
    if (per == 1) phase = 0;
    memcpy(dst, &phase, sizeof phase);
    for (int32_t i = 0; i < 16; i++) dst[KRN_BOOK_AT + i] = (uint8_t)(book[i] + 128);
    struct krn_planes p = krn_pack_planes(type, dst, cols);
    uint8_t *pairs = dst + (p.pairs - dst);
    for (int32_t u = 0; u < n; u++)
        for (int32_t r = 0; r < n_rows; r++) {
            struct eng_iq_unit unit;
            const uint8_t *block = src[r] + (int64_t)((phase + u) / per) * bytes;
            eng_iq_unit(file, block, (phase + u) % per, &unit);
            uint8_t *q = pairs + krn_pack_codes_at(type, u), *s = pairs + krn_pack_scales_at(type, u);
            if (type == DTYPE_IQ2_S) put_codes(DTYPE_IQ2_S, q, r, unit.index);
            else put_codes(DTYPE_IQ4_XS, q, r, unit.index);
            if (type == DTYPE_IQ4_NL) memcpy(s + 2 * r, block, 2);
            else if (type == DTYPE_MXFP4) s[r] = block[0];
            else s[r] = (uint8_t)unit.scale[0];
            if (type == DTYPE_IQ2_S) s[KRN_TILE + r] = (uint8_t)unit.scale[1];
            if (krn_pack_is_super(type))
                memcpy(dst + (krn_pack_super(type, &p, u) - dst) + 4 * r, &unit.d, sizeof unit.d);
        }
}

/* Digit i of a TQ1_0 block (engine/file/dequant.c says how they lie). */
static uint8_t ternary(const uint8_t *block, int32_t i)
{
    static const uint8_t power[] = {1, 3, 9, 27, 81};
    int32_t at = i < 160 ? i % 32 : i < 240 ? 32 + i % 16 : 48 + i % 4;
    int32_t n = i < 160 ? i / 32 : i < 240 ? (i - 160) / 16 : (i - 240) / 4;
    return (uint8_t)((uint8_t)(block[at] * power[n]) * 3 >> 8);
}

static void pack_ternary(enum dtype file, uint8_t *dst, const uint8_t *const src[], int32_t n_rows, int32_t phase, int32_t cols)
{
    int32_t n = cols / KRN_UNIT, bytes = dtype_block_bytes(file);
    memcpy(dst, &phase, sizeof phase);
    struct krn_planes p = krn_pack_planes(DTYPE_TQ2_0, dst, cols);
    uint8_t *pairs = dst + (p.pairs - dst);
    for (int32_t u = 0; u < n; u++)
        for (int32_t r = 0; r < n_rows; r++) {
            const uint8_t *block = src[r] + (int64_t)((phase + u) / KRN_SUPER_UNITS) * bytes;
            int32_t sub = (phase + u) % KRN_SUPER_UNITS;
            uint8_t code[KRN_UNIT];
            for (int32_t i = 0; i < KRN_UNIT; i++)
                code[i] = file == DTYPE_TQ1_0 ? ternary(block, sub * KRN_UNIT + i)
                                              : two_bits(block[sub / 4 * 32 + i], sub % 4);
            put_codes(DTYPE_TQ2_0, pairs + krn_pack_codes_at(DTYPE_TQ2_0, u), r, code);
            memcpy(dst + (krn_pack_super(DTYPE_TQ2_0, &p, u) - dst) + 2 * r, block + bytes - 2, 2);
        }
}

void krn_pack_tile(enum dtype type, void *dst, const uint8_t *const src[], int32_t n_rows,
                   int32_t k0, int32_t cols)
{
    ASSERT(n_rows >= 1 && n_rows <= KRN_TILE && k0 >= 0);
    ASSERT(!krn_pack_is_quant(type) || (k0 % KRN_UNIT == 0 && cols % KRN_UNIT == 0));
    memset(dst, 0, (size_t)krn_pack_tile_bytes(type, cols));
    int32_t n = cols / KRN_UNIT, phase = k0 / KRN_UNIT % KRN_SUPER_UNITS;
    uint8_t *out = dst;
    switch (type) {
    case DTYPE_F32: pack_lines(out, src, n_rows, cols, 4); break;
    case DTYPE_F16:
    case DTYPE_BF16: pack_lines(out, src, n_rows, cols, 2); break;
    case DTYPE_Q8_0: pack_q8_0(out, src, n_rows, n); break;
    case DTYPE_Q4_0: pack_q4_0(out, src, n_rows, n); break;
    case DTYPE_Q4_1: pack_legacy(DTYPE_Q4_1, out, src, n_rows, n); break;
    case DTYPE_Q5_0: pack_legacy(DTYPE_Q5_0, out, src, n_rows, n); break;
    case DTYPE_Q5_1: pack_legacy(DTYPE_Q5_1, out, src, n_rows, n); break;
    case DTYPE_Q2_K: pack_k(DTYPE_Q2_K, out, src, n_rows, phase, cols); break;
    case DTYPE_Q3_K: pack_k(DTYPE_Q3_K, out, src, n_rows, phase, cols); break;
    case DTYPE_Q4_K: pack_k(DTYPE_Q4_K, out, src, n_rows, phase, cols); break;
    case DTYPE_Q5_K: pack_k(DTYPE_Q5_K, out, src, n_rows, phase, cols); break;
    case DTYPE_Q6_K: pack_k(DTYPE_Q6_K, out, src, n_rows, phase, cols); break;
    case DTYPE_TQ1_0:
    case DTYPE_TQ2_0: pack_ternary(type, out, src, n_rows, phase, cols); break;
    case DTYPE_IQ1_S:
    case DTYPE_IQ1_M:
    case DTYPE_IQ2_XXS:
    case DTYPE_IQ2_XS:
    case DTYPE_IQ2_S:
    case DTYPE_IQ3_XXS:
    case DTYPE_IQ3_S:
    case DTYPE_IQ4_NL:
    case DTYPE_IQ4_XS:
    case DTYPE_MXFP4: pack_book(type, out, src, n_rows, phase, cols); break;
    case DTYPE_COUNT: ASSERT(!"a type with a layout");
    }
}

/* ---- out of tiles ---------------------------------------------------------------------------- */

static float f16_at(const uint8_t *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return half_f16_to_f32(h);
}

static float f32_at(const uint8_t *p)
{
    float f;
    memcpy(&f, p, sizeof f);
    return f;
}

/* Code k of a row as stored; q: the unit's codes at the row. */
static int32_t code_at(enum dtype t, const uint8_t *q, int32_t k)
{
    int32_t j = k / 4, b = k % 4, bits = krn_pack_bits(t), v = 0, at = 0, first = bits < 4 ? 0 : 4;
    if (bits == 8) return q[j * 64 + b];
    if (first) {
        v = q[j % 4 * 64 + b] >> (j / 4 * 4) & 15;
        at = 256;
    }
    if (bits - first >= 2) {
        v |= two_bits(q[at + j / 4 * 64 + b], j % 4) << first;
        at += 128;
    }
    if (bits % 2) v |= (q[at + b] >> j & 1) << (bits - 1);
    return v;
}

/* d and m of types without super-blocks; s: the unit's scales. */
static void plain_scales(enum dtype t, const uint8_t *s, int32_t row, struct krn_unit_row *out)
{
    if (t == DTYPE_MXFP4) {
        uint32_t e = s[row];
        out->d[0] = out->d[1] = half_from_bits(e < 2 ? UINT32_C(0x00200000) << e : (e - 1) << 23);
        return;
    }
    out->d[0] = out->d[1] = f16_at(s + 2 * row);
    if (krn_pack_has_min(t)) out->m[0] = out->m[1] = f16_at(s + 32 + 2 * row);
}

static void super_scales(enum dtype t, const uint8_t *super, const uint8_t *s, int32_t row, struct krn_unit_row *out)
{
    float d = t == DTYPE_IQ4_XS || t == DTYPE_IQ2_S ? f32_at(super + 4 * row) : f16_at(super + 2 * row);
    switch (t) {
    case DTYPE_TQ2_0: out->d[0] = out->d[1] = d; break;
    case DTYPE_IQ4_XS: out->d[0] = out->d[1] = d * (float)(int8_t)s[row]; break;
    case DTYPE_Q2_K:
        for (int32_t h = 0; h < 2; h++) {
            out->d[h] = d * (float)(s[h * KRN_TILE + row] & 15);
            out->m[h] = f16_at(super + 32 + 2 * row) * (float)(s[h * KRN_TILE + row] >> 4);
        }
        break;
    case DTYPE_Q4_K:
    case DTYPE_Q5_K:
        out->d[0] = out->d[1] = d * (float)s[row];
        out->m[0] = out->m[1] = f16_at(super + 32 + 2 * row) * (float)s[KRN_TILE + row];
        break;
    default:
        out->d[0] = d * (float)(int8_t)s[row];
        out->d[1] = d * (float)(int8_t)s[KRN_TILE + row];
    }
}

void krn_pack_unit_row(enum dtype t, const struct krn_planes *p, int32_t unit, int32_t row,
                       struct krn_unit_row *out)
{
    const uint8_t *q = p->pairs + krn_pack_codes_at(t, unit) + row * 4;
    const uint8_t *s = p->pairs + krn_pack_scales_at(t, unit);
    for (int32_t k = 0; k < KRN_UNIT; k++) {
        int32_t v = code_at(t, q, k);
        out->q[k] = (int16_t)((krn_pack_has_book(t) ? p->book[v] : v) - krn_pack_offset(t));
    }
    out->m[0] = out->m[1] = 0.0f;
    if (krn_pack_is_super(t)) super_scales(t, krn_pack_super(t, p, unit), s, row, out);
    else plain_scales(t, s, row, out);
}

void krn_pack_unit_values(enum dtype t, const struct krn_unit_row *u, float w[KRN_UNIT])
{
    for (int32_t k = 0; k < KRN_UNIT; k++) {
        w[k] = u->d[k / 16] * (float)u->q[k];
        if (krn_pack_has_min(t)) w[k] -= u->m[k / 16];
    }
}

float krn_pack_element(enum dtype t, const uint8_t *tile, int32_t k, int32_t row)
{
    int64_t i = (int64_t)k * KRN_TILE + row;
    uint16_t h;
    if (t == DTYPE_F32) {
        float f;
        memcpy(&f, tile + 4 * i, sizeof f);
        return f;
    }
    memcpy(&h, tile + 2 * i, sizeof h);
    return t == DTYPE_F16 ? half_f16_to_f32(h) : half_bf16_to_f32(h);
}

void krn_unpack_row(const struct krn_mat *m, int32_t row, float *dst)
{
    ASSERT(row >= 0 && row < m->rows);
    const uint8_t *tile = m->data + row / KRN_TILE * m->tile_bytes;
    int32_t r = row % KRN_TILE;
    if (!krn_pack_is_quant(m->type)) {
        for (int32_t k = 0; k < m->cols; k++) dst[k] = krn_pack_element(m->type, tile, k, r);
        return;
    }
    struct krn_planes p = krn_pack_planes(m->type, tile, m->cols);
    for (int32_t u = 0; u < m->cols / KRN_UNIT; u++) {
        struct krn_unit_row unit;
        krn_pack_unit_row(m->type, &p, u, r, &unit);
        krn_pack_unit_values(m->type, &unit, dst + u * KRN_UNIT);
    }
}

void krn_unpack_rows(const struct krn_mat *m, const int32_t rows[], int32_t n, float *dst)
{
    for (int32_t i = 0; i < n; i++) krn_unpack_row(m, rows[i], dst + (int64_t)i * m->cols);
}

/* ---- activations ----------------------------------------------------------------------------- */

/* Lanes of all groups together. */
static int64_t lanes(int32_t n_tok)
{
    int32_t whole = n_tok / KRN_GROUP * KRN_GROUP;
    return whole + (n_tok > whole ? krn_group_width(n_tok, whole) : 0);
}

int64_t krn_act_q_bytes(int32_t n_tok, int32_t cols)
{
    return lanes(n_tok) * (cols / KRN_UNIT) * KRN_UNIT_BYTES;
}

int64_t krn_act_xt_floats(int32_t n_tok, int32_t cols)
{
    return lanes(n_tok) * cols;
}

int64_t krn_act_xb_words(int32_t n_tok, int32_t cols)
{
    return lanes(n_tok) * DIV_UP(cols, 2);
}
