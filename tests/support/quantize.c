/* quantize.c: one block of each type; the layouts are explained in engine/file/dequant.c. */
#include "tests/support/quantize.h"

#include "base/rng.h"
#include "engine/file/dequant.h"
#include "engine/file/half.h"

#include <math.h>

static void put_f16(uint8_t *p, float f)
{
    uint16_t h = half_f32_to_f16(f);
    p[0] = (uint8_t)h;
    p[1] = (uint8_t)(h >> 8);
}

static float stored_f16(float f) { return half_f16_to_f32(half_f32_to_f16(f)); }

/* Nearest integer, ties to even, without a call: exact for |x| < 2^22. */
static int nearest(float x) { return (int)((x + 0x1.8p23f) - 0x1.8p23f); }

static void f32_block(const float *x, uint8_t *p) { memcpy(p, x, sizeof *x); }
static void f16_block(const float *x, uint8_t *p) { put_f16(p, *x); }

static void bf16_block(const float *x, uint8_t *p)
{
    uint16_t b = half_f32_to_bf16(*x);
    p[0] = (uint8_t)b;
    p[1] = (uint8_t)(b >> 8);
}

/* The value of largest magnitude becomes exactly -8 steps. */
static void q4_0_block(const float *x, uint8_t *p)
{
    float big = 0;
    for (int i = 0; i < 32; i++)
        if (fabsf(x[i]) > fabsf(big)) big = x[i];
    float d = big / -8, inv = d != 0 ? 1 / d : 0;
    put_f16(p, d);
    for (int i = 0; i < 16; i++) {
        int lo = MIN(15, (int)(x[i] * inv + 8.5f)), hi = MIN(15, (int)(x[i + 16] * inv + 8.5f));
        p[2 + i] = (uint8_t)(lo | hi << 4);
    }
}

static void q8_0_block(const float *x, uint8_t *p)
{
    float big = 0;
    for (int i = 0; i < 32; i++) big = MAX(big, fabsf(x[i]));
    float d = big / 127, inv = d != 0 ? 1 / d : 0;
    put_f16(p, d);
    for (int i = 0; i < 32; i++) p[2 + i] = (uint8_t)(int8_t)roundf(x[i] * inv);
}

/* Eight 6-bit scales and minimums into 12 bytes. */
static void put_scales(uint8_t *s, const int scale[8], const int min[8])
{
    for (int j = 0; j < 4; j++) {
        s[j] = (uint8_t)(scale[j] | scale[j + 4] >> 4 << 6);
        s[j + 4] = (uint8_t)(min[j] | min[j + 4] >> 4 << 6);
        s[j + 8] = (uint8_t)((scale[j + 4] & 15) | (min[j + 4] & 15) << 4);
    }
}

/* Q4_K (most = 15, fifth NULL) and Q5_K (most = 31). */
static void k45(const float *x, uint8_t *p, int most, uint8_t *fifth, uint8_t *q)
{
    float step[8], low[8], big_step = 0, big_low = 0;
    int scale[8], min[8];
    for (int j = 0; j < 8; j++) {
        float lo = 0, hi = 0; /* a minimum is never above zero: its scale has no sign */
        for (int i = 0; i < 32; i++) {
            lo = MIN(lo, x[32 * j + i]);
            hi = MAX(hi, x[32 * j + i]);
        }
        step[j] = (hi - lo) / (float)most;
        low[j] = -lo;
        big_step = MAX(big_step, step[j]);
        big_low = MAX(big_low, low[j]);
    }
    put_f16(p, big_step / 63);
    put_f16(p + 2, big_low / 63);
    float d = stored_f16(big_step / 63), dmin = stored_f16(big_low / 63);
    for (int j = 0; j < 8; j++) {
        scale[j] = d > 0 ? CLAMP(nearest(step[j] / d), 0, 63) : 0;
        min[j] = dmin > 0 ? CLAMP(nearest(low[j] / dmin), 0, 63) : 0;
    }
    put_scales(p + 4, scale, min);
    if (fifth) memset(fifth, 0, 32);
    memset(q, 0, 128);
    for (int j = 0; j < 8; j++) {
        float a = d * (float)scale[j], b = dmin * (float)min[j], inv = a > 0 ? 1 / a : 0;
        for (int i = 0; i < 32; i++) {
            int v = CLAMP(nearest((x[32 * j + i] + b) * inv), 0, most);
            q[j / 2 * 32 + i] |= (uint8_t)((v & 15) << (j % 2 * 4));
            if (fifth) fifth[i] |= (uint8_t)(v >> 4 << j);
        }
    }
}

static void q4_k_block(const float *x, uint8_t *p) { k45(x, p, 15, NULL, p + 16); }
static void q5_k_block(const float *x, uint8_t *p) { k45(x, p, 31, p + 16, p + 48); }

static void q6_k_block(const float *x, uint8_t *p)
{
    float big[16], biggest = 0;
    for (int j = 0; j < 16; j++) {
        big[j] = 0; /* signed: the value of largest magnitude becomes -32 steps */
        for (int i = 0; i < 16; i++)
            if (fabsf(x[16 * j + i]) > fabsf(big[j])) big[j] = x[16 * j + i];
        biggest = MAX(biggest, fabsf(big[j]));
    }
    put_f16(p + 208, biggest / 32 / 127);
    float d = stored_f16(biggest / 32 / 127);
    memset(p, 0, 192);
    for (int j = 0; j < 16; j++) {
        int scale = d > 0 ? CLAMP(nearest(big[j] / -32 / d), -127, 127) : 0;
        float a = d * (float)scale, inv = a != 0 ? 1 / a : 0;
        p[192 + j] = (uint8_t)(int8_t)scale;
        for (int i = 16 * j; i < 16 * j + 16; i++) {
            int v = CLAMP(nearest(x[i] * inv), -32, 31) + 32, half = i / 128, r = i % 128 / 32,
                l = i % 32;
            p[half * 64 + r % 2 * 32 + l] |= (uint8_t)((v & 15) << (r / 2 * 4));
            p[128 + half * 32 + l] |= (uint8_t)(v >> 4 << (2 * r));
        }
    }
}

/* Types that no encoder is needed for: codes out of the values' bits, scales that fit them. */
static void any_block(enum dtype t, const float *x, uint8_t *p)
{
    uint64_t key = 0;
    float big = 0;
    for (int32_t i = 0; i < dtype_block(t); i++) {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        key = rng_mix(key ^ bits);
        big = MAX(big, fabsf(x[i]));
    }
    memset(p, 0, (size_t)dtype_block_bytes(t));
    for (int32_t i = 0; i < dtype_block_bytes(t) && big > 0; i++) p[i] = (uint8_t)rng_mix(key + (uint64_t)i);
    eng_block_put_size(t, p, big);
}

bool quantize_is_near(enum dtype t)
{
    switch (t) {
    case DTYPE_F32:
    case DTYPE_F16:
    case DTYPE_BF16:
    case DTYPE_Q4_0:
    case DTYPE_Q8_0:
    case DTYPE_Q4_K:
    case DTYPE_Q5_K:
    case DTYPE_Q6_K: return true;
    default: return false;
    }
}

void quantize_row(enum dtype t, const float *src, void *dst, int64_t n)
{
    static void (*const blocks[DTYPE_COUNT])(const float *, uint8_t *) = {
        [DTYPE_F32] = f32_block,   [DTYPE_F16] = f16_block,   [DTYPE_BF16] = bf16_block,
        [DTYPE_Q4_0] = q4_0_block, [DTYPE_Q8_0] = q8_0_block, [DTYPE_Q4_K] = q4_k_block,
        [DTYPE_Q5_K] = q5_k_block, [DTYPE_Q6_K] = q6_k_block,
    };
    int32_t block = dtype_block(t), bytes = dtype_block_bytes(t);
    ASSERT(n >= 0 && n % block == 0);
    uint8_t *p = dst;
    for (int64_t i = 0; i < n; i += block, p += bytes)
        if (blocks[t]) blocks[t](src + i, p);
        else any_block(t, src + i, p);
}
