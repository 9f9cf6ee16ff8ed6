/* encode.c: see encode.h. The layouts are explained in dequant.c, the fits in fit.c.
 *
 * A super-block: each group's own best scale (and minimum) first; then the super-block's d from the largest of them; then
 * each group looks for the stored scale (and minimum) with the least error around its own. */
#include "engine/file/encode.h"

#include "base/base.h"
#include "engine/file/fit.h"
#include "engine/file/half.h"
#include "engine/file/iq.h"

#include <math.h>
#include <string.h>

enum { SUPER = 256 };

static void put_u16(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

/* Stores d; what it then is. */
static float put_f16(uint8_t *p, float d)
{
    uint16_t h = half_f32_to_f16(CLAMP(d, -65504.0f, 65504.0f));
    put_u16(p, h);
    return half_f16_to_f32(h);
}

/* ---- floats ---- */

static void f32_block(const float *x, const float *w, uint8_t *p)
{
    (void)w;
    memcpy(p, x, sizeof *x);
}
static void f16_block(const float *x, const float *w, uint8_t *p)
{
    (void)w;
    put_u16(p, half_f32_to_f16(*x));
}
static void bf16_block(const float *x, const float *w, uint8_t *p)
{
    (void)w;
    put_u16(p, half_f32_to_bf16(*x));
}

/* ---- blocks of 32 ---- */

static void q8_0_block(const float *x, const float *w, uint8_t *p)
{
    struct fit f = {32, x, w, -127, 127};
    float big = 0;
    uint8_t code[32];
    for (int i = 0; i < 32; i++) big = MAX(big, fabsf(x[i]));
    fit_codes(&f, put_f16(p, big / 127), 0, code);
    for (int i = 0; i < 32; i++) p[2 + i] = (uint8_t)(code[i] - 127);
}

static void put_nibbles(uint8_t *p, const uint8_t *code)
{
    for (int i = 0; i < 16; i++) p[i] = (uint8_t)((code[i] & 15) | (code[16 + i] & 15) << 4);
}

/* Fifth bits, then nibbles. */
static void put_five(uint8_t *p, const uint8_t *code)
{
    memset(p, 0, 4);
    for (int i = 0; i < 32; i++) p[i / 8] |= (uint8_t)((code[i] >> 4 & 1) << (i % 8));
    put_nibbles(p + 4, code);
}

static void q45_0(const float *x, const float *w, uint8_t *p, int32_t bits)
{
    struct fit f = {32, x, w, -(1 << (bits - 1)), (1 << (bits - 1)) - 1};
    uint8_t code[32];
    fit_codes(&f, put_f16(p, fit_scale(&f)), 0, code);
    if (bits == 5) put_five(p + 2, code);
    else put_nibbles(p + 2, code);
}
static void q4_0_block(const float *x, const float *w, uint8_t *p) { q45_0(x, w, p, 4); }
static void q5_0_block(const float *x, const float *w, uint8_t *p) { q45_0(x, w, p, 5); }

static void q45_1(const float *x, const float *w, uint8_t *p, int32_t bits)
{
    struct fit f = {32, x, w, 0, (1 << bits) - 1};
    uint8_t code[32];
    float m, d = fit_scale_min(&f, 1, &m);
    d = put_f16(p, d);
    m = -put_f16(p + 2, -m);
    fit_codes(&f, d, m, code);
    if (bits == 5) put_five(p + 4, code);
    else put_nibbles(p + 4, code);
}
static void q4_1_block(const float *x, const float *w, uint8_t *p) { q45_1(x, w, p, 4); }
static void q5_1_block(const float *x, const float *w, uint8_t *p) { q45_1(x, w, p, 5); }

static void iq4_nl_block(const float *x, const float *w, uint8_t *p)
{
    struct fit f = {32, x, w, 0, 15};
    const int8_t *book = eng_iq_book(DTYPE_IQ4_NL);
    uint8_t code[32];
    fit_book_codes(&f, book, put_f16(p, fit_book(&f, book)), code);
    put_nibbles(p + 2, code);
}

/* ---- super-blocks with scales alone ---- */

/* Scales of n groups of `per` values as integers -most..most-1 times the d that is stored at p; codes as fit_codes. */
static void scaled(const float *x, const float *w, int32_t per, int32_t lo, int32_t most, uint8_t *p, int32_t scale[], uint8_t code[SUPER])
{
    float own[SUPER / 16], big = 0;
    int32_t n = SUPER / per;
    for (int32_t j = 0; j < n; j++) {
        struct fit f = {per, x + j * per, w + j * per, lo, -lo - 1};
        own[j] = fit_scale(&f);
        if (fabsf(own[j]) > fabsf(big)) big = own[j];
    }
    float d = put_f16(p, big / (float)-most), inv = d != 0 ? 1 / d : 0;
    for (int32_t j = 0; j < n; j++) {
        struct fit f = {per, x + j * per, w + j * per, lo, -lo - 1};
        int32_t at = fit_round(CLAMP(own[j] * inv, (float)-most, (float)(most - 1))), best = at;
        float least = fit_error(&f, d * (float)at, 0);
        for (int32_t s = MAX(at - 1, -most); s <= MIN(at + 1, most - 1); s++) {
            float e = s == at ? least : fit_error(&f, d * (float)s, 0);
            if (e < least) {
                least = e;
                best = s;
            }
        }
        scale[j] = best;
        fit_codes(&f, d * (float)best, 0, code + j * per);
    }
}

static void q3_k_block(const float *x, const float *w, uint8_t *p)
{
    int32_t scale[16];
    uint8_t code[SUPER];
    memset(p, 0, 110);
    scaled(x, w, 16, -4, 32, p + 108, scale, code);
    for (int j = 0; j < 16; j++) {
        int s = scale[j] + 32;
        p[96 + j % 8] |= (uint8_t)((s & 15) << (j / 8 * 4));
        p[104 + j % 4] |= (uint8_t)((s >> 4) << (j / 4 * 2));
    }
    for (int i = 0; i < SUPER; i++) {
        int half = i / 128, r = i % 128 / 32, l = i % 32;
        p[32 + half * 32 + l] |= (uint8_t)((code[i] & 3) << (2 * r));
        p[l] |= (uint8_t)((code[i] >> 2) << (half * 4 + r));
    }
}

static void q6_k_block(const float *x, const float *w, uint8_t *p)
{
    int32_t scale[16];
    uint8_t code[SUPER];
    memset(p, 0, 210);
    scaled(x, w, 16, -32, 128, p + 208, scale, code);
    for (int j = 0; j < 16; j++) p[192 + j] = (uint8_t)(int8_t)scale[j];
    for (int i = 0; i < SUPER; i++) {
        int half = i / 128, r = i % 128 / 32, l = i % 32;
        p[half * 64 + r % 2 * 32 + l] |= (uint8_t)((code[i] & 15) << (r / 2 * 4));
        p[128 + half * 32 + l] |= (uint8_t)((code[i] >> 4) << (2 * r));
    }
}

static void iq4_xs_block(const float *x, const float *w, uint8_t *p)
{
    const int8_t *book = eng_iq_book(DTYPE_IQ4_XS);
    float own[8], big = 0;
    memset(p, 0, 8);
    for (int j = 0; j < 8; j++) {
        struct fit f = {32, x + j * 32, w + j * 32, 0, 15};
        own[j] = fit_book(&f, book);
        if (fabsf(own[j]) > fabsf(big)) big = own[j];
    }
    float d = put_f16(p, big / -32), inv = d != 0 ? 1 / d : 0;
    uint32_t high = 0;
    for (int j = 0; j < 8; j++) {
        struct fit f = {32, x + j * 32, w + j * 32, 0, 15};
        int32_t at = fit_round(CLAMP(own[j] * inv, -32.0f, 31.0f)), best = at;
        float least = fit_book_error(&f, book, d * (float)at);
        for (int32_t s = MAX(at - 1, -32); s <= MIN(at + 1, 31); s++) {
            float e = s == at ? least : fit_book_error(&f, book, d * (float)s);
            if (e < least) {
                least = e;
                best = s;
            }
        }
        uint8_t code[32];
        fit_book_codes(&f, book, d * (float)best, code);
        put_nibbles(p + 8 + 16 * j, code);
        p[4 + j / 2] |= (uint8_t)(((best + 32) & 15) << (j % 2 * 4));
        high |= (uint32_t)((best + 32) >> 4) << (2 * j);
    }
    put_u16(p + 2, high);
}

/* ---- super-blocks with scales and minimums ---- */

struct lines {
    int32_t per, hi, most;         /* values of a group, largest code, largest stored scale and minimum */
    int32_t scale[16], min[16];
    uint8_t code[SUPER];
};

/* The best stored scale and minimum of a group, by steps of one from where it is. */
static void settle(const struct fit *f, float d, float dmin, int32_t most, int32_t *scale, int32_t *min)
{
    float least = fit_error(f, d * (float)*scale, dmin * (float)*min);
    bool moved = true;
    for (int32_t turn = 0; turn < 4 && moved; turn++) {
        int32_t s0 = *scale, m0 = *min;
        moved = false;
        for (int32_t s = MAX(s0 - 1, 0); s <= MIN(s0 + 1, most); s++)
            for (int32_t m = MAX(m0 - 1, 0); m <= MIN(m0 + 1, most); m++) {
                if (s == s0 && m == m0) continue;
                float e = fit_error(f, d * (float)s, dmin * (float)m);
                if (e >= least) continue;
                least = e;
                *scale = s;
                *min = m;
                moved = true;
            }
    }
}

/* d at pd, dmin at pm. */
static void lined(const float *x, const float *w, uint8_t *pd, uint8_t *pm, struct lines *l)
{
    float step[16], low[16], big_step = 0, big_low = 0;
    int32_t n = SUPER / l->per;
    for (int32_t j = 0; j < n; j++) {
        struct fit f = {l->per, x + j * l->per, w + j * l->per, 0, l->hi};
        step[j] = fit_scale_min(&f, 0, &low[j]);
        big_step = MAX(big_step, step[j]);
        big_low = MAX(big_low, low[j]);
    }
    float d = put_f16(pd, big_step / (float)l->most), dmin = put_f16(pm, big_low / (float)l->most);
    for (int32_t j = 0; j < n; j++) {
        struct fit f = {l->per, x + j * l->per, w + j * l->per, 0, l->hi};
        l->scale[j] = d > 0 ? fit_round(CLAMP(step[j] / d, 0.0f, (float)l->most)) : 0;
        l->min[j] = dmin > 0 ? fit_round(CLAMP(low[j] / dmin, 0.0f, (float)l->most)) : 0;
        settle(&f, d, dmin, l->most, &l->scale[j], &l->min[j]);
        fit_codes(&f, d * (float)l->scale[j], dmin * (float)l->min[j], l->code + j * l->per);
    }
}

static void q2_k_block(const float *x, const float *w, uint8_t *p)
{
    struct lines l = {.per = 16, .hi = 3, .most = 15};
    memset(p, 0, 84);
    lined(x, w, p + 80, p + 82, &l);
    for (int j = 0; j < 16; j++) p[j] = (uint8_t)(l.scale[j] | l.min[j] << 4);
    for (int i = 0; i < SUPER; i++) p[16 + i / 128 * 32 + i % 32] |= (uint8_t)(l.code[i] << (i % 128 / 32 * 2));
}

/* Q4_K (fifth NULL), Q5_K */
static void k45(const float *x, const float *w, uint8_t *p, uint8_t *fifth, uint8_t *q)
{
    struct lines l = {.per = 32, .hi = fifth ? 31 : 15, .most = 63};
    lined(x, w, p, p + 2, &l);
    uint8_t *s = p + 4;
    for (int j = 0; j < 4; j++) {
        s[j] = (uint8_t)(l.scale[j] | l.scale[j + 4] >> 4 << 6);
        s[j + 4] = (uint8_t)(l.min[j] | l.min[j + 4] >> 4 << 6);
        s[j + 8] = (uint8_t)((l.scale[j + 4] & 15) | (l.min[j + 4] & 15) << 4);
    }
    if (fifth) memset(fifth, 0, 32);
    memset(q, 0, 128);
    for (int i = 0; i < SUPER; i++) {
        int j = i / 32, k = i % 32;
        q[j / 2 * 32 + k] |= (uint8_t)((l.code[i] & 15) << (j % 2 * 4));
        if (fifth) fifth[k] |= (uint8_t)(l.code[i] >> 4 << j);
    }
}
static void q4_k_block(const float *x, const float *w, uint8_t *p) { k45(x, w, p, NULL, p + 16); }
static void q5_k_block(const float *x, const float *w, uint8_t *p) { k45(x, w, p, p + 16, p + 48); }

/* ---- rows ---- */

static void (*const blocks[DTYPE_COUNT])(const float *, const float *, uint8_t *) = {
    [DTYPE_F32] = f32_block,   [DTYPE_F16] = f16_block,       [DTYPE_BF16] = bf16_block,     [DTYPE_Q4_0] = q4_0_block,
    [DTYPE_Q4_1] = q4_1_block, [DTYPE_Q5_0] = q5_0_block,     [DTYPE_Q5_1] = q5_1_block,     [DTYPE_Q8_0] = q8_0_block,
    [DTYPE_Q2_K] = q2_k_block, [DTYPE_Q3_K] = q3_k_block,     [DTYPE_Q4_K] = q4_k_block,     [DTYPE_Q5_K] = q5_k_block,
    [DTYPE_Q6_K] = q6_k_block, [DTYPE_IQ4_NL] = iq4_nl_block, [DTYPE_IQ4_XS] = iq4_xs_block,
};

bool eng_encode_has(enum dtype t) { return t < DTYPE_COUNT && blocks[t]; }

/* Weights of a block, around 1: a column that no text has used still counts a little. */
static void weigh(const float *importance, int32_t n, float *w)
{
    float sum = 0;
    for (int32_t i = 0; i < n && importance; i++) sum += importance[i];
    for (int32_t i = 0; i < n; i++) w[i] = sum > 0 ? MAX(importance[i] / (sum / (float)n), 1e-4f) : 1.0f;
}

void eng_encode_row(enum dtype t, const float *src, const float *importance, void *dst, int64_t n)
{
    int32_t block = dtype_block(t), bytes = dtype_block_bytes(t);
    uint8_t *p = dst;
    float w[SUPER];
    ASSERT(eng_encode_has(t) && n >= 0 && n % block == 0);
    weigh(NULL, block, w);
    for (int64_t i = 0; i < n; i += block, p += bytes) {
        if (importance) weigh(importance + i, block, w);
        blocks[t](src + i, w, p);
    }
}
