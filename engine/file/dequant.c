/* dequant.c: the layouts of the blocks. Source: the GGUF specification and ggml's block structures
 * (facts).
 *
 * Each product is rounded as it is written here (no contraction), which is what makes the bits
 * comparable. */
#include "engine/file/dequant.h"

#include "engine/file/half.h"

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

void eng_dequant_row(enum dtype t, const void *src, float *dst, int64_t n)
{
    static void (*const blocks[DTYPE_COUNT])(const uint8_t *, float *) = {
        [DTYPE_F32] = f32_block,   [DTYPE_F16] = f16_block,   [DTYPE_BF16] = bf16_block,
        [DTYPE_Q4_0] = q4_0_block, [DTYPE_Q8_0] = q8_0_block, [DTYPE_Q4_K] = q4_k_block,
        [DTYPE_Q5_K] = q5_k_block, [DTYPE_Q6_K] = q6_k_block,
    };
    int32_t block = dtype_block(t), bytes = dtype_block_bytes(t);
    ASSERT(n >= 0 && n % block == 0);
    const uint8_t *p = src;
    for (int64_t i = 0; i < n; i += block, p += bytes) blocks[t](p, dst + i);
}
