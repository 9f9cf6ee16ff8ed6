/* dequant.c: the layouts of the blocks. Source: the GGUF specification and ggml's block structures
 * (facts).
 *
 * Each product is rounded as it is written here (no contraction), which is what makes the bits
 * comparable. */
#include "engine/file/dequant.h"

#include "engine/file/half.h"
#include "engine/file/iq.h"

static uint16_t u16_at(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }
static float f16_at(const uint8_t *p) { return half_f16_to_f32(u16_at(p)); }

static void f32_block(const uint8_t *p, float *y) { memcpy(y, p, sizeof *y); }
static void f16_block(const uint8_t *p, float *y) { *y = f16_at(p); }
static void bf16_block(const uint8_t *p, float *y) { *y = half_bf16_to_f32(u16_at(p)); }

/* f16 d, 16 bytes: low nibbles are values 0..15, high nibbles 16..31; y = d (q - 8) */
static void q4_0_block(const uint8_t *p, float *y)
{
    float d = f16_at(p);
    for (int i = 0; i < 16; i++) {
        y[i] = (float)((p[2 + i] & 15) - 8) * d;
        y[i + 16] = (float)((p[2 + i] >> 4) - 8) * d;
    }
}

/* f16 d, f16 m, nibbles as Q4_0; y = d q + m */
static void q4_1_block(const uint8_t *p, float *y)
{
    float d = f16_at(p), m = f16_at(p + 2);
    for (int i = 0; i < 16; i++) {
        y[i] = (float)(p[4 + i] & 15) * d + m;
        y[i + 16] = (float)(p[4 + i] >> 4) * d + m;
    }
}

/* Nibbles as Q4_0, and bit i of four bytes before them is the fifth bit of value i. */
static int five_bits(const uint8_t *high, int i)
{
    int low = high[4 + i % 16] >> (i / 16 * 4) & 15;
    return low | (high[i / 8] >> (i % 8) & 1) << 4;
}

/* f16 d, codes of five bits; y = d (q - 16) */
static void q5_0_block(const uint8_t *p, float *y)
{
    float d = f16_at(p);
    for (int i = 0; i < 32; i++) y[i] = (float)(five_bits(p + 2, i) - 16) * d;
}

/* f16 d, f16 m, codes of five bits; y = d q + m */
static void q5_1_block(const uint8_t *p, float *y)
{
    float d = f16_at(p), m = f16_at(p + 2);
    for (int i = 0; i < 32; i++) y[i] = (float)five_bits(p + 4, i) * d + m;
}

/* f16 d, 32 signed bytes; y = d q */
static void q8_0_block(const uint8_t *p, float *y)
{
    float d = f16_at(p);
    for (int i = 0; i < 32; i++) y[i] = (float)(int8_t)p[2 + i] * d;
}

/* Q4_K and Q5_K: 12 bytes hold 8 scales and 8 minimums of 6 bits. The first four of each lie in the
 * low six bits of bytes 0..3 and 4..7; the last four are nibbles of bytes 8..11, their top two bits
 * being the top two bits of bytes 0..3 and 4..7. */
static void scale_min(const uint8_t *s, int j, uint8_t *scale, uint8_t *min)
{
    if (j < 4) {
        *scale = s[j] & 63;
        *min = s[j + 4] & 63;
    } else {
        *scale = (uint8_t)((s[j + 4] & 15) | s[j - 4] >> 6 << 4);
        *min = (uint8_t)(s[j + 4] >> 4 | s[j] >> 6 << 4);
    }
}

/* f16 d, f16 dmin, 12 bytes of scales, 128 bytes: bytes 32g..32g+31 hold sub-block 2g in the low
 * and 2g+1 in the high nibbles; y = d scale q - dmin min. Q5_K puts 32 bytes in between: bit j of
 * byte i is the fifth bit of value i of sub-block j. */
static void k45(const uint8_t *p, float *y, const uint8_t *fifth, const uint8_t *q)
{
    float d = f16_at(p), dmin = f16_at(p + 2);
    for (int j = 0; j < 8; j++) {
        uint8_t scale, min;
        scale_min(p + 4, j, &scale, &min);
        float a = d * (float)scale, b = dmin * (float)min;
        for (int i = 0; i < 32; i++) {
            int v = q[j / 2 * 32 + i] >> (j % 2 * 4) & 15;
            if (fifth) v |= (fifth[i] >> j & 1) << 4;
            y[j * 32 + i] = a * (float)v - b;
        }
    }
}

static void q4_k_block(const uint8_t *p, float *y) { k45(p, y, NULL, p + 16); }
static void q5_k_block(const uint8_t *p, float *y) { k45(p, y, p + 16, p + 48); }

/* 16 bytes, of each 16 values a scale (low nibble) and a minimum (high), 64 bytes, f16 d, f16 dmin; y = d scale q - dmin
 * min. Each half of 128 values has 32 bytes: bits 2r, 2r+1 are row r of 32 values. */
static void q2_k_block(const uint8_t *p, float *y)
{
    float d = f16_at(p + 80), dmin = f16_at(p + 82);
    for (int i = 0; i < 256; i++) {
        int half = i / 128, r = i % 128 / 32, l = i % 32, s = p[i / 16];
        int q = p[16 + half * 32 + l] >> (2 * r) & 3;
        y[i] = d * (float)(s & 15) * (float)q - dmin * (float)(s >> 4);
    }
}

/* 32 bytes: bit j of byte l is the third bit of value l of row j of 32; 64 bytes of lower two bits as Q2_K; 12 bytes of
 * scales of 6 bits, less 32: nibbles of the first eight (low ones first), then two upper bits each, by fours; f16 d;
 * y = d scale (q - 4). */
static void q3_k_block(const uint8_t *p, float *y)
{
    float d = f16_at(p + 108);
    const uint8_t *s = p + 96;
    for (int i = 0; i < 256; i++) {
        int half = i / 128, r = i % 128 / 32, l = i % 32, j = i / 16;
        int scale = (s[j % 8] >> (j / 8 * 4) & 15) | (s[8 + j % 4] >> (j / 4 * 2) & 3) << 4;
        int q = (p[32 + half * 32 + l] >> (2 * r) & 3) | (p[l] >> (half * 4 + r) & 1) << 2;
        y[i] = d * (float)(scale - 32) * (float)(q - 4);
    }
}

/* 128 bytes of low nibbles, 64 bytes of upper two bits, 16 signed scales (one per 16 values), f16
 * d; y = d scale (q - 32). Each half of 128 values has four rows of 32: rows 0 and 1 in the low
 * nibbles of its 64 bytes, rows 2 and 3 in the high ones; bits 2r, 2r+1 of its 32 upper bytes
 * belong to row r. */
static void q6_k_block(const uint8_t *p, float *y)
{
    float d = f16_at(p + 208);
    const int8_t *scale = (const int8_t *)p + 192;
    for (int i = 0; i < 256; i++) {
        int half = i / 128, r = i % 128 / 32, l = i % 32;
        int low = p[half * 64 + r % 2 * 32 + l] >> (r / 2 * 4) & 15;
        int high = p[128 + half * 32 + l] >> (2 * r) & 3;
        y[i] = d * (float)scale[i / 16] * (float)((low | high << 4) - 32);
    }
}

/* Five digits to base 3 in a byte, as a fraction of 256 rounded up: digit n is what overflows when it is multiplied by 3
 * for the n + 1st time. */
static int digit(uint8_t byte, int n)
{
    static const uint8_t power[] = {1, 3, 9, 27, 81};
    return (uint8_t)(byte * power[n]) * 3 >> 8;
}

/* 48 bytes of five digits, 4 of four, f16 d; y = d (digit - 1). A row of values takes one digit of 32, 16 or 4 bytes. */
static void tq1_0_block(const uint8_t *p, float *y)
{
    float d = f16_at(p + 52);
    for (int i = 0; i < 256; i++) {
        int q = i < 160 ? digit(p[i % 32], i / 32) : i < 240 ? digit(p[32 + i % 16], (i - 160) / 16) : digit(p[48 + i % 4], (i - 240) / 4);
        y[i] = (float)(q - 1) * d;
    }
}

/* 64 bytes as Q2_K's, f16 d; y = d (q - 1) */
static void tq2_0_block(const uint8_t *p, float *y)
{
    float d = f16_at(p + 64);
    for (int i = 0; i < 256; i++) y[i] = (float)((p[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3) - 1) * d;
}

static void book_block(enum dtype t, const uint8_t *p, float *y)
{
    const int8_t *book = eng_iq_book(t);
    for (int32_t sub = 0; sub < dtype_block(t) / ENG_IQ_UNIT; sub++) {
        struct eng_iq_unit u;
        eng_iq_unit(t, p, sub, &u);
        for (int k = 0; k < ENG_IQ_UNIT; k++)
            y[sub * ENG_IQ_UNIT + k] = u.d * (float)u.scale[k / 16] * (float)book[u.index[k]];
    }
}

void eng_dequant_row(enum dtype t, const void *src, float *dst, int64_t n)
{
    static void (*const blocks[DTYPE_COUNT])(const uint8_t *, float *) = {
        [DTYPE_F32] = f32_block,     [DTYPE_F16] = f16_block,     [DTYPE_BF16] = bf16_block,
        [DTYPE_Q4_0] = q4_0_block,   [DTYPE_Q4_1] = q4_1_block,   [DTYPE_Q5_0] = q5_0_block,
        [DTYPE_Q5_1] = q5_1_block,   [DTYPE_Q8_0] = q8_0_block,   [DTYPE_Q2_K] = q2_k_block,
        [DTYPE_Q3_K] = q3_k_block,   [DTYPE_Q4_K] = q4_k_block,   [DTYPE_Q5_K] = q5_k_block,
        [DTYPE_Q6_K] = q6_k_block,   [DTYPE_TQ1_0] = tq1_0_block, [DTYPE_TQ2_0] = tq2_0_block,
    };
    int32_t block = dtype_block(t), bytes = dtype_block_bytes(t);
    ASSERT(n >= 0 && n % block == 0);
    const uint8_t *p = src;
    for (int64_t i = 0; i < n; i += block, p += bytes)
        if (blocks[t]) blocks[t](p, dst + i);
        else book_block(t, p, dst + i);
}

/* ---- the other way --------------------------------------------------------------------------- */

/* Where a type keeps its f16 d, its f16 minimum's scale (0: none), what d and the minimum are multiplied by at most. */
static const struct scales {
    int16_t d, min;
    float most, most_min;
} scales_of[DTYPE_COUNT] = {
    [DTYPE_Q4_0] = {0, 0, 8, 0},      [DTYPE_Q4_1] = {0, 2, 15, -1},     [DTYPE_Q5_0] = {0, 0, 16, 0},
    [DTYPE_Q5_1] = {0, 2, 31, -1},    [DTYPE_Q8_0] = {0, 0, 127, 0},     [DTYPE_Q2_K] = {80, 82, 15 * 3, 15},
    [DTYPE_Q3_K] = {108, 0, 128, 0},  [DTYPE_Q4_K] = {0, 2, 63 * 15, 63}, [DTYPE_Q5_K] = {0, 2, 63 * 31, 63},
    [DTYPE_Q6_K] = {208, 0, 4096, 0}, [DTYPE_IQ2_XXS] = {0, 0, 167, 0},  [DTYPE_IQ2_XS] = {0, 0, 167, 0},
    [DTYPE_IQ2_S] = {0, 0, 167, 0},   [DTYPE_IQ3_XXS] = {0, 0, 481, 0},  [DTYPE_IQ3_S] = {0, 0, 465, 0},
    [DTYPE_IQ1_S] = {0, 0, 17, 0},    [DTYPE_IQ1_M] = {0, 0, 17, 0},     [DTYPE_IQ4_NL] = {0, 0, 127, 0},
    [DTYPE_IQ4_XS] = {0, 0, 4064, 0}, [DTYPE_TQ1_0] = {52, 0, 1, 0},     [DTYPE_TQ2_0] = {64, 0, 1, 0},
    [DTYPE_MXFP4] = {0, 0, 12, 0},
};

static void put_u16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

void eng_block_put_size(enum dtype t, uint8_t *block, float size)
{
    const struct scales *s = &scales_of[t];
    if (dtype_block(t) == 1) return;
    uint16_t d = half_f32_to_f16(size / s->most);
    if (t == DTYPE_MXFP4) { /* an exponent: down to a power of two */
        uint32_t exp = half_to_bits(size / s->most) >> 23 & 255;
        block[0] = (uint8_t)MIN(exp + 1, 254u);
        return;
    }
    if (t == DTYPE_IQ1_M) { /* four bits of d in each of the last four 16 */
        for (int i = 0; i < 4; i++) block[49 + 2 * i] = (uint8_t)((block[49 + 2 * i] & 15) | (d >> (4 * i) & 15) << 4);
        return;
    }
    put_u16(block + s->d, d);
    if (s->min) put_u16(block + s->min, half_f32_to_f16(size / 2 / s->most_min));
}
