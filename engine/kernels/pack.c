/* pack.c: file rows into tiles of 16 interleaved rows, and back. The layout is drawn in pack.h. */
#include "engine/kernels/pack.h"

#include "engine/file/half.h"
#include "engine/kernels/panel.h"

/* ---- into tiles ------------------------------------------------------------------------------ */

int64_t krn_pack_tile_bytes(enum dtype type, int32_t cols)
{
    ASSERT(type < DTYPE_COUNT && cols > 0);
    int64_t bytes;
    if (!krn_pack_is_quant(type)) {
        bytes = (int64_t)cols * KRN_TILE * dtype_block_bytes(type);
    } else {
        ASSERT(cols % KRN_UNIT == 0);
        bytes = krn_pack_pairs_at(type, cols) +
                krn_pack_codes_at(type, (int32_t)ROUND_UP(cols / KRN_UNIT, 2));
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

/* Codes 0..31 (Q4_K, Q5_K) or 0..63 (Q6_K) of unit `sub` of a super-block, and the unit's 2 scale
 * bytes. */
static inline __attribute__((always_inline)) void k_unit(const enum dtype type,
                                                         const uint8_t *block, int32_t sub,
                                                         uint8_t code[KRN_UNIT], uint8_t scale[2])
{
    if (type == DTYPE_Q6_K) {
        int32_t half = sub / 4, r = sub % 4;
        const uint8_t *low = block + half * 64 + r % 2 * 32, *high = block + 128 + half * 32;
        for (int32_t i = 0; i < KRN_UNIT; i++)
            code[i] = (uint8_t)((low[i] >> (r / 2 * 4) & 15) | (high[i] >> (2 * r) & 3) << 4);
        memcpy(scale, block + 192 + 2 * sub, 2);
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

/* Row r of one unit, four codes at a time: the nibble vectors, then the vectors of upper bits. */
static inline __attribute__((always_inline)) void put_codes(const enum dtype type, uint8_t *q,
                                                            int32_t r, const uint8_t code[KRN_UNIT])
{
    const uint32_t low = 0x0f0f0f0f, one = 0x01010101, two = 0x03030303;
    uint32_t upper[2] = {0, 0};
    q += r * 4;
    for (int32_t j = 0; j < 4; j++)
        put_four(q + j * 64,
                 (four_codes(code + 4 * j) & low) | (four_codes(code + 16 + 4 * j) & low) << 4);
    for (int32_t j = 0; j < 8 && type != DTYPE_Q4_K; j++) {
        uint32_t high = four_codes(code + 4 * j) >> 4;
        if (type == DTYPE_Q5_K)
            upper[0] |= (high & one) << j;
        else
            upper[j / 4] |= (high & two) << (j % 4 * 2);
    }
    if (type != DTYPE_Q4_K) put_four(q + 256, upper[0]);
    if (type == DTYPE_Q6_K) put_four(q + 320, upper[1]);
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
            memcpy(super + 2 * r, block + (type == DTYPE_Q6_K ? 208 : 0), 2);
            if (type != DTYPE_Q6_K) memcpy(super + 32 + 2 * r, block + 2, 2);
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
    case DTYPE_Q4_K: pack_k(DTYPE_Q4_K, out, src, n_rows, phase, cols); break;
    case DTYPE_Q5_K: pack_k(DTYPE_Q5_K, out, src, n_rows, phase, cols); break;
    case DTYPE_Q6_K: pack_k(DTYPE_Q6_K, out, src, n_rows, phase, cols); break;
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

void krn_pack_unit_row(enum dtype t, const struct krn_planes *p, int32_t unit, int32_t row,
                       struct krn_unit_row *out)
{
    const uint8_t *q = p->pairs + krn_pack_codes_at(t, unit) + row * 4;
    const uint8_t *s = p->pairs + krn_pack_scales_at(t, unit);
    out->m = 0.0f;
    if (t == DTYPE_Q8_0) {
        for (int32_t k = 0; k < KRN_UNIT; k++) out->q[k] = (int16_t)(q[k / 4 * 64 + k % 4] - 128);
        out->d[0] = out->d[1] = f16_at(s + 2 * row);
        return;
    }
    for (int32_t k = 0; k < KRN_UNIT; k++) {
        int32_t j = k / 4, b = k % 4, v = q[j % 4 * 64 + b] >> (j / 4 * 4) & 15;
        if (t == DTYPE_Q5_K) v |= (q[256 + b] >> j & 1) << 4;
        if (t == DTYPE_Q6_K) v |= (q[256 + j / 4 * 64 + b] >> (j % 4 * 2) & 3) << 4;
        out->q[k] = (int16_t)(t == DTYPE_Q4_0 ? v - 8 : t == DTYPE_Q6_K ? v - 32 : v);
    }
    if (t == DTYPE_Q4_0) {
        out->d[0] = out->d[1] = f16_at(s + 2 * row);
        return;
    }
    const uint8_t *super = krn_pack_super(t, p, unit);
    float d = f16_at(super + 2 * row);
    if (t == DTYPE_Q6_K) {
        out->d[0] = d * (float)(int8_t)s[row];
        out->d[1] = d * (float)(int8_t)s[KRN_TILE + row];
    } else {
        out->d[0] = out->d[1] = d * (float)s[row];
        out->m = f16_at(super + 32 + 2 * row) * (float)s[KRN_TILE + row];
    }
}

void krn_pack_unit_values(enum dtype t, const struct krn_unit_row *u, float w[KRN_UNIT])
{
    bool has_min = t == DTYPE_Q4_K || t == DTYPE_Q5_K;
    for (int32_t k = 0; k < KRN_UNIT; k++) {
        w[k] = u->d[k / 16] * (float)u->q[k];
        if (has_min) w[k] -= u->m;
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
