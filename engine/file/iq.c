/* iq.c: see iq.h. A unit is four groups of 8 values; most types name a group by a point of a grid and 8 signs. */
#include "engine/file/iq.h"

#include "base/base.h"
#include "engine/file/half.h"
#include "engine/file/iq_tables.h"

#include <string.h>

static uint32_t u16_at(const uint8_t *p) { return (uint32_t)(p[0] | p[1] << 8); }
static uint32_t u32_at(const uint8_t *p) { return u16_at(p) | u16_at(p + 2) << 16; }
static float f16_at(const uint8_t *p) { return half_f16_to_f32((uint16_t)u16_at(p)); }

/* ---- books: a sign is the bit above the level ---- */

static const int8_t book_iq4[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
static const int8_t book_fp4[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
static const int8_t book_iq2[16] = {8, 25, 43, 0, -8, -25, -43, 0};
static const int8_t book_iq3xxs[16] = {4, 12, 20, 28, 36, 44, 52, 62, -4, -12, -20, -28, -36, -44, -52, -62};
static const int8_t book_iq3s[16] = {1, 3, 5, 7, 9, 11, 13, 15, -1, -3, -5, -7, -9, -11, -13, -15};
/* eighths of -1, 0, 1 plus an eighth; then minus an eighth */
static const int8_t book_iq1[16] = {-7, 1, 9, 0, -9, -1, 7, 0};

const int8_t *eng_iq_book(enum dtype t)
{
    switch (t) {
    case DTYPE_IQ4_NL:
    case DTYPE_IQ4_XS: return book_iq4;
    case DTYPE_MXFP4: return book_fp4;
    case DTYPE_IQ2_XXS:
    case DTYPE_IQ2_XS:
    case DTYPE_IQ2_S: return book_iq2;
    case DTYPE_IQ3_XXS: return book_iq3xxs;
    case DTYPE_IQ3_S: return book_iq3s;
    case DTYPE_IQ1_S:
    case DTYPE_IQ1_M: return book_iq1;
    default: return NULL;
    }
}

/* ---- groups ---- */

/* Seven signs are stored; the eighth makes their number even. */
static uint32_t eight_signs(uint32_t seven) { return seven | (uint32_t)(__builtin_popcount(seven) & 1) << 7; }

/* Eight levels of two bits, with signs (or IQ1's shift for all of them). */
static void group_of_2(uint8_t *index, uint32_t grid, uint32_t signs)
{
    for (int j = 0; j < 8; j++) index[j] = (uint8_t)((grid >> (2 * j) & 3) | (signs >> j & 1) << 2);
}

/* Two entries of four levels of three bits. */
static void group_of_3(uint8_t *index, uint32_t first, uint32_t second, uint32_t signs)
{
    uint32_t grid = first | second << 12;
    for (int j = 0; j < 8; j++) index[j] = (uint8_t)((grid >> (3 * j) & 7) | (signs >> j & 1) << 3);
}

static void nibbles(uint8_t *index, const uint8_t *q)
{
    for (int j = 0; j < 16; j++) {
        index[j] = q[j] & 15;
        index[16 + j] = q[j] >> 4;
    }
}

static int8_t odd(uint32_t v) { return (int8_t)(2 * v + 1); }

/* ---- units ---- */

/* f16 d; per unit four bytes of entries, then 28 bits of signs and 4 of scale */
static void iq2_xxs(const uint8_t *p, int32_t sub, struct eng_iq_unit *u)
{
    const uint8_t *q = p + 2 + 8 * sub;
    uint32_t rest = u32_at(q + 4);
    for (int l = 0; l < 4; l++) group_of_2(u->index + 8 * l, eng_grid_iq2xxs[q[l]], eight_signs(rest >> (7 * l) & 127));
    u->scale[0] = u->scale[1] = odd(rest >> 28);
    u->d = f16_at(p) * 0.125f;
}

/* f16 d; per group 9 bits of entry, 7 of signs; then two scales of 4 bits per unit */
static void iq2_xs(const uint8_t *p, int32_t sub, struct eng_iq_unit *u)
{
    for (int l = 0; l < 4; l++) {
        uint32_t q = u16_at(p + 2 + 8 * sub + 2 * l);
        group_of_2(u->index + 8 * l, eng_grid_iq2xs[q & 511], eight_signs(q >> 9));
    }
    u->scale[0] = odd(p[66 + sub] & 15);
    u->scale[1] = odd(p[66 + sub] >> 4);
    u->d = f16_at(p) * 0.125f;
}

/* f16 d; 32 low bytes of entries; 32 bytes of signs; per unit a byte with their upper two bits; two scales per unit */
static void iq2_s(const uint8_t *p, int32_t sub, struct eng_iq_unit *u)
{
    for (int l = 0; l < 4; l++) {
        uint32_t entry = p[2 + 4 * sub + l] | (uint32_t)(p[66 + sub] >> (2 * l) & 3) << 8;
        group_of_2(u->index + 8 * l, eng_grid_iq2s[entry], p[34 + 4 * sub + l]);
    }
    u->scale[0] = odd(p[74 + sub] & 15);
    u->scale[1] = odd(p[74 + sub] >> 4);
    u->d = f16_at(p) * 0.125f;
}

/* f16 d; 64 bytes of entries; per unit 28 bits of signs and 4 of scale */
static void iq3_xxs(const uint8_t *p, int32_t sub, struct eng_iq_unit *u)
{
    const uint8_t *q = p + 2 + 8 * sub;
    uint32_t rest = u32_at(p + 66 + 4 * sub);
    for (int l = 0; l < 4; l++)
        group_of_3(u->index + 8 * l, eng_grid_iq3xxs[q[2 * l]], eng_grid_iq3xxs[q[2 * l + 1]], eight_signs(rest >> (7 * l) & 127));
    u->scale[0] = u->scale[1] = odd(rest >> 28);
    u->d = f16_at(p) * 0.25f;
}

/* f16 d; 64 low bytes of entries; per unit a byte with their ninth bits; 32 bytes of signs; a scale of 4 bits per unit */
static void iq3_s(const uint8_t *p, int32_t sub, struct eng_iq_unit *u)
{
    const uint8_t *q = p + 2 + 8 * sub;
    uint32_t ninth = p[66 + sub];
    for (int l = 0; l < 4; l++)
        group_of_3(u->index + 8 * l, eng_grid_iq3s[q[2 * l] | (ninth >> (2 * l) & 1) << 8],
                   eng_grid_iq3s[q[2 * l + 1] | (ninth >> (2 * l + 1) & 1) << 8], p[74 + 4 * sub + l]);
    u->scale[0] = u->scale[1] = odd(p[106 + sub / 2] >> (sub % 2 * 4) & 15);
    u->d = f16_at(p);
}

/* f16 d; 32 low bytes of entries; per unit 4 x 3 upper bits, 3 of scale, 1 of shift */
static void iq1_s(const uint8_t *p, int32_t sub, struct eng_iq_unit *u)
{
    uint32_t high = u16_at(p + 34 + 2 * sub), shift = high >> 15 ? 255 : 0;
    for (int l = 0; l < 4; l++)
        group_of_2(u->index + 8 * l, eng_grid_iq1s[p[2 + 4 * sub + l] | (high >> (3 * l) & 7) << 8], shift);
    u->scale[0] = u->scale[1] = odd(high >> 12 & 7);
    u->d = f16_at(p) * 0.125f;
}

/* 32 low bytes of entries; per group 3 upper bits and 1 of shift; four times 16 bits: four scales of 3 bits, 4 bits of d */
static void iq1_m(const uint8_t *p, int32_t sub, struct eng_iq_unit *u)
{
    const uint8_t *s = p + 48;
    uint16_t d = 0;
    for (int l = 0; l < 4; l++) {
        uint32_t high = p[32 + 2 * sub + l / 2] >> (l % 2 * 4);
        group_of_2(u->index + 8 * l, eng_grid_iq1s[p[4 * sub + l] | (high & 7) << 8], high & 8 ? 255 : 0);
        d = (uint16_t)(d | (u16_at(s + 2 * l) >> 12) << (4 * l));
    }
    uint32_t scales = u16_at(s + sub / 2 * 2) >> (sub % 2 * 6);
    u->scale[0] = odd(scales & 7);
    u->scale[1] = odd(scales >> 3 & 7);
    u->d = half_f16_to_f32(d) * 0.125f;
}

/* f16 d; 16 upper bits, 4 bytes of low nibbles: eight scales of 6 bits, less 32; then nibbles unit by unit */
static void iq4_xs(const uint8_t *p, int32_t sub, struct eng_iq_unit *u)
{
    int32_t low = p[4 + sub / 2] >> (sub % 2 * 4) & 15, high = (int32_t)(u16_at(p + 2) >> (2 * sub) & 3);
    nibbles(u->index, p + 8 + 16 * sub);
    u->scale[0] = u->scale[1] = (int8_t)((low | high << 4) - 32);
    u->d = f16_at(p);
}

static void iq4_nl(const uint8_t *p, struct eng_iq_unit *u)
{
    nibbles(u->index, p + 2);
    u->d = f16_at(p);
}

/* An exponent e, then nibbles; the book holds twice the values of FP4, so d is 2^(e - 128). */
static void mxfp4(const uint8_t *p, struct eng_iq_unit *u)
{
    uint32_t bits = p[0] < 2 ? UINT32_C(0x00200000) << p[0] : (uint32_t)(p[0] - 1) << 23;
    nibbles(u->index, p + 1);
    memcpy(&u->d, &bits, sizeof bits);
}

void eng_iq_unit(enum dtype t, const uint8_t *block, int32_t sub, struct eng_iq_unit *out)
{
    out->scale[0] = out->scale[1] = 1;
    switch (t) {
    case DTYPE_IQ2_XXS: iq2_xxs(block, sub, out); break;
    case DTYPE_IQ2_XS: iq2_xs(block, sub, out); break;
    case DTYPE_IQ2_S: iq2_s(block, sub, out); break;
    case DTYPE_IQ3_XXS: iq3_xxs(block, sub, out); break;
    case DTYPE_IQ3_S: iq3_s(block, sub, out); break;
    case DTYPE_IQ1_S: iq1_s(block, sub, out); break;
    case DTYPE_IQ1_M: iq1_m(block, sub, out); break;
    case DTYPE_IQ4_XS: iq4_xs(block, sub, out); break;
    case DTYPE_IQ4_NL: iq4_nl(block, out); break;
    case DTYPE_MXFP4: mxfp4(block, out); break;
    default: ASSERT(!"a type with a book");
    }
}
